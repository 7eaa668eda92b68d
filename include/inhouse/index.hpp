/* inhouse/index.hpp: documentation read, indexes built and updated. Included by inhouse.hpp. */
#ifndef INHOUSE_INDEX_HPP
#define INHOUSE_INDEX_HPP

#include <inhouse/progress.hpp>

namespace inhouse {

/** What is read, and how. Keeps the texts it is given. */
class index_options {
public:
    /** Paths of package folders, .py and .pyi files, wheels, sdists, objects.inv, apis.jsonl. Nothing of them is run. */
    explicit index_options(std::vector<std::string> sources) : sources_(std::move(sources))
    {
        ::inhouse_index_params_init(&raw_, sizeof raw_);
    }

    /** Folders with installed packages, in which what a library re-exports is looked up. */
    index_options &search_paths(std::vector<std::string> folders)
    {
        search_paths_ = std::move(folders);
        return *this;
    }
    /** Threads that parse; 0: one per core. */
    index_options &threads(std::uint32_t n)
    {
        raw_.threads = n;
        return *this;
    }
    /** Lists modules and names that begin with an underscore, too. */
    index_options &include_private(bool on = true)
    {
        raw_.include_private = on ? 1 : 0;
        return *this;
    }
    /** An update removes what the sources no longer name even where they may be a part of their library. */
    index_options &prune(bool on = true)
    {
        raw_.prune = on ? 1 : 0;
        return *this;
    }
    /** Text encoder of the index, a Hugging Face folder or a GGUF file; of an update only where it has been moved. */
    index_options &encoder(std::string path)
    {
        encoder_ = std::move(path);
        return *this;
    }
    /** Ends the work when the token is set. The token must not be destroyed before the call begins. */
    index_options &cancel(const cancel_token &token)
    {
        raw_.cancel = token.get();
        return *this;
    }
    /** The struct of inhouse.h, for fields that have no method here. What the methods set is filled in at the call. */
    ::inhouse_index_params &raw() noexcept { return raw_; }

    /** The paths that are read. */
    const std::vector<std::string> &sources() const noexcept { return sources_; }
    const std::vector<std::string> &search_paths() const noexcept { return search_paths_; }
    const std::string &encoder() const noexcept { return encoder_; }
    const ::inhouse_index_params &raw() const noexcept { return raw_; }

private:
    ::inhouse_index_params raw_ = {};
    std::vector<std::string> sources_;
    std::vector<std::string> search_paths_;
    std::string encoder_;
};

namespace detail {

/** A call of inhouse.h that reads sources and gives a report. */
using read_call = ::inhouse_status(::inhouse_str, const ::inhouse_index_params *, ::inhouse_text **, ::inhouse_error **);

inline result<text> read_with(const index_options &options, ::inhouse_on_progress on_progress, void *user_data,
                              std::string_view path, read_call *call)
{
    ::inhouse_index_params params = options.raw();
    const std::vector<::inhouse_str> sources = views(options.sources());
    const std::vector<::inhouse_str> search_paths = views(options.search_paths());
    params.sources = sources.data();
    params.n_sources = sources.size();
    params.search_paths = search_paths.data();
    params.n_search_paths = search_paths.size();
    if (!options.encoder().empty())
        params.encoder = c_str_view(options.encoder());
    params.on_progress = on_progress;
    params.user_data = user_data;
    return made<text, ::inhouse_text>(
        [&](auto **out, auto **cause) { return call(c_str_view(path), &params, out, cause); });
}

template <typename OnProgress>
result<text> watched(const index_options &options, OnProgress &on_progress, std::string_view path, read_call *call)
{
    callback<progress, ::inhouse_progress, OnProgress> target(on_progress);
    result<text> done = read_with(options, &target.call, &target, path, call);
    target.rethrow();
    return done;
}

} // namespace detail

/** Writes documentation as apis.jsonl to a file. The report is a JSON object. */
inline result<text> read_docs(std::string_view path, const index_options &options)
{
    return detail::read_with(options, nullptr, nullptr, path, ::inhouse_docs_read);
}

/** The same, watched by `on_progress(const progress &)`. */
template <typename OnProgress>
result<text> read_docs(std::string_view path, const index_options &options, OnProgress &&on_progress)
{
    return detail::watched(options, on_progress, path, ::inhouse_docs_read);
}

/** Builds an index in a folder. The report is a JSON object. */
inline result<text> build_index(std::string_view path, const index_options &options)
{
    return detail::read_with(options, nullptr, nullptr, path, ::inhouse_index_build);
}

/** The same, watched by `on_progress(const progress &)`. */
template <typename OnProgress>
result<text> build_index(std::string_view path, const index_options &options, OnProgress &&on_progress)
{
    return detail::watched(options, on_progress, path, ::inhouse_index_build);
}

/** Brings an index up to date; engine::with_index() opens its new state. The report is a JSON object. */
inline result<text> update_index(std::string_view path, const index_options &options)
{
    return detail::read_with(options, nullptr, nullptr, path, ::inhouse_index_update);
}

/** The same, watched by `on_progress(const progress &)`. */
template <typename OnProgress>
result<text> update_index(std::string_view path, const index_options &options, OnProgress &&on_progress)
{
    return detail::watched(options, on_progress, path, ::inhouse_index_update);
}

/** Facts about the index in a folder, as a JSON object. */
inline result<text> index_info(std::string_view folder)
{
    return detail::made<text, ::inhouse_text>(
        [&](auto **out, auto **cause) { return ::inhouse_index_info(c_str_view(folder), out, cause); });
}

} // namespace inhouse

#endif /* INHOUSE_INDEX_HPP */
