from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.errors import OperatorError
from appliance.tls.current import CurrentCertificate
from appliance.tls.selfsigned import LIFETIME, RENEW_BEFORE, ensure_self_signed

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAMES = ["192.0.2.1", "vpn.example.com", "2001:db8::1"]


def test_it_is_usable_private_and_covers_its_names(tmp_path: Path) -> None:
    path = tmp_path / "self-signed.pem"
    assert ensure_self_signed(path, NAMES, NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert held.get_values_for_type(x509.DNSName) == ["vpn.example.com"]
    assert [str(address) for address in held.get_values_for_type(x509.IPAddress)] == [
        "192.0.2.1",
        "2001:db8::1",
    ]
    assert certificate.not_valid_before_utc < NOW
    current = CurrentCertificate(path)
    assert current.expires_at == certificate.not_valid_after_utc
    assert current.pin.startswith("sha256-raw:")


def test_it_stays_until_it_is_about_to_expire(tmp_path: Path) -> None:
    path = tmp_path / "self-signed.pem"
    ensure_self_signed(path, NAMES, NOW)
    before = path.read_bytes()
    assert not ensure_self_signed(path, NAMES, NOW + timedelta(days=300))
    assert not ensure_self_signed(path, NAMES[:1], NOW)
    assert path.read_bytes() == before
    assert ensure_self_signed(path, NAMES, NOW + LIFETIME - RENEW_BEFORE)
    assert path.read_bytes() != before


@pytest.mark.parametrize("damage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "self-signed.pem"
    path.write_bytes(damage)
    (tmp_path / "self-signed.pem.new").write_bytes(b"from a crash")
    assert ensure_self_signed(path, NAMES, NOW)
    assert CurrentCertificate(path).pin


def test_another_name_needs_another_certificate(tmp_path: Path) -> None:
    path = tmp_path / "self-signed.pem"
    ensure_self_signed(path, NAMES, NOW)
    assert ensure_self_signed(path, [*NAMES, "other.example.com"], NOW)


def test_a_folder_that_cannot_be_written_is_the_operators_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot write") as caught:
        ensure_self_signed(tmp_path / "missing" / "self-signed.pem", NAMES, NOW)
    assert caught.value.hints


def test_a_long_first_name_fits_the_common_name(tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 3) + ".example.com"
    assert ensure_self_signed(tmp_path / "x.pem", [name, str(ipaddress.ip_address("::1"))], NOW)
