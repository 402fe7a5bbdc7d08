"""Listening sockets: our own, or those systemd opened for us.

systemd (sd_listen_fds(3)) passes sockets as descriptors from 3 on, `LISTEN_FDS` of them, meant for the process
`LISTEN_PID`, named in `LISTEN_FDNAMES` (separated by colons). Names tell us what a socket is for: `https`, `http`, `stun`,
with or without the unit's `.socket`. The variables are removed, so that no child believes they are for it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import MutableMapping

from appliance.config.kinds import Address
from appliance.door.limits import BACKLOG
from appliance.errors import OperatorError

FIRST_INHERITED = 3  # SD_LISTEN_FDS_START
PURPOSES = ("https", "http", "stun")


def inherited_sockets(environ: MutableMapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """Sockets that systemd passed to us, by purpose. Raises `OperatorError` for one without a known name."""
    meant_for, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(pid) or not count.isdigit():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        name = names[index].removesuffix(".socket") if index < len(names) else ""
        if name not in PURPOSES:
            raise OperatorError(
                f"systemd passed a socket named {name!r}, and nothing here is called that",
                f"set FileDescriptorName= in the socket unit to one of {', '.join(PURPOSES)}",
            )
        sock = socket.socket(fileno=FIRST_INHERITED + index)
        sock.set_inheritable(False)
        sock.setblocking(False)
        found.setdefault(name, []).append(sock)
    return found


def open_tcp(address: Address, setting: str) -> list[socket.socket]:
    """Listen on TCP; `setting` names the configuration key in errors. Raises `OperatorError`."""
    return [_open(socket.SOCK_STREAM, address, setting)]


def open_udp(address: Address, setting: str) -> list[socket.socket]:
    """Bind UDP: one socket per address family, so that answers leave from where questions came in."""
    if address.host:
        return [_open(socket.SOCK_DGRAM, address, setting)]
    everywhere = address._replace(host="0.0.0.0")  # noqa: S104 – the operator asked for all addresses
    sockets = [_open(socket.SOCK_DGRAM, everywhere, setting)]
    if _has_ipv6():
        sockets.append(_open(socket.SOCK_DGRAM, Address("::", sockets[0].getsockname()[1]), setting))
    return sockets


def _open(kind: socket.SocketKind, address: Address, setting: str) -> socket.socket:
    everywhere = not address.host
    family = socket.AF_INET6 if ":" in address.host or (everywhere and _has_ipv6()) else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not everywhere))
        sock.bind(address)
        if kind is socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise _explain(exc, address, setting) from exc
    return sock


def _explain(exc: OSError, address: Address, setting: str) -> OperatorError:
    another = f"choose another address in {setting}"
    if exc.errno == errno.EADDRINUSE:
        return OperatorError(
            f"{address} ({setting}) is in use by another program",
            f"see which with: ss -lntup 'sport = :{address.port}'",
            f"stop it, or {another}",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return OperatorError(
            f"no permission to listen on {address} ({setting})",
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE, or a socket unit of systemd",
            f"or choose a port above 1023 in {setting}",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return OperatorError(
            f"this machine has no address {address.host} ({setting})", "see its addresses with: ip address"
        )
    return OperatorError(f"cannot listen on {address} ({setting}): {os.strerror(exc.errno or 0)}", another)


def _has_ipv6() -> bool:
    """Not `socket.has_ipv6`, which knows the build only: the kernel may have it switched off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
