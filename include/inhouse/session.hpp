/* inhouse/session.hpp: sessions, and what they complete. Included by inhouse.hpp. */
#ifndef INHOUSE_SESSION_HPP
#define INHOUSE_SESSION_HPP

#include <inhouse/apis.hpp>

namespace inhouse {

/** One event of a running completion; valid during the callback only. */
class event {
public:
    explicit event(const ::inhouse_event &raw) noexcept : raw_(raw) {}

    /** Whether more text of a completion has come. */
    bool is_text() const noexcept { return raw_.kind == INHOUSE_EVENT_TEXT; }
    /** Whether a completion is finished. */
    bool is_finished() const noexcept { return raw_.kind == INHOUSE_EVENT_FINISHED; }
    /** The new text, or the whole of a finished completion. */
    std::string_view text() const noexcept { return view(raw_.text); }
    std::size_t completion() const noexcept { return raw_.completion_idx; }
    inhouse::finish_reason finish_reason() const noexcept
    {
        return static_cast<inhouse::finish_reason>(raw_.finish_reason);
    }
    /** All that inhouse.h says of the event. */
    const ::inhouse_event &raw() const noexcept { return raw_; }

private:
    const ::inhouse_event &raw_;
};

/** The completions of one call, with the prompt and the APIs in it. */
class completion {
public:
    explicit completion(::inhouse_completion *owned) noexcept : handle_(owned) {}

    std::size_t size() const noexcept { return ::inhouse_completion_count(handle_.get()); }
    /** What follows the context. */
    std::string_view text(std::size_t idx = 0) const noexcept
    {
        return view(::inhouse_completion_text(handle_.get(), idx));
    }
    inhouse::finish_reason finish_reason(std::size_t idx = 0) const noexcept
    {
        return static_cast<inhouse::finish_reason>(::inhouse_completion_finish_reason(handle_.get(), idx));
    }
    std::size_t tokens(std::size_t idx = 0) const noexcept { return ::inhouse_completion_tokens(handle_.get(), idx); }
    /** The prompt as the model read it. */
    std::string_view prompt() const noexcept { return view(::inhouse_completion_prompt(handle_.get())); }
    std::size_t prompt_tokens() const noexcept { return ::inhouse_completion_prompt_tokens(handle_.get()); }
    /** Whether the beginning of the context was cut so that it fits the model. */
    bool context_truncated() const noexcept { return ::inhouse_completion_context_truncated(handle_.get()) != 0; }
    std::chrono::duration<double> prefill() const noexcept
    {
        return std::chrono::duration<double>(::inhouse_completion_prefill_seconds(handle_.get()));
    }
    std::chrono::duration<double> decode() const noexcept
    {
        return std::chrono::duration<double>(::inhouse_completion_decode_seconds(handle_.get()));
    }
    /** The logarithms of the probabilities of the tokens, where they were asked for; `n` is set to their number. */
    const float *log_probabilities(std::size_t &n, std::size_t idx = 0) const noexcept
    {
        return ::inhouse_completion_log_probabilities(handle_.get(), idx, &n);
    }
    /** Tokens of the prompt that the session still held from earlier calls. */
    std::size_t prompt_tokens_shared() const noexcept
    {
        return ::inhouse_completion_prompt_tokens_shared(handle_.get());
    }
    /** The APIs in the prompt. The list does not depend on the completion. */
    result<inhouse::apis> apis() const
    {
        return detail::made<inhouse::apis, ::inhouse_apis>(
            [&](auto **out, auto **cause) { return ::inhouse_completion_apis(handle_.get(), out, cause); });
    }
    /** All that is known of the call, as a JSON object. */
    result<inhouse::text> json() const
    {
        return detail::made<inhouse::text, ::inhouse_text>(
            [&](auto **out, auto **cause) { return ::inhouse_completion_json(handle_.get(), out, cause); });
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    const ::inhouse_completion *get() const noexcept { return handle_.get(); }

private:
    detail::unique_handle<::inhouse_completion, ::inhouse_completion_free> handle_;
};

/**
 * How a session completes. Keeps the texts it is given. Options can be changed between calls, not during one.
 */
class complete_options {
public:
    // Where the library is too old for the struct, `struct_size` stays 0 and the call says so.
    complete_options() { ::inhouse_complete_params_init(&raw_, sizeof raw_); }

    /** No APIs in front of the context: the default. */
    complete_options &apis_none()
    {
        raw_.api_choice = INHOUSE_APIS_NONE;
        return *this;
    }
    /** The best `n` for `query`, or for the comments of the context where it is empty. */
    complete_options &apis_top(std::size_t n, std::string query = {})
    {
        raw_.api_choice = INHOUSE_APIS_TOP;
        raw_.n_apis = n;
        query_ = std::move(query);
        return *this;
    }
    /** These, from the index. */
    complete_options &apis_named(std::vector<std::string> names)
    {
        raw_.api_choice = INHOUSE_APIS_NAMED;
        api_names_ = std::move(names);
        return *this;
    }
    /** At most `n` example calls below the line of each API. */
    complete_options &examples(std::uint32_t n)
    {
        raw_.examples = n;
        return *this;
    }
    /** These, as a person chose them. The list must not be destroyed before the call begins. */
    complete_options &apis_given(const inhouse::apis &chosen)
    {
        raw_.api_choice = INHOUSE_APIS_GIVEN;
        raw_.apis = chosen.get();
        return *this;
    }
    /** The stop rules of the paper: the default. */
    complete_options &stops_of_paper()
    {
        raw_.stop_choice = INHOUSE_STOPS_PAPER;
        return *this;
    }
    /** No stop rule. */
    complete_options &no_stops()
    {
        raw_.stop_choice = INHOUSE_STOPS_NONE;
        return *this;
    }
    /** A completion ends before the first of these. */
    complete_options &stops(std::vector<std::string> texts)
    {
        raw_.stop_choice = INHOUSE_STOPS_GIVEN;
        stops_ = std::move(texts);
        return *this;
    }
    complete_options &completions(std::uint32_t n)
    {
        raw_.n_completions = n;
        return *this;
    }
    complete_options &max_tokens(std::uint32_t n)
    {
        raw_.max_tokens = n;
        return *this;
    }
    complete_options &seed(std::uint64_t seed)
    {
        raw_.seed = seed;
        return *this;
    }
    complete_options &temperature(float temperature)
    {
        raw_.temperature = temperature;
        return *this;
    }
    complete_options &top_p(float probability)
    {
        raw_.top_p = probability;
        return *this;
    }
    complete_options &top_k(std::uint32_t n)
    {
        raw_.top_k = n;
        return *this;
    }
    complete_options &min_p(float probability)
    {
        raw_.min_p = probability;
        return *this;
    }
    complete_options &repetition_penalty(float penalty)
    {
        raw_.repetition_penalty = penalty;
        return *this;
    }
    /** Where the code refers to a library of the index, only names follow that its documentation has. */
    complete_options &constrain(bool on = true)
    {
        raw_.constrain = on ? 1 : 0;
        return *this;
    }
    /** The code after the cursor: the completion is what stands between. */
    complete_options &suffix(std::string code)
    {
        raw_.suffix = ::inhouse_str{"", 0}; // set, though it may be empty
        suffix_ = std::move(code);
        return *this;
    }
    /** Asks an instruction model in a chat by its own template, or by this Jinja text, and takes the code of its reply. */
    complete_options &chat(std::string jinja = {})
    {
        raw_.chat = jinja.empty() ? INHOUSE_CHAT_AUTO : INHOUSE_CHAT_GIVEN;
        chat_template_ = std::move(jinja);
        return *this;
    }
    /** Keeps the log-probability of every token: completion::log_probabilities(). */
    complete_options &log_probabilities(bool on = true)
    {
        raw_.log_probabilities = on ? 1 : 0;
        return *this;
    }
    /** Ends the call after this time; none or less: no deadline. */
    complete_options &timeout(std::chrono::milliseconds time)
    {
        raw_.timeout_ms = time.count() > 0 ? static_cast<std::uint64_t>(time.count()) : 0;
        return *this;
    }
    /** Ends the call when the token is set. The token must not be destroyed before the call begins. */
    complete_options &cancel(const cancel_token &token)
    {
        raw_.cancel = token.get();
        return *this;
    }
    /** The struct of inhouse.h, for fields that have no method here. What the methods set is filled in at the call. */
    ::inhouse_complete_params &raw() noexcept { return raw_; }

private:
    friend class session;

    ::inhouse_complete_params raw_ = {};
    std::string query_;
    std::string suffix_;
    std::string chat_template_;
    std::vector<std::string> api_names_;
    std::vector<std::string> stops_;
};

/** A place to complete code in. One call at a time; it keeps its engine open. */
class session {
public:
    explicit session(::inhouse_session *owned) noexcept : handle_(owned) {}

    /** Completes `context`, the code before the cursor. */
    result<completion> complete(std::string_view context, const complete_options &options = {})
    {
        return run(context, options, nullptr, nullptr);
    }

    /**
     * Completes `context` and calls `on_event(const event &)` on this thread as text comes. It returns nothing, or
     * whether to go on.
     */
    template <typename OnEvent>
    result<completion> complete(std::string_view context, const complete_options &options, OnEvent &&on_event)
    {
        detail::callback<event, ::inhouse_event, std::remove_reference_t<OnEvent>> target(on_event);
        result<completion> done = run(context, options, &target.call, &target);
        target.rethrow();
        return done;
    }
    /** What the session has done and what it holds, as a JSON object. */
    result<text> info() const
    {
        return detail::made<text, ::inhouse_text>(
            [&](auto **out, auto **cause) { return ::inhouse_session_info(handle_.get(), out, cause); });
    }
    /** Writes the prompts that the session keeps (engine_options::prefix_tokens) to a file. */
    result<void> save_prefixes(std::string_view path) const
    {
        ::inhouse_error *cause = nullptr;
        const status code = ::inhouse_session_save_prefixes(handle_.get(), c_str_view(path), &cause);
        return detail::checked(code, cause);
    }
    /** Takes in the prompts of such a file; returns how many. */
    result<std::size_t> load_prefixes(std::string_view path)
    {
        std::size_t n = 0;
        ::inhouse_error *cause = nullptr;
        const status code = ::inhouse_session_load_prefixes(handle_.get(), c_str_view(path), &n, &cause);
        if (code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return n;
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    ::inhouse_session *get() const noexcept { return handle_.get(); }

private:
    result<completion> run(std::string_view context, const complete_options &options, ::inhouse_on_event on_event,
                           void *user_data)
    {
        ::inhouse_complete_params params = options.raw_;
        const std::vector<::inhouse_str> names = detail::views(options.api_names_);
        const std::vector<::inhouse_str> stops = detail::views(options.stops_);
        if (!options.query_.empty())
            params.query = c_str_view(options.query_);
        if (params.suffix.data != nullptr)
            params.suffix = c_str_view(options.suffix_);
        if (params.chat == INHOUSE_CHAT_GIVEN)
            params.chat_template = c_str_view(options.chat_template_);
        if (params.api_choice == INHOUSE_APIS_NAMED) {
            params.api_names = names.data();
            params.n_apis = names.size();
        }
        if (params.stop_choice == INHOUSE_STOPS_GIVEN) {
            params.stops = stops.data();
            params.n_stops = stops.size();
        }
        if (on_event != nullptr) {
            params.on_event = on_event;
            params.user_data = user_data;
        }
        return detail::made<completion, ::inhouse_completion>([&](auto **out, auto **cause) {
            return ::inhouse_session_complete(handle_.get(), c_str_view(context), &params, out, cause);
        });
    }

    detail::unique_handle<::inhouse_session, ::inhouse_session_close> handle_;
};

} // namespace inhouse

#endif /* INHOUSE_SESSION_HPP */
