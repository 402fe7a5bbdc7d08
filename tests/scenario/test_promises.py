"""What was ever sent or acknowledged is on the disk, whenever the process dies (state.md A.15).

`crowd.py` lives the histories, `recorder.py` holds the server to what it said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import trio

from control.machine.map import MapPolls
from control.mapper.world import World
from control.state.state import State, Ticket
from control.state.store import Commit
from tests.scenario.crowd import Disk, History
from tests.scenario.recorder import Broken

HISTORIES = range(10)


def live_many(seeds: Iterable[int]) -> Counter[str]:
    ends: Counter[str] = Counter()
    for seed in seeds:
        history = History(seed)
        history.run()
        ends += history.ends
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("seed", HISTORIES)
def test_nothing_that_was_said_is_lost_when_the_process_dies(seed: int) -> None:
    History(seed).run()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_that_was_said_is_lost_in_many_histories() -> None:
    ends = live_many(range(1000, 1300))
    assert {"before its COMMIT", "after its COMMIT", "in good order"} <= ends.keys(), ends


# The recorder is worth something if it notices. Each of these servers breaks the promise in one place.

Patch = Callable[[pytest.MonkeyPatch], None]


def answers_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    async def submit(self: State, command: Any, by: Any) -> object:
        _, result = self._commit(command, by, self._clock())
        await trio.lowlevel.checkpoint()
        return result

    patch.setattr(State, "submit", submit)


def answers_so_it_is_while_it_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """state.md A.8: a success that changes nothing rests on what may not be written yet."""
    honest = State._commit

    def commit(self: State, *args: Any) -> Any:
        before = self._head.seq
        ticket, result = honest(self, *args)
        return (ticket if self._head.seq > before else None), result

    patch.setattr(State, "_commit", commit)


def answers_a_refused_batch(patch: pytest.MonkeyPatch) -> None:
    honest = Ticket.settle
    patch.setattr(Ticket, "settle", lambda self, failure=None: honest(self))


def draws_maps_from_the_working_set(patch: pytest.MonkeyPatch) -> None:
    """state.md A.5."""
    honest = State._commit

    def commit(self: State, command: Any, by: Any, now: float) -> Any:
        ticket, result = honest(self, command, by, now)
        for subscriber in self._subscribers:
            if ticket is not None and isinstance(subscriber, World):
                subscriber.on_commit(ticket.commit.changes, self._head.copy(), now)
        return ticket, result

    patch.setattr(State, "_commit", commit)


def acknowledges_updates_at_once(patch: pytest.MonkeyPatch) -> None:
    """state.md A.9."""
    honest = MapPolls._keep

    async def keep(self: MapPolls, *args: Any) -> None:
        with trio.move_on_after(0):
            await honest(self, *args)

    patch.setattr(MapPolls, "_keep", keep)


def forgets_some_of_it(patch: pytest.MonkeyPatch) -> None:
    """A disk that says it has written what it has not."""
    honest = Disk.append

    def append(self: Disk, batch: Sequence[Commit]) -> int:
        return honest(self, batch) if batch[-1].seq % 5 else batch[-1].seq

    patch.setattr(Disk, "append", append)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant",
    [
        answers_before_the_disk,
        answers_so_it_is_while_it_is_on_its_way,
        answers_a_refused_batch,
        draws_maps_from_the_working_set,
        acknowledges_updates_at_once,
        forgets_some_of_it,
    ],
)
def test_a_server_that_promises_too_much_is_caught(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(Broken):
        live_many(range(40))
