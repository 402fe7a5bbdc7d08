"""From the world to the bytes of each client's map stream.

    durable facts ─┐
                   ├─► world.py: shared records, stamped with revisions ──► session.py: what one client was told,
    volatile ──────┘     peers.py     a node as others see it                 and the difference to now
    settings.py ───┘     users.py     profiles, and who owns what             blocks.py, encode.py: encoded and
                         routes.py    who routes which prefix                 compressed once for many
                         view.py      what a class of viewers sees          fanout.py: who is streaming, and when
                         audience.py  open sessions

Only fanout.py knows trio. The promise, tested over thousands of random histories: whoever replays the messages of any
stream has exactly what a fresh stream would give.
"""
