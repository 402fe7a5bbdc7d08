"""A certificate of our own making, for servers that no certificate authority vouches for.

Clients accept it for the relay because the DERP map carries its hash: `CertName: "sha256-raw:<hex>"`, the SHA-256 of the
certificate's DER form. They check that hash and the dates, and that exactly one certificate was presented. Browsers will
complain, as they should.

The certificate stays as long as it can, since every change of the hash makes every client reconnect to the relay: 397
days, the most that Apple's systems accept of anybody, and a new key and certificate when under 30 days are left or the
names changed. Key and certificate live in one file (0600), so that no crash can leave a pair that does not match.

Source: tailscale: cmd/derper/cert.go (manual mode), net/tlsdial/tlsdial.go (sha256-raw).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.state_dir import write_secret

LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(days=1)  # a client whose clock is behind ours shall not refuse a fresh certificate


def pin(certificate_der: bytes) -> str:
    """The `CertName` that makes a client accept this certificate and no other."""
    return "sha256-raw:" + hashlib.sha256(certificate_der).hexdigest()


def ensure_self_signed(path: Path, names: Sequence[str], now: datetime) -> bool:
    """Make `path` hold a usable key and certificate for `names` (host names and IP addresses); True if it is new.

    `now` is an aware datetime. Raises `OperatorError` when the file cannot be written.
    """
    if _usable(path, names, now):
        return False
    write_secret(path, make_self_signed(names, now))
    return True


def make_self_signed(names: Sequence[str], now: datetime) -> bytes:
    """A new P-256 key and its certificate for `names`, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now - CLOCK_SKEW + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usable(path: Path, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        serialization.load_pem_private_key(path.read_bytes(), None)
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    fresh = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    return fresh and set(held) >= {_general_name(name) for name in names}
