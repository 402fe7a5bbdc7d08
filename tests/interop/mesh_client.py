"""arkitekt-mesh, an independent client in Rust, as a program for a host of the lab. One line of JSON for each step.

mesh_client.py STATE URL AUTH_KEY PEER PORT       {"addresses": […]}, then {"forward": "127.0.0.1:P"}; runs until killed
"""

from __future__ import annotations

import asyncio  # noqa: TID251  (the library wants it)
import json
import sys

from arkitekt_mesh import Node


async def main(state: str, url: str, key: str, peer: str, port: str) -> None:
    node = await Node.start(state, "mesh", control_url=url, auth_key=key, timeout=40)
    print(json.dumps({"addresses": list(node.addresses)}), flush=True)
    print(json.dumps({"forward": await node.forward(peer, int(port))}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
