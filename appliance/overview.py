"""How it goes, in two sizes: `status` for administrators, and what the public page may say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from appliance.config.schema import Config
from appliance.pages.app import Overview as PageOverview
from appliance.tls.current import CurrentCertificate
from appliance.version import version
from derp.counters import Counters


class Overview:
    """`relay`: its counters; `storage_trouble()`: why nothing can be changed, if so. Counts time from its own beginning."""

    def __init__(
        self,
        config: Config,
        certificate: CurrentCertificate | None,
        relay: Counters,
        storage_trouble: Callable[[], str | None],
    ) -> None:
        self._config, self._certificate = config, certificate
        self._relay, self._storage_trouble = relay, storage_trouble
        self._started_at = time.monotonic()

    def status(self) -> dict[str, Any]:
        """The parts of `appliance status` that coordination does not know."""
        expires_at = self._certificate.expires_at if self._certificate else None
        return {
            "version": version(),
            "server_url": str(self._config.url),
            "uptime_s": self._uptime_s,
            "relay": {
                "clients": self._relay.connections,
                "bytes_in": self._relay.bytes_received,
                "bytes_out": self._relay.bytes_sent,
            },
            "tls": {
                "mode": self._config.tls.mode,
                "expires_at": expires_at.isoformat().replace("+00:00", "Z") if expires_at else None,
            },
        }

    def page(self) -> PageOverview:
        """What a stranger may see: that it runs, and which version; nothing on nodes or users."""
        trouble = bool(self._storage_trouble())
        coordination = "read-only: the disk takes nothing" if trouble else "running"
        return {
            "version": version(),
            "uptime_s": self._uptime_s,
            "services": [
                {"name": "Coordination", "text": coordination, "ok": not trouble},
                {"name": "Relay", "text": "running", "ok": True},
            ],
        }

    @property
    def _uptime_s(self) -> int:
        return round(time.monotonic() - self._started_at)
