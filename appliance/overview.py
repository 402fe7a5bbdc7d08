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
    """`relay` and `storage_trouble` are set once those parts exist; `started_at` is monotonic."""

    def __init__(self, config: Config, certificate: CurrentCertificate | None, started_at: float) -> None:
        self._config, self._certificate, self._started_at = config, certificate, started_at
        self.relay = Counters()
        self.storage_trouble: Callable[[], str | None] = lambda: None

    def status(self) -> dict[str, Any]:
        """The parts of `appliance status` that coordination does not know."""
        expires_at = self._certificate.expires_at if self._certificate else None
        return {
            "version": version(),
            "server_url": str(self._config.url),
            "uptime_s": round(time.monotonic() - self._started_at),
            "relay": {
                "clients": self.relay.connections,
                "bytes_in": self.relay.bytes_received,
                "bytes_out": self.relay.bytes_sent,
            },
            "tls": {
                "mode": self._config.tls.mode,
                "expires_at": expires_at.isoformat().replace("+00:00", "Z") if expires_at else None,
            },
        }

    def page(self) -> PageOverview:
        """What a stranger may see: that it runs, and which version; nothing on nodes or users."""
        storage = self.storage_trouble()
        return {
            "version": version(),
            "uptime_s": round(time.monotonic() - self._started_at),
            "services": [
                {
                    "name": "Coordination",
                    "text": "read-only: the disk takes nothing" if storage else "running",
                    "ok": not storage,
                },
                {"name": "Relay", "text": "running", "ok": True},
            ],
        }
