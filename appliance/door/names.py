"""The names that our pages answer for: those of `server_url` and our addresses, so that nobody can point a name of his own at
us and have our pages speak under it.

Everything else is served under any name: clients put anything into `Host`, and the name in a ClientHello may be an alias.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from appliance.config.kinds import ip_or_none


class NameTable:
    """Our names and addresses."""

    def __init__(self, names: Iterable[str] = (), addresses: Iterable[str] = ()) -> None:
        """`names`: host names of ours, or addresses written as names; `addresses`: where the world sees us."""
        self._names = {name.lower().rstrip(".") for name in names}
        self._addresses = {ipaddress.ip_address(address) for address in addresses}
        self._addresses.update(filter(None, map(ip_or_none, self._names)))

    def answers_host(self, host: str, local_address: str) -> bool:
        """May a page be served under this Host header, on a connection that came to `local_address`?"""
        name = _without_port(host.strip().lower()).rstrip(".")
        if name in self._names:
            return True
        local = ip_or_none(local_address)
        if name == "localhost":
            return local is not None and local.is_loopback
        address = ip_or_none(name)
        return address is not None and (address == local or address in self._addresses)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host
