"""Numbers of the front door, each chosen by us for the reason beside it; sizes of TLS are in `appliance/tls/limits.py`."""

BACKLOG = 4096  # every client of a big tailnet comes back within a second after a restart

PRE_AUTH = 2048  # about 25 KB each: 50 MB
PRE_AUTH_PER_SOURCE = 256  # while the table is over half full: an office behind one NAT passes on a quiet day
SITE_WEIGHT = 4  # an IPv6 /48 may hold as much as four /64
PROXY_WEIGHT = 8  # a listed proxy brings everybody's connections
CONNECTIONS = 26_000  # pre-auth and authenticated together

HANDSHAKES_A_TURN = 16  # 0.3 to 2.8 ms each

HEAD_SECONDS = 10.0
IDLE_SECONDS = 60.0  # reverse proxies reuse idle connections
LINGER_SECONDS = 2.0  # after a refusal: a close with unread bytes would destroy the answer on its way
LINGER_BYTES = 256 * 1024
PROXY_HEADER_SECONDS = 5.0

HEAD_BYTES = 16 * 1024  # long OpenID Connect callbacks fit
HEAD_FIELDS = 100
HEAD_LINE = 8 * 1024
QUERY_FIELDS = 20  # our own routes have one
BODY_BYTES = 1024 * 1024  # anything longer is refused by its Content-Length; pages set less
PAGE_BODY_BYTES = 64 * 1024

WEBSOCKET_MESSAGE = 4096  # one Noise record at most: small enough for any client's default limit

WARN_EVERY_SECONDS = 60.0  # for warnings that strangers can cause
OUT_OF_FILES_SECONDS = 0.1  # pause of an accept loop when the process has no descriptor left
KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
USER_TIMEOUT_MS = 30_000  # unacknowledged data: the other side is gone
