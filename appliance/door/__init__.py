"""The front door: everything that strangers on TCP can reach comes in here.

One accept loop per listening socket, one task per connection, every wait on the other side under a deadline, and no
exception ever leaves a connection. In the order of a connection's life:

    sockets.py      listening sockets, our own or inherited from systemd
    listener.py     accepts; knows every connection; one that fails takes nobody with it
    preauth.py      how many strangers may be connected, and who must go when it is one too many
    proxy.py        PROXY protocol and X-Forwarded-For, from listed proxies only
    turns.py        the work of handshakes, in fair turns
    names.py        which names pages are served under
    connection.py   TLS, then request after request on one connection
    head.py         one request head: read strictly, answered plainly
    routes.py       THE TABLE: which URL goes where, and which listener may serve it
    takeover.py     when a connection leaves HTTP, and what it is answered
    answers.py      our own small routes (probes, health, the server's key …)
    websocket.py    a WebSocket as a byte stream, for clients that live in browsers
    asgi.py         pages: one exchange at a time through Hypercorn, the only file that knows its inside
    service.py      Door: what main.py builds and runs
    seldom.py       warnings that strangers can cause, once a minute
    limits.py       numbers, with their reasons

Relay and node connections leave by the take-over in `connection.py` and never touch ASGI.
"""
