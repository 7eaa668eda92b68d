-- Commands, so that the plug-in can be tried before any key is mapped.
vim.api.nvim_create_user_command("InhouseComplete", function() require("inhouse").complete() end, {})
vim.api.nvim_create_user_command("InhouseAccept", function() require("inhouse").accept() end, {})
vim.api.nvim_create_user_command("InhouseDismiss", function() require("inhouse").dismiss() end, {})
vim.api.nvim_create_user_command("InhouseApis", function(command) require("inhouse").choose(command.args) end, { nargs = "*" })
