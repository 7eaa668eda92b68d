/* inhouse/progress.hpp: what is told of long work. Included by inhouse.hpp. */
#ifndef INHOUSE_PROGRESS_HPP
#define INHOUSE_PROGRESS_HPP

#include <inhouse/core.hpp>

namespace inhouse {

/** How far long work is; valid during the callback only. The callback returns nothing, or whether to go on. */
class progress {
public:
    explicit progress(const ::inhouse_progress &raw) noexcept : raw_(raw) {}

    /** What is being done, or a note for people. */
    std::string_view text() const noexcept { return view(raw_.text); }
    /** Whether text() is something that a person should read now. */
    bool is_note() const noexcept { return raw_.kind == INHOUSE_PROGRESS_NOTE; }
    /** Whether the piece of work is done; another may follow. */
    bool is_finished() const noexcept { return raw_.kind == INHOUSE_PROGRESS_FINISHED; }
    /** Steps that are done. */
    std::uint64_t done() const noexcept { return raw_.done; }
    /** Steps in all; 0 where that is not known. */
    std::uint64_t total() const noexcept { return raw_.total; }
    /** All that inhouse.h says of it. */
    const ::inhouse_progress &raw() const noexcept { return raw_; }

private:
    const ::inhouse_progress &raw_;
};

} // namespace inhouse

#endif /* INHOUSE_PROGRESS_HPP */
