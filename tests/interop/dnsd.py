"""The lab's resolver: answers A and AAAA from a JSON file {name: [address, …]}, NXDOMAIN for the rest. UDP and TCP 53.

python dnsd.py ADDRESS NAMES.json
"""

from __future__ import annotations

import ipaddress
import json
import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import ClassVar


def answer(query: bytes, names: dict[str, list[str]]) -> bytes:
    """The response to one DNS query (RFC 1035); ValueError or IndexError for what is not one."""
    ident, _, questions = struct.unpack_from("!HHH", query)
    if questions != 1:
        raise ValueError("one question expected")
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    kind, _ = struct.unpack_from("!HH", query, at + 1)
    question = query[12 : at + 5]
    known = names.get(".".join(labels).lower())
    addresses = [ipaddress.ip_address(text) for text in known or ()]
    records = b"".join(
        struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(address.packed)) + address.packed
        for address in addresses
        if kind == {4: 1, 6: 28}[address.version]
    )
    count = sum(kind == {4: 1, 6: 28}[address.version] for address in addresses)
    flags = 0x8180 if known is not None else 0x8183
    return struct.pack("!HHHHHH", ident, flags, 1, count, 0, 0) + question + records


class Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(answer(data, json.loads(Path(sys.argv[2]).read_text())), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    timeout: ClassVar[float | None] = 5

    def handle(self) -> None:
        while size := self.rfile.read(2):
            reply = answer(
                self.rfile.read(int.from_bytes(size, "big")), json.loads(Path(sys.argv[2]).read_text())
            )
            self.wfile.write(len(reply).to_bytes(2, "big") + reply)


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    tcp = socketserver.ThreadingTCPServer((sys.argv[1], 53), Tcp)
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    socketserver.ThreadingUDPServer((sys.argv[1], 53), Udp).serve_forever()
