"""`make run`: an appliance on loopback, to look at it. Nothing here is for a real network.

Everything lies in `run/` in the source tree, which git ignores: delete it to begin again. A first user is made once, and an
auth key whenever none is valid; the line to paste into a second terminal is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from appliance.client import Client, ServerNotRunning, resource
from appliance.errors import OperatorError
from appliance.socket_path import NAME

USER = "me"
URL = "http://127.0.0.1:8080"
KEY_LIFE_S = 24 * 3600
START_S = 20.0
SETTINGS = {
    "APPLIANCE_SERVER_URL": URL,
    "APPLIANCE_LISTEN_HTTP": "127.0.0.1:8080",
    "APPLIANCE_LISTEN_HTTPS": "127.0.0.1:8443",
    "APPLIANCE_LISTEN_STUN": "127.0.0.1:3478",
    "APPLIANCE_TLS_MODE": "self-signed",
}


def main() -> int:
    """Start the server, prepare it, say how to connect; its exit status when it ends."""
    state = Path(__file__).resolve().parent.parent / "run" / "state"
    command = [sys.executable, "-m", "appliance", "serve", "--state", str(state)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the server too
    server = subprocess.Popen(command, env={**os.environ, **SETTINGS})  # noqa: S603  (our own command)
    try:
        client = wait_for_server(server, state / NAME)
        if client is not None:
            print(instructions(state, fresh_key(client)), flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()  # the terminal told it as well
    except OperatorError as exc:
        for kind, text in exc.lines():
            print(f"{kind}: {text}", file=sys.stderr)
        return 1
    finally:
        server.terminate()


def wait_for_server(server: subprocess.Popen[bytes], path: Path) -> Client | None:
    """The server's client once it answers; None when the server has ended, which it has explained itself."""
    client, until = Client(path), time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            client.call("GET", resource("status"))
        except ServerNotRunning:
            time.sleep(0.05)  # noqa: TID251  (no event loop here)
        else:
            return client
    if server.poll() is None:
        raise OperatorError(f"the server did not answer within {START_S:.0f} s", "read its lines above")
    return None


def fresh_key(client: Client) -> str | None:
    """A reusable key of the first user; None while an earlier one is valid: it was shown when it was made."""
    if all(user["name"] != USER for user in client.call("GET", resource("users"))):
        client.call("POST", resource("users"), {"name": USER})
    if any(key["state"] == "valid" for key in client.call("GET", resource("keys"))):
        return None
    wanted = {"user": USER, "reusable": True, "expiry_s": KEY_LIFE_S}
    return str(client.call("POST", resource("keys"), wanted)["key"])


def instructions(state: Path, key: str | None) -> str:
    """What a person does next."""
    appliance = f"{Path(sys.executable).parent / 'appliance'} --state {state}"
    lines = ["", f"Homeport is running at {URL} (on this machine only; Ctrl-C ends it).", ""]
    if key:
        lines += [
            "Connect an official Tailscale client on this machine:",
            "",
            f"    tailscale up --login-server={URL} --auth-key={key}",
            "",
            "The key admits any number of devices for 24 hours.",
        ]
    else:
        lines += [
            "The auth key that was shown before is still valid. For another one:",
            "",
            f"    {appliance} keys create --user {USER} --reusable",
            "",
            "and then, on this machine:",
            "",
            f"    tailscale up --login-server={URL} --auth-key=KEY",
        ]
    return "\n".join([*lines, "", "See who is there:", "", f"    {appliance} nodes list", ""])


if __name__ == "__main__":
    sys.exit(main())
