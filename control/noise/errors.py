"""The one error of this package."""

from control.errors import ProtocolError

__all__ = ["NoiseError"]


class NoiseError(ProtocolError):
    """The peer broke the Noise protocol, or somebody between us did. The connection cannot go on."""
