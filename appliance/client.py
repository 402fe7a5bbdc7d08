"""The command line's side of the socket: one request, one JSON answer.

Before it says anything it looks whose socket that is: a socket that another user put there would be told what to do with our
nodes, and could answer what it likes. Imports only the standard library, so that a command starts at once.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from appliance.errors import OperatorError
from appliance.socket_path import NOBODY, peer_uid, short_name

TIMEOUT_S = 30.0


class ServerNotRunning(OperatorError):
    """Nobody answers on the socket."""

    exit_status = 3


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket whose owner was looked at."""

    def __init__(self, path: Path) -> None:
        super().__init__("appliance", timeout=TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        owner = _checked_owner(self.path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        with short_name(self.path) as name:
            self.sock.connect(name)
        if peer_uid(self.sock) != owner:
            raise _not_ours(self.path)


def _checked_owner(path: Path) -> int:
    """The owner of the socket: root, us, or, when we are root, the user whose closed folder it lies in."""
    status, folder = path.lstat(), path.parent.stat()
    owner = status.st_uid
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and not folder.st_mode & 0o022:
        trusted.add(folder.st_uid)
    if not stat.S_ISSOCK(status.st_mode) or owner not in trusted or owner == NOBODY:
        raise _not_ours(path)
    return owner


def _not_ours(path: Path) -> OperatorError:
    return OperatorError(
        f"{path} is not the server's socket", "find out who put it there; name the state folder with --state"
    )


def resource(*parts: str) -> str:
    """A path below /api/v1; the parts may hold anything."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """Speaks to the running server."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """The answer's JSON. OperatorError when refused, ServerNotRunning when nobody is there."""
        connection = _Connection(self.path)
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, target, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as exc:
            folder = self.path.parent
            raise ServerNotRunning(
                f"the server is not running: nobody answers at {self.path}",
                f"start it with: appliance serve --state {folder}" if folder.is_dir() else "",
                "if it runs elsewhere, name its state folder with --state",
            ) from exc
        except PermissionError as exc:
            raise OperatorError(
                f"user {os.geteuid()} may not use {self.path}", "run this as root or as the server's user"
            ) from exc
        except TimeoutError as exc:
            raise OperatorError(
                f"no answer within {TIMEOUT_S:.0f} s",
                "look at the server's log; what was asked may still happen",
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise OperatorError(
                f"the connection broke: {str(exc).strip()}", "look at the server's log, then try again"
            ) from exc
        finally:
            connection.close()
        return _document(answer.status, text)


def _document(status: int, text: bytes) -> Any:
    try:
        document = json.loads(text) if text else None
    except ValueError as exc:
        raise OperatorError(
            "the server's answer is not JSON", "are server and command of the same version?"
        ) from exc
    if status < 400:
        return document
    refusal = document if isinstance(document, dict) else {}
    raise OperatorError(
        str(refusal.get("error") or f"the server answered {status}"), str(refusal.get("hint") or "")
    )
