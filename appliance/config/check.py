"""What settings say about each other: derived values, contradictions, warnings.

`tls.mode` and `server_url` follow from the rest where they are absent; the derived value is put into the draft with an
origin that says from what. Pure: whether files exist and ports are free is looked at elsewhere.
"""

from __future__ import annotations

from typing import Any

from appliance.config.draft import DEFAULT, Draft, Origin, Problem
from appliance.config.kinds import Address, Url, ip_or_none
from appliance.config.schema import SETTINGS

NO_ACME_YET = "certificates by ACME come with a later release"
NO_ACME_HINT = 'use tls.mode = "files" with a certificate of your own, "self-signed" or "off"'


def complete(draft: Draft) -> list[Problem]:
    """Derive what is absent, add what contradicts to the draft's problems; returns warnings."""
    get = _Values(draft)
    warnings: list[Problem] = []
    _check_listeners(get)
    _derive_tls_mode(get)
    _derive_server_url(get, warnings)
    url = get("server_url")
    if url is not None:
        _check_plain_http(get, url, warnings)
        _check_tls(get, url, warnings)
        _check_base_domain(get, url)
    if get("proxy.protocol") == "v1v2" and not get("proxy.trusted"):
        get.problem(
            "proxy.protocol",
            "nobody may speak it: proxy.trusted is empty",
            "list the proxies' prefixes in proxy.trusted",
        )
    return warnings


class _Values:
    """The values of a draft by path, defaults included."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __call__(self, path: str) -> Any:
        setting = SETTINGS[path]
        return self.draft.values.get(path, setting.kind.parse(setting.default))

    def is_set(self, path: str) -> bool:
        return path in self.draft.origins

    def derive(self, path: str, value: Any, reason: str) -> None:
        self.draft.values[path] = value
        self.draft.origins[path] = Origin(f"follows from {reason}")

    def about(self, path: str, message: str, hint: str) -> Problem:
        return Problem(path, message, hint, self.draft.origins.get(path, DEFAULT))

    def problem(self, path: str, message: str, hint: str) -> None:
        self.draft.problems.append(self.about(path, message, hint))


def _check_listeners(get: _Values) -> None:
    https, http = get("listen.https"), get("listen.http")
    if https is None and http is None:
        get.problem(
            "listen.https", "nothing to listen on: https and http are both off", 'set listen.https = ":443"'
        )
    elif https == http and https.port:
        get.problem(
            "listen.http", f"the same address as listen.https, {https}", "give each a port of its own"
        )


def _derive_tls_mode(get: _Values) -> None:
    url: Url | None = get("server_url")
    if get.is_set("tls.mode"):
        if get("tls.mode") == "acme":
            get.problem("tls.mode", NO_ACME_YET, NO_ACME_HINT)
    elif url is not None and url.scheme == "https" and url.public:
        get.problem(
            "tls.mode",
            f'not set, which means "acme" for the public server_url {url}: {NO_ACME_YET}',
            NO_ACME_HINT,
        )
    else:
        get.derive(
            "tls.mode", "self-signed", "server_url, which is not public" if url else "the absent server_url"
        )


def _derive_server_url(get: _Values, warnings: list[Problem]) -> None:
    """`server_url` from the listener that clients can trust: http when the certificate is only ours."""
    if get("server_url") is not None:
        return
    self_signed = get("tls.mode") == "self-signed"
    for scheme in ("http", "https") if self_signed else ("https",):
        address: Address | None = get(f"listen.{scheme}")
        if address is None:
            continue
        if not address.port or (address.wildcard and not self_signed):
            break
        host = "127.0.0.1" if address.wildcard else address.host
        get.derive("server_url", Url(scheme, host, address.port), f"listen.{scheme}")
        if address.wildcard:
            warnings.append(
                Problem(
                    "server_url",
                    "not set: only clients on this machine can use the server",
                    'set server_url = "https://…" to the address that clients reach',
                )
            )
        return
    get.problem(
        "server_url",
        "not set, and does not follow from the listeners: they name no host or no port",
        'set server_url = "https://…" to the address that clients reach',
    )


def _check_plain_http(get: _Values, url: Url, warnings: list[Problem]) -> None:
    if url.scheme != "http" or url.loopback:
        return
    if get("insecure_http"):
        message = "plain http beyond loopback: whoever sits on the path can replace the server's key at a client's start"
        warnings.append(get.about("server_url", message, "use https as soon as there is a certificate"))
    else:
        get.problem(
            "server_url",
            f"{url} is plain http beyond loopback",
            "use https, or set insecure_http = true and accept it",
        )


def _check_tls(get: _Values, url: Url, warnings: list[Problem]) -> None:
    mode = get("tls.mode")
    if mode == "self-signed" and url.scheme == "https":
        message = (
            "clients refuse a self-signed certificate for server_url unless the machine they run on trusts it"
        )
        warnings.append(
            get.about("tls.mode", message, 'use tls.mode = "files" with a certificate that clients trust')
        )
    if mode in ("files", "acme") and get("listen.https") is None:
        get.problem(
            "listen.https", f'off, but tls.mode = "{mode}" needs it', 'set listen.https, or tls.mode = "off"'
        )
    if mode == "off" and get("listen.https") is None and url.scheme == "https":
        get.problem(
            "listen.https",
            'off, but with tls.mode = "off" it is where the proxy in front connects to',
            'set listen.https, for example "127.0.0.1:8443"',
        )


def _check_base_domain(get: _Values, url: Url) -> None:
    """A node named like the server must never take the server's name in MagicDNS (security.md M3)."""
    base: str = get("dns.base_domain")
    if ip_or_none(url.host):
        return
    relation = ""
    if base == url.host:
        relation = "equal to"
    elif base.endswith("." + url.host):
        relation = "below"
    elif url.host.endswith("." + base):
        relation = "above"
    if relation:
        message = f"{base} is {relation} the host of server_url, {url.host}"
        get.problem(
            "dns.base_domain",
            message,
            "choose another domain, such as tailnet.internal; it need not exist in DNS",
        )
