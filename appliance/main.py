"""THE COMPOSITION ROOT: what runs, in which order, and how it stops.

    state        the writer thread, outermost: everything else may still commit while it ends
      services   relay, STUN, coordination duties, the command line's socket, certificate watch
        door     the listeners, innermost: stopped first

The end is the same in reverse: accept no more, let clients go, then write what is left.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from typing import TypeVar

import trio

from appliance import bounds, logs
from appliance.config.load import Loaded
from appliance.config.schema import Config
from appliance.door.answers import Answers
from appliance.door.names import NameTable
from appliance.door.service import Door
from appliance.door.turns import FairTurns
from appliance.errors import OperatorError
from appliance.lifecycle import until_told_to_stop
from appliance.listeners import Listeners
from appliance.notify import Notifier
from appliance.overview import Overview
from appliance.pages.app import create_app
from appliance.region import REGION_ID, derp_map, own_addresses
from appliance.server_keys import load_keys
from appliance.socket_api import Answer, bind_socket, serve_socket
from appliance.socket_path import Places
from appliance.state_dir import open_state
from appliance.tls.watch import load_certificate, trusted, watch_certificate
from appliance.version import version
from control.mapper.settings import NetmapSettings
from control.service import ControlService
from control.state.commands import Actor
from control.state.sqlite import SqliteStore
from control.state.store import StoreUnusable
from derp.service import DerpService
from stun.responder import StunService

log = logging.getLogger("appliance")

DRAIN_S = 5.0  # for clients to take their leave; systemd waits 90 s before it kills

E = TypeVar("E", bound=BaseException)


def serve_main(loaded: Loaded, places: Places) -> None:
    """Serve until SIGTERM or SIGINT. Raises OperatorError when it cannot begin."""
    logs.set_up(loaded.config.log.level, loaded.config.log.format)
    for warning in loaded.warnings:
        log.warning("doubtful configuration", extra={"reason": warning, "hint": warning.hint})
    with open_state(places.state):
        try:
            trio.run(serve, loaded.config, places)
        except* StoreUnusable as group:
            error = _first(group)
            raise OperatorError(error.reason, error.hint) from error
        except* OperatorError as group:
            raise _first(group) from None
        finally:
            logs.flush()


async def serve(config: Config, places: Places) -> None:
    """Everything that runs, in order."""
    notifier, keys = Notifier(os.environ), load_keys(places.state)
    listeners = Listeners.open(config, os.environ)
    certificate = load_certificate(config, places.state)
    addresses = await own_addresses(config)

    def netmap_settings() -> NetmapSettings:
        pin = certificate.pin if certificate is not None and config.tls.mode == "self-signed" else None
        regions = derp_map(config, listeners.ports, addresses=addresses, pin=pin)
        return NetmapSettings(domain=config.dns.base_domain, derp_map=regions)

    turns = FairTurns()
    control = ControlService(  # relay and overview need it, and it them: hence two lambdas
        SqliteStore(places.state / "homeport.db"),
        noise_key=keys.noise,
        pepper=keys.pepper,
        settings=netmap_settings(),
        server_url=str(config.url),
        evict=lambda node_key: relay.evict(node_key),
        overview=lambda: overview.status(),
        wall=wall_clock,
        quotas=bounds.quotas(config.limits),
        turn=turns.do,
        relay_region=REGION_ID,
    )
    relay = DerpService(keys.derp, admit=control.admit, limits=bounds.relay(config.limits))
    overview = Overview(config, certificate, relay.counters, lambda: control.state.read_only)
    stun = StunService(listeners.stun)
    door = Door(
        https=listeners.https,
        http=listeners.http,
        certificate=certificate,
        server_url=str(config.url),
        names=NameTable([config.url.host], addresses),
        control=control.serve,
        relay=relay.serve,
        relay_public_key=relay.public_key,
        pages=create_app(server_url=str(config.url), overview=overview.page, hsts=trusted(config)),
        answers=_answers(config, addresses, control),
        turns=turns,
        pre_auth_connections=config.limits.pre_auth_connections,
        pre_auth_per_source=config.limits.pre_auth_per_source,
        trusted_proxies=config.proxy.trusted,
        proxy_protocol=config.proxy.protocol == "v1v2",
    )

    def tell_clients() -> None:
        control.world.update_settings(netmap_settings(), wall_clock())

    async with trio.open_nursery() as outermost:
        await outermost.start(control.state.run)
        control.open()
        async with trio.open_nursery() as services:
            await services.start(relay.run)
            await services.start(stun.run)
            await services.start(control.run)
            await services.start(_serve_commands, config, places, control)
            services.start_soon(notifier.keep_watchdog)
            if certificate is not None:
                services.start_soon(watch_certificate, config, places.state, certificate, tell_clients)
            async with trio.open_nursery() as front:
                await front.start(door.run)
                gc.freeze()  # what was built by now stays: the collector need not look at it again
                await until_told_to_stop(listeners, notifier, certificate, tell_clients)
                door.stop(DRAIN_S)
                control.drain()
                await relay.shutdown()
            services.cancel_scope.cancel()
        outermost.cancel_scope.cancel()


def _answers(config: Config, addresses: tuple[str, ...], control: ControlService) -> Answers:
    """Where the door's own small routes have their facts from."""
    return Answers(
        server_key=control.key_body,
        healthy=control.healthy,
        version=version(),
        bootstrap_dns=lambda: {config.url.host: addresses} if addresses else {},
        ping_response=lambda ident: False,  # no ping is sent yet, so none is waited for
    )


async def _serve_commands(
    config: Config,
    places: Places,
    control: ControlService,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The command line's socket; who asks is the user whom the kernel names."""

    async def handle(method: str, path: str, query: dict[str, str], body: bytes, uid: int) -> Answer:
        return await control.api.handle(method, path, query, body, Actor(kind="local", id=f"uid:{uid}"))

    connections = config.limits.socket_connections
    await serve_socket(bind_socket(places.socket), handle, connections=connections, task_status=task_status)


def wall_clock() -> float:
    """Seconds since 1970. The one place that reads it: everything else is handed a clock."""
    return time.time()  # noqa: TID251  (this is that place)


def _first(group: BaseExceptionGroup[E]) -> E:
    """The first real error in a group of them."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
