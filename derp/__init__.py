"""DERP: a relay for clients that cannot reach each other directly.

Clients of one tailnet keep a TLS connection to their home relay. What they send is addressed by node key and
already encrypted end to end; the relay passes it on, or drops it, and never reads it. It also carries the
first messages by which two clients find a direct path.

A connection, from its first byte:

    client                                     relay
    GET /derp, Upgrade: DERP              →    (the front door's part; with fast start no answer comes)
                                          ←    101 Switching Protocols
                                          ←    ServerKey       magic and the relay's public key
    ClientInfo   node key, box of JSON    →                    opens: the client holds that node key
                                          ←    ServerInfo      box of JSON
    SendPacket   to B, bytes              →    RecvPacket      from A, bytes                  → B
    Ping                                  →    Pong
                                          ←    KeepAlive       every 60 to 65 s
                                          ←    PeerGone        B has left, or is not here

Sizes: five bytes of header (type, length); keys 32 bytes; packets at most 64 KiB. Every bound and its reason
stands in `limits.py`; a client that exceeds one is disconnected, and a client that does not read loses the
oldest packets first and after two seconds its connection.

Who is admitted is not decided here: `DerpService` asks the callable that it was given, and is told by `evict`.

Reading order:

    frames.py      the frame table, and how each is encoded
    handshake.py   ServerKey, ClientInfo, ServerInfo
    relay.py       who is connected; several connections of one key
    backlog.py     what waits for a blocked reader, and how much of it
    channel.py     the bytes of one connection: socket and TLS by hand
    session.py     one client: read, rewrite in place, write at once
    engine.py      the one task that drives all sessions; clock, memory, deaths
    service.py     login, and the public face: serve, evict, shutdown
    wheel.py, counters.py, limits.py, errors.py

Not built yet: WebSocket, mesh, the key in the certificate, quotas. Mesh frames end the connection.

Source: tailscale: derp/derp.go, derp/derpserver/derpserver.go, derp/derp_client.go.
"""

from derp.channel import Detached, Transport
from derp.counters import Counters
from derp.limits import Limits
from derp.service import DerpService

__all__ = ["Counters", "DerpService", "Detached", "Limits", "Transport"]
