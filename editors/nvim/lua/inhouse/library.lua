-- libinhouse through LuaJIT's ffi: the part of inhouse.h that the plug-in uses.
--
-- Handles are numbers of 64 bits in the shape of a pointer. To travel between Lua states (vim.loop threads) they are
-- written as text, since a Lua number has 53 bits.
local ffi = require("ffi")

local M = {}

local DECLARATIONS = [[
typedef struct inhouse_str { const char *data; size_t len; } inhouse_str;
typedef struct inhouse_engine_params {
    size_t struct_size; inhouse_str index; inhouse_str model;
    int32_t backend; uint32_t gpu_layers; uint32_t threads; uint32_t context_length;
    uint32_t prefix_tokens; int32_t worker; inhouse_str worker_program;
} inhouse_engine_params;
typedef struct inhouse_complete_params {
    size_t struct_size; const void *cancel; void *on_event; void *user_data; inhouse_str query;
    const inhouse_str *api_names; size_t n_apis; const inhouse_str *stops; size_t n_stops;
    uint64_t seed; uint64_t timeout_ms; int32_t api_choice; int32_t stop_choice; uint32_t n_completions;
    uint32_t max_tokens; uint32_t top_k; float temperature; float top_p; uint32_t reserved;
    const void *apis; float min_p; float repetition_penalty; int32_t constrain; int32_t log_probabilities;
    inhouse_str suffix; inhouse_str chat_template; int32_t chat; uint32_t reserved_chat;
    uint32_t examples; uint32_t reserved_examples;
} inhouse_complete_params;
uint32_t inhouse_abi_version(void);
int32_t inhouse_engine_params_init(inhouse_engine_params *, size_t);
int32_t inhouse_engine_open(const inhouse_engine_params *, void **, void **);
int32_t inhouse_engine_release(void *);
int32_t inhouse_engine_info(const void *, void **, void **);
int32_t inhouse_engine_propose(const void *, inhouse_str, inhouse_str, size_t, void **, void **);
int32_t inhouse_query_of_context(inhouse_str, void **, void **);
inhouse_str inhouse_text_view(const void *);
int32_t inhouse_text_free(void *);
size_t inhouse_apis_count(const void *);
inhouse_str inhouse_apis_name(const void *, size_t);
inhouse_str inhouse_apis_qualified_name(const void *, size_t);
inhouse_str inhouse_apis_label(const void *, size_t);
int32_t inhouse_apis_select(const void *, const size_t *, size_t, void **, void **);
int32_t inhouse_apis_join(const void *, const void *, void **, void **);
int32_t inhouse_apis_free(void *);
int32_t inhouse_session_open(const void *, const void *, void **, void **);
int32_t inhouse_session_close(void *);
int32_t inhouse_complete_params_init(inhouse_complete_params *, size_t);
int32_t inhouse_session_complete(const void *, inhouse_str, const inhouse_complete_params *, void **, void **);
inhouse_str inhouse_completion_text(const void *, size_t);
int32_t inhouse_completion_free(void *);
int32_t inhouse_cancel_new(void **, void **);
int32_t inhouse_cancel_set(const void *);
int32_t inhouse_cancel_free(void *);
inhouse_str inhouse_error_message(const void *);
int32_t inhouse_error_free(void *);
]]

local OK, BUSY_OR_CANCELLED = 0, { [8] = true, [9] = true, [12] = true }
local APIS_NONE, APIS_GIVEN = 0, 3

-- A view borrows: the text must be held by someone until the call returns. nil gives the unset view.
local function view(text)
    local str = ffi.new("inhouse_str")
    if text then
        str.data, str.len = text, #text
    end
    return str
end

local function string_of(str)
    return str.data == nil and "" or ffi.string(str.data, str.len)
end

--- Loads the library once per Lua state. `path` may be a name that the dynamic linker finds.
function M.load(path)
    if not M.lib then
        -- A second load of this module in the same state must not declare twice.
        if not pcall(ffi.typeof, "inhouse_complete_params") then
            ffi.cdef(DECLARATIONS)
        end
        M.lib = ffi.load(path)
        if M.lib.inhouse_abi_version() < 2 then
            error("inhouse: " .. path .. " is too old")
        end
    end
    return M.lib
end

function M.to_text(handle)
    return tostring(ffi.cast("uint64_t", ffi.cast("uintptr_t", handle))):gsub("ULL$", "")
end

function M.from_text(text)
    return ffi.cast("void *", ffi.cast("uintptr_t", assert(loadstring("return " .. text .. "ULL"))()))
end

-- Calls `f(..., out, error)`; the object, or nil with the message and the status.
local function make(f, ...)
    local out, cause = ffi.new("void *[1]"), ffi.new("void *[1]")
    local arguments = { ... }
    arguments[#arguments + 1] = out
    arguments[#arguments + 1] = cause
    local status = f(unpack(arguments))
    if status ~= OK then
        local message = string_of(M.lib.inhouse_error_message(cause[0]))
        M.lib.inhouse_error_free(cause[0])
        return nil, message, status
    end
    return out[0]
end

--- Opens an engine; nil and a message where that fails.
function M.open(index, model, options)
    local params = ffi.new("inhouse_engine_params")
    M.lib.inhouse_engine_params_init(params, ffi.sizeof(params))
    params.index, params.model, params.threads = view(index), view(model), options.threads
    params.prefix_tokens, params.worker = options.prefix_tokens, options.worker and 1 or 0
    return make(M.lib.inhouse_engine_open, params)
end

--- Opens a session on an engine.
function M.session(engine)
    -- The parameters may be NULL; a table cannot hold nil in the middle, so it is a typed NULL.
    return make(M.lib.inhouse_session_open, engine, ffi.cast("void *", nil))
end

--- Makes a cancel token.
function M.cancel()
    return make(M.lib.inhouse_cancel_new)
end

--- Whether the model can be told what stands after the cursor.
function M.can_infill(engine)
    local text = make(M.lib.inhouse_engine_info, engine)
    if not text then
        return false
    end
    local facts = string_of(M.lib.inhouse_text_view(text))
    M.lib.inhouse_text_free(text)
    return facts:find('"can_infill":true', 1, true) ~= nil
end

-- A list that is freed with its last reference in Lua.
local function owned(apis, message)
    return apis and ffi.gc(apis, M.lib.inhouse_apis_free), message
end

--- The `k` APIs to choose from: those that fit `query`, or the comments of `context` where it is nil.
function M.propose(engine, context, query, k)
    return owned(make(M.lib.inhouse_engine_propose, engine, view(context), view(query), k))
end

--- What is asked for `context` where no query is given.
function M.query(context)
    local text = make(M.lib.inhouse_query_of_context, view(context))
    if not text then
        return ""
    end
    local query = string_of(M.lib.inhouse_text_view(text))
    M.lib.inhouse_text_free(text)
    return query
end

--- Of the list `apis` those at `indices` (from 1), after those of `before`, which may be nil.
function M.select(apis, indices, before)
    local places = ffi.new("size_t[?]", math.max(#indices, 1))
    for i, index in ipairs(indices) do
        places[i - 1] = index - 1
    end
    local chosen, message = owned(make(M.lib.inhouse_apis_select, apis, places, #indices))
    if not chosen or not before then
        return chosen, message
    end
    return owned(make(M.lib.inhouse_apis_join, before, chosen))
end

--- The names and the labels of a list.
function M.names(apis)
    local names, labels = {}, {}
    for i = 0, tonumber(M.lib.inhouse_apis_count(apis)) - 1 do
        local name = string_of(M.lib.inhouse_apis_qualified_name(apis, i))
        names[i + 1] = name ~= "" and name or string_of(M.lib.inhouse_apis_name(apis, i))
        labels[i + 1] = string_of(M.lib.inhouse_apis_label(apis, i))
    end
    return names, labels
end

--- The options of M.complete out of one text: max_tokens, timeout_ms, temperature, constrain, examples.
function M.numbers(text)
    local max_tokens, timeout_ms, temperature, constrain, examples = text:match("(%S+) (%S+) (%S+) (%S+) (%S+)")
    return {
        max_tokens = tonumber(max_tokens), timeout_ms = tonumber(timeout_ms), temperature = tonumber(temperature),
        constrain = tonumber(constrain), examples = tonumber(examples),
    }
end

--- Completes between `context` and `suffix` (nil: nothing is said of what follows); blocks, so it is called on another
--- thread. Text, or nil with a message ("" where it was cancelled).
function M.complete(session, cancel, context, suffix, apis, options)
    local params = ffi.new("inhouse_complete_params")
    M.lib.inhouse_complete_params_init(params, ffi.sizeof(params))
    params.cancel = cancel
    params.api_choice = apis and APIS_GIVEN or APIS_NONE
    params.apis, params.suffix = apis, view(suffix)
    params.max_tokens, params.timeout_ms = options.max_tokens, options.timeout_ms
    params.temperature, params.constrain = options.temperature, options.constrain
    params.examples = options.examples
    local done, message, status = make(M.lib.inhouse_session_complete, session, view(context), params)
    if not done then
        return nil, BUSY_OR_CANCELLED[status] and "" or message
    end
    local text = string_of(M.lib.inhouse_completion_text(done, 0))
    M.lib.inhouse_completion_free(done)
    return text
end

return M
