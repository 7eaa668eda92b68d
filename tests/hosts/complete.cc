/*
 * A C++ host of libinhouse: retrieves, completes with a lambda, fails on purpose. With exceptions and without.
 *
 *     complete INDEX MODEL
 *
 * Ends with "ok" and 0 where everything was as inhouse.hpp says, else with the failing line and 1.
 */
#include <inhouse.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
            std::exit(1);                                                                 \
        }                                                                                 \
    } while (0)

namespace {

const char CONTEXT[] = "# open the ledger of May\nledger =";

/* The value, or the end of the program with the library's own words. */
template <typename T>
T must(inhouse::result<T> made, const char *what)
{
    if (!made) {
        std::fprintf(stderr, "%s: %s: %s\n", what, inhouse_status_name(made.error().code()),
                     made.error().message().c_str());
        std::exit(1);
    }
    return *std::move(made);
}

template <typename T>
void must_fail(const inhouse::result<T> &made, inhouse::status expected, const char *what)
{
    CHECK(!made);
    std::printf("  %s: %s: %s\n", what, inhouse_status_name(made.error().code()), made.error().message().c_str());
    CHECK(made.error().code() == expected);
    CHECK(!made.error().message().empty());
}

void retrieve(const inhouse::engine &engine)
{
    const inhouse::apis found = must(engine.retrieve("open the ledger", 3), "retrieve");
    CHECK(!found.empty() && found.size() <= 3);
    std::size_t seen = 0;
    for (const inhouse::api api : found) {
        CHECK(!api.name.empty() && api.json.front() == '{' && api.score > 0);
        std::printf("  %.3f %s%s: %s\n", static_cast<double>(api.score), std::string(api.qualified_name).c_str(),
                    std::string(api.signature).c_str(), std::string(api.description).c_str());
        ++seen;
    }
    CHECK(seen == found.size() && found[0].name == "open_ledger" && found[seen].name.empty());
    must_fail(engine.retrieve("x", 0), INHOUSE_STATUS_INVALID_ARGUMENT, "retrieve 0");
    must_fail(engine.retrieve("\xff\xfe", 1), INHOUSE_STATUS_INVALID_ARGUMENT, "retrieve with a query not in UTF-8");
}

/* Documentation read, an index built and updated, with a callback that watches and one that ends it. */
void index(const std::string &scratch)
{
    const std::string rows = scratch + ".cc.jsonl", folder = scratch + ".cc.index";
    if (std::FILE *file = std::fopen((scratch + ".cc.py").c_str(), "w")) {
        std::fputs("def knot(rope):\n    \"\"\"Ties a rope.\"\"\"\n", file);
        CHECK(std::fclose(file) == 0);
    }
    std::size_t told = 0;
    const inhouse::text read = must(inhouse::read_docs(rows, inhouse::index_options({scratch + ".cc.py"}).threads(1),
                                                       [&](const inhouse::progress &now) { told += !now.text().empty(); }),
                                    "read documentation");
    CHECK(told >= 2 && read.view().find("\"skipped\":[]") != std::string_view::npos);
    const inhouse::index_options options({rows});
    must_fail(inhouse::build_index(folder, options, [](const inhouse::progress &) { return false; }),
              INHOUSE_STATUS_CANCELLED, "build, stopped");
#if INHOUSE_HAS_EXCEPTIONS
    bool caught = false;
    try {
        (void)inhouse::build_index(folder, options, [](const inhouse::progress &) { throw std::runtime_error("enough"); });
    } catch (const std::runtime_error &cause) {
        caught = std::string(cause.what()) == "enough";
    }
    CHECK(caught);
#endif
    CHECK(inhouse::build_index(folder, options) && inhouse::index_info(folder));
    CHECK(must(inhouse::update_index(folder, options), "update").view().find("\"unchanged\":") != std::string_view::npos);
    must_fail(inhouse::index_info(rows), INHOUSE_STATUS_INVALID_DATA, "info of a file");
    const inhouse::engine engine = must(inhouse::engine::open(inhouse::engine_options().index(folder)), "open");
    CHECK(must(engine.retrieve("tie a rope", 1), "retrieve")[0].name == "knot");
    CHECK(engine.with_index(folder));
}

/* The choice among what fits, and what is said of code. */
void choose(const inhouse::engine &engine, inhouse::session &session)
{
    CHECK(must(inhouse::query_of_context(CONTEXT), "query").view() == "open the ledger of May");
    const inhouse::apis offered = must(engine.propose(CONTEXT), "propose");
    const inhouse::apis other = must(engine.propose(CONTEXT, "sum a month", 1), "own query");
    CHECK(offered[0].label == "ledgers.open_ledger(path): Opens a ledger." && other[0].name == "tally");
    const inhouse::apis chosen = must(must(offered.select({0}), "choose").join(other), "join");
    CHECK(chosen.size() == 2 && must(offered.select({}), "none of the above").empty());
    must_fail(offered.select({17}), INHOUSE_STATUS_INVALID_ARGUMENT, "choose the eighteenth");
    inhouse::complete_options options;
    options.apis_given(chosen).max_tokens(4).constrain().log_probabilities().min_p(0.01f).repetition_penalty(1.1f);
    const inhouse::completion done = must(session.complete(CONTEXT, options), "complete with the chosen");
    std::size_t n = 0;
    CHECK(done.log_probabilities(n) != nullptr && n == done.tokens() && done.log_probabilities(n, 1) == nullptr && n == 0);
    CHECK(must(done.json(), "json").view().find("\"masked\":") != std::string_view::npos);
    CHECK(must(engine.api_report("import ledgers\n", "ledgers.tall(1)\n"), "report").view().find("unknown_member") !=
          std::string_view::npos);
    CHECK(done.prompt_tokens_shared() < done.prompt_tokens());
    CHECK(must(session.info(), "info").view().find("\"calls\":1") != std::string_view::npos);
    must_fail(session.complete(CONTEXT, inhouse::complete_options().suffix("\nledger.close()")), INHOUSE_STATUS_UNSUPPORTED,
              "fill in with a model that cannot");
    must_fail(session.complete(CONTEXT, inhouse::complete_options().chat("{% if %}")), INHOUSE_STATUS_INVALID_DATA,
              "ask by a template that is none");
    CHECK(session.complete(CONTEXT, inhouse::complete_options().chat().max_tokens(1)));
    must_fail(session.load_prefixes("/no/such/file"), INHOUSE_STATUS_NOT_FOUND, "load prompts that are not there");
    CHECK(!session.save_prefixes("/no/such/folder/x"));
}

/* What needs no evald of evaluation, and the log. */
void further()
{
    std::size_t lines = 0;
    {
        const auto log = inhouse::log::open(INHOUSE_LOG_TRACE, [&](const inhouse::log_record &record) {
            lines += !record.message().empty();
        });
        CHECK(log);
        const auto second = inhouse::log::open(INHOUSE_LOG_WARN, [](const inhouse::log_record &) {});
        CHECK(second);
    }
    const inhouse::evaluate_options options = inhouse::evaluate_options().socket("/no/such/socket").k({1, 2});
    const auto done = inhouse::evaluate("{\"task_id\": \"t\", \"prompt\": \"\", \"test\": \"assert x\"}",
                                        "{\"task_id\": \"t\", \"completion\": \"x = 1\"}", options,
                                        [](const inhouse::progress &) {});
    CHECK(!done && (done.error().code() == INHOUSE_STATUS_SANDBOX || done.error().code() == INHOUSE_STATUS_UNSUPPORTED));
    CHECK(!inhouse::evaluate("", "", options) && !inhouse::evaluate_files("/no/such/file", "/no/such/file"));
}

/* Vectors of texts; where a path is given, an index that finds by them. */
void encode(const char *path, const std::string &scratch)
{
    must_fail(inhouse::encoder::open("/no/such/encoder"), INHOUSE_STATUS_NOT_FOUND, "open a missing encoder");
    const inhouse::vectors nothing(nullptr);
    CHECK(nothing.empty() && nothing.dim() == 0 && nothing[0].empty() && nothing.data() == nullptr);
    if (path == nullptr)
        return;
    const inhouse::encoder encoder = must(inhouse::encoder::open(path), "open an encoder");
    CHECK(must(encoder.info(), "info").view().find("\"dim\":") != std::string_view::npos);
    const std::vector<std::string> texts = {"open the ledger", "", "tally"};
    const inhouse::vectors vectors = must(encoder.encode(INHOUSE_ROLE_QUERY, texts), "encode");
    CHECK(vectors.size() == 3 && vectors[2].size() == vectors.dim() && vectors[3].empty());
    CHECK(vectors[1].front() == vectors.data()[vectors.dim()]);
    const inhouse::cancel_token token = must(inhouse::cancel_token::make(), "cancel");
    CHECK(must(encoder.encode(INHOUSE_ROLE_DOCUMENT, {}, token), "encode no text").empty() && token.cancel());
    must_fail(encoder.encode(INHOUSE_ROLE_DOCUMENT, texts, token), INHOUSE_STATUS_CANCELLED, "encode, cancelled");

    const std::string rows = scratch + ".dense.jsonl", folder = scratch + ".dense";
    std::FILE *file = std::fopen(rows.c_str(), "w");
    CHECK(file != nullptr);
    std::fputs("{\"name\": \"knit\", \"description\": \"Joins two threads.\"}\n", file);
    CHECK(std::fclose(file) == 0);
    CHECK(inhouse::build_index(folder, inhouse::index_options({rows}).encoder(path)));
    for (const std::string &choice : {std::string(), std::string("none"), std::string(path)}) {
        inhouse::engine_options options;
        const inhouse::engine engine = must(inhouse::engine::open(options.index(folder).encoder(choice)), "open");
        CHECK(must(engine.retrieve("unravel", 5), "retrieve").size() == (choice == "none" ? 0 : 1));
    }
}

void holds(inhouse::engine engine)
{
    inhouse::engine copy = engine;
    inhouse::engine moved = std::move(engine);
    must_fail(engine.info(), INHOUSE_STATUS_INVALID_ARGUMENT, "an engine that was moved from"); // NOLINT
    copy = moved;
    inhouse::engine &same = copy;
    copy = same;
    const std::string facts(must(copy.info(), "info").view());
    CHECK(facts.front() == '{' && facts.find("\"abi_version\"") != std::string::npos);
    inhouse::engine nothing(nullptr);
    moved = nothing;
    must_fail(moved.retrieve("x", 1), INHOUSE_STATUS_INVALID_ARGUMENT, "an engine that holds nothing");
    CHECK(copy.info());
}

void complete(inhouse::session &session)
{
    inhouse::complete_options options;
    options.apis_top(2).max_tokens(12).seed(7).no_stops();

    std::string streamed;
    std::size_t finished = 0;
    const inhouse::completion done = must(session.complete(CONTEXT, options,
                                                           [&](const inhouse::event &event) {
                                                               if (event.is_text())
                                                                   streamed += event.text();
                                                               else if (event.is_finished())
                                                                   ++finished;
                                                           }),
                                          "complete");
    CHECK(done.size() == 1 && finished == 1 && done.text() == streamed && done.text(1).empty());
    CHECK(done.prompt_tokens() > 0 && done.tokens() > 0 && !done.context_truncated());
    CHECK(done.prefill().count() > 0 && done.decode().count() > 0);
    CHECK(done.prompt().find("# [start]") != std::string_view::npos);
    CHECK(must(done.apis(), "apis")[0].name == "open_ledger");
    std::printf("  %s\n", std::string(done.text()).c_str());

    // Without a callback, the same seed, the query given: the same text.
    const inhouse::completion again = must(session.complete(CONTEXT, options.apis_top(2, "open the ledger of May")), "again");
    CHECK(again.text() == done.text() && again.finish_reason() == done.finish_reason());

    // A callback that has seen enough; one that is a named object and keeps its state.
    struct stopper {
        std::size_t texts = 0;
        bool operator()(const inhouse::event &event)
        {
            texts += event.is_text();
            return false;
        }
    } stop;
    const inhouse::completion cut = must(session.complete(CONTEXT, options, stop), "complete, stopped");
    CHECK(stop.texts == 1 && cut.finish_reason() == INHOUSE_FINISH_CANCELLED);
    CHECK(done.text().substr(0, cut.text().size()) == cut.text());

    // Named APIs, given stops, two completions.
    options.apis_named({"close_ledger", "ledgers.tally"}).stops({"\n", ")"}).completions(2);
    options.temperature(0.5f).top_p(0.9f).top_k(20).timeout(std::chrono::minutes(10));
    const inhouse::completion two = must(session.complete(CONTEXT, options), "complete twice");
    CHECK(two.size() == 2 && two.text(0).find_first_of("\n)") == std::string_view::npos);
    CHECK(must(two.apis(), "apis").size() == 2);
    must_fail(session.complete(CONTEXT, options.apis_named({"no_such_api"})), INHOUSE_STATUS_NOT_FOUND,
              "complete with an API that is not in the index");
    must_fail(session.complete(CONTEXT, inhouse::complete_options().temperature(-1.0f)),
              INHOUSE_STATUS_INVALID_ARGUMENT, "complete at a negative temperature");

    // Cancelled from another thread; the token can be moved meanwhile, it is its handle that counts.
    inhouse::cancel_token token = must(inhouse::cancel_token::make(), "cancel");
    inhouse::complete_options endless;
    endless.no_stops().max_tokens(400).cancel(token);
    std::thread other;
    const auto ended = session.complete(CONTEXT, endless, [&](const inhouse::event &) {
        if (!other.joinable())
            other = std::thread([&] { CHECK(token.cancel()); });
    });
    if (other.joinable())
        other.join();
    CHECK(ended && !ended->text().empty());
    if (token.is_cancelled()) {
        CHECK(token.reset() && !token.is_cancelled());
    }

    // A field without a method of its own.
    options = inhouse::complete_options();
    options.raw().reserved = 1;
    CHECK(!session.complete(CONTEXT, options));

#if INHOUSE_HAS_EXCEPTIONS
    // An exception comes through the library to the host, and the session is none the worse.
    bool caught = false;
    try {
        (void)session.complete(CONTEXT, inhouse::complete_options(),
                               [](const inhouse::event &) { throw std::runtime_error("the host's own"); });
    } catch (const std::runtime_error &cause) {
        caught = std::string(cause.what()) == "the host's own";
    }
    CHECK(caught);
    CHECK(session.complete(CONTEXT, inhouse::complete_options().max_tokens(1)).value().size() == 1);
    caught = false;
    try {
        (void)session.complete("\xff").value();
    } catch (const inhouse::exception &cause) {
        caught = cause.code() == INHOUSE_STATUS_INVALID_ARGUMENT && cause.what()[0] != '\0';
    }
    CHECK(caught);
#endif
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        std::fprintf(stderr, "usage: complete INDEX MODEL [ENCODER]\n");
        return 2;
    }
    CHECK(inhouse::is_compatible());
    index(argv[1]);
    further();
    encode(argc == 4 ? argv[3] : nullptr, argv[1]);
    std::printf("libinhouse %s, backends: %s, exceptions: %d\n", std::string(inhouse::version()).c_str(),
                std::string(inhouse::backends()).c_str(), INHOUSE_HAS_EXCEPTIONS);
    must_fail(inhouse::engine::open(inhouse::engine_options()), INHOUSE_STATUS_INVALID_ARGUMENT, "open nothing");
    must_fail(inhouse::engine::open(inhouse::engine_options().index("/no/such/index")), INHOUSE_STATUS_NOT_FOUND,
              "open a missing index");
    must_fail(inhouse::engine::open(inhouse::engine_options().model(argv[2]).worker("/no/such/program")),
              INHOUSE_STATUS_NOT_FOUND, "open with no worker");
    inhouse::engine_options options;
    options.index(argv[1]).model(argv[2]).prefix_tokens(64).backend(INHOUSE_BACKEND_AUTO).threads(1).context_length(0).gpu_layers(0);
    inhouse::session session(nullptr);
    {
        const inhouse::engine engine = must(inhouse::engine::open(options), "open");
        retrieve(engine);
        holds(engine);
        // The session keeps the engine open.
        session = must(engine.open_session(2), "open a session");
        inhouse::session other = must(engine.open_session(), "open a session");
        choose(engine, other);
    }
    complete(session);
    inhouse::session gone = std::move(session);
    must_fail(session.complete(CONTEXT), INHOUSE_STATUS_INVALID_ARGUMENT, "a session that was moved from"); // NOLINT
    std::printf("ok\n");
    return 0;
}
