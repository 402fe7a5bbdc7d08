from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path

import pytest
import trustme

from appliance.errors import OperatorError
from appliance.tls.clienthello import ClientHello
from appliance.tls.current import CurrentCertificate, prove, server_context
from tests.appliance.tls.connected import authority

HELLO = ClientHello("vpn.example.com", ())


def write(folder: Path, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    cert, key = folder / "tls.crt", folder / "tls.key"
    certificate.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return cert, key


def test_a_good_pair_is_loaded_and_its_pin_is_the_hash_of_the_leaf(tmp_path: Path) -> None:
    leaf = authority().issue_cert("vpn.example.com")
    current = CurrentCertificate(*write(tmp_path, leaf))
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    assert current.pin == "sha256-raw:" + hashlib.sha256(der).hexdigest()
    assert current.expires_at.tzinfo is not None
    prove(current.context_for(HELLO))


def test_a_renewed_certificate_is_used_by_the_next_handshake_only(tmp_path: Path) -> None:
    current = CurrentCertificate(*write(tmp_path, authority().issue_cert("vpn.example.com")))
    before, pin = current.context_for(HELLO), current.pin
    assert not current.reload_if_changed()
    write(tmp_path, authority().issue_cert("vpn.example.com"))
    assert current.reload_if_changed()
    assert current.context_for(HELLO) is not before
    assert current.pin != pin
    prove(before)  # what is running goes on
    assert not current.reload_if_changed()


def test_a_failed_reload_keeps_the_old_certificate_and_says_what_to_do(tmp_path: Path) -> None:
    cert, key = write(tmp_path, authority().issue_cert("vpn.example.com"))
    current = CurrentCertificate(cert, key)
    before = current.context_for(HELLO)
    authority().issue_cert("other.example.com").private_key_pem.write_to_path(key)
    with pytest.raises(OperatorError, match="cannot be used") as caught:
        current.reload_if_changed()
    assert caught.value.hints
    assert current.context_for(HELLO) is before
    prove(before)
    assert not current.reload_if_changed(), "the same broken files are reported once"


@pytest.mark.parametrize("broken", ["no certificate", "no key", "garbage", "empty", "encrypted"])
def test_unusable_files_are_the_operators_error(tmp_path: Path, broken: str) -> None:
    cert, key = write(tmp_path, authority().issue_cert("vpn.example.com"))
    if broken == "no certificate":
        cert.unlink()
    elif broken == "no key":
        key.unlink()
    elif broken == "garbage":
        cert.write_bytes(os.urandom(100))
    elif broken == "empty":
        key.write_bytes(b"")
    else:
        key.write_bytes(ENCRYPTED_KEY)
    with pytest.raises(OperatorError) as caught:
        CurrentCertificate(cert, key)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hints


def test_the_context_offers_http_1_1_over_tls_1_2_and_later_without_tickets() -> None:
    context = server_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    with pytest.raises(ssl.SSLError):
        prove(context)  # no certificate


ENCRYPTED_KEY = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhfakefakefakeICCAAw
-----END ENCRYPTED PRIVATE KEY-----
"""
