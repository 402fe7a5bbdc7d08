"""A request inside Noise: as it arrives, and as its handler gets it."""

from typing import NamedTuple

from hpack.struct import Header


class Request(NamedTuple):
    """One request, with its whole body."""

    method: str
    path: str  # up to the question mark
    query: str  # after it
    headers: dict[str, str]  # names in lower case; repeated ones joined by commas; no pseudo-headers
    body: bytes


class Upload:
    """A request whose body is not complete."""

    __slots__ = ("body", "deadline", "headers")

    def __init__(self, headers: list[Header], deadline: float) -> None:
        self.headers = headers
        self.deadline = deadline
        self.body = bytearray()

    @property
    def path(self) -> str:
        """For a log line: what was asked for, without the query."""
        target = next((bytes(value) for name, value in self.headers if bytes(name) == b":path"), b"")
        return target.decode("latin-1").partition("?")[0]

    def complete(self) -> Request:
        fields: dict[str, str] = {}
        for raw_name, raw_value in self.headers:
            name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        method, target = fields.pop(":method"), fields.pop(":path", "")
        path, _, query = target.partition("?")
        headers = {name: value for name, value in fields.items() if not name.startswith(":")}
        return Request(method, path, query, headers, bytes(self.body))
