"""Finding what a person named: by id, by name, by address."""

from __future__ import annotations

from control.errors import NotFound
from control.model import Node, User
from control.state.facts import Facts


def find_user(facts: Facts, text: str) -> User:
    """By id, name or mail address. Raises NotFound."""
    by_id = facts.users.get(int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else None
    if by_id is not None:
        return by_id
    if text in facts.users_by_name:
        return facts.users[facts.users_by_name[text]]
    if "@" in text:
        for user in facts.users.values():
            if user.login_name.lower() == text.lower():
                return user
    raise NotFound(f"there is no user {text[:80]!r}", "`appliance users list` shows them")


def find_node(facts: Facts, text: str) -> Node:
    """By id, name or address. Raises NotFound."""
    by_id = facts.nodes.get(int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else None
    if by_id is not None:
        return by_id
    ident = facts.by_name.get(text.lower(), facts.by_address.get(text.lower()))
    if ident is None:
        raise NotFound(f"there is no node {text[:80]!r}", "`appliance nodes list` shows them")
    return facts.nodes[ident]
