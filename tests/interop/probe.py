"""What a test does from inside a host, by the host's own resolver and sockets. One subcommand a run; JSON on stdout.

probe.py resolve NAME                          {"addresses": [...]} by getaddrinfo
probe.py connect HOST PORT [SECONDS]           {"result": "open" | "refused" | "timeout" | "unreachable"}
probe.py serve PORT [ADDRESS]                  TCP server for put and get, until killed
probe.py put|get HOST PORT BYTES               moves pseudo-random bytes, compares SHA-256: {"ok", "seconds", "bytes"}
probe.py talk HOST PORT SECONDS < HEX          sends bytes, then reads until the end: {"answer" in hex, "ended"}
"""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import sys
import time

BLOCK = b"".join(
    hashlib.sha256(bytes([7, number % 256, number // 256])).digest() for number in range(1 << 15)
)


def produce(sock: socket.socket, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        block = BLOCK[: min(size, len(BLOCK))]
        digest.update(block)
        sock.sendall(block)
        size -= len(block)
    return digest.hexdigest()


def consume(sock: socket.socket, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        block = sock.recv(min(size, 1 << 18))
        if not block:
            raise ConnectionError(f"closed with {size} bytes to go")
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        sock = self.request
        sock.settimeout(60)
        line = b""
        while not line.endswith(b"\n"):
            byte = sock.recv(1)
            if not byte:
                return
            line += byte
        verb, size = line.split()
        digest = consume(sock, int(size)) if verb == b"put" else produce(sock, int(size))
        sock.sendall(digest.encode())
        print(self.client_address[0], verb.decode(), int(size), flush=True)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family: int = socket.AF_INET6


def transfer(verb: str, host: str, port: int, size: int) -> dict[str, object]:
    started = time.monotonic()
    with socket.create_connection((host, port), 10) as sock:
        sock.settimeout(30)
        sock.sendall(f"{verb} {size}\n".encode())
        ours = produce(sock, size) if verb == "put" else consume(sock, size)
        theirs = b""
        while len(theirs) < 64:
            part = sock.recv(64 - len(theirs))
            if not part:
                raise ConnectionError("closed before the digest")
            theirs += part
    return {"ok": ours == theirs.decode(), "seconds": round(time.monotonic() - started, 3), "bytes": size}


def connect(host: str, port: int, seconds: float) -> str:
    try:
        socket.create_connection((host, port), seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return "unreachable" if error.errno in (101, 113) else f"error: {error}"
    return "open"


def talk(host: str, port: int, data: bytes, seconds: float) -> dict[str, object]:
    """What a peer answers to these bytes, and whether it ended the connection within `seconds`."""
    answer = b""
    with socket.create_connection((host, port), 5) as sock:
        sock.settimeout(seconds)
        try:
            sock.sendall(data)
            while block := sock.recv(1 << 16):
                answer += block
        except TimeoutError:
            return {"answer": answer.hex(), "ended": False}
        except ConnectionError:  # a reset ends it too
            pass
    return {"answer": answer.hex(), "ended": True}


def main(command: str, *rest: str) -> None:
    match command, rest:
        case "resolve", (name,):
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            print(json.dumps({"addresses": sorted({entry[4][0] for entry in found})}))
        case "connect", (host, port, *seconds):
            print(json.dumps({"result": connect(host, int(port), float(seconds[0]) if seconds else 3)}))
        case "serve", (port, *address):
            host = address[0] if address and address[0] else "::"
            if ":" not in host:
                Server.address_family = socket.AF_INET
            Server((host, int(port)), Handler).serve_forever()
        case (("put" | "get"), (host, port, size)):
            print(json.dumps(transfer(command, host, int(port), int(size))))
        case "talk", (host, port, seconds):
            print(json.dumps(talk(host, int(port), bytes.fromhex(sys.stdin.read()), float(seconds))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
