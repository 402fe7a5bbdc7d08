"""Noise's transport phase: a byte stream, cut into records, each sealed under its number.

    | type 04 | length (16) | ciphertext: plaintext + tag (16) |        at most 4096 bytes in all

The nonce is four zero bytes and the record's number, counted from 0 in each direction, as 64 bits **big-endian**. The
Noise paper says little-endian for this cipher; Tailscale decided otherwise. (Record 0 is the same in both worlds, so a
stock library fails at the second.) The last number is never used.

Records without content are legal and mean nothing. Any other violation is fatal for the connection: the two ends have
lost each other's count.

A cipher object weighs 2 KiB and takes under a microsecond to make, so an idle connection keeps only its keys.

Source: tailscale: control/controlbase/{messages,conn}.go.
"""

import struct
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from control.noise.errors import NoiseError

RECORD = 4
HEADER = struct.Struct(">BH")
TAG_BYTES = 16
MAX_RECORD_BYTES = 4096
MAX_PLAINTEXT_BYTES = MAX_RECORD_BYTES - HEADER.size - TAG_BYTES
LAST_NUMBER = 2**64 - 1


def _nonce(number: int) -> bytes:
    if number >= LAST_NUMBER:
        raise NoiseError("all record numbers are used up")
    return number.to_bytes(12, "big")


class Sealer:
    """One direction, at its sender."""

    __slots__ = ("_key", "_number")

    def __init__(self, key: bytes, number: int = 0) -> None:
        self._key = key
        self._number = number

    def seal(self, plaintext: bytes | memoryview) -> bytes:
        """As many records as *plaintext* needs, joined; one empty record for none.

        What was sealed must be sent, whole and in this order, or the stream is lost.
        """
        cipher = ChaCha20Poly1305(self._key)
        parts: list[bytes] = []
        for start in range(0, max(len(plaintext), 1), MAX_PLAINTEXT_BYTES):
            piece = plaintext[start : start + MAX_PLAINTEXT_BYTES]
            ciphertext = cipher.encrypt(_nonce(self._number), piece, None)
            self._number += 1
            parts += (HEADER.pack(RECORD, len(ciphertext)), ciphertext)
        return b"".join(parts)


class Opener:
    """One direction, at its receiver. After a NoiseError it is of no more use."""

    __slots__ = ("_key", "_number", "_partial", "empty_records")

    def __init__(self, key: bytes, number: int = 0) -> None:
        self._key = key
        self._number = number
        self._partial = b""
        self.empty_records = 0  # seen so far; the caller decides how many are too many

    @property
    def inside_record(self) -> bool:
        """Whether an end of the stream would be a truncation now."""
        return bool(self._partial)

    def open(self, data: bytes) -> bytes:
        """The plaintext of every record that *data* completes. Raises NoiseError."""
        cipher = ChaCha20Poly1305(self._key)
        parts: list[bytes] = []
        for ciphertext in self._records(data):
            try:
                plaintext = cipher.decrypt(_nonce(self._number), ciphertext, None)
            except InvalidTag as exc:
                raise NoiseError("a record does not open") from exc
            self._number += 1
            if plaintext:
                parts.append(plaintext)
            else:
                self.empty_records += 1
        return b"".join(parts)

    def _records(self, data: bytes) -> Iterator[bytes]:
        """The ciphertexts of the complete records in what has arrived; the rest is kept."""
        data = self._partial + data
        start = 0
        while len(data) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(data, start)
            if kind != RECORD:
                raise NoiseError(f"a frame of type {kind} where a record belongs")
            if not TAG_BYTES <= length <= MAX_RECORD_BYTES - HEADER.size:
                raise NoiseError(f"a record of {length} bytes")
            body = start + HEADER.size
            if len(data) < body + length:
                break
            yield data[body : body + length]
            start = body + length
        self._partial = data[start:]
