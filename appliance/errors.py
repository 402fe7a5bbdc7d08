"""What the program tells the person who runs it.

    OperatorError              the environment or the configuration is wrong; exit status 1
    ├── ConfigError            one or more settings are wrong; exit status 2   (appliance/config/load.py)
    └── ServerNotRunning       nobody listens on the socket; exit status 3     (appliance/client.py)

The command line prints `error:` and one `hint:` line for each hint; the service logs a warning with the hint. A hint is an
action: what to change, what to type. Anything that is not an OperatorError is a bug and keeps its traceback.
"""


class OperatorError(Exception):
    """Something a person must put right: `message` says what is wrong, each of `hints` what to do about it."""

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints
