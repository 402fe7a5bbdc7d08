"""Homeport: everything that official Tailscale clients need, in one process on one small server.

    ┌───────────────────────────── appliance ─────────────────────────────┐
    │ door/    accepts, ends TLS, reads one request head, sends it to …    │
    │            /ts2021 ─► control    /derp ─► derp    pages/ ─► Quart    │
    │ config/  settings        tls/  certificates        pages/  for people│
    │ cli/     the command line, which speaks to …                         │
    │ socket_api.py, a Unix socket ─► control/api                          │
    │ main.py  THE COMPOSITION ROOT: what runs, in which order             │
    └──────────────────────────────────────────────────────────────────────┘
       control/  who is in the tailnet, and what each of its nodes may know
       derp/     the relay: packets for clients that cannot reach each other directly
       stun/     tells a client which address its packets come from

`control`, `derp` and `stun` know neither each other nor this package; `main.py` hands them streams and plain callables.
Inside each, the protocol is pure (bytes and times in, events and bytes out) and the I/O around it thin.

Where to start reading: `main.py`, then `derp/__init__.py` (the small complete example of the style), then
`control/__init__.py`, then one flow from end to end: `door/connection.py` → `control/service.py` → `control/machine/register.py`
→ `control/state/registration.py` → `control/state/state.py` → `control/mapper/session.py`.

Beside `main.py`, in the order in which it uses them:

    logs.py         one event, one line              server_keys.py   the keys in it, made once
    state_dir.py    the folder that is the backup    listeners.py     sockets, ours or systemd's
    notify.py       telling systemd how we are       region.py        our relay, as clients are told of it
    bounds.py       [limits] for the parts           overview.py      how it goes, for `status` and the page
    lifecycle.py    ready, read again, stop          version.py

and for the command line: `__main__.py`, `client.py` (its side of the socket), `socket_path.py`, `try_out.py` (`make run`);
for all: `errors.py`, `printable.py` (text from strangers, made fit for one line).
"""
