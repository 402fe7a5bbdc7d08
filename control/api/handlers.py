"""The table of calls: method and path → handler. `docs/api.md` of a later release is made from it.

    GET    /api/v1/status
    GET    /api/v1/users                     POST   /api/v1/users
    PATCH  /api/v1/users/{user}              DELETE /api/v1/users/{user}[?with_nodes=1]
    GET    /api/v1/keys                      POST   /api/v1/keys                DELETE /api/v1/keys/{id}
    GET    /api/v1/nodes                     GET    /api/v1/nodes/{node}
    PATCH  /api/v1/nodes/{node}              DELETE /api/v1/nodes/{node}
    PUT    /api/v1/nodes/{node}/tags         POST   /api/v1/nodes/{node}/expire, …/extend, …/routes/approve, …/routes/revoke
    GET    /api/v1/logins/{id}               POST   /api/v1/logins/{id}/approve

An answer is (status, JSON). Errors are {"error", "hint"}: 400 not understood, 404 unknown, 409 refused by a rule, 503 try later.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from msgspec.structs import replace

from control import secret
from control.api import requests as bodies
from control.api.shapes import Json, key_shape, login_shape, node_shape, user_shape, when
from control.errors import NotFound, Refused, TryLater
from control.login.pending import PendingLogin, PendingLogins
from control.machine.presence import Presence
from control.mapper.world import World
from control.model import AuthKey, Node, User
from control.state import commands as ask
from control.state.commands import Actor, Registered
from control.state.lookup import find_node
from control.state.state import State
from control.state.volatile import Volatile
from control.tailcfg.codec import DecodeError
from control.troubles import Troubles

B = TypeVar("B", bound=bodies.Body)
R = TypeVar("R", User, AuthKey, Node, Registered)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the named parts of its path, its query, its body, and who asks."""

    parts: dict[str, str]
    query: dict[str, str]
    body: bytes
    by: Actor

    def typed(self, kind: type[B]) -> B:
        return bodies.parse(self.body, kind)


Handler = Callable[["Api", Call], Awaitable[Json | list[Json]]]


class Api:
    """`overview()` gives what only the program knows: version, relay, certificate."""

    def __init__(
        self,
        state: State,
        world: World,
        presence: Presence,
        pending: PendingLogins,
        *,
        pepper: bytes,
        wall: Callable[[], float],
        overview: Callable[[], Json],
        troubles: Troubles,
    ) -> None:
        self.state, self.world, self.presence, self.pending = state, world, presence, pending
        self.troubles = troubles
        self.overview, self._pepper, self.wall = overview, pepper, wall

    async def handle(
        self, method: str, path: str, query: dict[str, str], body: bytes, by: Actor
    ) -> tuple[int, Json | list[Json]]:
        """Answer one call. Never raises for what a caller can do."""
        found, parts = _find(method, path)
        if found is None:
            if parts is None:
                return 404, {"error": f"there is no {path[:100]}", "hint": ""}
            return 405, {"error": f"{path[:100]} does not take {method[:10]}", "hint": ""}
        try:
            return 200, await found(self, Call(parts or {}, query, body, by))
        except NotFound as exc:
            return 404, {"error": exc.public_reason, "hint": exc.hint}
        except Refused as exc:
            return 409, {"error": exc.public_reason, "hint": exc.hint}
        except TryLater as exc:
            return 503, {"error": exc.reason, "hint": exc.hint}
        except DecodeError as exc:
            return 400, {"error": f"the request's body is not as expected: {exc}", "hint": ""}

    def node_json(self, node: Node) -> Json:
        state = self.state
        online = self.presence.has_stream(node.id)
        volatile = state.volatile.get(node.id, Volatile())  # none when it is gone again
        return node_shape(node, state.durable, volatile, self.world.primaries, online=online, now=self.wall())

    # users

    async def list_users(self, call: Call) -> list[Json]:
        return [user_shape(user) for user in self.state.durable.users.values()]

    async def create_user(self, call: Call) -> Json:
        wanted = call.typed(bodies.NewUser)
        command = ask.CreateUser(name=wanted.name, display_name=wanted.display_name, email=wanted.email)
        return user_shape(_as(User, await self.state.submit(command, call.by)))

    async def rename_user(self, call: Call) -> Json:
        command = ask.RenameUser(user=call.parts["user"], name=call.typed(bodies.Rename).name)
        return user_shape(_as(User, await self.state.submit(command, call.by)))

    async def delete_user(self, call: Call) -> Json:
        with_nodes = call.query.get("with_nodes") in ("1", "true")
        command = ask.DeleteUser(user=call.parts["user"], with_nodes=with_nodes)
        return user_shape(_as(User, await self.state.submit(command, call.by)))

    # keys

    async def list_keys(self, call: Call) -> list[Json]:
        facts, now = self.state.durable, self.wall()
        return [key_shape(key, facts, now) for key in facts.auth_keys.values()]

    async def create_key(self, call: Call) -> Json:
        wanted = call.typed(bodies.NewKey)
        minted = secret.mint(secret.AUTH_KEY, self._pepper)
        command = ask.CreateAuthKey(
            id=minted.id,
            mac=minted.mac,
            expiry_s=wanted.expiry_s,
            user=wanted.user,
            reusable=wanted.reusable,
            ephemeral=wanted.ephemeral,
            tags=tuple(wanted.tags),
        )
        key = _as(AuthKey, await self.state.submit(command, call.by))
        return key_shape(key, self.state.durable, self.wall()) | {"key": minted.secret.reveal()}

    async def revoke_key(self, call: Call) -> Json:
        key = _as(AuthKey, await self.state.submit(ask.RevokeAuthKey(id=call.parts["id"]), call.by))
        return key_shape(key, self.state.durable, self.wall())

    # nodes

    async def list_nodes(self, call: Call) -> list[Json]:
        return [self.node_json(node) for node in self.state.durable.nodes.values()]

    async def show_node(self, call: Call) -> Json:
        return self.node_json(find_node(self.state.durable, call.parts["node"]))

    async def rename_node(self, call: Call) -> Json:
        return await self._node(
            call, ask.RenameNode(node=call.parts["node"], name=call.typed(bodies.Rename).name)
        )

    async def tag_node(self, call: Call) -> Json:
        return await self._node(
            call, ask.TagNode(node=call.parts["node"], tags=tuple(call.typed(bodies.Tags).tags))
        )

    async def expire_node(self, call: Call) -> Json:
        return await self._node(call, ask.ExpireNode(node=call.parts["node"]))

    async def extend_node(self, call: Call) -> Json:
        expiry_s = call.typed(bodies.Extension).expiry_s
        return await self._node(call, ask.ExtendNode(node=call.parts["node"], expiry_s=expiry_s))

    async def approve_routes(self, call: Call) -> Json:
        routes = tuple(call.typed(bodies.Routes).routes)
        return await self._node(call, ask.ApproveRoutes(node=call.parts["node"], routes=routes))

    async def revoke_routes(self, call: Call) -> Json:
        routes = tuple(call.typed(bodies.Routes).routes)
        return await self._node(call, ask.RevokeRoutes(node=call.parts["node"], routes=routes))

    async def delete_node(self, call: Call) -> Json:
        gone = self.node_json(find_node(self.state.durable, call.parts["node"]))
        await self.state.submit(ask.DeleteNode(node=gone["id"]), call.by)
        return gone

    async def _node(self, call: Call, command: ask.AnyCommand) -> Json:
        return self.node_json(_as(Node, await self.state.submit(command, call.by)))

    # logins

    async def show_login(self, call: Call) -> Json:
        return login_shape(self._login(call), self.wall())

    async def approve_login(self, call: Call) -> Json:
        """Let a waiting machine in as the named user's; the result goes only to the machine that began it."""
        pending, user = self._login(call), call.typed(bodies.Approval).user
        if pending.approved:
            raise Refused("that login was approved already", "`appliance nodes list` shows the node")
        result = await self.state.submit(replace(pending.command, approved_by=user), call.by)
        self.pending.approve(pending, self.wall())
        return self.node_json(_as(Registered, result).node)

    def _login(self, call: Call) -> PendingLogin:
        pending = self.pending.find(call.parts["id"], self.wall())
        if pending is None:
            raise NotFound(
                f"no login {call.parts['id'][:40]!r} is waiting",
                "it ends after 15 minutes; run `tailscale up` again on the device for a fresh one",
            )
        return pending

    # status

    async def status(self, call: Call) -> Json:
        storage = self.state.read_only
        return self.overview() | {
            "ready": storage is None,
            "storage": storage or "ok",
            "nodes": {"total": len(self.state.durable.nodes), "online": self.presence.connected_count},
            "pending_logins": len(self.pending),
            "failing": [
                {"who": each.who, "why": each.why, "at": when(each.at)} for each in self.troubles.recent()
            ],
        }


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/status", Api.status),
    ("GET", "/users", Api.list_users),
    ("POST", "/users", Api.create_user),
    ("PATCH", "/users/{user}", Api.rename_user),
    ("DELETE", "/users/{user}", Api.delete_user),
    ("GET", "/keys", Api.list_keys),
    ("POST", "/keys", Api.create_key),
    ("DELETE", "/keys/{id}", Api.revoke_key),
    ("GET", "/nodes", Api.list_nodes),
    ("GET", "/nodes/{node}", Api.show_node),
    ("PATCH", "/nodes/{node}", Api.rename_node),
    ("DELETE", "/nodes/{node}", Api.delete_node),
    ("PUT", "/nodes/{node}/tags", Api.tag_node),
    ("POST", "/nodes/{node}/expire", Api.expire_node),
    ("POST", "/nodes/{node}/extend", Api.extend_node),
    ("POST", "/nodes/{node}/routes/approve", Api.approve_routes),
    ("POST", "/nodes/{node}/routes/revoke", Api.revoke_routes),
    ("GET", "/logins/{id}", Api.show_login),
    ("POST", "/logins/{id}/approve", Api.approve_login),
]

_PATTERNS = [
    (method, re.compile("/api/v1" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), handler)
    for method, path, handler in ROUTES
]


def _find(method: str, path: str) -> tuple[Handler | None, dict[str, str] | None]:
    """The handler and the path's parts; parts without a handler: the path exists for another method."""
    others: dict[str, str] | None = None
    for wanted, pattern, handler in _PATTERNS:
        if match := pattern.fullmatch(path):
            parts = {name: unquote(text) for name, text in match.groupdict().items()}
            if wanted == method:
                return handler, parts
            others = parts
    return None, others


def _as(kind: type[R], value: object) -> R:
    """The result that this command gives."""
    assert isinstance(value, kind), f"expected {kind.__name__}, got {type(value).__name__}"
    return value
