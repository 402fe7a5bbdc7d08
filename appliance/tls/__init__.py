"""TLS as this server ends it.

Where to look, in the order a connection meets them:

    clienthello.py   reads the first message before TLS starts: who is being asked for, and by which protocol
    current.py       the live SSLContext: replaced as a whole, never changed, so that a bad renewal breaks nothing
    selfsigned.py    a certificate of our own making, whose hash the DERP map carries (`sha256-raw:…`)
    transport.py     a socket as a trio stream that can be given away, and what is handed over then
    stream.py        TLS over it, on one pair of memory BIOs for all connections
    watch.py         where the certificate comes from, and when it is read again
    limits.py        sizes and deadlines

TLS 1.2 is the floor and `http/1.1` the only protocol offered: Tailscale clients offer none, browsers fall back to it, and
an upgrade to Noise or DERP needs it. Certificates from an ACME directory are not ordered yet; `current.py` is where they
will be swapped in, and `context_for(hello)` where their challenges will be answered.
"""
