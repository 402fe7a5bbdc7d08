"""The live TLS context: replaced as a whole, never changed.

`load_cert_chain` on a context that is in use leaves it broken when key and certificate do not match: every handshake fails
from then on. So files are loaded into a fresh context, a handshake in memory proves it, and only then does a reference
change. The next handshake uses it; running connections keep what they began with.

`context_for(hello)` is asked once per handshake. It has one answer today; challenge certificates (ALPN `acme-tls/1`, by
server name) will be its second.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.errors import OperatorError
from appliance.tls.clienthello import ClientHello
from appliance.tls.selfsigned import pin

Stamp = tuple[tuple[int, int, int], ...]
"""Of each file: when it was changed, its size, its inode."""


@dataclass(frozen=True)
class Loaded:
    """One proven certificate."""

    context: ssl.SSLContext
    expires_at: datetime
    pin: str
    """`sha256-raw:…` of the leaf."""


class CurrentCertificate:
    """The certificate that the next handshake uses, from files that somebody else may renew."""

    def __init__(self, cert: Path, key: Path | None = None) -> None:
        """`cert`: the chain in PEM, leaf first; `key`: None when `cert` holds the key as well. Raises `OperatorError`."""
        self._cert = cert
        self._key = key
        self._tried: Stamp = ()  # what the files looked like when they were read
        self._loaded = self._load()

    def context_for(self, hello: ClientHello) -> ssl.SSLContext:
        """The context for this client's handshake."""
        return self._loaded.context

    @property
    def expires_at(self) -> datetime:
        return self._loaded.expires_at

    @property
    def pin(self) -> str:
        """`sha256-raw:…`, the DERP map's `CertName` for a certificate that nobody else vouches for."""
        return self._loaded.pin

    def reload(self) -> None:
        """Read the files again and switch over; raises `OperatorError` and keeps the old certificate on failure."""
        self._loaded = self._load()

    def reload_if_changed(self) -> bool:
        """The same, only if the files differ from those last tried; True if the certificate was replaced."""
        if self._stamp() == self._tried:
            return False
        self.reload()
        return True

    def _stamp(self) -> Stamp:
        stamp = []
        for path in self._paths():
            try:
                status = path.stat()
            except OSError:
                stamp.append((0, 0, 0))
            else:
                stamp.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamp)

    def _paths(self) -> list[Path]:
        return [self._cert] if self._key is None else [self._cert, self._key]

    def _load(self) -> Loaded:
        self._tried = self._stamp()
        for path in self._paths():
            _check_readable(path)
        try:
            leaf = x509.load_pem_x509_certificate(self._cert.read_bytes())
            context = server_context()
            context.load_cert_chain(self._cert, self._key, password=_no_password)
            prove(context)
        except (OSError, ValueError, ssl.SSLError) as exc:
            raise OperatorError(
                f"the certificate in {self._cert} cannot be used: {exc}",
                "give the chain in PEM, the server's own certificate first, and the key that belongs to it, not encrypted",
            ) from exc
        return Loaded(context, leaf.not_valid_after_utc, pin(leaf.public_bytes(Encoding.DER)))


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        raise OperatorError(
            f"cannot read {path}: {exc.strerror}",
            "check the path, and that the user this server runs as may read it",
        ) from exc


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")


def server_context() -> ssl.SSLContext:
    """A context with everything but the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # clients reconnect rarely, and tickets are two more records per handshake
    # Phones without AES instructions know what suits them.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def prove(context: ssl.SSLContext) -> None:
    """Shake hands with ourselves in memory; raises `ssl.SSLError` if that fails."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):  # a handshake takes two rounds
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return
    raise ssl.SSLError("the handshake does not come to an end")
