"""Coordination: who is in the tailnet, and what each of its nodes may know (ts2021, the Tailscale control protocol).

The words:

    user      who owns nodes                        node      a device's record here; a *peer* is a node as another sees it
    tailnet   all of them together                  netmap    what one client should know: itself, its peers, relays, names, filter
    machine key   the device, proven by Noise       node key  its WireGuard key, new at each login; names a node, proves nothing
    snapshot  the world as it is on disk            command   what is asked for; a *change* is what then happened

What a client does, and who answers:

    POST /ts2021                    noise/     handshake (Noise IK) and records; the machine key is proven here
    HTTP/2 inside                   machine/   http2.py: requests in, responses and long polls out
      POST /machine/register                   register.py: log in by auth key, or wait for a person (login/)
      POST /machine/map                        map.py: one long poll per node, and short updates beside it

    state/     THE ONE WRITER: rules decide, SQLite remembers, and only then does anybody hear of it
    mapper/    snapshot → bytes: per client the smallest message that makes its netmap true
    api/       what an administrator can do; the command line's and the console's
    duties.py  what nobody asks for: expiry, clean-up, who is offline
    login/     logins that wait for a person          tailcfg/   the protocol's JSON, one module per noun
    admission.py   who may use the relay              troubles.py   clients that could not do what they wanted

The vocabulary of all: `keys.py`, `capver.py` (client versions), `dnsname.py` (names of nodes), `prefixes.py` (the address plan,
routes), `secret.py` (auth keys), `limits.py`, `errors.py`.

Reading order: `model.py` (the records) → `state/__init__.py` → `state/registration.py` → `machine/register.py` →
`mapper/__init__.py` → `service.py` (all of it put together).

Source: tailscale: control/controlclient, control/controlbase, tailcfg; tstest/integration/testcontrol as a cross-check.
"""
