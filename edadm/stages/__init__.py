"""The stages of the workflow, each a file: settings that it depends on, what it does, and what that costs.

`run` opens what the stage is given, computes, and publishes its artifact; a stage that has a second
subcommand has a function for it beside. What `run` imports, directly or not, is the stage's code, and a
change of that makes it run again (`edadm.config.fingerprint`); so each imports only what shapes its result,
and inside `run`, since the configuration is read and the workflow planned without torch.
"""
