"""Our own relay, as clients are told of it: one region with one node (derp.md §2.5).

Clients dial the node's literal addresses where they are known, which also makes captive-portal checks and a client with
broken DNS work; otherwise they ask DNS for its host name.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from dataclasses import dataclass

import trio

from appliance.config.kinds import ip_or_none
from appliance.config.schema import Config
from control.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

log = logging.getLogger("appliance.region")

REGION_ID = 900  # 900 to 999 are left to self-hosters
REGION_CODE = "home"
REGION_NAME = "Homeport"
RESOLVE_S = 3.0
STUN_OFF = -1


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that are really bound; None: that listener is off."""

    https: int | None
    http: int | None
    stun: int | None


async def own_addresses(config: Config) -> tuple[str, ...]:
    """The literal addresses at which the world reaches us, as far as they are certain.

    What the operator says; else the host of server_url when it is an address, or when its name leads to an address of
    this very machine. Anything else (1:1 NAT, a proxy in front) is left to DNS.
    """
    said = [str(address) for address in (config.public.ipv4, config.public.ipv6) if address is not None]
    if said:
        return tuple(said)
    host = config.url.host
    if ip_or_none(host):
        return (host,)
    try:
        with trio.fail_after(RESOLVE_S):
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, trio.TooSlowError) as exc:
        hint = "add the name to DNS, or set public.ipv4 and public.ipv6"
        log.warning(
            "the name of server_url does not resolve here",
            extra={"host": host, "reason": str(exc) or f"no answer within {RESOLVE_S:.0f} s", "hint": hint},
        )
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found if _is_ours(str(entry[4][0]))))


def derp_map(config: Config, ports: Ports, *, addresses: tuple[str, ...], pin: str | None) -> DERPMap:
    """The map with our region; empty when no listener speaks TLS for the relay.

    `pin`: the CertName of a self-made certificate. Behind a TLS proxy the relay is at server_url's port.
    """
    port = config.public.derp_port or (config.url.port if config.tls.mode == "off" else ports.https)
    if port is None or ports.https is None:
        hint = "set listen.https; with tls.mode = off it is where the proxy connects to"
        log.warning("there is no relay, and clients cannot connect without one", extra={"hint": hint})
        return DERPMap(regions={})
    node = DERPNode(
        name=f"{REGION_ID}a",
        region_id=REGION_ID,
        host_name=config.url.host,
        cert_name=pin or "",
        ipv4=next((text for text in addresses if ipaddress.ip_address(text).version == 4), ""),
        ipv6=next((text for text in addresses if ipaddress.ip_address(text).version == 6), ""),
        stun_port=config.public.stun_port or ports.stun or STUN_OFF,
        derp_port=port,
        can_port80=ports.http == 80,
    )
    region = DERPRegion(region_id=REGION_ID, region_code=REGION_CODE, region_name=REGION_NAME, nodes=[node])
    return DERPMap(regions={str(REGION_ID): region})


def _is_ours(address: str) -> bool:
    """Whether an interface of this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return not ipaddress.ip_address(address).is_loopback
