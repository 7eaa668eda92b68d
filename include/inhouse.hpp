/*
 * inhouse.hpp: inhouse.h for C++17 and later. Header-only; links nothing beside libinhouse.
 *
 *     inhouse::engine_options options;
 *     options.index("docs.index").model("model.gguf");
 *     auto engine = inhouse::engine::open(options);
 *     if (!engine) return complain(engine.error().message());
 *     auto session = engine->open_session();
 *     if (!session) return complain(session.error().message());
 *     auto done = session->complete("# open the ledger of May\nledger =", inhouse::complete_options().apis_top(2),
 *                                   [](const inhouse::event &event) { show(event.text()); });
 *     if (done) std::cout << done->text();
 *
 * Ownership. Every object owns its handle and frees it. All can be moved; an engine can be copied, too, which costs one
 * inhouse_engine_retain(). An object that was moved from holds no handle: its calls fail with
 * INHOUSE_STATUS_INVALID_ARGUMENT, its getters give nothing. A std::string_view that a getter returns is valid as long
 * as the object it came from. What is passed in is copied.
 *
 * Errors. A call that can fail returns a result: the value, or the error. Where exceptions are on, result::value()
 * throws inhouse::exception; nothing else here throws of itself, and with -fno-exceptions value() is not there. An
 * exception that leaves a callback ends the completion and is thrown again once the library has returned.
 *
 * Threads. As in inhouse.h: every function from every thread, a session by one at a time.
 */

#ifndef INHOUSE_HPP
#define INHOUSE_HPP

#include <inhouse.h>

#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define INHOUSE_HAS_EXCEPTIONS 1
#include <exception>
#include <stdexcept>
#else
#define INHOUSE_HAS_EXCEPTIONS 0
#endif

namespace inhouse {

/** A status as inhouse.h numbers it: INHOUSE_STATUS_OK, ... */
using status = ::inhouse_status;
/** Why a completion ended: INHOUSE_FINISH_STOP, ... */
using finish_reason = ::inhouse_finish_reason;
/** Which backend runs a model: INHOUSE_BACKEND_AUTO, ... */
using backend = ::inhouse_backend;

/** A view for calls of inhouse.h; it borrows `text`. */
inline ::inhouse_str c_str_view(std::string_view text) noexcept { return ::inhouse_str{text.data(), text.size()}; }

/** A view of what a call of inhouse.h returned; empty where there is no such thing. */
inline std::string_view view(::inhouse_str text) noexcept
{
    return text.data == nullptr ? std::string_view() : std::string_view(text.data, text.len);
}

/** The version of the library that is loaded. */
inline std::string_view version() noexcept { return ::inhouse_version(); }

/** Names of the backends in the library that is loaded, separated by commas. */
inline std::string_view backends() noexcept { return ::inhouse_backends(); }

/** Whether the library that is loaded has all that this header knows. */
inline bool is_compatible() noexcept { return ::inhouse_abi_version() >= INHOUSE_ABI_VERSION; }

namespace detail {

template <typename Handle, ::inhouse_status (*Free)(Handle *)>
struct deleter {
    void operator()(Handle *handle) const noexcept { Free(handle); }
};

template <typename Handle, ::inhouse_status (*Free)(Handle *)>
using unique_handle = std::unique_ptr<Handle, deleter<Handle, Free>>;

} // namespace detail

/** Why a call failed: a status and a line of text. A value: it holds nothing of the library. */
class error {
public:
    error(inhouse::status code, std::string message) : code_(code), message_(std::move(message)) {}

    /** Takes over what a call of inhouse.h put into its parameter `error`, which may be NULL. */
    static error adopt(inhouse::status code, ::inhouse_error *raw)
    {
        const detail::unique_handle<::inhouse_error, ::inhouse_error_free> owned(raw);
        const std::string_view message = view(::inhouse_error_message(raw));
        return error(code, std::string(message.empty() ? std::string_view(::inhouse_status_name(code)) : message));
    }

    inhouse::status code() const noexcept { return code_; }
    /** One line, lower case, for people. */
    const std::string &message() const noexcept { return message_; }

private:
    inhouse::status code_;
    std::string message_;
};

#if INHOUSE_HAS_EXCEPTIONS
/** What result::value() throws. */
class exception : public std::runtime_error {
public:
    explicit exception(const error &cause) : std::runtime_error(cause.message()), code_(cause.code()) {}
    inhouse::status code() const noexcept { return code_; }

private:
    inhouse::status code_;
};
#endif

/** A value, or the error that came in its place. */
template <typename T>
class [[nodiscard]] result {
public:
    result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    result(inhouse::error cause) : content_(std::in_place_index<1>, std::move(cause)) {}

    bool has_value() const noexcept { return content_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /** The value; only where there is one. */
    T &operator*() & noexcept { return *checked(std::get_if<0>(&content_)); }
    const T &operator*() const & noexcept { return *checked(std::get_if<0>(&content_)); }
    T &&operator*() && noexcept { return std::move(*checked(std::get_if<0>(&content_))); }
    T *operator->() noexcept { return checked(std::get_if<0>(&content_)); }
    const T *operator->() const noexcept { return checked(std::get_if<0>(&content_)); }

    /** The error; only where there is one. */
    const inhouse::error &error() const & noexcept { return *checked(std::get_if<1>(&content_)); }
    inhouse::error &&error() && noexcept { return std::move(*checked(std::get_if<1>(&content_))); }

#if INHOUSE_HAS_EXCEPTIONS
    /** The value; throws inhouse::exception where there is none. */
    T &value() &
    {
        raise();
        return **this;
    }
    const T &value() const &
    {
        raise();
        return **this;
    }
    T &&value() &&
    {
        raise();
        return *std::move(*this);
    }
#endif

private:
    template <typename P>
    static P *checked(P *pointer) noexcept
    {
        assert(pointer != nullptr && "result: asked for what it does not hold");
        return pointer;
    }
#if INHOUSE_HAS_EXCEPTIONS
    void raise() const
    {
        if (!has_value())
            throw exception(error());
    }
#endif

    std::variant<T, inhouse::error> content_;
};

/** Nothing, or an error. */
template <>
class [[nodiscard]] result<void> : public result<std::monostate> {
public:
    result() : result<std::monostate>(std::monostate()) {}
    result(inhouse::error cause) : result<std::monostate>(std::move(cause)) {}
};

namespace detail {

inline result<void> checked(::inhouse_status status)
{
    if (status == INHOUSE_STATUS_OK)
        return {};
    return error::adopt(status, nullptr);
}

} // namespace detail

/** A text that the library made, such as a JSON document. */
class text {
public:
    explicit text(::inhouse_text *owned) noexcept : handle_(owned) {}

    std::string_view view() const noexcept { return inhouse::view(::inhouse_text_view(handle_.get())); }
    operator std::string_view() const noexcept { return view(); }

private:
    detail::unique_handle<::inhouse_text, ::inhouse_text_free> handle_;
};

/** A flag that ends a running completion. Any thread may set it. */
class cancel_token {
public:
    static result<cancel_token> make()
    {
        ::inhouse_cancel *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        if (const status code = ::inhouse_cancel_new(&raw, &cause); code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return cancel_token(raw);
    }
    explicit cancel_token(::inhouse_cancel *owned) noexcept : handle_(owned) {}

    /** Ends every completion that was given the token. */
    result<void> cancel() const { return detail::checked(::inhouse_cancel_set(handle_.get())); }
    /** Clears the flag, so that the token can be used again. */
    result<void> reset() const { return detail::checked(::inhouse_cancel_reset(handle_.get())); }
    bool is_cancelled() const noexcept { return ::inhouse_cancel_is_set(handle_.get()) != 0; }
    /** The handle, still owned by the token. */
    ::inhouse_cancel *get() const noexcept { return handle_.get(); }

private:
    detail::unique_handle<::inhouse_cancel, ::inhouse_cancel_free> handle_;
};

/** One API of a list; valid as long as the list. */
struct api {
    /** The bare name, as it is written at the call. */
    std::string_view name;
    /** The dotted name under which users import it. */
    std::string_view qualified_name;
    std::string_view signature;
    /** The first sentence of its documentation. */
    std::string_view description;
    /** Everything that is known of it, as one JSON object. */
    std::string_view json;
    /** Higher is better, within one list. */
    float score;
};

/** A list of APIs, best first. */
class apis {
public:
    explicit apis(::inhouse_apis *owned) noexcept : handle_(owned) {}

    std::size_t size() const noexcept { return ::inhouse_apis_count(handle_.get()); }
    bool empty() const noexcept { return size() == 0; }
    /** API `idx`; beyond the end all of its texts are empty. */
    api operator[](std::size_t idx) const noexcept
    {
        const ::inhouse_apis *list = handle_.get();
        return api{view(::inhouse_apis_name(list, idx)),
                   view(::inhouse_apis_qualified_name(list, idx)),
                   view(::inhouse_apis_signature(list, idx)),
                   view(::inhouse_apis_description(list, idx)),
                   view(::inhouse_apis_json(list, idx)),
                   ::inhouse_apis_score(list, idx)};
    }

    /** Over the list, for `for (inhouse::api api : list)`. */
    class iterator {
    public:
        iterator(const apis *list, std::size_t idx) noexcept : list_(list), idx_(idx) {}
        api operator*() const noexcept { return (*list_)[idx_]; }
        iterator &operator++() noexcept
        {
            ++idx_;
            return *this;
        }
        bool operator!=(const iterator &other) const noexcept { return idx_ != other.idx_; }

    private:
        const apis *list_;
        std::size_t idx_;
    };
    iterator begin() const noexcept { return iterator(this, 0); }
    iterator end() const noexcept { return iterator(this, size()); }

private:
    detail::unique_handle<::inhouse_apis, ::inhouse_apis_free> handle_;
};

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
    /** The APIs in the prompt. The list does not depend on the completion. */
    result<inhouse::apis> apis() const
    {
        ::inhouse_apis *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        if (const status code = ::inhouse_completion_apis(handle_.get(), &raw, &cause); code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return inhouse::apis(raw);
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

    static std::vector<::inhouse_str> views(const std::vector<std::string> &texts)
    {
        std::vector<::inhouse_str> views;
        views.reserve(texts.size());
        for (const std::string &text : texts)
            views.push_back(c_str_view(text));
        return views;
    }

    ::inhouse_complete_params raw_ = {};
    std::string query_;
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
        callback<std::remove_reference_t<OnEvent>> target(on_event);
        result<completion> done = run(context, options, &target.call, &target);
#if INHOUSE_HAS_EXCEPTIONS
        if (target.thrown)
            std::rethrow_exception(target.thrown);
#endif
        return done;
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    ::inhouse_session *get() const noexcept { return handle_.get(); }

private:
    /** Carries a callable through `user_data`. */
    template <typename OnEvent>
    struct callback {
        explicit callback(OnEvent &target) noexcept : on_event(target) {}

        static std::int32_t call(void *user_data, const ::inhouse_event *raw) noexcept
        {
            auto *self = static_cast<callback *>(user_data);
#if INHOUSE_HAS_EXCEPTIONS
            try {
                return self->go_on(event(*raw)) ? 0 : 1;
            } catch (...) {
                // No exception may cross the library.
                self->thrown = std::current_exception();
                return 1;
            }
#else
            return self->go_on(event(*raw)) ? 0 : 1;
#endif
        }

        bool go_on(const event &event)
        {
            if constexpr (std::is_void_v<std::invoke_result_t<OnEvent &, const inhouse::event &>>) {
                on_event(event);
                return true;
            } else {
                return static_cast<bool>(on_event(event));
            }
        }

        OnEvent &on_event;
#if INHOUSE_HAS_EXCEPTIONS
        std::exception_ptr thrown;
#endif
    };

    result<completion> run(std::string_view context, const complete_options &options, ::inhouse_on_event on_event,
                           void *user_data)
    {
        ::inhouse_complete_params params = options.raw_;
        const std::vector<::inhouse_str> names = complete_options::views(options.api_names_);
        const std::vector<::inhouse_str> stops = complete_options::views(options.stops_);
        if (!options.query_.empty())
            params.query = c_str_view(options.query_);
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
        ::inhouse_completion *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        const status code = ::inhouse_session_complete(handle_.get(), c_str_view(context), &params, &raw, &cause);
        if (code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return completion(raw);
    }

    detail::unique_handle<::inhouse_session, ::inhouse_session_close> handle_;
};

/** What an engine opens. Keeps the texts it is given. */
class engine_options {
public:
    engine_options() { ::inhouse_engine_params_init(&raw_, sizeof raw_); }

    /** Folder of an index. */
    engine_options &index(std::string path)
    {
        index_ = std::move(path);
        return *this;
    }
    /** GGUF file or Hugging Face folder. */
    engine_options &model(std::string path)
    {
        model_ = std::move(path);
        return *this;
    }
    engine_options &backend(inhouse::backend backend)
    {
        raw_.backend = backend;
        return *this;
    }
    engine_options &gpu_layers(std::uint32_t n)
    {
        raw_.gpu_layers = n;
        return *this;
    }
    engine_options &threads(std::uint32_t n)
    {
        raw_.threads = n;
        return *this;
    }
    engine_options &context_length(std::uint32_t tokens)
    {
        raw_.context_length = tokens;
        return *this;
    }
    /** The struct of inhouse.h, for fields that have no method here. What the methods set is filled in at the call. */
    ::inhouse_engine_params &raw() noexcept { return raw_; }

private:
    friend class engine;

    ::inhouse_engine_params raw_ = {};
    std::string index_;
    std::string model_;
};

/** An open index, a loaded model, or both. A copy is one more hold on the same engine. */
class engine {
public:
    /** Reads files and may take seconds: not for a user interface's thread. */
    static result<engine> open(const engine_options &options)
    {
        ::inhouse_engine_params params = options.raw_;
        if (!options.index_.empty())
            params.index = c_str_view(options.index_);
        if (!options.model_.empty())
            params.model = c_str_view(options.model_);
        ::inhouse_engine *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        if (const status code = ::inhouse_engine_open(&params, &raw, &cause); code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return engine(raw);
    }
    /** Takes over one hold. */
    explicit engine(::inhouse_engine *owned) noexcept : handle_(owned) {}

    engine(engine &&) noexcept = default;
    engine &operator=(engine &&) noexcept = default;
    engine(const engine &other) noexcept : handle_(retained(other.handle_.get())) {}
    engine &operator=(const engine &other) noexcept
    {
        if (this != &other)
            handle_.reset(retained(other.handle_.get()));
        return *this;
    }
    ~engine() = default;

    /** Facts about the engine, as a JSON object. */
    result<text> info() const
    {
        ::inhouse_text *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        if (const status code = ::inhouse_engine_info(handle_.get(), &raw, &cause); code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return text(raw);
    }
    /** The `k` APIs of the index that fit `query` best. */
    result<apis> retrieve(std::string_view query, std::size_t k) const
    {
        ::inhouse_apis *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        const status code = ::inhouse_engine_retrieve(handle_.get(), c_str_view(query), k, &raw, &cause);
        if (code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return apis(raw);
    }
    /** A session on the model that decodes up to `n_sequences` completions side by side. */
    result<session> open_session(std::uint32_t n_sequences = 1) const
    {
        ::inhouse_session_params params = {};
        ::inhouse_session_params_init(&params, sizeof params);
        params.n_sequences = n_sequences;
        ::inhouse_session *raw = nullptr;
        ::inhouse_error *cause = nullptr;
        if (const status code = ::inhouse_session_open(handle_.get(), &params, &raw, &cause); code != INHOUSE_STATUS_OK)
            return error::adopt(code, cause);
        return session(raw);
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    ::inhouse_engine *get() const noexcept { return handle_.get(); }

private:
    static ::inhouse_engine *retained(::inhouse_engine *raw) noexcept
    {
        return raw != nullptr && ::inhouse_engine_retain(raw) == INHOUSE_STATUS_OK ? raw : nullptr;
    }

    detail::unique_handle<::inhouse_engine, ::inhouse_engine_release> handle_;
};

} // namespace inhouse

#endif /* INHOUSE_HPP */
