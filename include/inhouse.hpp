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
 * Parts. inhouse/core.hpp (errors, results), apis.hpp, session.hpp, engine.hpp, index.hpp (documentation read, indexes
 * built), encoder.hpp (texts as vectors), evaluate.hpp (samples run in the sandbox), log.hpp. Each can be included alone.
 *
 * Threads. As in inhouse.h: every function from every thread, a session by one at a time.
 */

#ifndef INHOUSE_HPP
#define INHOUSE_HPP

#include <inhouse/apis.hpp>
#include <inhouse/core.hpp>
#include <inhouse/encoder.hpp>
#include <inhouse/engine.hpp>
#include <inhouse/evaluate.hpp>
#include <inhouse/index.hpp>
#include <inhouse/log.hpp>
#include <inhouse/session.hpp>

#endif /* INHOUSE_HPP */
