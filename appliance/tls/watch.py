"""The certificate of the https listener: where it comes from, and when it is read again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import trio

from appliance.config.kinds import ip_or_none
from appliance.config.schema import Config
from appliance.errors import OperatorError
from appliance.tls.current import CurrentCertificate
from appliance.tls.selfsigned import ensure_self_signed

log = logging.getLogger("appliance.tls")

CERTIFICATE_CHECK_S = 60.0
SELF_SIGNED = "tls-self-signed.pem"


def load_certificate(config: Config, state: Path) -> CurrentCertificate | None:
    """The certificate of the https listener; None when TLS ends in front of us."""
    if config.tls.mode == "files":
        return CurrentCertificate(Path(config.tls.cert), Path(config.tls.key))
    if config.tls.mode == "self-signed":
        ensure_self_signed(state / SELF_SIGNED, [config.url.host], datetime.now(UTC))
        return CurrentCertificate(state / SELF_SIGNED)
    return None


async def watch_certificate(
    config: Config, state: Path, certificate: CurrentCertificate, changed: Callable[[], None]
) -> None:
    """Use renewed files within a minute without anybody telling us, and renew our own; then call `changed`."""
    while True:
        await trio.sleep(CERTIFICATE_CHECK_S)
        try:
            if config.tls.mode == "self-signed":
                ensure_self_signed(state / SELF_SIGNED, [config.url.host], datetime.now(UTC))
        except OperatorError as exc:
            log.warning("our own certificate was not renewed", extra=_fields(exc))
        if reload_certificate(certificate, forced=False):
            changed()


def reload_certificate(certificate: CurrentCertificate, *, forced: bool) -> bool:
    """Read the files again; whether there is a new certificate now."""
    try:
        if forced:
            certificate.reload()
        elif not certificate.reload_if_changed():
            return False
    except OperatorError as exc:
        log.warning("the old certificate stays in use", extra=_fields(exc))
        return False
    log.info("certificate loaded", extra={"expires": certificate.expires_at.isoformat()})
    return True


def _fields(exc: OperatorError) -> dict[str, str]:
    return {"reason": exc.message, "hint": " ".join(exc.hints)}


def trusted(config: Config) -> bool:
    """Whether browsers may be told to insist on https: a certificate by somebody else, for a name."""
    return config.tls.mode == "files" and ip_or_none(config.url.host) is None
