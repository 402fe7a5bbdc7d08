"""Every way a configuration can be wrong, as a table: text in, message and hint out."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.draft import DEFAULT, ConfigError, Origin, Problem
from appliance.config.kinds import Address, Url
from appliance.config.load import Loaded, Source, lines_of_keys, load
from appliance.config.schema import SETTINGS, Config

LOCAL = 'server_url = "http://127.0.0.1:8080"\n'


def loaded(text: str = "", environ: dict[str, str] | None = None, *weaker: str) -> Loaded:
    sources = [Source("c.toml", text), *(Source(f"weaker{n}.toml", more) for n, more in enumerate(weaker))]
    return load(sources, environ or {})


def problems(text: str, environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ)
    return caught.value.problems


def test_the_documented_example_loads() -> None:
    config = loaded(
        """\
server_url = "https://VPN.example.com/"
insecure_http = false
[listen]
https = ":443"
http = "0.0.0.0:80"
stun = "[::]:3478"
[public]
ipv4 = "203.0.113.7"
derp_port = 8443
[tls]
mode = "files"
cert = "/etc/appliance/tls.crt"
key = "/etc/appliance/tls.key"
[proxy]
trusted = ["10.0.0.0/8", "fd00::1"]
protocol = "v1v2"
[dns]
base_domain = "Tail.Example.NET."
[log]
level = "debug"
format = "json"
[limits]
nodes = 20000
"""
    ).config
    assert config.url == Url("https", "vpn.example.com", 443)
    assert str(config.url) == "https://vpn.example.com"
    assert config.listen.https == Address("", 443)
    assert config.listen.http == Address("0.0.0.0", 80)
    assert config.listen.stun == Address("::", 3478)
    assert config.public.ipv4 == IPv4Address("203.0.113.7")
    assert config.public.ipv6 is None
    assert config.proxy.trusted == (ip_network("10.0.0.0/8"), ip_network("fd00::1/128"))
    assert config.dns.base_domain == "tail.example.net"
    assert config.limits.nodes == 20000
    assert config.limits.pre_auth_connections == 2048


WRONG = [
    ('\n[listen]\nhtps = ":443"', "c.toml:3: listen.htps: unknown setting", "did you mean https?"),
    ("\n\n[lisen]\na = 1", "c.toml:3: lisen: unknown setting", "did you mean [listen]?"),
    ('https = ":443"', "c.toml:1: https: unknown setting", "did you mean https in [listen]?"),
    (
        '[tls]\nserver_url = ""',
        "c.toml:2: tls.server_url: unknown setting",
        "did you mean server_url at the top of the file?",
    ),
    (
        "[log]\nqwrtz = 1",
        "c.toml:2: log.qwrtz: unknown setting",
        "remove it; docs/configuration.md lists all settings",
    ),
    (
        "listen = 443",
        "c.toml:1: listen: expected a table [listen], got 443",
        "write [listen] and its settings below",
    ),
    (
        "[listen]\nhttp = 80",
        'c.toml:2: listen.http: expected ":443", "127.0.0.1:443", "[::1]:443" (an address, not a name), or "" to switch it off, got 80',
        'write for example http = ":80", or leave it out',
    ),
    (
        "insecure_http = 1",
        "c.toml:1: insecure_http: expected true or false, got 1",
        "write that, or leave it out",
    ),
    (
        "[limits]\n\nnodes = true",
        "c.toml:3: limits.nodes: expected a whole number from 1 to 1000000000, got true",
        "write for example nodes = 10000, or leave it out",
    ),
    (
        "[limits]\nnodes = 0",
        "c.toml:2: limits.nodes: expected a whole number from 1 to 1000000000, got 0",
        "write for example nodes = 10000, or leave it out",
    ),
    (
        '[tls]\nmode = "none"',
        'c.toml:2: tls.mode: expected one of "acme", "files", "self-signed", "off", got "none"',
        'write for example mode = "acme", or leave it out',
    ),
    (
        '[tls]\nmode = "off"\ncert = "tls.crt"',
        'c.toml:3: tls.cert: expected an absolute path such as "/etc/appliance/tls.crt", got "tls.crt"',
        'write for example cert = "/etc/appliance/tls.crt", or leave it out',
    ),
    (
        '[proxy]\ntrusted = [\n  "10.0.0.1/8",\n]',
        'c.toml:2: proxy.trusted: expected a list of prefixes such as ["10.0.0.0/8", "fd00::/8"], got '
        "['10.0.0.1/8'] (10.0.0.1/8 has host bits set)",
        "write that, or leave it out",
    ),
    ("a = ", "c.toml:1: not TOML: invalid value", 'texts are quoted: name = "value"'),
    ("\n[log]\nlevel = debug", "c.toml:3: not TOML: invalid value", 'texts are quoted: name = "value"'),
    (
        '[tls]\nmode = "acme"',
        "c.toml:2: tls.mode: certificates by ACME come with a later release",
        'use tls.mode = "files" with a certificate of your own, "self-signed" or "off"',
    ),
    (
        'server_url = "https://vpn.example.com"',
        'tls.mode: not set, which means "acme" for the public server_url https://vpn.example.com: certificates by ACME '
        "come with a later release",
        'use tls.mode = "files" with a certificate of your own, "self-signed" or "off"',
    ),
    (
        '[listen]\nhttp = ""\nhttps = ""',
        "c.toml:3: listen.https: nothing to listen on: https and http are both off",
        'set listen.https = ":443"',
    ),
    (
        '[listen]\nhttp = ":443"',
        "c.toml:2: listen.http: the same address as listen.https, :443",
        "give each a port of its own",
    ),
    (
        '[tls]\nmode = "off"',
        "server_url: not set, and does not follow from the listeners: they name no host or no port",
        'set server_url = "https://…" to the address that clients reach',
    ),
    (
        'server_url = "http://vpn.example.com"',
        "c.toml:1: server_url: http://vpn.example.com is plain http beyond loopback",
        "use https, or set insecure_http = true and accept it",
    ),
    (
        LOCAL + '[listen]\nhttps = ""\n[tls]\nmode = "files"',
        'c.toml:3: listen.https: off, but tls.mode = "files" needs it',
        'set listen.https, or tls.mode = "off"',
    ),
    (
        'server_url = "https://x.example"\n[listen]\nhttps = ""\n[tls]\nmode = "off"',
        'c.toml:3: listen.https: off, but with tls.mode = "off" it is where the proxy in front connects to',
        'set listen.https, for example "127.0.0.1:8443"',
    ),
    (
        '[proxy]\nprotocol = "v1v2"',
        "c.toml:2: proxy.protocol: nobody may speak it: proxy.trusted is empty",
        "list the proxies' prefixes in proxy.trusted",
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), WRONG)
def test_problem_names_file_line_key_expectation_and_remedy(text: str, message: str, hint: str) -> None:
    first = problems(text)[0]
    assert str(first) == message
    assert first.hint == hint


@pytest.mark.parametrize("relation", ["equal to", "below", "above"])
def test_base_domain_is_never_equal_below_or_above_the_server(relation: str) -> None:
    """M3: a node called like the server must not take its name."""
    base = {"equal to": "vpn.example.com", "below": "tail.vpn.example.com", "above": "example.com"}[relation]
    text = f'server_url = "https://vpn.example.com"\n[tls]\nmode = "off"\n[dns]\nbase_domain = "{base}"'
    (problem,) = problems(text)
    assert (
        str(problem)
        == f"c.toml:5: dns.base_domain: {base} is {relation} the host of server_url, vpn.example.com"
    )


def test_sibling_of_the_server_is_a_good_base_domain() -> None:
    text = (
        'server_url = "https://vpn.example.com"\n[tls]\nmode = "off"\n[dns]\nbase_domain = "tail.example.com"'
    )
    assert loaded(text).config.dns.base_domain == "tail.example.com"


def test_all_problems_are_reported_at_once() -> None:
    found = problems('[listen]\nhttps = 1\nhttp = 2\n[dns]\nbase_domian = "a.b"')
    assert [problem.origin.line for problem in found] == [2, 3, 5]


BAD_URLS = [
    "vpn.example.com", "ftp://a.example", "https://", "https://a.example/path", "https://a.example?x", "https://a:0",
    "https://a:65536", "https://u@a.example", "https://256.1.1.1", "https://1.2.3", "https://a_b.example",
    "https://[fe80::1%eth0]", "https://a..b", "https://-a.example", "https://a.example\n", "https://ü.example",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_server_url_is_scheme_host_port(url: str) -> None:
    (problem,) = problems("", {"APPLIANCE_SERVER_URL": url})
    assert problem.key == "server_url"
    assert problem.origin == Origin("environment APPLIANCE_SERVER_URL")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("HTTP://LOCALHOST:8080/", "http://localhost:8080"),
        ("https://[2001:DB8:0::1]:443", "https://[2001:db8::1]"),
        ("https://homeport.", "https://homeport"),
    ],
)
def test_server_url_is_normalised(url: str, shown: str) -> None:
    assert str(loaded(f'server_url = "{url}"').config.url) == shown


@pytest.mark.parametrize(
    "address", ["443", "localhost:443", ":65536", ":-1", "::1:443", "[::1]", "1.2.3.4", "[1.2.3.4]:1", ":४"]
)
def test_listen_address_is_an_address_and_a_port(address: str) -> None:
    assert problems("", {"APPLIANCE_LISTEN_STUN": address})[0].key == "listen.stun"


def test_public_plain_http_needs_flag() -> None:
    """A3: plain http beyond loopback only on purpose, and with a warning at every start."""
    assert problems('server_url = "http://10.0.0.7"')[0].key == "server_url"
    done = loaded('server_url = "http://10.0.0.7"\ninsecure_http = true')
    assert [warning.key for warning in done.warnings] == ["server_url"]
    assert loaded(LOCAL).warnings == ()


class TestPrecedence:
    def test_environment_beats_file_beats_weaker_file_beats_default(self) -> None:
        done = loaded(
            LOCAL + '[listen]\nstun = ":2"\nhttps = ":22"',
            {"APPLIANCE_LISTEN_STUN": ":1"},
            '[listen]\nstun = ":3"\nhttps = ":33"\nhttp = ":333"',
        )
        ports = done.config.listen
        assert (ports.stun, ports.https, ports.http) == (Address("", 1), Address("", 22), Address("", 333))
        assert str(done.origins["listen.stun"]) == "environment APPLIANCE_LISTEN_STUN"
        assert str(done.origins["listen.https"]) == "c.toml:4"
        assert str(done.origins["listen.http"]) == "weaker0.toml:4"
        assert done.origins["log.level"] == DEFAULT

    def test_a_bad_value_is_reported_where_it_stands_even_if_overridden(self) -> None:
        (problem,) = problems("[listen]\nstun = 1", {"APPLIANCE_LISTEN_STUN": ":1"})
        assert problem.origin == Origin("c.toml", 2)

    def test_explicit_means_that_somebody_configured_something(self) -> None:
        assert not load([], {"APPLIANCE_STATE": "/s", "HOME": "/"}).explicit
        assert load([], {"APPLIANCE_LOG_LEVEL": "debug"}).explicit
        assert loaded("").explicit


class TestEnvironment:
    def test_every_setting_has_a_twin(self) -> None:
        environ = {
            "APPLIANCE_SERVER_URL": "http://10.1.2.3",
            "APPLIANCE_INSECURE_HTTP": "yes",
            "APPLIANCE_PUBLIC_DERP_PORT": "8443",
            "APPLIANCE_PROXY_TRUSTED": "10.0.0.0/8, fd00::/8",
        }
        config = load([], environ).config
        assert config.insecure_http
        assert config.public.derp_port == 8443
        assert len(config.proxy.trusted) == 2
        assert len({setting.env for setting in SETTINGS.values()}) == len(SETTINGS)

    @pytest.mark.parametrize("name", ["APPLIANCE_LISTEN_HTPS", "APPLIANCE_TLS_CA", "APPLIANCE_SERVERURL"])
    def test_a_slip_in_a_name_is_a_problem(self, name: str) -> None:
        (problem,) = problems("", {name: "x"})
        assert str(problem) == f"environment {name}: unknown setting"

    def test_variables_of_others_are_left_alone(self) -> None:
        load([], {"APPLIANCE_POLICY": "/p", "APPLIANCE": "x", "APPLIANCE_STATE": "/s"})

    @pytest.mark.parametrize(
        ("name", "text"), [("INSECURE_HTTP", "maybe"), ("PUBLIC_DERP_PORT", "https"), ("LIMITS_NODES", "1e3")]
    )
    def test_text_of_the_wrong_kind(self, name: str, text: str) -> None:
        (problem,) = problems("", {f"APPLIANCE_{name}": text})
        assert f'got "{text}"' in problem.message


class TestDerived:
    def test_server_url_follows_from_the_http_listener_when_the_certificate_is_only_ours(self) -> None:
        done = loaded('[listen]\nhttp = "127.0.0.1:8080"\nhttps = "127.0.0.1:8443"')
        assert str(done.config.url) == "http://127.0.0.1:8080"
        assert done.config.tls.mode == "self-signed"
        assert str(done.origins["server_url"]) == "follows from listen.http"
        assert str(done.origins["tls.mode"]) == "follows from the absent server_url"
        assert done.warnings == ()

    def test_server_url_follows_from_https_when_the_certificate_is_trusted(self) -> None:
        done = loaded('[listen]\nhttps = "10.0.0.1:8443"\n[tls]\nmode = "files"')
        assert str(done.config.url) == "https://10.0.0.1:8443"

    def test_wildcard_listeners_mean_this_machine_and_warn(self) -> None:
        done = loaded("")
        assert str(done.config.url) == "http://127.0.0.1"
        assert [warning.key for warning in done.warnings] == ["server_url"]

    def test_self_signed_for_an_https_server_url_warns(self) -> None:
        done = loaded('server_url = "https://homeport.lan"\n[tls]\nmode = "self-signed"')
        assert [warning.key for warning in done.warnings] == ["tls.mode"]

    @pytest.mark.parametrize(
        "url", ["https://10.0.0.1", "https://nas", "https://x.localhost", "http://127.0.0.1:18080"]
    )
    def test_no_certificate_is_ordered_where_none_can_be_had(self, url: str) -> None:
        assert loaded(f'server_url = "{url}"').config.tls.mode == "self-signed"


def test_lines_of_keys_sees_through_lists_and_long_texts() -> None:
    text = 'a = [\n 1,\n 2]\n\n# b = 1\nb = """\n[c]\nd = 1\n"""\r\n[c]\n\nd = 1\nc2.e = 2\n'
    assert lines_of_keys(text) == {"a": 1, "b": 6, "c": 10, "c.d": 12, "c.c2": 13}


def test_config_alone_has_the_documented_defaults() -> None:
    config = Config()
    assert config.dns.base_domain == "tailnet.internal"
    assert (config.tls.mode, config.log.level, config.insecure_http) == ("acme", "info", False)


@given(
    st.text(),
    st.dictionaries(st.sampled_from([setting.env for setting in SETTINGS.values()]), st.text(), max_size=4),
)
def test_any_text_loads_or_is_a_config_error(text: str, environ: dict[str, str]) -> None:
    try:
        load([Source("any", text)], environ)
    except ConfigError as exc:
        found = exc.problems
    else:
        found = ()
    assert all(problem.message for problem in found)


toml_values = st.recursive(
    st.one_of(
        st.booleans().map(lambda x: str(x).lower()),
        st.integers().map(str),
        st.just("1.5"),
        st.just("1979-05-27"),
        st.just('"x"'),
        st.just("nan"),
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=4,
)


@given(st.sampled_from(list(SETTINGS)), toml_values)
def test_any_type_for_any_setting_is_a_problem_with_a_line(path: str, value: str) -> None:
    try:
        loaded(f"\n{path} = {value}")
    except ConfigError as exc:
        found = exc.problems
    else:
        found = ()
    assert all(problem.origin.line in (0, 2) for problem in found)
