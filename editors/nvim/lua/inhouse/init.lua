-- Inline completions that call a private library. See editors/nvim/README.md.
local library = require("inhouse.library")

local M = {
    options = {
        library = "libinhouse.so.0", threads = 0, max_tokens = 60, timeout_ms = 20000, temperature = 0, constrain = false,
        examples = 0,
        prefix_tokens = 1024, -- what the model made of the code is kept, so that typing on does not read all of it again
        worker = false, -- the model in a process of its own
    },
    chosen = {}, -- names of the APIs that go in front of the code
    shown = nil, -- what is displayed: { buffer, mark, row, col, text }
}
local namespace = vim.api.nvim_create_namespace("inhouse")
local running = nil -- { cancel = handle } of the newest request
local at_work = false -- a thread uses the session, which serves one at a time
local list = nil -- the chosen APIs, as the library holds them
local waiting = nil -- starts the newest request once that thread has ended

local function complain(message)
    vim.notify("inhouse: " .. message, vim.log.levels.ERROR)
end

--- Opens index and model. `options`: index, model, library, threads, max_tokens, timeout_ms, temperature, constrain, examples,
--- prefix_tokens, worker.
function M.setup(options)
    M.options = vim.tbl_extend("force", M.options, options or {})
    M.close()
    library.load(M.options.library)
    local engine, message = library.open(M.options.index, M.options.model, M.options)
    if not engine then
        return complain(message)
    end
    M.engine = engine
    if M.options.model then
        M.session, message = library.session(engine)
        if not M.session then
            return complain(message)
        end
        M.fills_in = library.can_infill(engine)
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
        M.engine, M.session, M.fills_in = nil, nil, false
    end
end

--- Whether no completion is being made.
function M.is_idle()
    return not at_work and not waiting
end

-- The code before the cursor and after it, and where that is.
local function around()
    local row, col = unpack(vim.api.nvim_win_get_cursor(0))
    local before = vim.api.nvim_buf_get_lines(0, 0, row, false)
    local after = vim.api.nvim_buf_get_lines(0, row - 1, -1, false)
    before[math.max(#before, 1)] = (before[#before] or ""):sub(1, col)
    after[1] = (after[1] or ""):sub(col + 1)
    return table.concat(before, "\n"), table.concat(after, "\n"), row - 1, col
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
-- There may be nine of them, so that the numbers come as one text.
local function work(module, path, session, cancel, code, suffix, apis, numbers)
    local lib = dofile(module)
    lib.load(path)
    local text, message = lib.complete(lib.from_text(session), lib.from_text(cancel), code,
        suffix ~= "" and suffix or nil, apis ~= "" and lib.from_text(apis) or nil,
        lib.numbers(numbers))
    return text or false, message or false
end

--- Asks for a completion at the cursor; it is shown when it is there and the cursor has not moved.
function M.complete()
    if not M.session then
        return complain("no model is open: call require('inhouse').setup{ index = ..., model = ... }")
    end
    M.dismiss()
    local code, suffix, row, col = around()
    -- A model that cannot fill in continues the code before the cursor; so does one that has nothing but blanks after it.
    if not M.fills_in or vim.trim(suffix) == "" then
        suffix = ""
    end
    local cancel, message = library.cancel()
    if not cancel then
        return complain(message)
    end
    -- Freed with the request: a request that is dismissed before it began has no thread that could do it.
    cancel = require("ffi").gc(cancel, library.lib.inhouse_cancel_free)
    -- The list, too, is kept until the thread has ended, whatever is chosen meanwhile.
    local request = { cancel = cancel, apis = list }
    running = request
    local buffer, o = vim.api.nvim_get_current_buf(), M.options
    local thread = vim.loop.new_work(work, vim.schedule_wrap(function(text, cause)
        at_work = false
        request.apis = nil
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
        thread:queue(module, o.library, library.to_text(M.session), library.to_text(cancel), code, suffix,
            request.apis and library.to_text(request.apis) or "",
            table.concat({ o.max_tokens, o.timeout_ms, o.temperature, o.constrain and 1 or 0, o.examples }, " "))
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

--- The API chooser: the five APIs that fit `query` best or, without one, the comments up to the cursor. Numbers choose
--- among them, other words are another query, nothing is none of the above. What was chosen before stays with "+".
function M.choose(query)
    if not M.engine then
        return complain("no index is open: call require('inhouse').setup{ index = ... }")
    end
    if not query or query == "" then
        -- With the whole of the cursor's line: in normal mode the cursor stands on what it is about.
        query = library.query(table.concat(vim.api.nvim_buf_get_lines(0, 0, vim.api.nvim_win_get_cursor(0)[1], false), "\n"))
    end
    if query == "" then
        return complain("there is nothing to look for: no comment up to the cursor, and no query")
    end
    local offered, message = library.propose(M.engine, nil, query, 5)
    if not offered then
        return complain(message)
    end
    local _, labels = library.names(offered)
    local lines = { "APIs for: " .. query }
    for i, label in ipairs(labels) do
        lines[#lines + 1] = string.format("%d. %s", i, label)
    end
    lines[#lines + 1] = "Numbers, such as 1 3 (+2: as well); empty for none of the above; or other words to look for: "
    vim.ui.input({ prompt = table.concat(lines, "\n") }, function(answer)
        if not answer then
            return
        end
        if answer:find("%a") then
            return M.choose(vim.trim(answer))
        end
        local indices = {}
        for number in answer:gmatch("%d+") do
            if labels[tonumber(number)] then
                indices[#indices + 1] = tonumber(number)
            end
        end
        local before = answer:find("+", 1, true) and list or nil
        local chosen, cause = library.select(offered, indices, before)
        if not chosen then
            return complain(cause)
        end
        M.chosen = library.names(chosen)
        list = #M.chosen > 0 and chosen or nil
    end)
end

return M
