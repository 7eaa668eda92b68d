/* What a C++ program implements to hear of a completion as it is written. */
#ifndef INHOUSE_CXX_LISTENER_H
#define INHOUSE_CXX_LISTENER_H

#include "rust/cxx.h"

#include <cstddef>

namespace inhouse::source {

class Listener {
public:
    virtual ~Listener() = default;
    /**
     * More text of one of the completions, on the thread that called complete(). Returns whether to go on; an exception
     * ends the completion, too, and complete() throws a rust::Error with its words.
     */
    virtual bool on_text(std::size_t completion, rust::Str text) = 0;
};

} // namespace inhouse::source

#endif /* INHOUSE_CXX_LISTENER_H */
