"""From the world to the bytes of each client's map stream.

    durable facts ─┐
                   ├─► world.py: shared records, stamped with revisions ──► session.py: what one client was told,
    volatile ──────┘     peers.py  a node as others see it                    and the difference to now
    settings.py          routes.py who routes which prefix                    blocks.py, encode.py: encoded and
                         view.py   what a class of viewers sees               compressed once for many
                         damper.py endpoints that change too often          fanout.py: who is streaming, and when

Only fanout.py knows trio. The promise, tested over thousands of random histories: whoever replays the messages of any
stream has exactly what a fresh stream would give.
"""
