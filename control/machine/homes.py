"""The home relay that each machine last reported, beyond the life of its node.

A client does not repeat NetInfo after a login in a running process, for minutes (tried.md, trap 6). When its node was deleted
meanwhile, the new one would have no home relay, and its peers no way to reach it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from control.keys import MachinePublic
from control.state.changes import AnyChange, NodeGone
from control.state.facts import Facts
from control.state.volatile import Group, Volatile

MACHINES_MAX = 10_000  # of deleted nodes; the oldest are forgotten


class LastHomes:
    """Subscribes before a deleted node's volatile record is dropped; memory only."""

    def __init__(self, volatile: Mapping[int, Volatile]) -> None:
        self._volatile = volatile
        self._of_node: dict[int, int] = {ident: record.home_derp for ident, record in volatile.items()}
        self._of_machine: dict[MachinePublic, int] = {}

    def of(self, machine_key: MachinePublic) -> int:
        """The home of this machine's node that was deleted; 0 when there was none."""
        return self._of_machine.get(machine_key, 0)

    def on_commit(self, changes: Sequence[AnyChange], facts: Facts, now: float) -> None:
        for change in changes:
            if isinstance(change, NodeGone) and (home := self._of_node.pop(change.id, 0)):
                self._of_machine.pop(change.machine_key, None)
                if len(self._of_machine) >= MACHINES_MAX:
                    del self._of_machine[next(iter(self._of_machine))]
                self._of_machine[change.machine_key] = home

    def on_touch(self, node_id: int, groups: Collection[Group], now: float) -> None:
        if "derp" in groups:
            self._of_node[node_id] = self._volatile[node_id].home_derp
