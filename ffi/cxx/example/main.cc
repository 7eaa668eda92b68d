/*
 * A C++ program over the engine built from source: retrieves, completes, hears the text as it comes, and fails on purpose.
 *
 *     main INDEX [MODEL]
 *
 *     cargo build --release --manifest-path ffi/cxx/Cargo.toml --features llama
 *     cd ffi/cxx/target && c++ -std=c++17 -I cxxbridge ../example/main.cc release/libinhouse_cxx.a -lpthread -ldl -lm
 *
 * With INHOUSE_WORKER, the model runs in that program, which may have a backend that this build lacks.
 *
 * Ends with "ok" and 0 where everything was as it should be, else with what was not and 1.
 */
#include "inhouse-cxx/src/lib.rs.h"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace source = inhouse::source;

namespace {

void check(bool condition, const char *what)
{
    if (!condition)
        throw std::runtime_error(std::string("not so: ") + what);
}

/* What a call that must fail says. */
template <typename Call>
std::string failure(Call &&call)
{
    try {
        call();
    } catch (const rust::Error &error) {
        std::printf("  %s\n", error.what());
        return error.what();
    }
    return "";
}

class Screen : public source::Listener {
public:
    bool on_text(std::size_t, rust::Str text) override
    {
        seen.append(text.data(), text.size());
        if (throws)
            throw std::runtime_error("the screen is full");
        return goes_on;
    }

    std::string seen;
    bool goes_on = true;
    bool throws = false;
};

void complete(source::Session &session)
{
    const auto token = source::make_cancel_token();
    source::CompleteOptions options = source::default_options();
    options.top_apis = 2;
    options.max_tokens = 12;
    options.stops.clear();
    const char context[] = "# open the ledger of May\nledger =";

    Screen screen;
    const source::Completed done = session.complete_to(context, options, *token, screen);
    const std::string text(done.completions[0].text);
    std::printf("  %s\n", text.c_str());
    check(screen.seen == text && done.completions[0].tokens > 0, "the listener heard the text");
    check(done.apis[0].name == "open_ledger" && std::string(done.prompt).find("# [start]") == 0, "the prompt has the API");
    check(std::string(session.complete(context, options, *token).completions[0].text) == text, "the same seed, the same text");

    Screen brief;
    brief.goes_on = false;
    const source::Completed cut = session.complete_to(context, options, *token, brief);
    check(cut.completions[0].finish_reason == "cancelled", "a listener ends a completion");
    Screen full;
    full.throws = true;
    check(failure([&] { session.complete_to(context, options, *token, full); }).find("the screen is full") != std::string::npos,
          "an exception comes back");
    token->cancel();
    std::string end;
    const std::string said = failure([&] { end = std::string(session.complete(context, options, *token).completions[0].finish_reason); });
    check(end == "cancelled" || !said.empty(), "a cancelled completion ends");
    token->reset();
    options.api_names.push_back("no_such_api");
    check(failure([&] { session.complete(context, options, *token); }).find("no_such_api") != std::string::npos,
          "a name that is not in the index is named");
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc < 2 || argc > 3) {
        std::fprintf(stderr, "usage: main INDEX [MODEL]\n");
        return 2;
    }
    source::OpenOptions options;
    options.index = "/no/such/index";
    check(failure([&] { source::open_engine(options); }).find("/no/such/index") != std::string::npos, "a missing index is named");
    options.index = argv[1];
    if (argc == 3)
        options.model = argv[2];
    options.worker = std::getenv("INHOUSE_WORKER") != nullptr;
    const auto engine = source::open_engine(options);
    const rust::Vec<source::Api> found = engine->retrieve("open the ledger", 3);
    check(!found.empty() && found[0].name == "open_ledger" && found[0].score > 0, "the best API comes first");
    if (argc == 3) {
        complete(*engine->open_session(1));
    } else {
        check(!failure([&] { engine->open_session(1); }).empty(), "a session needs a model");
    }
    std::printf("ok\n");
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
