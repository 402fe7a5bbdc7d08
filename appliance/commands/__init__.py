"""The commands, one module per noun. Each is thin: parse, ask the server one thing, print.

terminal.py  what a person reads: tables, times, the talk on stderr, questions
options.py   the options accepted anywhere on the line, and what a command is handed
serve.py status.py users.py keys.py nodes.py config.py
"""
