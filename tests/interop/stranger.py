"""A client of our own making that says what no official one would. Runs inside a host of the lab; JSON on stdout.

    stranger.py ADDRESS SERVER_PUBLIC_HEX PATH < BODY_HEX [--machine PRIVATE_HEX] [--version N]

Upgrades on plain port 80 (Noise needs no TLS), posts the body to PATH and prints {"status", "body"}; {"closed": why}
if the server ended the connection instead.
"""

from __future__ import annotations

import argparse
import json
import sys

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from control.noise.errors import NoiseError
from tests.support.noise_client import FakeControlClient

PATIENCE_S = 10


async def post(args: argparse.Namespace, body: bytes) -> dict[str, object]:
    if args.machine:
        machine = X25519PrivateKey.from_private_bytes(bytes.fromhex(args.machine))
    else:
        machine = X25519PrivateKey.generate()
    stream = await trio.open_tcp_stream(args.address, 80)
    try:
        client = await FakeControlClient.connect(stream, bytes.fromhex(args.public), machine, args.version)
        response = await client.request(args.path, body)
        await response.wait_started()
        answer = b""
        with trio.move_on_after(1):  # a map poll stays open: what has come by then is its answer
            while data := await response.receive_some():
                answer += data
    except (AssertionError, NoiseError, trio.BrokenResourceError) as error:
        return {"closed": str(error)}
    return {"status": response.status, "body": answer.decode(errors="replace"), "reset": response.reset_with}


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("address", "public", "path"):
        parser.add_argument(name)
    parser.add_argument("--machine")
    parser.add_argument("--version", type=int, default=142)
    with trio.fail_after(PATIENCE_S):
        print(json.dumps(await post(parser.parse_args(), bytes.fromhex(sys.stdin.read()))))


if __name__ == "__main__":
    trio.run(main)
