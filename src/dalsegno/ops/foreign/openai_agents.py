"""Sessions of the OpenAI Agents SDK (`SQLiteSession`, `SQLAlchemySession`), in the tables that both use by default."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from dalsegno.agents.openai_agents.items import kept_as
from dalsegno.errors import ConfigError
from dalsegno.ops.foreign.sqlite import read_only
from dalsegno.ops.importing import Found, aside
from dalsegno.runtime.store import Store

NAMES = "SELECT DISTINCT session_id FROM agent_messages ORDER BY session_id"
ITEMS = "SELECT message_data FROM agent_messages WHERE session_id = {} ORDER BY id"
BRANCHES = "SELECT count(*) FROM message_structure WHERE session_id = {} AND branch_id <> 'main'"
MAIN = (
    "SELECT m.message_data FROM agent_messages m JOIN message_structure s ON m.id = s.message_id"
    " WHERE m.session_id = {} AND s.branch_id = 'main' ORDER BY s.sequence_number"
)
Ask = Callable[..., Sequence[Sequence[Any]]]


class Sessions:
    """All sessions of a database. `ask` runs a statement; `mark` stands for a parameter in it."""

    def __init__(self, ask: Ask, *, mark: str) -> None:
        self._ask = ask
        self._mark = mark

    async def names(self) -> AsyncIterator[str]:
        """Every session that holds anything."""
        for row in await asyncio.to_thread(self._ask, NAMES):
            yield str(row[0])

    async def read(self, name: str) -> Found:
        """The items of a session, as the SDK's `Session` over our log gives them back."""
        return await asyncio.to_thread(self._read, name)

    async def along(self, name: str, store: Store) -> None:
        """The items are all there is."""

    def _read(self, name: str) -> Found:
        made, statement = Found(), ITEMS
        if self._branched():
            statement = MAIN
            others = self._ask(BRANCHES.format(self._mark), (name,))[0][0]
            if others:
                made.wrong.append(f"{others} items of branches other than `main` are not taken along")
        for place, row in enumerate(self._ask(statement.format(self._mark), (name,))):
            try:
                item = _item(row[0])
                made.items.append((kept_as(item), kept_as(item, fits=False)))
            except ValueError as error:
                made.wrong.append(f"items[{place}]: {error}")
                kept = aside({"text": str(row[0])})
                made.items.append((kept, kept))
        return made

    def _branched(self) -> bool:
        try:
            self._ask("SELECT 1 FROM message_structure LIMIT 1")
        except LookupError:
            return False
        return True


@contextmanager
def opened(url: str) -> Iterator[Sessions]:
    """The sessions of a SQLite file. Raises `ConfigError` where there are none."""
    with closing(read_only(url)) as connection:

        def ask(statement: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[Any]]:
            try:
                return connection.execute(statement, parameters).fetchall()
            except sqlite3.OperationalError as error:
                raise LookupError(str(error)) from error
            except sqlite3.DatabaseError as error:
                raise ConfigError(f"{url} cannot be read: {error}") from error

        yield checked(Sessions(ask, mark="?"), ask, url)


def checked(sessions: Sessions, ask: Ask, place: str) -> Sessions:
    """The same, if the tables are there. Raises `ConfigError`."""
    try:
        ask(f"{NAMES} LIMIT 1")
    except LookupError as error:
        raise ConfigError(f"{place} has no sessions of the OpenAI Agents SDK: {error}") from error
    return sessions


def _item(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is no item")
    if "__enc__" in found:
        raise ValueError("it is encrypted: read it with the SDK's EncryptedSession, and append it to the store")
    return found
