"""Shelving: a session's events leave the file and come back. Each is one transaction, the cursor's.

What a session is doing is asked of its row's columns, in the statement that changes it: nothing is decided here.
"""

import sqlite3
from collections.abc import Sequence

from dalsegno.core.event import Event
from dalsegno.ports import Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.sqlite.rows import event_row, packed


def shelve(cursor: sqlite3.Cursor, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
    """See port `Warm`."""
    sql = sqlfile.statements("sqlite")
    name = (ref.tenant, packed(ref.id))
    found = cursor.execute(sql["session_shelve"], (shelf, *name, head, epoch)).fetchall()
    for (n,) in found:
        cursor.execute(sql["event_shelve"], (n << 32, n << 32 | head))
    return bool(found)


def unshelve(cursor: sqlite3.Cursor, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
    """See port `Warm`."""
    sql = sqlfile.statements("sqlite")
    for (n,) in cursor.execute(sql["session_unshelve"], (ref.tenant, packed(ref.id), shelf)).fetchall():
        cursor.executemany(sql["event_add"], [event_row(n << 32, event) for event in events])
