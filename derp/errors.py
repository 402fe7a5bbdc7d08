"""What can go wrong between the relay and a client.

DerpError
└── ProtocolError     the client broke the rules of the wire; its connection ends
    └── LoginError    … before it was logged in: bad box, bad JSON, a replay

Both are the peer's fault: a counter and one DEBUG line, never a traceback. The protocol has no frame that
says why, so the client only sees the connection close.
"""


class DerpError(Exception):
    """The root of everything this package raises on purpose."""


class ProtocolError(DerpError):
    """The client sent something that no client may send."""


class LoginError(ProtocolError):
    """The login did not succeed; the text says which rule failed."""
