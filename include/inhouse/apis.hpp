/* inhouse/apis.hpp: lists of APIs, and the choice among them. Included by inhouse.hpp. */
#ifndef INHOUSE_APIS_HPP
#define INHOUSE_APIS_HPP

#include <inhouse/core.hpp>

namespace inhouse {

/** One API of a list; valid as long as the list. */
struct api {
    /** The bare name, as it is written at the call. */
    std::string_view name;
    /** The dotted name under which users import it. */
    std::string_view qualified_name;
    std::string_view signature;
    /** The first sentence of its documentation. */
    std::string_view description;
    /** All of it in one line, for a person who chooses. */
    std::string_view label;
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
                   view(::inhouse_apis_label(list, idx)),
                   view(::inhouse_apis_json(list, idx)),
                   ::inhouse_apis_score(list, idx)};
    }

    /** Those that a person chose, in that order; of no index ("none of the above") an empty list. */
    result<apis> select(const std::vector<std::size_t> &indices) const
    {
        return detail::made<apis, ::inhouse_apis>([&](auto **out, auto **cause) {
            return ::inhouse_apis_select(handle_.get(), indices.data(), indices.size(), out, cause);
        });
    }
    /** These, then what `more` has beside them. */
    result<apis> join(const apis &more) const
    {
        return detail::made<apis, ::inhouse_apis>([&](auto **out, auto **cause) {
            return ::inhouse_apis_join(handle_.get(), more.handle_.get(), out, cause);
        });
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    const ::inhouse_apis *get() const noexcept { return handle_.get(); }

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

} // namespace inhouse

#endif /* INHOUSE_APIS_HPP */
