from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from appliance.config.kinds import Address
from appliance.door import sockets
from appliance.door.sockets import inherited_sockets, open_tcp, open_udp
from appliance.errors import OperatorError

EVERYWHERE = Address("", 0)
LOOPBACK = Address("127.0.0.1", 0)


def test_no_host_means_both_families_on_one_port() -> None:
    [listening] = open_tcp(EVERYWHERE, "listen.https")
    with listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                pass
    udp = open_udp(EVERYWHERE, "listen.stun")
    assert {sock.family for sock in udp} == {socket.AF_INET, socket.AF_INET6}
    assert len({sock.getsockname()[1] for sock in udp}) == 1
    for sock in udp:
        sock.close()


def test_a_port_in_use_says_which_and_what_to_do() -> None:
    [listening] = open_tcp(LOOPBACK, "listen.https")
    with listening:
        port = listening.getsockname()[1]
        with pytest.raises(OperatorError) as caught:
            open_tcp(LOOPBACK._replace(port=port), "listen.https")
    assert f"127.0.0.1:{port} (listen.https) is in use" in caught.value.message
    assert any("ss -lntup" in hint for hint in caught.value.hints)


def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(OperatorError, match=r"no address 192\.0\.2\.1"):
        open_tcp(Address("192.0.2.1", 0), "listen.https")


CHILD = """
import os, sys
for target, source in enumerate(sys.argv[1:], 100):
    os.dup2(int(source), target)
os.dup2(100, 3), os.dup2(101, 4)
from appliance.door.sockets import inherited_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
found = inherited_sockets(os.environ, os.getpid())
assert not any(name.startswith("LISTEN_") for name in os.environ)
for name, socks in sorted(found.items()):
    for sock in socks:
        assert not sock.getblocking() and not sock.get_inheritable()
        print(name, sock.type.name, sock.getsockname()[1])
"""


def test_sockets_are_inherited_by_name_and_the_variables_are_gone() -> None:
    [tcp] = open_tcp(LOOPBACK, "x")
    [udp] = open_udp(LOOPBACK, "x")
    with tcp, udp:
        ports = [sock.getsockname()[1] for sock in (tcp, udp)]
        numbers = [str(sock.fileno()) for sock in (tcp, udp)]
        environ = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "https.socket:stun"}
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, *numbers],
            pass_fds=(tcp.fileno(), udp.fileno()),
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [f"https SOCK_STREAM {ports[0]}", f"stun SOCK_DGRAM {ports[1]}"]


def test_variables_meant_for_another_process_are_ignored() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "https", "OTHER": "stays"}
    assert inherited_sockets(environ, os.getpid()) == {}
    assert environ == {"OTHER": "stays"}
    assert inherited_sockets({}, os.getpid()) == {}


def test_a_socket_without_a_known_name_is_the_operators_error() -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ssh.socket"}
    with pytest.raises(OperatorError, match="'ssh'"):
        inherited_sockets(environ, 7)


def test_without_ipv6_all_addresses_means_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_has_ipv6", lambda: False)
    [listening] = open_tcp(EVERYWHERE, "listen.https")
    with listening:
        assert listening.family is socket.AF_INET
