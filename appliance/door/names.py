"""Whose name is it? Two questions that strangers ask with a name in hand.

A ClientHello names a server before TLS starts (`owner`). Today everything that comes in is ours to serve: our own names,
the reverse names of our addresses (which certificate authorities ask for when they validate an address), no name, and
names we do not know, for a client that reached us by an alias. This is the seam for public ingress: names that are to be
passed on unopened will be rows of this table, with an owner of their own.

A request for a page names a host (`answers_host`). We answer for the names of `server_url` and for our addresses only, so
that nobody can point a name of his own at us and have our pages speak under it. Wire routes ignore it: clients put anything
into `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import Enum, auto

from appliance.config.kinds import ip_or_none


class Owner(Enum):
    """Who gets a connection, by the name in its ClientHello."""

    US = auto()


class NameTable:
    """Our names and addresses."""

    def __init__(self, names: Iterable[str] = (), addresses: Iterable[str] = ()) -> None:
        """`names`: host names of ours, or addresses written as names; `addresses`: where the world sees us."""
        self._names = {name.lower().rstrip(".") for name in names}
        self._addresses = {ipaddress.ip_address(address) for address in addresses}
        self._addresses.update(filter(None, map(ip_or_none, self._names)))

        reverse = [address.reverse_pointer for address in self._addresses]
        self._owners: dict[str | None, Owner] = dict.fromkeys([*self._names, *reverse, None], Owner.US)

    def owner(self, server_name: str | None) -> Owner:
        """Who serves this ClientHello: the bytes read so far go with the connection, unopened."""
        return self._owners.get(server_name, Owner.US)

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
