"""The JSON of the control protocol, one module per noun (tailscale tailcfg/tailcfg.go).

    register.py   RegisterRequest, RegisterResponse       map.py        MapRequest, members of a MapResponse
    hostinfo.py   Hostinfo, NetInfo                       node.py       Node, PeerChange, UserProfile
    derpmap.py    DERPMap     dns.py    DNSConfig         filter.py     packet filter rules
    codec.py      the one decode helper: any bytes give a value or `DecodeError`

Field names of the wire exist here and nowhere else: attributes are the same words in snake case. What is absent, null
and empty differ in this protocol (control.md §7.6), so encoders say explicitly what is sent; decoders take every field as
optional and ignore what they do not know.
"""
