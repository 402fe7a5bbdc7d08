"""What can go wrong in coordination, by audience.

ControlError
├── ProtocolError        the client broke the rules: its request or connection ends, nothing changed
│   ├── NoiseError       control.noise: a handshake or a record
│   └── DecodeError      control.tailcfg.codec: not the JSON that was expected
├── StoreUnusable        control.state.store: the database cannot be opened at all; the operator must act
├── WriteRefused         control.state.store: for `State` alone, which makes StorageFailed of it
├── Refused              the rules say no: text for the person who asked, nothing changed
│   ├── NotFound         what was named does not exist (or is not theirs: the same answer)
│   └── WrongKey         an auth key that is none of ours
└── TryLater             the same request may work in a moment
    ├── Busy             too much is waiting for the disk
    ├── Unavailable      starting or shutting down
    └── StorageFailed    the disk refused; reads, relay and open sessions go on

Beside the tree: control.keys.KeyFormatError, a ValueError, which decoding turns into a DecodeError.
"""


class ControlError(Exception):
    """Root of this package's expected errors."""


class ProtocolError(ControlError):
    """The client sent what the protocol does not allow."""


class Refused(ControlError):
    """The rules say no. `public_reason` is safe to show to whoever asked; `hint` says what to do."""

    def __init__(self, public_reason: str, hint: str = "") -> None:
        super().__init__(public_reason)
        self.public_reason = public_reason
        self.hint = hint


class NotFound(Refused):
    """Nothing by that name for this asker."""


class WrongKey(Refused):
    """An auth key that we never made, or no longer know: perhaps somebody guesses."""


class TryLater(ControlError):
    """Not now; `hint` is for the operator."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Busy(TryLater):
    """The queue to the disk is full (state.md A.3)."""


class Unavailable(TryLater):
    """Not running: starting up or shutting down."""


class StorageFailed(TryLater):
    """The store refused a batch; nothing of it happened."""
