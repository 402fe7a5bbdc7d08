"""A server's state under load, to be killed: `python -m tests.control.state.crash_child DATABASE RUN`.

Eight writers, each with a user, change the world for ever. A step makes a node and an auth key; `WRITER STEP` goes out once
both are acknowledged. Then the node and the key of the step before go, and `WRITER STEP gone` says that. Then the user
is renamed, after the next step. Nothing is asked before the line is out, so what was acknowledged is known exactly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from control.state.commands import CreateAuthKey, CreateUser, DeleteNode, RenameUser, RevokeAuthKey
from control.state.sqlite import SqliteStore
from control.state.state import State
from tests.control.state.toy import ADMIN, MACHINE, decide, node_key, register

WRITERS = 8


def name_of(run: int, writer: int, step: int) -> str:
    return f"run{run}-writer{writer}-step{step}"


def key_of(run: int, writer: int, step: int) -> int:
    """The number of a node key."""
    return (run << 40) | (writer << 32) | step


async def write(state: State, run: int, writer: int) -> None:
    step = 0
    await state.submit(CreateUser(name=name_of(run, writer, 0)), ADMIN)
    while True:
        await state.submit(register(key_of(run, writer, step)), MACHINE)
        await state.submit(CreateAuthKey(id=name_of(run, writer, step), mac=b"m", expiry_s=1), ADMIN)
        os.write(1, f"{writer} {step}\n".encode())
        if step:
            old = state.durable.by_node_key[node_key(key_of(run, writer, step - 1))]
            await state.submit(DeleteNode(node=str(old)), ADMIN)
            await state.submit(RevokeAuthKey(id=name_of(run, writer, step - 1)), ADMIN)
            os.write(1, f"{writer} {step} gone\n".encode())
        await state.submit(
            RenameUser(user=name_of(run, writer, step), name=name_of(run, writer, step + 1)), ADMIN
        )
        step += 1


async def main(path: Path, run: int) -> None:
    state = State(SqliteStore(path), decide=decide, pepper=b"pepper", clock=lambda: 1.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(state.run)
        for writer in range(WRITERS):
            nursery.start_soon(write, state, run, writer)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
