"""What is true, who may change it, and when the world may see it.

    await state.submit(command, by)
        commit ──► head (a working set that only commit reads)
               └─► pending ──► writer thread ──► SQLite, one transaction a batch
                                                 │ COMMIT
        durable (an immutable snapshot) ◄────────┘  then: sessions are woken, subscribers called, the caller answered

Four things live here: `head`, `durable`, `volatile` and `pending`. Everything that leaves the process is built from
`durable` and `volatile`, so nothing that follows from an unwritten fact can leave it. Reading order:

    facts.py      the world as dictionaries and indexes; `apply` is the one function that changes it
    changes.py    what happened: plain, replayable values
    commands.py   what can be asked for
    rules.py      (facts, command, now) → changes and result, or Refused        registration.py: the same for logins
                  lookup.py: what a person named    naming.py: how a node's name follows from its host name
    volatile.py   what may be lost: endpoints, home relay, last seen, Hostinfo
    state.py      THE ONE WRITER                                                writer.py: its thread
    store.py      the storage seam, and the three ways in which a disk says no
    sqlite.py     SQLite behind it: transactions, and which of its errors are definite
                  schema.py: tables and migrations   tables.py, rows.py: facts to rows and back   files.py: the file
"""
