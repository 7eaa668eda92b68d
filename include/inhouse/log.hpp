/* inhouse/log.hpp: the library's log. Included by inhouse.hpp. */
#ifndef INHOUSE_LOG_HPP
#define INHOUSE_LOG_HPP

#include <inhouse/core.hpp>

#include <atomic>
#include <functional>

namespace inhouse {

/** One record of the log; valid during the callback only. */
class log_record {
public:
    explicit log_record(const ::inhouse_log_record &raw) noexcept : raw_(raw) {}

    ::inhouse_log_level level() const noexcept { return static_cast<::inhouse_log_level>(raw_.level); }
    /** The part of the library that speaks. */
    std::string_view target() const noexcept { return view(raw_.target); }
    std::string_view message() const noexcept { return view(raw_.message); }

private:
    const ::inhouse_log_record &raw_;
};

/** Sends the library's log to a callable as long as it lives. There is one log in a process: a second takes its place. */
class log {
public:
    /**
     * `on_log(const log_record &)` is called from any thread, also several at the same time. An exception that leaves it is
     * dropped.
     */
    static result<log> open(::inhouse_log_level level, std::function<void(const log_record &)> on_log)
    {
        log opened(std::make_unique<std::function<void(const log_record &)>>(std::move(on_log)));
        ::inhouse_error *cause = nullptr;
        const status code = ::inhouse_log_set(level, &call, opened.on_log_.get(), &cause);
        if (code != INHOUSE_STATUS_OK) {
            opened.on_log_.reset();
            return error::adopt(code, cause);
        }
        current_ = opened.on_log_.get();
        return opened;
    }

    log(log &&) noexcept = default;
    log(const log &) = delete;
    log &operator=(log &&) = delete;
    log &operator=(const log &) = delete;
    ~log()
    {
        // Where another has taken its place, that one stays.
        const void *mine = on_log_.get();
        if (mine != nullptr && current_.compare_exchange_strong(mine, nullptr))
            ::inhouse_log_set(INHOUSE_LOG_OFF, nullptr, nullptr, nullptr);
    }

private:
    explicit log(std::unique_ptr<std::function<void(const log_record &)>> on_log) noexcept : on_log_(std::move(on_log)) {}

    static void call(void *user_data, const ::inhouse_log_record *raw) noexcept
    {
        auto &on_log = *static_cast<std::function<void(const log_record &)> *>(user_data);
#if INHOUSE_HAS_EXCEPTIONS
        try {
            on_log(log_record(*raw));
        } catch (...) {
            // No exception may cross the library.
        }
#else
        on_log(log_record(*raw));
#endif
    }

    static inline std::atomic<const void *> current_ = nullptr;
    std::unique_ptr<std::function<void(const log_record &)>> on_log_;
};

} // namespace inhouse

#endif /* INHOUSE_LOG_HPP */
