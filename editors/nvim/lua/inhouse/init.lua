-- Inline completions that call a private library. See editors/nvim/README.md.
local library = require("inhouse.library")

local M = {
    options = { library = "libinhouse.so.0", threads = 0, max_tokens = 60, timeout_ms = 20000, temperature = 0 },
    chosen = {}, -- names of the APIs that go in front of the code
    shown = nil, -- what is displayed: { buffer, mark, row, col, text }
}
local namespace = vim.api.nvim_create_namespace("inhouse")
local running = nil -- { cancel = handle } of the newest request
local at_work = false -- a thread uses the session, which serves one at a time
local waiting = nil -- starts the newest request once that thread has ended

local function complain(message)
    vim.notify("inhouse: " .. message, vim.log.levels.ERROR)
end

--- Opens index and model. `options`: index, model, library, threads, max_tokens, timeout_ms, temperature.
function M.setup(options)
    M.options = vim.tbl_extend("force", M.options, options or {})
    library.load(M.options.library)
    local engine, message = library.open(M.options.index, M.options.model, M.options.threads)
    if not engine then
        return complain(message)
    end
    M.engine = engine
    if M.options.model then
        M.session, message = library.session(engine)
        if not M.session then
            return complain(message)
        end
    end
    vim.api.nvim_create_autocmd({ "InsertCharPre", "CursorMovedI", "InsertLeave", "BufLeave" }, {
        group = vim.api.nvim_create_augroup("inhouse", {}),
        callback = function() M.dismiss() end,
    })
    vim.api.nvim_create_autocmd("VimLeavePre", { group = "inhouse", callback = M.close })
    return true
end

--- Ends what runs and gives the engine back.
function M.close()
    M.dismiss()
    if M.engine then
        library.lib.inhouse_session_close(M.session)
        library.lib.inhouse_engine_release(M.engine)
        M.engine, M.session = nil, nil
    end
end

-- The code before the cursor.
local function context()
    local row, col = unpack(vim.api.nvim_win_get_cursor(0))
    local lines = vim.api.nvim_buf_get_lines(0, 0, row, false)
    lines[#lines] = lines[#lines]:sub(1, col)
    return table.concat(lines, "\n"), row - 1, col
end

--- Takes away the completion that is shown, and ends the one that is being made.
function M.dismiss()
    if running then
        library.lib.inhouse_cancel_set(running.cancel)
        running = nil
        waiting = nil
    end
    if M.shown then
        pcall(vim.api.nvim_buf_del_extmark, M.shown.buffer, namespace, M.shown.mark)
        M.shown = nil
    end
end

local function show(buffer, row, col, text)
    local lines = vim.split(text, "\n", { plain = true })
    local below = {}
    for i = 2, #lines do
        below[#below + 1] = { { lines[i], "Comment" } }
    end
    local mark = vim.api.nvim_buf_set_extmark(buffer, namespace, row, col, {
        virt_text = { { lines[1], "Comment" } },
        virt_text_pos = "overlay",
        virt_lines = #below > 0 and below or nil,
    })
    M.shown = { buffer = buffer, mark = mark, row = row, col = col, text = text }
end

-- Runs on a thread of its own, in a Lua state of its own: nothing from outside may be used but the arguments.
local function work(module, path, session, cancel, code, names, max_tokens, timeout_ms, temperature)
    local lib = dofile(module)
    lib.load(path)
    local list = {}
    for name in names:gmatch("[^\n]+") do
        list[#list + 1] = name
    end
    local text, message = lib.complete(lib.from_text(session), lib.from_text(cancel), code, list,
        { max_tokens = max_tokens, timeout_ms = timeout_ms, temperature = temperature })
    return text or false, message or false
end

--- Asks for a completion at the cursor; it is shown when it is there and the cursor has not moved.
function M.complete()
    if not M.session then
        return complain("no model is open: call require('inhouse').setup{ index = ..., model = ... }")
    end
    M.dismiss()
    local code, row, col = context()
    local cancel, message = library.cancel()
    if not cancel then
        return complain(message)
    end
    -- Freed with the request: a request that is dismissed before it began has no thread that could do it.
    cancel = require("ffi").gc(cancel, library.lib.inhouse_cancel_free)
    local request = { cancel = cancel }
    running = request
    local buffer, o = vim.api.nvim_get_current_buf(), M.options
    local thread = vim.loop.new_work(work, vim.schedule_wrap(function(text, cause)
        at_work = false
        if waiting then
            waiting()
        end
        if running ~= request then
            return -- dismissed meanwhile
        end
        running = nil
        if text and vim.trim(text) ~= "" then
            show(buffer, row, col, (text:gsub("%s+$", "")))
        elseif cause and cause ~= "" then
            complain(cause)
        end
    end))
    local module = vim.api.nvim_get_runtime_file("lua/inhouse/library.lua", false)[1]
    local function start()
        waiting, at_work = nil, true
        thread:queue(module, o.library, library.to_text(M.session), library.to_text(cancel), code,
            table.concat(M.chosen, "\n"), o.max_tokens, o.timeout_ms, o.temperature)
    end
    if at_work then
        waiting = start
    else
        start()
    end
end

--- Puts the completion that is shown into the text; false where none is.
function M.accept()
    local it = M.shown
    if not it then
        return false
    end
    M.dismiss()
    local lines = vim.split(it.text, "\n", { plain = true })
    vim.api.nvim_buf_set_text(it.buffer, it.row, it.col, it.row, it.col, lines)
    local last = #lines == 1 and it.col + #lines[1] or #lines[#lines]
    vim.api.nvim_win_set_cursor(0, { it.row + #lines, last })
    return true
end

--- The API chooser: the five best for `query` (default: the cursor's line). Several can be chosen, or none.
function M.choose(query)
    if not M.engine then
        return complain("no index is open: call require('inhouse').setup{ index = ... }")
    end
    query = query and query ~= "" and query or vim.api.nvim_get_current_line()
    local found, message = library.retrieve(M.engine, query, 5)
    if not found then
        return complain(message)
    end
    local lines = { "APIs for: " .. vim.trim(query) }
    for i, api in ipairs(found) do
        lines[#lines + 1] = string.format("%d. %s%s: %s", i, api.name, api.signature, api.description)
    end
    lines[#lines + 1] = "Numbers, such as 1 3; empty for none: "
    vim.ui.input({ prompt = table.concat(lines, "\n") }, function(answer)
        if answer then
            M.chosen = {}
            for number in answer:gmatch("%d+") do
                local api = found[tonumber(number)]
                if api and not vim.tbl_contains(M.chosen, api.name) then
                    table.insert(M.chosen, api.name)
                end
            end
        end
    end)
end

return M
