"""Shelving: a session's events leave the database and come back, each in one statement.

What a session is doing is asked of its row's columns, in the statement that changes it: nothing is decided here.
"""

from collections.abc import Sequence

from dalsegno.core.event import Event
from dalsegno.ports import Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres import rows
from dalsegno.stores.postgres.connections import Connections


class Shelving:
    """What one process does with sessions whose events are kept elsewhere."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._sql = sqlfile.statements("postgres")

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """See port `Warm`."""
        place = {"tenant": ref.tenant, "id": ref.id, "shelf": shelf, "head": head, "epoch": epoch}
        async with self._connections.cursor(lost="unknown") as cursor:
            found = await (await cursor.execute(self._sql["session_shelve"], place)).fetchone()
        return found is not None and bool(found[0])

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """See port `Warm`."""
        place = {"tenant": ref.tenant, "id": ref.id, "shelf": shelf, **rows.shelved(events)}
        async with self._connections.cursor(lost="unknown") as cursor:
            await cursor.execute(self._sql["session_unshelve"], place)
