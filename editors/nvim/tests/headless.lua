-- Run by `nvim --headless --clean -c "luafile tests/headless.lua"`.
-- $INHOUSE_LIBRARY, $INHOUSE_INDEX, $INHOUSE_MODEL say with what. Prints "ok", else what is wrong.
local function main()
    vim.opt.runtimepath:append(vim.env.INHOUSE_PLUGIN)
    local inhouse = require("inhouse")
    local complaints = {}
    vim.notify = function(message) complaints[#complaints + 1] = message end
    inhouse.complete()
    assert(#complaints == 1, "completing without a model must say so")
    inhouse.setup({ library = vim.env.INHOUSE_LIBRARY, index = "/no/such/index" })
    assert(#complaints == 2 and complaints[2]:find("no such index"), complaints[2])
    assert(inhouse.setup({ library = vim.env.INHOUSE_LIBRARY, index = vim.env.INHOUSE_INDEX, model = vim.env.INHOUSE_MODEL,
        max_tokens = 12 }), complaints[3])

    inhouse.choose()
    assert(#complaints == 3 and complaints[3]:find("nothing to look for"), complaints[3])
    table.remove(complaints)

    -- The chooser: two of what is listed, then none, then an answer that is broken off.
    vim.api.nvim_buf_set_lines(0, 0, -1, false, { "# open the ledger of May", "ledger =" })
    vim.api.nvim_win_set_cursor(0, { 1, 0 })
    local prompt, answer
    vim.ui.input = function(options, done) prompt = options.prompt; done(answer) end
    answer = "2 1 9 1"
    inhouse.choose()
    assert(prompt:find("1. ledgers.open_ledger(path): Opens a ledger.", 1, true), prompt)
    assert(#inhouse.chosen == 2 and inhouse.chosen[2] == "ledgers.open_ledger", vim.inspect(inhouse.chosen))
    answer = nil
    inhouse.choose()
    assert(#inhouse.chosen == 2)
    -- Another query in one's own words, and one more API from its answer.
    local answers = { "sum the entries of a month", "+1" }
    vim.ui.input = function(options, done) prompt = options.prompt; done(table.remove(answers, 1)) end
    inhouse.choose()
    assert(prompt:find("APIs for: sum the entries of a month\n1. ledgers.tally", 1, true), prompt)
    assert(#inhouse.chosen == 3 and inhouse.chosen[3] == "ledgers.tally", vim.inspect(inhouse.chosen))
    vim.ui.input = function(options, done) prompt = options.prompt; done(answer) end
    answer = ""
    inhouse.choose()
    assert(#inhouse.chosen == 0)
    answer = "1"
    inhouse.choose("open the ledger")

    -- Inline completion: shown, dismissed, shown again, accepted.
    local wait = function() assert(vim.wait(120000, function() return inhouse.shown ~= nil end), vim.inspect(complaints)) end
    vim.api.nvim_win_set_cursor(0, { 2, 8 })
    vim.opt.virtualedit = "onemore"
    vim.api.nvim_win_set_cursor(0, { 2, 8 })
    inhouse.complete()
    wait()
    local text = inhouse.shown.text
    collectgarbage() -- the chosen list must outlive the request that uses it
    local namespace = vim.api.nvim_get_namespaces().inhouse
    assert(#vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, {}) == 1)
    inhouse.dismiss()
    assert(#vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, {}) == 0 and not inhouse.accept())
    inhouse.complete()
    inhouse.complete() -- the first is cancelled
    wait()
    assert(inhouse.shown.text == text, inhouse.shown.text)
    assert(inhouse.accept())
    local lines = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
    assert(lines == "# open the ledger of May\nledger =" .. text, lines)
    assert(#complaints == 2, vim.inspect(complaints))

    -- A model that fills in reads what stands after the cursor; it takes the first one's place.
    assert(not inhouse.fills_in)
    if (vim.env.INHOUSE_INFILL_MODEL or "") ~= "" then
        assert(inhouse.setup({ library = vim.env.INHOUSE_LIBRARY, index = vim.env.INHOUSE_INDEX,
            model = vim.env.INHOUSE_INFILL_MODEL, max_tokens = 4 }), complaints[3])
        assert(inhouse.fills_in)
        vim.api.nvim_win_set_cursor(0, { 1, 2 })
        inhouse.complete()
        vim.wait(120000, function() return inhouse.is_idle() end)
        assert(inhouse.is_idle() and #complaints == 2, vim.inspect(complaints))
    end
    inhouse.close()
end

local fine, cause = xpcall(main, debug.traceback)
io.stdout:write(fine and "ok\n" or cause .. "\n")
vim.cmd(fine and "qall!" or "cquit!")
