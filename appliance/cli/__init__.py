"""The command line, one module per noun. Each command is thin: parse, ask the server one thing, print.

root.py      the program's entry: its commands, errors and exit statuses
options.py   the options accepted anywhere on the line, and what a command is handed
terminal.py  what a person reads: tables, times, the talk on stderr, questions
serve.py status.py users.py keys.py nodes.py config.py
"""
