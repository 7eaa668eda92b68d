/* inhouse/encoder.hpp: text encoders, texts as vectors. Included by inhouse.hpp. */
#ifndef INHOUSE_ENCODER_HPP
#define INHOUSE_ENCODER_HPP

#include <inhouse/core.hpp>

namespace inhouse {

/** Which side of retrieval a text stands on: INHOUSE_ROLE_QUERY, INHOUSE_ROLE_DOCUMENT. */
using text_role = ::inhouse_text_role;

/** Vectors of one width, one for each text. */
class vectors {
public:
    explicit vectors(::inhouse_vectors *owned) noexcept : handle_(owned) {}

    std::size_t size() const noexcept { return ::inhouse_vectors_count(handle_.get()); }
    bool empty() const noexcept { return size() == 0; }
    /** Width of each. */
    std::size_t dim() const noexcept { return ::inhouse_vectors_dim(handle_.get()); }
    /** A copy of vector `idx`; beyond the end it is empty. */
    std::vector<float> operator[](std::size_t idx) const
    {
        const float *row = ::inhouse_vectors_row(handle_.get(), idx);
        return row == nullptr ? std::vector<float>() : std::vector<float>(row, row + dim());
    }
    /** All of them in place, size() rows of dim() numbers, valid as long as the object; NULL where there is none. */
    const float *data() const noexcept { return ::inhouse_vectors_row(handle_.get(), 0); }

private:
    detail::unique_handle<::inhouse_vectors, ::inhouse_vectors_free> handle_;
};

/** A loaded text encoder. */
class encoder {
public:
    /** A Hugging Face folder or a GGUF file. Reads files and may take seconds: not for a user interface's thread. */
    static result<encoder> open(std::string_view path)
    {
        return detail::made<encoder, ::inhouse_encoder>(
            [&](auto **out, auto **cause) { return ::inhouse_encoder_open(c_str_view(path), out, cause); });
    }
    explicit encoder(::inhouse_encoder *owned) noexcept : handle_(owned) {}

    /** Facts about the encoder, as a JSON object. */
    result<text> info() const
    {
        return detail::made<text, ::inhouse_text>(
            [&](auto **out, auto **cause) { return ::inhouse_encoder_info(handle_.get(), out, cause); });
    }
    /** The vectors of texts, in their order. The dot product of a query's and a document's says how well they fit. */
    result<vectors> encode(text_role role, const std::vector<std::string> &texts) const
    {
        return encode_until(role, texts, nullptr);
    }
    /** The same, until the token is set. */
    result<vectors> encode(text_role role, const std::vector<std::string> &texts, const cancel_token &token) const
    {
        return encode_until(role, texts, token.get());
    }
    /** The handle, still owned by the object, for functions of inhouse.h that have no method here. */
    ::inhouse_encoder *get() const noexcept { return handle_.get(); }

private:
    result<vectors> encode_until(text_role role, const std::vector<std::string> &texts, ::inhouse_cancel *cancel) const
    {
        const std::vector<::inhouse_str> borrowed = detail::views(texts);
        return detail::made<vectors, ::inhouse_vectors>([&](auto **out, auto **cause) {
            return ::inhouse_encoder_encode(handle_.get(), role, borrowed.data(), borrowed.size(), cancel, out, cause);
        });
    }

    detail::unique_handle<::inhouse_encoder, ::inhouse_encoder_free> handle_;
};

} // namespace inhouse

#endif /* INHOUSE_ENCODER_HPP */
