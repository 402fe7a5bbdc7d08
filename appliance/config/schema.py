"""Every setting in one row: what kind of value, its default, one sentence of help.

The documentation (docs/configuration.md), `appliance config check` and the environment twins are made from these rows.
Durations are in seconds (`_s`), sizes in bytes (`_bytes`); both are said in the name.
"""
# ruff: noqa: RUF009  (a row is a call, and makes an immutable value)

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, NamedTuple

from appliance.config.kinds import (
    ADDRESS,
    BOOL,
    DOMAIN,
    IPV4,
    IPV6,
    NETWORKS,
    PATH,
    PORT_OR_0,
    URL,
    Address,
    Kind,
    Network,
    Url,
    choice,
    integer,
)

TlsMode = Literal["acme", "files", "self-signed", "off"]
COUNT_MAX = 1_000_000_000


def _row(kind: Kind, default: Any, text: str) -> Any:
    """One setting. `default` is written as in TOML; the attribute holds what the kind makes of it."""
    return dataclasses.field(
        default=kind.parse(default), metadata={"kind": kind, "default": default, "help": text}
    )


def _limit(default: int, text: str) -> Any:
    return _row(integer(1, COUNT_MAX), default, text)


@dataclasses.dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. A socket inherited from systemd (LISTEN_FDS) wins over all three."""

    https: Address | None = _row(ADDRESS, ":443", "TLS: clients, relay, pages.")
    http: Address | None = _row(ADDRESS, ":80", "Plain HTTP: what clients try first, redirects for people.")
    stun: Address | None = _row(ADDRESS, ":3478", "UDP: tells clients the address they are seen with.")


@dataclasses.dataclass(frozen=True, slots=True)
class Public:
    """Where the world sees other numbers than we do: 1:1 NAT, port forwarding."""

    ipv4: IPv4Address | None = _row(
        IPV4, "", "The relay's public IPv4 address, given to clients beside its name."
    )
    ipv6: IPv6Address | None = _row(IPV6, "", "The relay's public IPv6 address.")
    derp_port: int = _row(PORT_OR_0, 0, "The relay's public TCP port; 0 means the https listener's.")
    stun_port: int = _row(PORT_OR_0, 0, "The public UDP port of STUN; 0 means the stun listener's.")


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """Where certificates come from."""

    mode: TlsMode = _row(
        choice("acme", "files", "self-signed", "off"),
        "acme",
        "acme: ordered from a certificate authority, the default where server_url is https and public; files: cert and "
        "key below; self-signed: made here, its hash given to clients for the relay, the default elsewhere; off: TLS "
        "ends in front of us, the https listener speaks plain HTTP and clients still find TLS at server_url's port.",
    )
    cert: str = _row(
        PATH,
        "/etc/appliance/tls.crt",
        "mode = files: the chain, leaf first, in PEM; read again when it changes.",
    )
    key: str = _row(PATH, "/etc/appliance/tls.key", "mode = files: the leaf's private key in PEM.")


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """Reverse proxies in front of us."""

    trusted: tuple[Network, ...] = _row(NETWORKS, [], "Prefixes whose word on the client's address is taken.")
    protocol: Literal["none", "v1v2"] = _row(
        choice("none", "v1v2"), "none", "v1v2: the trusted proxies speak the PROXY protocol, and must."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Dns:
    """Names in the tailnet."""

    base_domain: str = _row(
        DOMAIN,
        "tailnet.internal",
        "MagicDNS suffix of a new tailnet; never equal to, below or above the host of server_url. The default lies in "
        "the top-level domain that is reserved for private use.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = _row(
        choice("debug", "info", "warning", "error"), "info", "The least severe line that is written."
    )
    format: Literal["auto", "text", "json"] = _row(
        choice("auto", "text", "json"), "auto", "auto: for the journal when stderr is the journal, else text."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for a machine of 1 GiB. "Source" is an IPv4 /24 or an IPv6 /64."""

    pre_auth_connections: int = _limit(2048, "Connections that have not proven who they are (≈ 25 KB each).")
    pre_auth_per_source: int = _limit(256, "Of these from one source, once the table is half full.")

    nodes: int = _limit(10000, "Nodes in all.")
    nodes_per_user: int = _limit(200, "Nodes that one person may add by logging in.")
    nodes_per_key: int = _limit(2000, "Living nodes that one reusable key may add.")
    ephemeral_nodes: int = _limit(2000, "Ephemeral nodes in all.")

    pending_logins: int = _limit(1024, "Logins that wait for a person.")
    pending_logins_per_source: int = _limit(32, "Of these from one source.")
    pending_login_s: int = _limit(900, "How long a login waits for a person.")

    derp_connections: int = _limit(24000, "Relay connections in all.")
    derp_per_node_key: int = _limit(
        8, "Relay connections of one node; clients hold two while they change networks."
    )
    derp_packets: int = _limit(
        32, "Packets of any size queued for a relay connection; more only while small."
    )
    derp_connection_bytes: int = _limit(262144, "Bytes queued for a relay connection.")
    derp_key_bytes: int = _limit(4194304, "Bytes queued for all relay connections of one node.")
    derp_total_bytes: int = _limit(67108864, "Bytes queued by the relay in all.")
    derp_stalled_write_s: int = _limit(2, "How long a relay connection may refuse to take a packet.")

    socket_connections: int = _limit(16, "Commands at once on the command line's socket.")


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `load` fills in `server_url` and `tls.mode` where they follow from the rest."""

    server_url: Url | None = _row(
        URL,
        "",
        "What clients are given; follows from the listeners when absent, which suits one machine only.",
    )
    insecure_http: bool = _row(
        BOOL, False, "A plain-http server_url beyond loopback needs true, and is warned about at every start."
    )
    listen: Listen = dataclasses.field(default_factory=Listen)
    public: Public = dataclasses.field(default_factory=Public)
    tls: Tls = dataclasses.field(default_factory=Tls)
    proxy: Proxy = dataclasses.field(default_factory=Proxy)
    dns: Dns = dataclasses.field(default_factory=Dns)
    log: Log = dataclasses.field(default_factory=Log)
    limits: Limits = dataclasses.field(default_factory=Limits)

    @property
    def url(self) -> Url:
        """`server_url` of a loaded configuration, which always has one."""
        assert self.server_url is not None
        return self.server_url


SECTIONS: dict[str, type[Any]] = {
    "listen": Listen,
    "public": Public,
    "tls": Tls,
    "proxy": Proxy,
    "dns": Dns,
    "log": Log,
    "limits": Limits,
}


class Setting(NamedTuple):
    """A row, as the loader and the documentation see it."""

    section: str  # "" at the top of the file
    name: str
    kind: Kind
    default: Any  # as written in TOML
    help: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def env(self) -> str:
        """The environment twin: `listen.https` → `APPLIANCE_LISTEN_HTTPS`."""
        return "APPLIANCE_" + self.path.replace(".", "_").upper()


def _rows() -> Iterator[Setting]:
    for section, owner in [("", Config), *SECTIONS.items()]:
        for field in dataclasses.fields(owner):
            if "kind" in field.metadata:
                data = field.metadata
                yield Setting(section, field.name, data["kind"], data["default"], data["help"])


SETTINGS: dict[str, Setting] = {setting.path: setting for setting in _rows()}


def build(values: dict[str, Any]) -> Config:
    """A Config from parsed values by path; what is not there has its default."""
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    top: dict[str, Any] = {}
    for path, value in values.items():
        setting = SETTINGS[path]
        (parts[setting.section] if setting.section else top)[setting.name] = value
    return Config(**top, **{section: owner(**parts[section]) for section, owner in SECTIONS.items()})


def value_of(config: Config, setting: Setting) -> Any:
    owner = getattr(config, setting.section) if setting.section else config
    return getattr(owner, setting.name)


def shown(value: Any) -> Any:
    """A value as a person would write it in TOML or JSON: text, number, true or false, or a list of texts."""
    if value is None:
        return ""
    if isinstance(value, tuple) and not isinstance(value, (Address, Url)):
        return [str(item) for item in value]
    return value if isinstance(value, (bool, int)) else str(value)
