/* inhouse/core.hpp: errors, results, texts, the cancel token. Included by inhouse.hpp. */
#ifndef INHOUSE_CORE_HPP
#define INHOUSE_CORE_HPP

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

inline result<void> checked(::inhouse_status status, ::inhouse_error *cause = nullptr)
{
    if (status == INHOUSE_STATUS_OK)
        return {};
    return error::adopt(status, cause);
}

/** What a call of inhouse.h with the parameters `out` and `error` makes, as an object that owns it. */
template <typename Object, typename Raw, typename Call>
result<Object> made(Call &&call)
{
    Raw *raw = nullptr;
    ::inhouse_error *cause = nullptr;
    if (const status code = call(&raw, &cause); code != INHOUSE_STATUS_OK)
        return error::adopt(code, cause);
    return Object(raw);
}

/** Views of texts; they borrow them. */
inline std::vector<::inhouse_str> views(const std::vector<std::string> &texts)
{
    std::vector<::inhouse_str> borrowed;
    borrowed.reserve(texts.size());
    for (const std::string &text : texts)
        borrowed.push_back(c_str_view(text));
    return borrowed;
}

/** Carries a callable that is told a `Wrapped` (over a `Raw` of inhouse.h) through `user_data`. */
template <typename Wrapped, typename Raw, typename Callable>
class callback {
public:
    explicit callback(Callable &target) noexcept : target_(target) {}

    /** What the library calls. */
    static std::int32_t call(void *user_data, const Raw *raw) noexcept
    {
        auto *self = static_cast<callback *>(user_data);
#if INHOUSE_HAS_EXCEPTIONS
        try {
            return self->go_on(Wrapped(*raw)) ? 0 : 1;
        } catch (...) {
            // No exception may cross the library.
            self->thrown_ = std::current_exception();
            return 1;
        }
#else
        return self->go_on(Wrapped(*raw)) ? 0 : 1;
#endif
    }

    /** Throws again what left the callable; to be called once the library has returned. */
    void rethrow() const
    {
#if INHOUSE_HAS_EXCEPTIONS
        if (thrown_)
            std::rethrow_exception(thrown_);
#endif
    }

private:
    bool go_on(const Wrapped &told)
    {
        if constexpr (std::is_void_v<std::invoke_result_t<Callable &, const Wrapped &>>) {
            target_(told);
            return true;
        } else {
            return static_cast<bool>(target_(told));
        }
    }

    Callable &target_;
#if INHOUSE_HAS_EXCEPTIONS
    std::exception_ptr thrown_;
#endif
};

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
        return detail::made<cancel_token, ::inhouse_cancel>(::inhouse_cancel_new);
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

} // namespace inhouse

#endif /* INHOUSE_CORE_HPP */
