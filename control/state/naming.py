"""How a node's name follows from what it calls itself."""

from __future__ import annotations

from control import dnsname
from control.model import Node
from control.state.facts import Facts


def renamed_by_host(facts: Facts, node: Node, hostname: str) -> dict[str, object]:
    """The fields that a reported host name changes: kept for showing, and the name unless an administrator set it.

    A node that got a suffix keeps it while it calls itself the same.
    """
    if hostname == node.hostname:
        return {}
    fields: dict[str, object] = {"hostname": hostname}
    label = dnsname.label_from_hostname(hostname)
    if not node.name_frozen and label != dnsname.label_from_hostname(node.hostname):
        fields |= label_fields(facts, node, label)
    return fields


def label_fields(facts: Facts, node: Node, label: str) -> dict[str, object]:
    """The name for this label: itself, or with a suffix when another node has it."""
    return {"name": dnsname.unique_label(label, lambda name: facts.by_name.get(name, node.id) != node.id)}
