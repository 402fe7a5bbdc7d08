"""What an administrator can do, once: typed requests and JSON answers without a web framework.

The command line reaches these handlers through the Unix socket; REST and the console will use the same ones.

    shapes.py     records → the JSON that programs rely on (docs/cli.md)      pure
    requests.py   JSON bodies → typed values; unknown fields are refused       pure
    handlers.py   the table of calls, and what each does
"""
