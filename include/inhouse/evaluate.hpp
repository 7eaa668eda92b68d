/* inhouse/evaluate.hpp: samples run in evald, the sandbox. Included by inhouse.hpp. */
#ifndef INHOUSE_EVALUATE_HPP
#define INHOUSE_EVALUATE_HPP

#include <inhouse/progress.hpp>

namespace inhouse {

/** How samples are evaluated. Keeps the texts it is given. */
class evaluate_options {
public:
    evaluate_options() { ::inhouse_evaluate_params_init(&raw_, sizeof raw_); }

    /** Socket of a running evald; else a private one is started for the call. */
    evaluate_options &socket(std::string path)
    {
        socket_ = std::move(path);
        return *this;
    }
    /** Executable of a private evald; else the one that is found. */
    evaluate_options &evald(std::string path)
    {
        evald_ = std::move(path);
        return *this;
    }
    /** Environment of a private evald: "PYTHON[:MODULE,...]". */
    evaluate_options &env(std::string spec)
    {
        env_ = std::move(spec);
        return *this;
    }
    /** Sandbox tier to insist on: "T0" to "T4". */
    evaluate_options &tier(std::string name)
    {
        tier_ = std::move(name);
        return *this;
    }
    /** File to which a row per sample is written. */
    evaluate_options &rows(std::string path)
    {
        rows_ = std::move(path);
        return *this;
    }
    /** The k of pass@k. */
    evaluate_options &k(std::vector<std::uint64_t> values)
    {
        k_ = std::move(values);
        return *this;
    }
    /** CPU time a sample. */
    evaluate_options &timeout(std::chrono::duration<double> seconds)
    {
        raw_.timeout_seconds = seconds.count();
        return *this;
    }
    /** Limits of a sample: "memory=1GiB,processes=64,...", as in inhouse.h. */
    evaluate_options &limits(std::string text)
    {
        limits_ = std::move(text);
        return *this;
    }
    /** Where the tests run: "auto", "isolated" or "in_process". */
    evaluate_options &trust(std::string name)
    {
        trust_ = std::move(name);
        return *this;
    }
    /** Ends the evaluation when the token is set. The token must not be destroyed before the call begins. */
    evaluate_options &cancel(const cancel_token &token)
    {
        raw_.cancel = token.get();
        return *this;
    }
    /** The struct of inhouse.h as a call gets it: it borrows from the object. */
    ::inhouse_evaluate_params params() const
    {
        ::inhouse_evaluate_params params = raw_;
        const auto set = [](::inhouse_str &field, const std::string &text) {
            if (!text.empty())
                field = c_str_view(text);
        };
        set(params.socket, socket_);
        set(params.evald, evald_);
        set(params.env, env_);
        set(params.tier, tier_);
        set(params.rows, rows_);
        set(params.limits, limits_);
        set(params.trust, trust_);
        params.k = k_.data();
        params.n_k = k_.size();
        return params;
    }

private:
    ::inhouse_evaluate_params raw_ = {};
    std::string socket_, evald_, env_, tier_, rows_, limits_, trust_;
    std::vector<std::uint64_t> k_;
};

/** Evaluates samples against problems, both as the text of JSON-lines files. The report is a JSON object. */
inline result<text> evaluate(std::string_view problems, std::string_view samples, const evaluate_options &options = {})
{
    const ::inhouse_evaluate_params params = options.params();
    return detail::made<text, ::inhouse_text>([&](auto **out, auto **cause) {
        return ::inhouse_evaluate(c_str_view(problems), c_str_view(samples), &params, out, cause);
    });
}

/** The same, watched by `on_progress(const progress &)`. */
template <typename OnProgress>
result<text> evaluate(std::string_view problems, std::string_view samples, const evaluate_options &options,
                      OnProgress &&on_progress)
{
    detail::callback<progress, ::inhouse_progress, std::remove_reference_t<OnProgress>> target(on_progress);
    ::inhouse_evaluate_params params = options.params();
    params.on_progress = &target.call;
    params.user_data = &target;
    result<text> done = detail::made<text, ::inhouse_text>([&](auto **out, auto **cause) {
        return ::inhouse_evaluate(c_str_view(problems), c_str_view(samples), &params, out, cause);
    });
    target.rethrow();
    return done;
}

/** Evaluates a sample file against a problem file. The report is a JSON object. */
inline result<text> evaluate_files(std::string_view problems, std::string_view samples,
                                   const evaluate_options &options = {})
{
    const ::inhouse_evaluate_params params = options.params();
    return detail::made<text, ::inhouse_text>([&](auto **out, auto **cause) {
        return ::inhouse_evaluate_files(c_str_view(problems), c_str_view(samples), &params, out, cause);
    });
}

} // namespace inhouse

#endif /* INHOUSE_EVALUATE_HPP */
