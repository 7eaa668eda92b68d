/* inhouse/engine.hpp: engines. Included by inhouse.hpp. */
#ifndef INHOUSE_ENGINE_HPP
#define INHOUSE_ENGINE_HPP

#include <inhouse/session.hpp>

namespace inhouse {

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
    /** Tokens of prompts that each session keeps from one call to the next; 0: none. */
    engine_options &prefix_tokens(std::uint32_t tokens)
    {
        raw_.prefix_tokens = tokens;
        return *this;
    }
    /** Runs the model in a process of its own; `program` is inhouse-worker, or empty for the one that is found. */
    engine_options &worker(std::string program = {})
    {
        raw_.worker = 1;
        worker_program_ = std::move(program);
        return *this;
    }
    /** Text encoder that the index is searched with: a path, or "none"; where it is not called, the index's own. */
    engine_options &encoder(std::string path)
    {
        encoder_ = std::move(path);
        return *this;
    }
    /** One more low-rank adapter (LoRA) of the model: a PEFT folder or a GGUF adapter, or "PATH:SCALE". Effects add up. */
    engine_options &adapter(std::string path)
    {
        adapters_.push_back(std::move(path));
        return *this;
    }
    /** The struct of inhouse.h, for fields that have no method here. What the methods set is filled in at the call. */
    ::inhouse_engine_params &raw() noexcept { return raw_; }

private:
    friend class engine;

    ::inhouse_engine_params raw_ = {};
    std::string index_;
    std::string model_;
    std::string worker_program_;
    std::string encoder_;
    std::vector<std::string> adapters_;
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
        if (!options.worker_program_.empty())
            params.worker_program = c_str_view(options.worker_program_);
        if (!options.encoder_.empty())
            params.encoder = c_str_view(options.encoder_);
        std::vector<::inhouse_str> adapters;
        for (const std::string &adapter : options.adapters_)
            adapters.push_back(c_str_view(adapter));
        if (!adapters.empty()) {
            params.adapters = adapters.data();
            params.n_adapters = adapters.size();
        }
        return detail::made<engine, ::inhouse_engine>(
            [&](auto **out, auto **cause) { return ::inhouse_engine_open(&params, out, cause); });
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

    /** An engine with this one's model, which is not loaded again, and the index in a folder as it is now. */
    result<engine> with_index(std::string_view folder) const
    {
        return detail::made<engine, ::inhouse_engine>([&](auto **out, auto **cause) {
            return ::inhouse_engine_with_index(handle_.get(), c_str_view(folder), out, cause);
        });
    }
    /** Facts about the engine, as a JSON object. */
    result<text> info() const
    {
        return detail::made<text, ::inhouse_text>(
            [&](auto **out, auto **cause) { return ::inhouse_engine_info(handle_.get(), out, cause); });
    }
    /** The `k` APIs of the index that fit `query` best. */
    result<apis> retrieve(std::string_view query, std::size_t k) const
    {
        return detail::made<apis, ::inhouse_apis>([&](auto **out, auto **cause) {
            return ::inhouse_engine_retrieve(handle_.get(), c_str_view(query), k, out, cause);
        });
    }
    /**
     * The APIs to choose from for the code before the cursor: those that fit a person's own query or, where it is empty,
     * the comments of `context`. Then apis::select(), apis::join() and complete_options::apis_given().
     */
    result<apis> propose(std::string_view context, std::string_view query = {}, std::size_t k = 5) const
    {
        const ::inhouse_str asked = query.empty() ? ::inhouse_str{nullptr, 0} : c_str_view(query);
        return detail::made<apis, ::inhouse_apis>([&](auto **out, auto **cause) {
            return ::inhouse_engine_propose(handle_.get(), c_str_view(context), asked, k, out, cause);
        });
    }
    /** How code that follows `context` uses the APIs of the index, as a JSON object. */
    result<text> api_report(std::string_view context, std::string_view completion) const
    {
        return detail::made<text, ::inhouse_text>([&](auto **out, auto **cause) {
            return ::inhouse_engine_api_report(handle_.get(), c_str_view(context), c_str_view(completion), out, cause);
        });
    }
    /** A session on the model that decodes up to `n_sequences` completions side by side. */
    result<session> open_session(std::uint32_t n_sequences = 1) const
    {
        ::inhouse_session_params params = {};
        ::inhouse_session_params_init(&params, sizeof params);
        params.n_sequences = n_sequences;
        return detail::made<session, ::inhouse_session>([&](auto **out, auto **cause) {
            return ::inhouse_session_open(handle_.get(), &params, out, cause);
        });
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

/** What the retriever is asked for a context where no query is given, for a person to change. */
inline result<text> query_of_context(std::string_view context)
{
    return detail::made<text, ::inhouse_text>(
        [&](auto **out, auto **cause) { return ::inhouse_query_of_context(c_str_view(context), out, cause); });
}

} // namespace inhouse

#endif /* INHOUSE_ENGINE_HPP */
