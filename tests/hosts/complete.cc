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
    if (argc != 3) {
        std::fprintf(stderr, "usage: complete INDEX MODEL\n");
        return 2;
    }
    CHECK(inhouse::is_compatible());
    std::printf("libinhouse %s, backends: %s, exceptions: %d\n", std::string(inhouse::version()).c_str(),
                std::string(inhouse::backends()).c_str(), INHOUSE_HAS_EXCEPTIONS);
    must_fail(inhouse::engine::open(inhouse::engine_options()), INHOUSE_STATUS_INVALID_ARGUMENT, "open nothing");
    must_fail(inhouse::engine::open(inhouse::engine_options().index("/no/such/index")), INHOUSE_STATUS_NOT_FOUND,
              "open a missing index");
    inhouse::engine_options options;
    options.index(argv[1]).model(argv[2]).backend(INHOUSE_BACKEND_AUTO).threads(1).context_length(0).gpu_layers(0);
    inhouse::session session(nullptr);
    {
        const inhouse::engine engine = must(inhouse::engine::open(options), "open");
        retrieve(engine);
        holds(engine);
        // The session keeps the engine open.
        session = must(engine.open_session(2), "open a session");
    }
    complete(session);
    inhouse::session gone = std::move(session);
    must_fail(session.complete(CONTEXT), INHOUSE_STATUS_INVALID_ARGUMENT, "a session that was moved from"); // NOLINT
    std::printf("ok\n");
    return 0;
}
