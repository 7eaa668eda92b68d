/*
 * inhouse.h: code that calls private libraries, from an engine inside your process.
 *
 * Made by cbindgen from ffi/src. Do not edit: `make header` writes it anew.
 *
 * An engine holds an index of a library's documentation and a model. It retrieves the APIs that a task needs; a session
 * on it completes code with them. inhouse_index_build() makes an index, inhouse_engine_propose() and
 * inhouse_apis_select() let a person choose, inhouse_evaluate() runs what came out in a sandbox.
 *
 *     inhouse_engine_params params;
 *     inhouse_engine_params_init(&params, sizeof params);
 *     params.index = inhouse_str_of("docs.index");
 *     params.model = inhouse_str_of("model.gguf");
 *     inhouse_engine *engine = NULL;
 *     inhouse_error *error = NULL;
 *     if (inhouse_engine_open(&params, &engine, &error) != INHOUSE_STATUS_OK) {
 *         fprintf(stderr, "%s\n", inhouse_error_message(error).data);
 *         inhouse_error_free(error);
 *     }
 *
 * What holds for every function
 *
 * Ownership. What a call hands out through a parameter `out` belongs to the host until it gives it back by the function
 * named there; free() is never called on it. What a call takes in (texts, arrays, structs) it copies before it returns.
 *
 * Handles. inhouse_engine, inhouse_session, ... are handles: numbers in the shape of a pointer, never given out twice.
 * A handle that was freed, is of another type or was made up is answered with INHOUSE_STATUS_INVALID_HANDLE (a getter:
 * with the value it names), never followed. Objects do not depend on the order in which they are freed.
 *
 * Threads. Every function may be called from every thread. An engine, a cancel token, and whatever a call has returned
 * may be used by many at the same time; a session by one at a time, the others get INHOUSE_STATUS_BUSY. Nothing is
 * kept per thread.
 *
 * Errors. A call returns an inhouse_status; INHOUSE_STATUS_OK is 0. With a parameter `error` that is not NULL, a call
 * that fails also makes an inhouse_error, which the host frees; a call that succeeds sets it to NULL. What `out` and
 * `error` held before is overwritten, not freed. A call that fails sets `out` to NULL. A pointer that is misaligned for
 * its type is refused and not written.
 *
 * Safety. No argument that a call can check takes the process down: NULL, stale handles, wrong sizes, lengths over the
 * stated limits, text that is not UTF-8, numbers out of range. A bug in the library comes back as INHOUSE_STATUS_PANIC
 * (with a line on stderr). What cannot be checked is the host's promise: a pointer that is neither NULL nor misaligned
 * points to what its type says, for the length that goes with it, until the call returns. Running out of memory or of
 * stack still ends the process; where a model runs in a process of its own (`worker` of the engine), that one alone.
 *
 * Versions. The structs begin with `struct_size`, and functions and fields are only ever added: a host runs with every
 * later library of the same SONAME. Numbers are never given another meaning.
 */


#ifndef INHOUSE_H
#define INHOUSE_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of the ABI that this header describes. It grows when functions or fields are added; a change that breaks
 * hosts changes the SONAME (libinhouse.so.0) instead.
 */
#define INHOUSE_ABI_VERSION 3

/**
 * No text that a host passes may be longer, in bytes.
 */
#define INHOUSE_MAX_TEXT_BYTES (64 << 20)

/**
 * No path that a host passes may be longer, in bytes.
 */
#define INHOUSE_MAX_PATH_BYTES (32 << 10)

/**
 * No call encodes more texts.
 */
#define INHOUSE_MAX_TEXTS 65536

/**
 * No call reads more sources.
 */
#define INHOUSE_MAX_SOURCES 4096

/**
 * No engine runs with more threads.
 */
#define INHOUSE_MAX_THREADS 1024

/**
 * No sequence has a longer context, in tokens.
 */
#define INHOUSE_MAX_CONTEXT_LENGTH (1 << 20)

/**
 * No model has more adapters.
 */
#define INHOUSE_MAX_ADAPTERS 64

/**
 * No list of APIs is asked for or passed with more entries.
 */
#define INHOUSE_MAX_APIS 10000

/**
 * No call asks for more completions.
 */
#define INHOUSE_MAX_COMPLETIONS 4096

/**
 * No call asks for more examples of an API.
 */
#define INHOUSE_MAX_EXAMPLES 100

/**
 * No call passes more stop strings.
 */
#define INHOUSE_MAX_STOPS 256

/**
 * No session decodes more completions side by side.
 */
#define INHOUSE_MAX_SEQUENCES 256

/**
 * No call asks for more values of k.
 */
#define INHOUSE_MAX_KS 256

/**
 * What a call came to. A number is never changed or used again; hosts must expect numbers that they do not know.
 *
 * 1 to 99 are faults of the engine or of what it was given; from 100 on are faults at the border between host and
 * library.
 */
enum inhouse_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    INHOUSE_STATUS_OK = 0,
    /**
     * An argument is out of range, empty, null, misaligned, not UTF-8, or contradicts another.
     */
    INHOUSE_STATUS_INVALID_ARGUMENT = 1,
    /**
     * A file or an item does not exist.
     */
    INHOUSE_STATUS_NOT_FOUND = 2,
    /**
     * The operating system refused to read or write.
     */
    INHOUSE_STATUS_IO = 3,
    /**
     * A file's content is not what its format says: truncated, corrupted, wrong encoding, bad value.
     */
    INHOUSE_STATUS_INVALID_DATA = 4,
    /**
     * A file is of a format version that this build does not read.
     */
    INHOUSE_STATUS_UNSUPPORTED_VERSION = 5,
    /**
     * The model, backend or feature is not part of this build, or cannot do what was asked.
     */
    INHOUSE_STATUS_UNSUPPORTED = 6,
    /**
     * Something exceeds a limit: a file's size, a text's length, the context length.
     */
    INHOUSE_STATUS_LIMIT_EXCEEDED = 7,
    /**
     * The host cancelled before there was anything to return.
     */
    INHOUSE_STATUS_CANCELLED = 8,
    /**
     * The deadline passed before there was anything to return.
     */
    INHOUSE_STATUS_DEADLINE_EXCEEDED = 9,
    /**
     * A model backend failed.
     */
    INHOUSE_STATUS_BACKEND = 10,
    /**
     * The sandbox daemon failed or refused.
     */
    INHOUSE_STATUS_SANDBOX = 11,
    /**
     * Another call, thread or process is using the object.
     */
    INHOUSE_STATUS_BUSY = 12,
    /**
     * An invariant of the library broke: a bug.
     */
    INHOUSE_STATUS_INTERNAL = 13,
    /**
     * A handle is of another type, was already freed, or never came from this library.
     */
    INHOUSE_STATUS_INVALID_HANDLE = 100,
    /**
     * The library panicked and the panic was caught at the border: a bug. Other objects stay usable.
     */
    INHOUSE_STATUS_PANIC = 101,
    /**
     * The session failed in an earlier call (a panic or a broken backend) and can only be closed.
     */
    INHOUSE_STATUS_POISONED = 102,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_status inhouse_status;
#else
typedef int32_t inhouse_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a completion ended. Hosts must expect values that they do not know.
 */
enum inhouse_finish_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It has not ended, there is no such completion, or the reason has no number of its own.
     */
    INHOUSE_FINISH_UNKNOWN = 0,
    /**
     * A stop string; the text ends before it.
     */
    INHOUSE_FINISH_STOP = 1,
    /**
     * The model ended the text.
     */
    INHOUSE_FINISH_END_OF_TEXT = 2,
    /**
     * `max_tokens` were written.
     */
    INHOUSE_FINISH_LENGTH = 3,
    /**
     * The context or the cache is full.
     */
    INHOUSE_FINISH_CONTEXT_FULL = 4,
    /**
     * The host cancelled, by its token or from the callback; the text is what was there by then.
     */
    INHOUSE_FINISH_CANCELLED = 5,
    /**
     * The deadline passed; the text is what was there by then.
     */
    INHOUSE_FINISH_DEADLINE = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_finish_reason inhouse_finish_reason;
#else
typedef int32_t inhouse_finish_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which backend runs a model: values of `inhouse_engine_params.backend`.
 */
enum inhouse_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * By what the path is: a file goes to llama.cpp, a folder to candle.
     */
    INHOUSE_BACKEND_AUTO = 0,
    /**
     * llama.cpp: a GGUF file.
     */
    INHOUSE_BACKEND_LLAMA = 1,
    /**
     * candle: a Hugging Face folder.
     */
    INHOUSE_BACKEND_CANDLE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_backend inhouse_backend;
#else
typedef int32_t inhouse_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which APIs go in front of the context: values of `inhouse_complete_params.api_choice`.
 */
enum inhouse_api_choice
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * None.
     */
    INHOUSE_APIS_NONE = 0,
    /**
     * The best `n_apis` that the retriever finds for `query`.
     */
    INHOUSE_APIS_TOP = 1,
    /**
     * The `n_apis` in `api_names`, from the index.
     */
    INHOUSE_APIS_NAMED = 2,
    /**
     * Those in the list `apis`, such as a person chose with inhouse_apis_select().
     */
    INHOUSE_APIS_GIVEN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_api_choice inhouse_api_choice;
#else
typedef int32_t inhouse_api_choice;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What ends a completion: values of `inhouse_complete_params.stop_choice`.
 */
enum inhouse_stop_choice
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The rules of arXiv 2210.17236: a completion ends where a new top-level class, function, comment, decorator,
     * print or if begins.
     */
    INHOUSE_STOPS_PAPER = 0,
    /**
     * No rule: only the end of text, `max_tokens` and the context's length.
     */
    INHOUSE_STOPS_NONE = 1,
    /**
     * The `n_stops` strings in `stops`.
     */
    INHOUSE_STOPS_GIVEN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_stop_choice inhouse_stop_choice;
#else
typedef int32_t inhouse_stop_choice;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event tells: values of `inhouse_event.kind`. Hosts must pass over kinds that they do not know.
 */
enum inhouse_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * More text of a completion.
     */
    INHOUSE_EVENT_TEXT = 1,
    /**
     * A completion is finished.
     */
    INHOUSE_EVENT_FINISHED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_event_kind inhouse_event_kind;
#else
typedef int32_t inhouse_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a host is told of long work: values of `inhouse_progress.kind`. Hosts must pass over kinds that they do not know.
 */
enum inhouse_progress_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A piece of work begins.
     */
    INHOUSE_PROGRESS_STARTED = 1,
    /**
     * More of its steps are done.
     */
    INHOUSE_PROGRESS_ADVANCED = 2,
    /**
     * Something that a person should read now, without an end to the work.
     */
    INHOUSE_PROGRESS_NOTE = 3,
    /**
     * The piece of work is done; another may follow.
     */
    INHOUSE_PROGRESS_FINISHED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_progress_kind inhouse_progress_kind;
#else
typedef int32_t inhouse_progress_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much matters: values of `inhouse_log_record.level` and of inhouse_log_set(). A level includes those before it.
 */
enum inhouse_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    INHOUSE_LOG_OFF = 0,
    /**
     * Something failed that no call reports.
     */
    INHOUSE_LOG_ERROR = 1,
    /**
     * Something is not as it should be.
     */
    INHOUSE_LOG_WARN = 2,
    /**
     * What was done.
     */
    INHOUSE_LOG_INFO = 3,
    /**
     * How it was done; llama.cpp's own log is mostly here.
     */
    INHOUSE_LOG_DEBUG = 4,
    /**
     * Everything.
     */
    INHOUSE_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_log_level inhouse_log_level;
#else
typedef int32_t inhouse_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether a model is asked in a chat: values of `inhouse_complete_params.chat`.
 */
enum inhouse_chat
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The model continues the code itself.
     */
    INHOUSE_CHAT_NONE = 0,
    /**
     * By the model's own chat template; a model without one continues the code.
     */
    INHOUSE_CHAT_AUTO = 1,
    /**
     * By the Jinja text in `chat_template`.
     */
    INHOUSE_CHAT_GIVEN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_chat inhouse_chat;
#else
typedef int32_t inhouse_chat;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which side of retrieval a text stands on: values of `role` of inhouse_encoder_encode(). A model may have an encoder for
 * each.
 */
enum inhouse_text_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What is asked.
     */
    INHOUSE_ROLE_QUERY = 1,
    /**
     * What is found.
     */
    INHOUSE_ROLE_DOCUMENT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum inhouse_text_role inhouse_text_role;
#else
typedef int32_t inhouse_text_role;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A list of APIs, best first; freed with inhouse_apis_free(). It does not depend on the engine that made it.
 */
typedef struct inhouse_apis inhouse_apis;

/**
 * A flag that ends a running completion. Any thread may set it; one token may serve many calls, one after another or
 * at the same time.
 */
typedef struct inhouse_cancel inhouse_cancel;

/**
 * The completions of one call, with the prompt and the APIs in it; freed with inhouse_completion_free(). It does not
 * depend on the session that made it.
 */
typedef struct inhouse_completion inhouse_completion;

/**
 * A loaded text encoder: it turns texts into vectors of one width. May be used by any number of threads at the same time.
 */
typedef struct inhouse_encoder inhouse_encoder;

/**
 * An open index, a loaded model, or both. Reference counted; may be used by any number of threads at the same time.
 */
typedef struct inhouse_engine inhouse_engine;

/**
 * Why a call failed: a status and one line of text that names the file, the position, the value and, where there is
 * one, the mend. Made by a call with a parameter `inhouse_error **error`; the host frees it with
 * inhouse_error_free().
 */
typedef struct inhouse_error inhouse_error;

/**
 * A place to complete code in: the cache of a model. One call at a time; it keeps its engine open.
 */
typedef struct inhouse_session inhouse_session;

/**
 * A text that the library made, such as a JSON document; freed with inhouse_text_free().
 */
typedef struct inhouse_text inhouse_text;

/**
 * Vectors of one width, a row for each text; freed with inhouse_vectors_free(). They do not depend on the encoder that
 * made them.
 */
typedef struct inhouse_vectors inhouse_vectors;

/**
 * A borrowed view of UTF-8 text: `len` bytes at `data`. The text may contain NUL bytes.
 *
 * Passed in, it need not end in a NUL byte and need only live until the call returns; `data` NULL with `len` 0 is the
 * empty or unset text. Handed out, it is followed by a NUL byte that `len` does not count, and `data` is NULL only
 * where there is no such thing (a stale handle, an index out of range).
 */
typedef struct inhouse_str {
    /**
     * The first byte, or NULL.
     */
    const char *data;
    /**
     * Number of bytes, a final NUL not counted.
     */
    size_t len;
} inhouse_str;

/**
 * One record of the log; valid during the callback only.
 */
typedef struct inhouse_log_record {
    /**
     * Size of the struct in bytes as the library knows it; fields are only ever appended.
     */
    size_t struct_size;
    /**
     * The part of the library that speaks, such as "inhouse_core::index::reader".
     */
    struct inhouse_str target;
    /**
     * What it says, without a line break at its end; fields follow as " name=value".
     */
    struct inhouse_str message;
    /**
     * One of inhouse_log_level.
     */
    int32_t level;
    /**
     * Zero.
     */
    uint32_t reserved;
} inhouse_log_record;

/**
 * Receives the log, from any thread, also several at the same time, inside of calls and beside them. `record` and its
 * texts are valid until the callback returns.
 *
 * What the callback itself makes the library log is dropped; inhouse_log_set() called from it gives
 * INHOUSE_STATUS_BUSY. It must return normally: no longjmp and no C++ exception may leave it.
 */
typedef void (*inhouse_on_log)(void *user_data, const struct inhouse_log_record *record);

/**
 * How far a piece of work is; valid during the callback only.
 */
typedef struct inhouse_progress {
    /**
     * Size of the struct in bytes as the library knows it; fields are only ever appended.
     */
    size_t struct_size;
    /**
     * What is being done, for people; with INHOUSE_PROGRESS_NOTE the note.
     */
    struct inhouse_str text;
    /**
     * Steps that are done.
     */
    uint64_t done;
    /**
     * Steps in all; 0 where that is not known.
     */
    uint64_t total;
    /**
     * One of inhouse_progress_kind.
     */
    int32_t kind;
    /**
     * Zero.
     */
    uint32_t reserved;
} inhouse_progress;

/**
 * Receives the progress of long work, before the call that does it returns; from any thread, but never two at the same
 * time. `progress` and its text are valid until the callback returns. Returns 0 to go on; anything else ends the work
 * at its next step, and the call returns INHOUSE_STATUS_CANCELLED. What it was to replace is then as it was.
 *
 * The callback may call every function of this header. It must return normally: no longjmp and no C++ exception may
 * leave it.
 */
typedef int32_t (*inhouse_on_progress)(void *user_data, const struct inhouse_progress *progress);

/**
 * What inhouse_docs_read(), inhouse_index_build() and inhouse_index_update() read. Set up with
 * inhouse_index_params_init(), then change fields.
 */
typedef struct inhouse_index_params {
    /**
     * Size of the struct in bytes as the host knows it.
     */
    size_t struct_size;
    /**
     * Ends the work when it is set; NULL: nothing does. It must not be freed before the call begins. Default: NULL.
     */
    const struct inhouse_cancel *cancel;
    /**
     * Called as the work goes on; NULL: not called. Default: NULL.
     */
    inhouse_on_progress on_progress;
    /**
     * Passed to `on_progress` as it is. Default: NULL.
     */
    void *user_data;
    /**
     * What is read: paths of package folders, .py and .pyi files, wheels, sdists, objects.inv with its HTML beside it,
     * apis.jsonl (plain or gzip). Nothing of them is imported or run. Default: NULL.
     */
    const struct inhouse_str *sources;
    /**
     * Length of `sources`, 1 to INHOUSE_MAX_SOURCES. Default: 0.
     */
    size_t n_sources;
    /**
     * Folders with installed packages (site-packages) in which names that a library re-exports from its dependencies are
     * looked up. Default: NULL.
     */
    const struct inhouse_str *search_paths;
    /**
     * Length of `search_paths`, at most INHOUSE_MAX_SOURCES. Default: 0.
     */
    size_t n_search_paths;
    /**
     * Threads that parse, at most INHOUSE_MAX_THREADS; 0: one per core. Default: 0.
     */
    uint32_t threads;
    /**
     * 1: modules and names that begin with an underscore are listed, too. Default: 0.
     */
    int32_t include_private;
    /**
     * inhouse_index_update(): 1 removes what the sources no longer name even where they may be a part of their library
     * (a module alone, rows of an apis.jsonl). Default: 0.
     */
    int32_t prune;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Text encoder of the index, a Hugging Face folder or a GGUF file: the index is then searched by meaning, too.
     * "default" is the retriever that comes with inhouse. inhouse_index_build(): unset: by words alone.
     * inhouse_index_update(): unset: the encoder that the index was built with, from where it was then; else where that
     * encoder, or its conversion to another format, is now. Default: unset.
     */
    struct inhouse_str encoder;
} inhouse_index_params;

/**
 * What inhouse_engine_open() opens. Set up with inhouse_engine_params_init(), then change fields.
 */
typedef struct inhouse_engine_params {
    /**
     * Size of the struct in bytes as the host knows it.
     */
    size_t struct_size;
    /**
     * Folder of an index that `inhouse index build` made; unset: no index, retrieval is refused. Default: unset.
     */
    struct inhouse_str index;
    /**
     * GGUF file or Hugging Face folder; "default": the model that is installed with the library; unset: no model,
     * completion is refused. Default: unset.
     */
    struct inhouse_str model;
    /**
     * One of inhouse_backend. Default: INHOUSE_BACKEND_AUTO.
     */
    int32_t backend;
    /**
     * Layers of the model on the GPU, where the build and the machine have one. Default: 0.
     */
    uint32_t gpu_layers;
    /**
     * Threads for the model, at most INHOUSE_MAX_THREADS; 0: chosen by the size of the model and the cores. Default: 0.
     */
    uint32_t threads;
    /**
     * Tokens of context per sequence, at most INHOUSE_MAX_CONTEXT_LENGTH; 0: as the model was trained. Default: 0.
     */
    uint32_t context_length;
    /**
     * Tokens of prompts that each session keeps from one call to the next, so that what a new prompt shares with them
     * (the APIs, the beginning of a file) is not read again; at most INHOUSE_MAX_CONTEXT_LENGTH. The logits after a
     * shared beginning may differ in their last bits, so that a draw may rarely come out otherwise. 0: none. Default: 0.
     */
    uint32_t prefix_tokens;
    /**
     * 1: the model runs in a process of its own, so that whatever ends that (an assertion in C++, the kernel for want of
     * memory) comes back as INHOUSE_STATUS_BACKEND. Its sessions then only say INHOUSE_STATUS_POISONED; the next one that
     * is opened starts a new process. 0: it runs in this process. Default: 0.
     */
    int32_t worker;
    /**
     * With `worker`: the program inhouse-worker, of the library's own version; unset: what INHOUSE_WORKER names, else the
     * one beside the library or the program, or in ../libexec/inhouse-VERSION from there, else the one on PATH.
     * Default: unset.
     */
    struct inhouse_str worker_program;
    /**
     * Text encoder that the index is searched with. Unset: the one that the index was built with, where there was one; where
     * that cannot be loaded, the index is searched by words alone, and the log says so. "none": by words alone. Else the path
     * of an encoder, which must be the index's own or its conversion to another format. It runs in this process.
     * Default: unset.
     */
    struct inhouse_str encoder;
    /**
     * The `n_adapters` low-rank adapters (LoRA) of the model: a path (PEFT folder or GGUF adapter), or `PATH:SCALE` with what its
     * effect is multiplied by. Effects add up. May be NULL where there are none. Default: NULL.
     */
    const struct inhouse_str *adapters;
    /**
     * Length of `adapters`, at most INHOUSE_MAX_ADAPTERS. Default: 0.
     */
    size_t n_adapters;
} inhouse_engine_params;

/**
 * How inhouse_session_open() opens. Set up with inhouse_session_params_init(), then change fields.
 */
typedef struct inhouse_session_params {
    /**
     * Size of the struct in bytes as the host knows it.
     */
    size_t struct_size;
    /**
     * Completions decoded side by side, 1 to INHOUSE_MAX_SEQUENCES; each costs memory for its cache. Default: 1.
     */
    uint32_t n_sequences;
    /**
     * Zero.
     */
    uint32_t reserved;
} inhouse_session_params;

/**
 * One event, valid during the callback only.
 */
typedef struct inhouse_event {
    /**
     * Size of the struct in bytes as the library knows it; fields are only ever appended.
     */
    size_t struct_size;
    /**
     * INHOUSE_EVENT_TEXT: the new text, whole characters, never part of a stop string; the texts of a completion's
     * events are together its text. INHOUSE_EVENT_FINISHED: the whole text.
     */
    struct inhouse_str text;
    /**
     * One of inhouse_event_kind.
     */
    int32_t kind;
    /**
     * The completion, below `n_completions`; events of several completions interleave.
     */
    uint32_t completion_idx;
    /**
     * INHOUSE_EVENT_FINISHED: one of inhouse_finish_reason; else INHOUSE_FINISH_UNKNOWN.
     */
    int32_t finish_reason;
    /**
     * INHOUSE_EVENT_FINISHED: tokens written for the completion; else 0.
     */
    uint32_t completion_tokens;
} inhouse_event;

/**
 * Receives the events of a completion, on the thread that called inhouse_session_complete(), before that returns.
 * `event` and its text are valid until the callback returns. Returns 0 to go on; anything else ends the call, every
 * unfinished completion with INHOUSE_FINISH_CANCELLED, and no event follows.
 *
 * The callback may call every function of this header; the session it is called from answers INHOUSE_STATUS_BUSY. It
 * must return normally: no longjmp and no C++ exception may leave it.
 */
typedef int32_t (*inhouse_on_event)(void *user_data, const struct inhouse_event *event);

/**
 * How inhouse_session_complete() completes. Set up with inhouse_complete_params_init(), then change fields.
 */
typedef struct inhouse_complete_params {
    /**
     * Size of the struct in bytes as the host knows it.
     */
    size_t struct_size;
    /**
     * Ends the completion when it is set; NULL: nothing does. It must not be freed before the call begins. Default:
     * NULL.
     */
    const struct inhouse_cancel *cancel;
    /**
     * Called as text comes; NULL: not called. Default: NULL.
     */
    inhouse_on_event on_event;
    /**
     * Passed to `on_event` as it is. Default: NULL.
     */
    void *user_data;
    /**
     * What the retriever is asked with INHOUSE_APIS_TOP; unset: the comments of the context. Default: unset.
     */
    struct inhouse_str query;
    /**
     * With INHOUSE_APIS_NAMED: names of APIs of the index, bare, dotted or aliases. Default:
     * NULL.
     */
    const struct inhouse_str *api_names;
    /**
     * With INHOUSE_APIS_TOP the number of APIs, with INHOUSE_APIS_NAMED the length of `api_names`; at most
     * INHOUSE_MAX_APIS. Default: 0.
     */
    size_t n_apis;
    /**
     * With INHOUSE_STOPS_GIVEN: a completion ends before the first of these strings. Default: NULL.
     */
    const struct inhouse_str *stops;
    /**
     * Length of `stops`, at most INHOUSE_MAX_STOPS. Default: 0.
     */
    size_t n_stops;
    /**
     * Seed of the draw: the same seed, model and context give the same completions on the same machine. Default: 0.
     */
    uint64_t seed;
    /**
     * Milliseconds from the beginning of the call after which it ends; 0: no deadline. Default: 0.
     */
    uint64_t timeout_ms;
    /**
     * One of inhouse_api_choice. Default: INHOUSE_APIS_NONE.
     */
    int32_t api_choice;
    /**
     * One of inhouse_stop_choice. Default: INHOUSE_STOPS_PAPER.
     */
    int32_t stop_choice;
    /**
     * Independent completions of the context, 1 to INHOUSE_MAX_COMPLETIONS. Default: 1.
     */
    uint32_t n_completions;
    /**
     * Most new tokens per completion, at least 1. Default: 100.
     */
    uint32_t max_tokens;
    /**
     * Only this many most probable tokens are drawn from; 0: all. Default: 0.
     */
    uint32_t top_k;
    /**
     * Divides the logits, 0 or more; 0: always the most probable token. Default: 0.8.
     */
    float temperature;
    /**
     * Nucleus sampling: the smallest set of tokens whose probability reaches this, above 0 and at most 1. Default: 0.9.
     */
    float top_p;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * With INHOUSE_APIS_GIVEN: the APIs, in the order in which they stand in the prompt; an empty list is none. It must
     * not be freed before the call begins. Default: NULL.
     */
    const struct inhouse_apis *apis;
    /**
     * Only tokens at least this many times as probable as the most probable one are drawn, 0 to 1; 0: all. Default: 0.
     */
    float min_p;
    /**
     * Divides the logits of tokens that are in the text already, above 0; 1: no penalty. Default: 1.
     */
    float repetition_penalty;
    /**
     * 1: where the code refers to a library of the index, only names follow that its documentation has (and keywords of
     * known calls); everything else is free. Default: 0.
     */
    int32_t constrain;
    /**
     * 1: the log-probability of every token is kept: inhouse_completion_log_probabilities(). Default: 0.
     */
    int32_t log_probabilities;
    /**
     * The code after the cursor: the completion is what stands between `context` and it. Only models that were trained to
     * fill in can do this (`can_infill` of inhouse_engine_info()), or a chat. Unset: nothing is said of what follows.
     * Default: unset.
     */
    struct inhouse_str suffix;
    /**
     * With INHOUSE_CHAT_GIVEN: the template. Default: unset.
     */
    struct inhouse_str chat_template;
    /**
     * One of inhouse_chat. In a chat a completion is the code of the reply, in one event; stop rules cut that code, and
     * `max_tokens` and log-probabilities are those of the reply. Default: INHOUSE_CHAT_NONE.
     */
    int32_t chat;
    /**
     * Zero.
     */
    uint32_t reserved_chat;
    /**
     * The most example calls below the line of each API in the prompt, at most INHOUSE_MAX_EXAMPLES; they come from the index,
     * and give way where the prompt is long. 0: none, the paper's form. Default: 0.
     */
    uint32_t examples;
    /**
     * Zero.
     */
    uint32_t reserved_examples;
} inhouse_complete_params;

/**
 * How samples are evaluated. Set up with inhouse_evaluate_params_init(), then change fields.
 */
typedef struct inhouse_evaluate_params {
    /**
     * Size of the struct in bytes as the host knows it.
     */
    size_t struct_size;
    /**
     * Ends the evaluation when it is set; NULL: nothing does. It must not be freed before the call begins. Default: NULL.
     */
    const struct inhouse_cancel *cancel;
    /**
     * Called as samples are decided; NULL: not called. Default: NULL.
     */
    inhouse_on_progress on_progress;
    /**
     * Passed to `on_progress` as it is. Default: NULL.
     */
    void *user_data;
    /**
     * Socket of a running evald, whose first environment runs the samples; unset: a private one is started for the call
     * and ends with it, also where the host is killed. Default: unset.
     */
    struct inhouse_str socket;
    /**
     * Executable of a private evald; unset: what INHOUSE_EVALD names, else the one beside the program, else the one on
     * the PATH. Default: unset.
     */
    struct inhouse_str evald;
    /**
     * Environment of a private evald: a Python interpreter and the modules that are imported beforehand,
     * "PYTHON[:MODULE,...]"; unset: "python3". Default: unset.
     */
    struct inhouse_str env;
    /**
     * Sandbox tier to insist on, "T0" to "T4"; unset: the host's best. Default: unset.
     */
    struct inhouse_str tier;
    /**
     * File to which a row per sample is written; an evaluation that was killed goes on where it was when it is asked again.
     * Unset: none. Default: unset.
     */
    struct inhouse_str rows;
    /**
     * The k of pass@k; a k above the samples of a problem is left out. NULL with `n_k` 0: 1. Default: NULL.
     */
    const uint64_t *k;
    /**
     * Length of `k`, at most INHOUSE_MAX_KS. Default: 0.
     */
    size_t n_k;
    /**
     * CPU seconds a sample, above 0 and at most 86400; its wall-clock limit is three times that. Default: 3.
     */
    double timeout_seconds;
    /**
     * Limits of a sample, "NAME=VALUE[,NAME=VALUE...]": `wall` (10s, 500ms), `memory`, `output`, `disk` (512MiB), `inodes`,
     * `processes` (threads count), `files`; `cpu` in the place of `timeout_seconds`; `allow=processes` lets a private evald's
     * samples start processes. Unset: evald's own. Default: unset.
     */
    struct inhouse_str limits;
    /**
     * Where the tests run, "auto", "isolated" or "in_process"; unset: "auto". Default: unset.
     */
    struct inhouse_str trust;
} inhouse_evaluate_params;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Version of the ABI that the loaded library has. A host that was built against INHOUSE_ABI_VERSION runs with every
 * library of the same SONAME that returns at least that.
 *
 * Ownership: nothing changes hands.
 * Threads: any.
 * Errors: none.
 * Null: takes no pointer.
 */
uint32_t inhouse_abi_version(void);

/**
 * The library's version, such as "0.1.0".
 *
 * Ownership: the text is static and ends in a NUL byte; it is never freed.
 * Threads: any.
 * Errors: none.
 * Null: never returns NULL.
 */
const char *inhouse_version(void);

/**
 * Names of the backends in this build, separated by commas: "llama.cpp,candle"; empty where there is none.
 *
 * Ownership: the text is static and ends in a NUL byte; it is never freed.
 * Threads: any.
 * Errors: none.
 * Null: never returns NULL.
 */
const char *inhouse_backends(void);

/**
 * The name of a status, for logs: "INHOUSE_STATUS_NOT_FOUND". A number that is no status of this library gives
 * "INHOUSE_STATUS_UNKNOWN".
 *
 * Ownership: the text is static and ends in a NUL byte; it is never freed.
 * Threads: any.
 * Errors: none.
 * Null: never returns NULL.
 */
const char *inhouse_status_name(int32_t status);

/**
 * A view of a NUL-terminated C string, for calls that take an inhouse_str.
 *
 * Ownership: the view borrows `text`.
 * Threads: any.
 * Errors: none; the text is checked by the call that it is passed to.
 * Null: `text` may be NULL: the unset view.
 */
struct inhouse_str inhouse_str_of(const char *text);

/**
 * What a text says.
 *
 * Ownership: the view belongs to `text` and is valid until inhouse_text_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives a view with `data` NULL.
 * Null: `text` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_text_view(const struct inhouse_text *text);

/**
 * Frees a text.
 *
 * Ownership: takes `text` back; its views end.
 * Threads: any; not while another thread still reads it.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `text` may be NULL: nothing happens.
 */
inhouse_status inhouse_text_free(struct inhouse_text *text);

/**
 * The status of an error: the one that the failed call returned.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives INHOUSE_STATUS_INVALID_HANDLE.
 * Null: `error` may be NULL (no error): INHOUSE_STATUS_OK.
 */
inhouse_status inhouse_error_status(const struct inhouse_error *error);

/**
 * The text of an error: one line, lower case, for people.
 *
 * Ownership: the view belongs to `error` and is valid until inhouse_error_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives a view with `data` NULL.
 * Null: `error` may be NULL (no error): a view with `data` NULL.
 */
struct inhouse_str inhouse_error_message(const struct inhouse_error *error);

/**
 * Frees an error and its text.
 *
 * Ownership: takes `error` back; views of its text end.
 * Threads: any; not while another thread still reads its text.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `error` may be NULL: nothing happens.
 */
inhouse_status inhouse_error_free(struct inhouse_error *error);

/**
 * Sends the library's log, and llama.cpp's, to `on_log` up to `level`, one of inhouse_log_level; INHOUSE_LOG_OFF or
 * `on_log` NULL ends that. There is one log in a process: a second call takes the place of the first. Without one nothing
 * is logged anywhere.
 *
 * Ownership: nothing changes hands; `user_data` is passed to `on_log` as it is. When the call returns, the callback that was
 * set before is not running any more and will not be called again.
 * Threads: any.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a level that is none; INHOUSE_STATUS_BUSY from inside the callback, and where a
 * program that contains the library as Rust code has a log of its own.
 * Null: `on_log`, `user_data` and `error` may be NULL.
 */
inhouse_status inhouse_log_set(int32_t level,
                               inhouse_on_log on_log,
                               void *user_data,
                               struct inhouse_error **error);

/**
 * Makes a token that nobody has set.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_cancel_free().
 * Threads: any.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_cancel_new(struct inhouse_cancel **out, struct inhouse_error **error);

/**
 * Sets the flag: every completion that was given the token ends within about one step of the model.
 *
 * Ownership: nothing changes hands.
 * Threads: any, at any time, also from inside a callback; not from a signal handler.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
 * Null: `cancel` must not be NULL.
 */
inhouse_status inhouse_cancel_set(const struct inhouse_cancel *cancel);

/**
 * Clears the flag, so that the token can be used again.
 *
 * Ownership: nothing changes hands.
 * Threads: any; a completion that is still running under the token may or may not end.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
 * Null: `cancel` must not be NULL.
 */
inhouse_status inhouse_cancel_reset(const struct inhouse_cancel *cancel);

/**
 * 1 where the flag is set, else 0.
 *
 * Ownership: nothing changes hands.
 * Threads: any.
 * Errors: none; a stale handle gives 0.
 * Null: `cancel` may be NULL: 0.
 */
int32_t inhouse_cancel_is_set(const struct inhouse_cancel *cancel);

/**
 * Frees a token. A completion that is running under it goes on and can no longer be cancelled.
 *
 * Ownership: takes `cancel` back.
 * Threads: any.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `cancel` may be NULL: nothing happens.
 */
inhouse_status inhouse_cancel_free(struct inhouse_cancel *cancel);

/**
 * Loads a text encoder of a BERT model: a GGUF file (of Q8_0 by any build, else by llama.cpp) or a Hugging Face folder (by
 * candle). An index finds its encoder by itself (`encoder` of inhouse_index_params and inhouse_engine_params): this is for
 * vectors of the host's own.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_encoder_free(). `path` is copied.
 * Threads: any. It reads files and may take seconds: not for a user interface's thread.
 * Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the files; INHOUSE_STATUS_UNSUPPORTED for a
 * model that is no encoder, or a backend that this build lacks; INHOUSE_STATUS_INVALID_ARGUMENT, also where `path` is
 * unset; INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BACKEND.
 * Null: `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_encoder_open(struct inhouse_str path,
                                    struct inhouse_encoder **out,
                                    struct inhouse_error **error);

/**
 * Facts about an encoder as a JSON object: `name`, `architecture`, `backend`, `dim` (width of its vectors), `max_tokens`
 * (of a text that are read; the rest is cut off), `normalized` (whether vectors have length 1), `fingerprint` (what tells
 * its vectors from another model's; a conversion to another format keeps it). Unknown members must be passed over: more may
 * come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free().
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `encoder` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_encoder_info(const struct inhouse_encoder *encoder,
                                    struct inhouse_text **out,
                                    struct inhouse_error **error);

/**
 * The vectors of `n_texts` texts at `texts`, in their order. `role` is one of inhouse_text_role: the dot product of a
 * query's and a document's vector says how well they fit. The same texts give the same vectors; the empty text has one,
 * too. What is longer than the encoder reads is cut off. With `n_texts` 0 the result has no row.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_vectors_free(). `texts` is copied.
 * Threads: any, at the same time; calls on one encoder may wait for one another. Many texts take seconds: not for a user
 * interface's thread.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE (`encoder`, `cancel`); INHOUSE_STATUS_INVALID_ARGUMENT (`role` is no
 * inhouse_text_role, a text is unset or not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED (`n_texts` over INHOUSE_MAX_TEXTS, all
 * texts together over INHOUSE_MAX_TEXT_BYTES); INHOUSE_STATUS_CANCELLED where `cancel` was set, seen between passes of
 * the model; INHOUSE_STATUS_BACKEND.
 * Null: `encoder` and `out` must not be NULL; `texts` may be where `n_texts` is 0; `cancel` may be (nothing ends the call),
 * and `error`.
 */
inhouse_status inhouse_encoder_encode(const struct inhouse_encoder *encoder,
                                      int32_t role,
                                      const struct inhouse_str *texts,
                                      size_t n_texts,
                                      const struct inhouse_cancel *cancel,
                                      struct inhouse_vectors **out,
                                      struct inhouse_error **error);

/**
 * Frees an encoder. Calls that use it meanwhile end as they would have.
 *
 * Ownership: takes `encoder` back.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `encoder` may be NULL: nothing happens.
 */
inhouse_status inhouse_encoder_free(struct inhouse_encoder *encoder);

/**
 * Number of vectors: the call's `n_texts`.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `vectors` may be NULL: 0.
 */
size_t inhouse_vectors_count(const struct inhouse_vectors *vectors);

/**
 * Width of the vectors, in numbers.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `vectors` may be NULL: 0.
 */
size_t inhouse_vectors_dim(const struct inhouse_vectors *vectors);

/**
 * Vector `idx`: inhouse_vectors_dim() numbers. The rows follow one another in memory, so that row 0 is all of them.
 *
 * Ownership: the array belongs to `vectors` and is valid until inhouse_vectors_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives NULL.
 * Null: `vectors` may be NULL: NULL.
 */
const float *inhouse_vectors_row(const struct inhouse_vectors *vectors,
                                 size_t idx);

/**
 * Frees vectors.
 *
 * Ownership: takes `vectors` back; their rows end.
 * Threads: any; not while another thread still reads their rows.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where they were freed already.
 * Null: `vectors` may be NULL: nothing happens.
 */
inhouse_status inhouse_vectors_free(struct inhouse_vectors *vectors);

/**
 * Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
 *
 * Ownership: nothing changes hands.
 * Threads: any; the struct is the host's.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
 * Null: `params` must not be NULL.
 */
inhouse_status inhouse_index_params_init(struct inhouse_index_params *params,
                                         size_t struct_size);

/**
 * Reads the documentation of `params->sources` and writes it to the file `path` as apis.jsonl, one JSON object per API
 * (compressed where the name ends in .gz). A file that is there is replaced in one step. `*out` is a report, a JSON
 * object: `apis` (their number), `files_read`, `skipped` (files that do not parse: `path`, `line`, `reason`).
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
 * Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
 * Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA (also an archive that is hostile or damaged, a source of no known
 * kind), _LIMIT_EXCEEDED for the sources; INHOUSE_STATUS_IO for `path`; INHOUSE_STATUS_INVALID_HANDLE (`cancel`);
 * INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_CANCELLED.
 * Null: `params` must not be NULL; `out` may be (no report), `error` may be.
 */
inhouse_status inhouse_docs_read(struct inhouse_str path,
                                 const struct inhouse_index_params *params,
                                 struct inhouse_text **out,
                                 struct inhouse_error **error);

/**
 * Builds an index over the documentation of `params->sources` in the folder `folder`, which is made where it does not
 * exist. An index that is there answers until the new one is whole and is then replaced in one step; engines that have
 * it open keep what they opened (inhouse_engine_with_index() takes the new one). `*out` is a report, a JSON object:
 * `index` (as inhouse_index_info()), `files_read`, `skipped`.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
 * Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
 * Errors: as inhouse_docs_read(), and as inhouse_encoder_open() for `encoder`; INHOUSE_STATUS_INVALID_ARGUMENT also where
 * `folder` holds anything but an index; INHOUSE_STATUS_BUSY where another writer is at work on it. The old index is then as
 * it was.
 * Null: `params` must not be NULL; `out` may be (no report), `error` may be.
 */
inhouse_status inhouse_index_build(struct inhouse_str folder,
                                   const struct inhouse_index_params *params,
                                   struct inhouse_text **out,
                                   struct inhouse_error **error);

/**
 * Brings the index in the folder `folder` up to date with a fresh reading of some libraries: records are added and
 * replaced, and of a package given as a whole what is gone is removed (`prune`: of every library). Unchanged records are
 * not written again; engines keep what they opened (inhouse_engine_with_index() takes the new state). `*out` is a
 * report, a JSON object: `added`, `replaced`, `removed`, `unchanged`, `files_read`, `skipped`.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
 * Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
 * Errors: as inhouse_index_build(), and INHOUSE_STATUS_NOT_FOUND, _INVALID_DATA, _UNSUPPORTED_VERSION where `folder` holds
 * no index that this build reads, INHOUSE_STATUS_INVALID_ARGUMENT where `encoder` is not the index's. The index is then as it
 * was.
 * Null: `params` must not be NULL; `out` may be (no report), `error` may be.
 */
inhouse_status inhouse_index_update(struct inhouse_str folder,
                                    const struct inhouse_index_params *params,
                                    struct inhouse_text **out,
                                    struct inhouse_error **error);

/**
 * Facts about the index in the folder `folder` as a JSON object: `path`, `format_version`, `generation` (grows with every
 * build and update), `apis`, `names`, `libraries` (records of each), `segments`, `deleted`, `bytes`, `encoder`, `weights`.
 * Unknown members must be passed over: more may come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `folder` is copied.
 * Threads: any.
 * Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION; INHOUSE_STATUS_INVALID_ARGUMENT;
 * INHOUSE_STATUS_LIMIT_EXCEEDED.
 * Null: `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_index_info(struct inhouse_str folder,
                                  struct inhouse_text **out,
                                  struct inhouse_error **error);

/**
 * Number of APIs in a list.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `apis` may be NULL: 0.
 */
size_t inhouse_apis_count(const struct inhouse_apis *apis);

/**
 * The bare name of API `idx`, as it is written at the call: "read_csv".
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_name(const struct inhouse_apis *apis, size_t idx);

/**
 * The dotted name of API `idx` under which users import it: "pandas.read_csv"; empty where it is not known.
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_qualified_name(const struct inhouse_apis *apis, size_t idx);

/**
 * The signature of API `idx` as users call it: "(path, sep=',') -> DataFrame"; empty where it is not called.
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_signature(const struct inhouse_apis *apis, size_t idx);

/**
 * The first sentence of the documentation of API `idx`; empty where there is none.
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_description(const struct inhouse_apis *apis, size_t idx);

/**
 * API `idx` in one line, for a person who chooses among several: "pandas.read_csv(path, sep=',') -> DataFrame: Reads a
 * table from a file."
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_label(const struct inhouse_apis *apis,
                                      size_t idx);

/**
 * Everything that is known of API `idx` (aliases, module, whole docstring, examples, source) as one JSON object, the
 * row of an apis.jsonl file.
 *
 * Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `apis` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_apis_json(const struct inhouse_apis *apis,
                                     size_t idx);

/**
 * How well API `idx` fits the query: higher is better, comparable within one list only. 0 in a list that no query
 * made.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives 0.
 * Null: `apis` may be NULL: 0.
 */
float inhouse_apis_score(const struct inhouse_apis *apis,
                         size_t idx);

/**
 * Those of a list that a person chose: `n` indices at `indices`, in the order in which they are to stand in a prompt.
 * An index given twice counts once; with `n` 0 ("none of the above") the new list is empty.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on `apis`. `indices` is
 * copied.
 * Threads: any, also at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for an index out of range;
 * INHOUSE_STATUS_LIMIT_EXCEEDED for `n` over INHOUSE_MAX_APIS.
 * Null: `apis` and `out` must not be NULL; `indices` may be where `n` is 0; `error` may be.
 */
inhouse_status inhouse_apis_select(const struct inhouse_apis *apis,
                                   const size_t *indices,
                                   size_t n,
                                   struct inhouse_apis **out,
                                   struct inhouse_error **error);

/**
 * Two lists as one: the APIs of `first`, then those of `second` that are not among them. So a person may choose from
 * the answers to several queries.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on the two.
 * Threads: any, also at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `first`, `second` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_apis_join(const struct inhouse_apis *first,
                                 const struct inhouse_apis *second,
                                 struct inhouse_apis **out,
                                 struct inhouse_error **error);

/**
 * Frees a list.
 *
 * Ownership: takes `apis` back; views of its texts end.
 * Threads: any; not while another thread still reads its texts.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `apis` may be NULL: nothing happens.
 */
inhouse_status inhouse_apis_free(struct inhouse_apis *apis);

/**
 * Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`. Nothing is written
 * beyond that, so a host that was built against another version of this header is safe.
 *
 * Ownership: nothing changes hands.
 * Threads: any; the struct is the host's.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
 * Null: `params` must not be NULL.
 */
inhouse_status inhouse_engine_params_init(struct inhouse_engine_params *params,
                                          size_t struct_size);

/**
 * Opens an index, a model or both.
 *
 * Ownership: the host owns one hold on `*out` and gives it back with inhouse_engine_release(). `params` and its texts
 * are copied.
 * Threads: any. It reads files and may take seconds: not for a user interface's thread.
 * Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the files; _UNSUPPORTED for a backend
 * that this build lacks; _LIMIT_EXCEEDED; _BACKEND; _INVALID_ARGUMENT, also where neither index nor model is set, or
 * `encoder` is not the index's.
 * Null: `params` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_open(const struct inhouse_engine_params *params,
                                   struct inhouse_engine **out,
                                   struct inhouse_error **error);

/**
 * One more hold on an engine, for another owner.
 *
 * Ownership: the host owns one hold more and gives it back with inhouse_engine_release().
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
 * Null: `engine` must not be NULL.
 */
inhouse_status inhouse_engine_retain(struct inhouse_engine *engine);

/**
 * Gives one hold back. With the last one the engine is closed once no call and no session uses it any more.
 *
 * Ownership: takes one hold on `engine` back.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where all holds were given back already.
 * Null: `engine` may be NULL: nothing happens.
 */
inhouse_status inhouse_engine_release(struct inhouse_engine *engine);

/**
 * An engine with the model of another, which is not loaded again, and the index in `index` as it is now: after
 * inhouse_index_update(), or for another library. Its encoder is chosen as the other engine's was (`encoder`).
 *
 * Ownership: the host owns one hold on `*out` and gives it back with inhouse_engine_release(). `engine` stays as it is,
 * and so do the sessions on it. `index` is copied.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the
 * index; INHOUSE_STATUS_INVALID_ARGUMENT, also where `index` is unset; INHOUSE_STATUS_LIMIT_EXCEEDED.
 * Null: `engine` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_with_index(const struct inhouse_engine *engine,
                                         struct inhouse_str index,
                                         struct inhouse_engine **out,
                                         struct inhouse_error **error);

/**
 * Facts about an engine as a JSON object: `version`, `abi_version`, `backends` and `features` (names of those in this
 * build), `index` and `model` (objects, or null where none is open), `memory` (`resident_bytes`, of the whole process,
 * or null where the system does not say), `worker` (`pid` of the process that runs the model, or null),
 * `can_infill` (whether the model can be given a `suffix`), `has_chat_template`. Unknown members must be passed over: more may come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free().
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `engine` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_info(const struct inhouse_engine *engine,
                                   struct inhouse_text **out,
                                   struct inhouse_error **error);

/**
 * The `k` APIs of the index that fit `query` best, distinct by name, best first. Fewer where the index has no more
 * that fit.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_apis_free(). `query` is copied.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT (no index is open, `k` is 0, `query` is unset
 * or not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED (`k` over INHOUSE_MAX_APIS, `query` over INHOUSE_MAX_TEXT_BYTES);
 * INHOUSE_STATUS_IO, INHOUSE_STATUS_INVALID_DATA where the index cannot be read on.
 * Null: `engine` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_retrieve(const struct inhouse_engine *engine,
                                       struct inhouse_str query,
                                       size_t k,
                                       struct inhouse_apis **out,
                                       struct inhouse_error **error);

/**
 * Why the `k` APIs that fit `query` best stand where they do, as a JSON array, best first: of each `name`, `qualified_name`,
 * `score`, `confidence`, `signals` (each with `signal`, its `value`, and the `share` that it adds to the score), and `usage`: null, or
 * where the index knows how code uses the API `files`, `files_resolved`, `calls`, `targets`, `keywords` and `examples` (each with
 * `code`, `says`, `file` and `line`). Unknown members must be passed over: more may come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `query` is copied.
 * Threads: any, at the same time.
 * Errors: as inhouse_engine_retrieve().
 * Null: `engine` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_explain(const struct inhouse_engine *engine,
                                      struct inhouse_str query,
                                      size_t k,
                                      struct inhouse_text **out,
                                      struct inhouse_error **error);

/**
 * The APIs to choose from for the code before the cursor (Figure 4 of arXiv 2210.17236): the `k` that fit `query`, a
 * person's own words, or the comments of `context` where `query` is unset. Show inhouse_apis_label() of each and "none of
 * the above"; let several be chosen, or another query be asked; then make a list of what was chosen with
 * inhouse_apis_select() (and inhouse_apis_join()), and complete with it: `api_choice` INHOUSE_APIS_GIVEN.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_apis_free(). `context` and `query` are copied.
 * Threads: any, at the same time.
 * Errors: as inhouse_engine_retrieve(); INHOUSE_STATUS_INVALID_ARGUMENT also where `context` and `query` are both unset.
 * Null: `engine` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_engine_propose(const struct inhouse_engine *engine,
                                      struct inhouse_str context,
                                      struct inhouse_str query,
                                      size_t k,
                                      struct inhouse_apis **out,
                                      struct inhouse_error **error);

/**
 * What the retriever is asked for `context` where no query is given, for a person to change: its comments, else its
 * docstring, else its last line.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). `context` is copied.
 * Threads: any.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT where `context` is unset or not UTF-8; INHOUSE_STATUS_LIMIT_EXCEEDED.
 * Null: `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_query_of_context(struct inhouse_str context,
                                        struct inhouse_text **out,
                                        struct inhouse_error **error);

/**
 * How `completion`, code that follows `context`, uses the APIs of the index, read without running it, as a JSON object:
 * `uses` (each with `name`, `verdict`: "indexed", "undocumented", "unknown_member", "impossible_arity" or
 * "unknown_keyword", `detail`, `line` and `column`, both from 1), the counts `indexed`, `unknown` and `misused`, and
 * `parses`.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). The texts are copied.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT (no index is open, `completion` is unset, a text
 * is not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_IO, INHOUSE_STATUS_INVALID_DATA where the index cannot be
 * read on.
 * Null: `engine` and `out` must not be NULL; `context` may be unset; `error` may be NULL.
 */
inhouse_status inhouse_engine_api_report(const struct inhouse_engine *engine,
                                         struct inhouse_str context,
                                         struct inhouse_str completion,
                                         struct inhouse_text **out,
                                         struct inhouse_error **error);

/**
 * Number of completions: the call's `n_completions`.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
size_t inhouse_completion_count(const struct inhouse_completion *completion);

/**
 * The text of completion `idx`: what follows the context.
 *
 * Ownership: the view belongs to `completion` and is valid until inhouse_completion_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
 * Null: `completion` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_completion_text(const struct inhouse_completion *completion, size_t idx);

/**
 * Why completion `idx` ended.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives INHOUSE_FINISH_UNKNOWN.
 * Null: `completion` may be NULL: INHOUSE_FINISH_UNKNOWN.
 */
inhouse_finish_reason inhouse_completion_finish_reason(const struct inhouse_completion *completion,
                                                       size_t idx);

/**
 * Tokens that the model wrote for completion `idx`.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle or an `idx` out of range gives 0.
 * Null: `completion` may be NULL: 0.
 */
size_t inhouse_completion_tokens(const struct inhouse_completion *completion, size_t idx);

/**
 * The natural logarithms of the probabilities of the tokens of completion `idx`, as the model gives them before
 * temperature and the other steps of sampling, and in `n` their number: inhouse_completion_tokens().
 *
 * Ownership: the array belongs to `completion` and is valid until inhouse_completion_free().
 * Threads: any, also at the same time.
 * Errors: none; NULL, and 0 in `n`, for a stale handle, an `idx` out of range, a misaligned `n`, or where
 * `log_probabilities` was not asked for.
 * Null: `completion` and `n` may be NULL: NULL.
 */
const float *inhouse_completion_log_probabilities(const struct inhouse_completion *completion,
                                                  size_t idx,
                                                  size_t *n);

/**
 * The whole prompt as the model read it: the APIs, then the context.
 *
 * Ownership: the view belongs to `completion` and is valid until inhouse_completion_free().
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives a view with `data` NULL.
 * Null: `completion` may be NULL: a view with `data` NULL.
 */
struct inhouse_str inhouse_completion_prompt(const struct inhouse_completion *completion);

/**
 * Tokens of the prompt.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
size_t inhouse_completion_prompt_tokens(const struct inhouse_completion *completion);

/**
 * Of the tokens of the prompt, those that the session still held from earlier calls and did not read again.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
size_t inhouse_completion_prompt_tokens_shared(const struct inhouse_completion *completion);

/**
 * 1 where the beginning of the context was cut so that it fits the model, else 0.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
int32_t inhouse_completion_context_truncated(const struct inhouse_completion *completion);

/**
 * Seconds spent on reading the prompt.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
double inhouse_completion_prefill_seconds(const struct inhouse_completion *completion);

/**
 * Seconds spent on writing the completions.
 *
 * Ownership: nothing changes hands.
 * Threads: any, also at the same time.
 * Errors: none; a stale handle gives 0.
 * Null: `completion` may be NULL: 0.
 */
double inhouse_completion_decode_seconds(const struct inhouse_completion *completion);

/**
 * The APIs that stand in the prompt, in its order; their scores are 0.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on `completion`.
 * Threads: any, also at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `completion` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_completion_apis(const struct inhouse_completion *completion,
                                       struct inhouse_apis **out,
                                       struct inhouse_error **error);

/**
 * All that is known of the call as a JSON object: `completions` (each with `text`, `finish_reason`, `completion_tokens`
 * and, where asked for, `logprobs`), `format` ("continue", "infill" or "chat"), `apis` (names of those in the prompt), `prompt_tokens`, `prompt_tokens_shared`,
 * `completion_tokens`, `tokens_per_second`, `prefill_seconds`, `decode_seconds`, `context_truncated`, and `constraint`:
 * null, or where `constrain` was asked for what it did (`steps`, `masked`, `refused`, `gave_way`: tokens). Unknown members
 * must be passed over: more may come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(); it does not depend on `completion`.
 * Threads: any, also at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
 * Null: `completion` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_completion_json(const struct inhouse_completion *completion,
                                       struct inhouse_text **out,
                                       struct inhouse_error **error);

/**
 * Frees the completions of a call.
 *
 * Ownership: takes `completion` back; views of its texts end.
 * Threads: any; not while another thread still reads its texts.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
 * Null: `completion` may be NULL: nothing happens.
 */
inhouse_status inhouse_completion_free(struct inhouse_completion *completion);

/**
 * Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
 *
 * Ownership: nothing changes hands.
 * Threads: any; the struct is the host's.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
 * Null: `params` must not be NULL.
 */
inhouse_status inhouse_session_params_init(struct inhouse_session_params *params,
                                           size_t struct_size);

/**
 * Opens a session on an engine's model.
 *
 * Ownership: the host owns `*out` and closes it with inhouse_session_close(). The session keeps the engine open by
 * itself: the host may release its own hold. `params` is copied.
 * Threads: any, at the same time.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT, also where the engine has no model;
 * INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BACKEND where the memory for the cache is not to be had.
 * Null: `engine` and `out` must not be NULL; `params` may be (the defaults), `error` may be.
 */
inhouse_status inhouse_session_open(const struct inhouse_engine *engine,
                                    const struct inhouse_session_params *params,
                                    struct inhouse_session **out,
                                    struct inhouse_error **error);

/**
 * Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
 *
 * Ownership: nothing changes hands.
 * Threads: any; the struct is the host's.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
 * Null: `params` must not be NULL.
 */
inhouse_status inhouse_complete_params_init(struct inhouse_complete_params *params,
                                            size_t struct_size);

/**
 * Completes `context`, the code before the cursor, with APIs in front of it as `params` say. Returns when every
 * completion has ended; meanwhile `params->on_event` is called on this thread.
 *
 * A cancel or a deadline is no failure once the model is writing: the completions say INHOUSE_FINISH_CANCELLED or
 * INHOUSE_FINISH_DEADLINE and hold the text so far.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_completion_free(). `context`, `params` and its texts are
 * copied before the first callback; the session keeps none of them.
 * Threads: any, but one call at a time: a second one meanwhile, or from the callback, gets INHOUSE_STATUS_BUSY and
 * changes nothing. The session may be closed meanwhile; the call then ends as it would have.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for a field out of range, or APIs asked of an
 * engine without an index; INHOUSE_STATUS_NOT_FOUND for a name that is not in the index;
 * INHOUSE_STATUS_LIMIT_EXCEEDED where no room is left for the context; INHOUSE_STATUS_CANCELLED,
 * INHOUSE_STATUS_DEADLINE_EXCEEDED before anything was written; INHOUSE_STATUS_BACKEND or INHOUSE_STATUS_PANIC, after
 * which the session can only be closed and says INHOUSE_STATUS_POISONED.
 * Null: `session` must not be NULL; `params` may be (the defaults), `out` may be (only the events are of interest),
 * `error` may be.
 */
inhouse_status inhouse_session_complete(const struct inhouse_session *session,
                                        struct inhouse_str context,
                                        const struct inhouse_complete_params *params,
                                        struct inhouse_completion **out,
                                        struct inhouse_error **error);

/**
 * What a session has done since it was opened, and what it holds, as a JSON object: `calls`, `completions`,
 * `prompt_tokens`, `prompt_tokens_shared`, `completion_tokens`, `prefill_seconds`, `decode_seconds`, `cache_cells` (of
 * the KV cache), `kept_prompts` and `kept_tokens` (of the prefix cache), `context_length` (tokens). Unknown members must
 * be passed over: more may come.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free().
 * Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED.
 * Null: `session` and `out` must not be NULL; `error` may be.
 */
inhouse_status inhouse_session_info(const struct inhouse_session *session,
                                    struct inhouse_text **out,
                                    struct inhouse_error **error);

/**
 * Writes the prompts that a session keeps (`prefix_tokens` of the engine), with what the model made of them, to the file
 * `path`, for inhouse_session_load_prefixes(). A file that is there is replaced in one step.
 *
 * Ownership: nothing changes hands; `path` is copied.
 * Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile. It writes a file of some MiB.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT, also where there is nothing to save;
 * INHOUSE_STATUS_UNSUPPORTED where the backend cannot; INHOUSE_STATUS_IO; INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED.
 * Null: `session` must not be NULL; `error` may be.
 */
inhouse_status inhouse_session_save_prefixes(const struct inhouse_session *session,
                                             struct inhouse_str path,
                                             struct inhouse_error **error);

/**
 * Takes in the prompts of a file that inhouse_session_save_prefixes() wrote with the same model, and puts their number
 * in `n`. What the session kept before is dropped, also where the call fails.
 *
 * Ownership: nothing changes hands; `path` is copied.
 * Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile. It reads a file of some MiB.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_NOT_FOUND; INHOUSE_STATUS_INVALID_DATA for a file that is damaged
 * or of another model; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_UNSUPPORTED; INHOUSE_STATUS_IO;
 * INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED. `n` is then 0.
 * Null: `session` must not be NULL; `n` may be, `error` may be.
 */
inhouse_status inhouse_session_load_prefixes(const struct inhouse_session *session,
                                             struct inhouse_str path,
                                             size_t *n,
                                             struct inhouse_error **error);

/**
 * Closes a session. A call that is still running on another thread ends as it would have; cancel it first to end it
 * early.
 *
 * Ownership: takes `session` back. Completions made by it stay valid.
 * Threads: any, also from a callback of the session.
 * Errors: INHOUSE_STATUS_INVALID_HANDLE where it was closed already.
 * Null: `session` may be NULL: nothing happens.
 */
inhouse_status inhouse_session_close(struct inhouse_session *session);

/**
 * Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
 *
 * Ownership: nothing changes hands.
 * Threads: any; the struct is the host's.
 * Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
 * Null: `params` must not be NULL.
 */
inhouse_status inhouse_evaluate_params_init(struct inhouse_evaluate_params *params,
                                            size_t struct_size);

/**
 * Evaluates samples against problems, both as the text of JSON-lines files (one object is one line): runs `prompt` and
 * `completion` in the sandbox, then the problem's `test`. `*out` is a JSON object: `pass@k` for each k, `problems`,
 * `samples`, `verdicts` (how many of each), `samples_per_second`, `tier`, and `rows`: each sample with `verdict`,
 * `passed`, `trust`, `tier`, `cpu_ms`, `wall_ms`, `detail`. A verdict is never "passed" because a record is missing.
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). The texts, and `params` and its texts, are copied.
 * Threads: any. It waits for another process: not for a user interface's thread.
 * Errors: INHOUSE_STATUS_UNSUPPORTED in a build without evaluation (`features` of inhouse_engine_info());
 * INHOUSE_STATUS_SANDBOX where evald cannot be started or reached, or fails; INHOUSE_STATUS_INVALID_DATA where no row
 * is a problem or a sample, or a sample completes no problem (its line is named): a single row that cannot be used is a sample
 * that is not run and says why in `rows`; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_INVALID_HANDLE (`cancel`);
 * INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BUSY for `rows` of another evaluation; INHOUSE_STATUS_CANCELLED.
 * Null: `out` must not be NULL; `params` may be (the defaults), `error` may be.
 */
inhouse_status inhouse_evaluate(struct inhouse_str problems,
                                struct inhouse_str samples,
                                const struct inhouse_evaluate_params *params,
                                struct inhouse_text **out,
                                struct inhouse_error **error);

/**
 * As inhouse_evaluate(), of a problem file and a sample file (JSON lines, plain or gzip).
 *
 * Ownership: the host owns `*out` and frees it with inhouse_text_free(). The paths, and `params` and its texts, are copied.
 * Threads: any. It waits for another process: not for a user interface's thread.
 * Errors: as inhouse_evaluate(), and INHOUSE_STATUS_NOT_FOUND, INHOUSE_STATUS_IO for the files.
 * Null: `out` must not be NULL; `params` may be (the defaults), `error` may be.
 */
inhouse_status inhouse_evaluate_files(struct inhouse_str problems,
                                      struct inhouse_str samples,
                                      const struct inhouse_evaluate_params *params,
                                      struct inhouse_text **out,
                                      struct inhouse_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* INHOUSE_H */
