"""What can go wrong with a datagram.

StunError
└── ParseError    not a Binding request of a Tailscale client; it is counted and gets no answer
"""


class StunError(Exception):
    """The root of everything this package raises on purpose."""


class ParseError(StunError):
    """The datagram is not a request that we answer; the text says which rule failed."""
