"""The one error of this package."""

from control.errors import ProtocolError


class NoiseError(ProtocolError):
    """The peer broke the Noise protocol, or somebody between us did. The connection cannot go on."""
