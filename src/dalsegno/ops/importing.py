"""`dalsegno sessions import --from`, without the words: conversations of other stores become sessions of ours.

A session has the name that the conversation had there. What is here already is compared, and only what is new is
appended; so it may be interrupted, and done again while the other store is still in use.
"""

from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

import msgspec

from dalsegno.core.bring import BYTES_MAX, ITEMS_MAX, parse_items
from dalsegno.core.item import EVENT, OWN_PREFIX, STEP
from dalsegno.core.json import JsonObject, dumps
from dalsegno.core.stretch import Stretch, joined, misfit, since
from dalsegno.errors import Refused
from dalsegno.runtime.store import Store

STATE = "import.state"
NOT_UNDERSTOOD = "import.not_understood"
"""The names of the records that an import leaves beside a conversation."""
replace = msgspec.structs.replace


class Found(msgspec.Struct):
    """A conversation: each item as it is to stand in the log, and as it is kept if it cannot stand there.

    `state` is what else there was, a record named `STATE` beside the conversation. `wrong`: what was not understood.
    """

    items: list[tuple[JsonObject, JsonObject]] = []
    state: JsonObject | None = None
    wrong: list[str] = []


class Source(Protocol):
    """Another framework's store."""

    def names(self) -> AsyncIterator[str]:
        """Every conversation."""
        ...

    async def read(self, name: str) -> Found:
        """One of them."""
        ...

    async def along(self, name: str, store: Store) -> None:
        """Take along what else the framework needs to go on with it, if it is not there."""
        ...


class Told(msgspec.Struct, frozen=True):
    """What became of one conversation: `added` of its `items` were not here before; `there`: nothing was.

    `wrong` says what could not be understood and is kept aside, or is not here at all; `failed`, why nothing was done.
    """

    name: str
    session: str
    what: Literal["imported", "there", "failed"]
    items: int = 0
    added: int = 0
    wrong: tuple[str, ...] = ()


def aside(item: JsonObject) -> JsonObject:
    """An item that is kept as it is, and shown to no model."""
    return {"type": EVENT, "name": NOT_UNDERSTOOD, "data": item}


async def bring_over(source: Source, store: Store, *, told: Callable[[Told], None]) -> None:
    """Import every conversation, one after another, and read back what was written."""
    async for name in source.names():
        found = await source.read(name)
        try:
            done = await _bring_one(store, name, found)
            await source.along(name, store)
            told(done)
        except Refused as refused:
            told(Told(name, "", "failed", wrong=(*found.wrong, str(refused))))


async def _bring_one(store: Store, name: str, found: Found) -> Told:
    wanted, wrong = _fitted(found)
    have, state, version = await _have(store, name)
    if (place := _differing(have, wanted)) is not None:
        raise Refused("session_exists", f"the session goes on otherwise from its item {place} on: it is left as it is")
    new = wanted[len(have) :]
    if found.state is not None and (state is None or not _same(state, found.state)):
        new.append(found.state)
    for batch in _batches(new):
        version = await store.append(name, batch, expect=version)
    have, _, _ = await _have(store, name)
    if len(have) < len(wanted) or _differing(have, wanted) is not None:
        raise Refused("session_exists", "somebody else wrote to the session while it was imported")
    what: Literal["imported", "there"] = "imported" if new else "there"
    return Told(name, store.id_of(name), what, len(wanted), len(new), tuple(wrong))


def _fitted(found: Found) -> tuple[list[JsonObject], list[str]]:
    """The items, each where it can stand, and what is wrong with the others."""
    fitted, wrong = list[JsonObject](), list(found.wrong)
    stretch: Stretch | None = None
    for place, (item, instead) in enumerate(found.items):
        seq = place + 2
        try:
            if why := misfit(stretch, item):
                raise Refused("invalid_request", f"it {why}")
            data = parse_items([item])[0]
        except Refused as refused:
            wrong.append(f"items[{place}]: {refused.detail}")
            data = parse_items([instead])[0]
        fitted.append(data.item)
        stretch = joined(stretch, replace(data, since=since(stretch, data.item, seq=seq)), seq=seq)
    return fitted, wrong


async def _have(store: Store, name: str) -> tuple[list[JsonObject], JsonObject | None, int]:
    """What the session holds: items and what was kept aside, the last record of the state, and its version."""
    items, state, last = list[JsonObject](), None, 0
    while (page := await store.read(name, after=last)).last != last:
        for item in (record.item for record in page.records):
            if item["type"] == STEP and item["name"] == STATE:
                state = item
            elif not str(item["type"]).startswith(OWN_PREFIX) or item["name"] == NOT_UNDERSTOOD:
                items.append(item)
        last = page.last
    return items, state, last


def _differing(have: list[JsonObject], wanted: list[JsonObject]) -> int | None:
    """The first place where both have something, and not the same."""
    for place, (one, other) in enumerate(zip(have, wanted, strict=False)):
        if not _same(one, other):
            return place
    return None


def _same(here: JsonObject, there: JsonObject) -> bool:
    """Whether they are the same, but for the id that an item is given here if it had none."""
    return {**here, "id": there.get("id")} == {**there, "id": there.get("id")}


def _batches(items: list[JsonObject]) -> list[list[JsonObject]]:
    batches, size = list[list[JsonObject]](), 0
    for item in items:
        size += len(dumps(item))
        if not batches or len(batches[-1]) >= ITEMS_MAX // 2 or size > BYTES_MAX // 4:
            batches.append([])
            size = 0
        batches[-1].append(item)
    return batches
