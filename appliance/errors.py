"""What can go wrong in the program itself, by who has to hear about it.

    OperatorError            the environment or the configuration is wrong: a person must act, the hints say how
      ConfigError            one or more settings are wrong             (config/draft.py)
      ServerNotRunning       nobody answers on the socket               (client.py)
    PeerError                whoever connected broke the rules: the connection ends, nobody else notices
      ClientHelloError       no TLS ClientHello that we would answer
      ProxyHeaderError       no PROXY protocol header where one is required
      HeadError              no HTTP request head that we would serve; carries the status for the answer

Anything else that escapes from a connection is a bug of ours: logged once with its traceback, that connection ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class OperatorError(Exception):
    """Something a person must put right; each hint is an action, not a repetition of the message."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.message = message
        self.hints = tuple(filter(None, hints))

    def lines(self) -> Iterator[tuple[str, str]]:
        """What the command line prints: ("error", text), then ("hint", text) for each hint."""
        yield "error", self.message
        for hint in self.hints:
            yield "hint", hint


class PeerError(Exception):
    """The other side broke the rules, or tried to."""


class ClientHelloError(PeerError):
    """The first bytes on a TLS port are no ClientHello within our limits."""


class ProxyHeaderError(PeerError):
    """A listed proxy did not begin with a PROXY protocol header."""


class HeadError(PeerError):
    """No request head that we serve; `status` and the text are for the one who sent it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
