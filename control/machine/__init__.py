"""What official clients talk to: requests inside Noise, and how long they hold.

    http2.py       HTTP/2 over a NoiseStream: who is served, how long, and how it ends
                   request.py  what comes in    writer.py  what goes out    abuse.py  what a client may do in a second
    session.py     one Noise connection: who it is, and the table of its requests
    identity.py    node_for(machine key, node key): the only way to a node
    register.py    log in, log out, rotate             map.py        lite updates and the long poll
    reports.py     what a node says of itself, filtered
    homes.py       its home relay, beyond the life of its node
    presence.py    who is online: sessions counted, with grace

A machine key proves who speaks; nothing in a request does (security.md K1).
"""
