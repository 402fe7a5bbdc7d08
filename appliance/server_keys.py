"""The server's own keys in the state folder, each a file of mode 0600. All of them belong into every backup.

noise.key      privkey:<64 hex>   running clients keep the public half they saw first: permanent
derp.key       privkey:<64 hex>   the relay's identity; may be replaced at any time
secrets.key    <64 hex>           the pepper of stored auth keys: without it none of them works any more
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.errors import OperatorError
from appliance.state_dir import load_or_create_secret

_PRIVATE = re.compile(rb"(?:privkey:)?([0-9a-f]{64})\n?\Z")


@dataclass(frozen=True, slots=True, repr=False)
class ServerKeys:
    noise: X25519PrivateKey
    derp: bytes  # 32 bytes
    pepper: bytes  # 32 bytes


def load_keys(state: Path) -> ServerKeys:
    """Read the keys, making those that do not exist. Raises OperatorError for a damaged file."""
    return ServerKeys(
        noise=X25519PrivateKey.from_private_bytes(_load(state / "noise.key", "privkey:")),
        derp=_load(state / "derp.key", "privkey:"),
        pepper=_load(state / "secrets.key", ""),
    )


def _load(path: Path, prefix: str) -> bytes:
    text = load_or_create_secret(path, lambda: f"{prefix}{secrets.token_hex(32)}\n".encode())
    match = _PRIVATE.match(text)
    if match is None:
        raise OperatorError(f"{path} is damaged: expected 64 hex digits", "put the file back from a backup")
    return bytes.fromhex(match[1].decode())
