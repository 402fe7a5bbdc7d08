"""The one thread that talks to the disk: a plain named thread, a queue of jobs, and one call back to the loop for each.

SQLite releases the GIL while it works, so a thread is right for it; that it is one thread makes the order of the
transactions the order of the jobs. `trio.to_thread` would serve, but promises neither the same thread nor the order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import trio


class Job:
    """One call. When `done` is set, `error` or `value` holds what came of it."""

    __slots__ = ("_call", "done", "error", "value")

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.done = trio.Event()
        self.value: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as exc:  # noqa: ASYNC103  (in a thread; carried to the loop, whole, and judged there)
            self.error = exc


class Writer(Protocol):
    def start(self, job: Job) -> None:
        """Have it run after those before it; its `done` is set on the loop."""

    def stop(self) -> None:
        """No more jobs; those given still run."""


class WriterThread:
    """The real one. Made on the loop that is to be called back."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon: a write that the kernel never finishes must not keep the process from ending.
        threading.Thread(target=self._work, name="state-writer", daemon=True).start()

    def start(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            try:
                self._token.run_sync_soon(job.done.set)
            except trio.RunFinishedError:
                return  # the loop has ended; nobody is left to be told
