"""Checkpoints as differences: whatever is put, in whatever order, is what is found, however the log is read."""

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno.agents.langgraph import book as books
from dalsegno.agents.langgraph.book import Behind, Book
from dalsegno.agents.langgraph.record import Blob, Drop, Record, Slot, Writes, is_page, page_of
from dalsegno.agents.langgraph.thread import Given, Row, Thread
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable


class Paper:
    """A log in memory, with other events between."""

    def __init__(self) -> None:
        self.items: list[JsonObject | None] = [None]

    async def head(self) -> int:
        return len(self.items)

    async def read(self, after: int, limit: int) -> Any:
        part = self.items[after : after + limit]
        found = [(after + 1 + n, item) for n, item in enumerate(part) if item is not None and is_page(item)]
        return found, after + len(part)

    async def append(self, items: Any, *, expect: int) -> int:
        if expect != len(self.items):
            raise Behind
        self.items += items
        return len(self.items)


blobs = st.builds(Blob, st.just("msgpack"), st.binary(max_size=40))
values = st.dictionaries(st.sampled_from("abc"), blobs | st.lists(blobs, max_size=6), max_size=3)
seen = st.dictionaries(st.sampled_from("xy"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), max_size=2)
puts = st.tuples(st.integers(0, 9), values, st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)), seen)
acts = st.one_of(
    st.tuples(st.just("put"), puts),
    st.tuples(st.just("write"), st.tuples(st.integers(0, 9), st.integers(-2, 2), blobs)),
    st.tuples(st.just("drop"), st.integers(0, 9)),
    st.tuples(st.just("event"), st.none()),
    st.tuples(st.just("other process"), st.none()),
)


def always(record: Record, thread: Thread) -> Record:
    return record


def plain(thread: Thread) -> Any:
    """All checkpoints of a thread, as values."""
    return [
        (
            kept.name,
            kept.parent,
            kept.versions,
            kept.seen,
            {name: value.elements() if isinstance(value, Row) else value for name, value in kept.values.items()},
            thread.pending(*kept.name),
        )
        for kept in thread.all()
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=25))
def test_what_was_put_is_found(told: list[Any]):
    """By the process that put it, by one that reads the newest pages, and by one that reads all."""
    asyncio.run(live(told))


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=25))
def test_what_was_put_is_found_beside_pages_that_repeat(told: list[Any]):
    """The same, also for what is put on top of a checkpoint that the newest page does not repeat. Tasks write on top
    of the newest.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(books, "REPEAT_BYTES_MIN", 10)
        patch.setattr(books, "REPEAT_RATIO", 1)
        asyncio.run(
            live([(kind, (-1, *what[1:]) if kind == "write" else what) for kind, what in told if kind != "drop"])
        )


async def live(told: list[Any]) -> None:
    paper = Paper()
    mine = Book(paper)
    model: dict[str, Any] = {}
    writes: dict[str, dict[int, Any]] = {}
    for number, (kind, what) in enumerate(told):
        ids = sorted(model)
        if kind == "put":
            place, values, versions, seen = what
            parent = ids[place % len(ids)] if ids else None
            name = f"{number:04}"
            given = Given("", name, parent, Blob("m", b""), Blob("r", b""), versions, seen, values)
            await mine.write(partial(Thread.put, given=given, by="me"))
            model[name] = (("", name), parent, versions, seen, values)
        elif kind == "write" and ids:
            place, index, blob = what
            name = ids[place % len(ids)]
            record = Writes("", name, "me", "task", "path", (Slot(index, "a", blob),))
            await mine.write(partial(Thread.news, given=record))
            known = writes.setdefault(name, {})
            known[index] = blob if index < 0 else known.get(index, blob)
        elif kind == "drop" and ids:
            gone = ids[what % len(ids)]
            await mine.write(partial(always, Drop((("", gone),))))
            del model[gone]
            writes.pop(gone, None)
        elif kind == "event":
            paper.items.append(None)
            await mine.refresh()
        elif kind == "other process":
            mine = Book(paper)
    expected = [
        (*model[name], [("task", Slot(index, "a", blob)) for index, blob in sorted(writes.get(name, {}).items())])
        for name in sorted(model, reverse=True)
    ]
    assert plain(await mine.everything()) == expected
    fresh = Book(paper)
    assert plain(await fresh.everything()) == expected
    newest = (await Book(paper).refresh()).all()[:1]
    assert [kept.name for kept in newest] == [entry[0] for entry in expected[:1]]


async def test_pages_that_repeat(monkeypatch: pytest.MonkeyPatch):
    """With a page that repeats after nearly every write: the newest is found there, the past behind it."""
    monkeypatch.setattr(books, "REPEAT_BYTES_MIN", 10)
    monkeypatch.setattr(books, "REPEAT_RATIO", 1)
    paper = Paper()
    for number in range(40):
        parent = f"{number - 1:04}" if number else None
        values: dict[str, Any] = {
            "a": [Blob("m", bytes([n])) for n in range(number % 7)],
            "b": Blob("m", b"%d" % number),
        }
        given = Given("", f"{number:04}", parent, Blob("m", b""), Blob("r", b""), {"b": number}, {}, values)
        await Book(paper).write(partial(Thread.put, given=given, by="me"))
    pages = [page_of(item) for item in paper.items if item is not None]
    assert sum(page.first for page in pages) > 5
    found = (await Book(paper).refresh()).find("")
    assert found is not None
    assert (found.id, found.values["b"], found.versions) == ("0039", Blob("m", b"39"), {"b": 39})
    whole = await Book(paper).everything()
    assert [kept.id for kept in whole.all()] == [f"{n:04}" for n in range(39, -1, -1)]
    assert [len(kept.values["a"]) for kept in whole.all() if isinstance(kept.values["a"], Row)][::-1] == [
        n % 7 for n in range(40)
    ]


async def test_a_copy_stays_as_it_is():
    """Whatever is applied to the thread that it was made of: writes, checkpoints, repetitions, removals."""
    thread = Thread()
    first = Given("", "1", None, Blob("m", b""), Blob("r", b""), {}, {}, {"a": [Blob("m", b"x")]})
    thread.apply(thread.put(first, by="me"), at=1)
    thread.apply(Writes("", "1", "me", "task", "path", (Slot(0, "a", Blob("m", b"y")),)), at=2)
    for record in thread.repeat([]):
        thread.apply(record, at=2)
    copied, twin = thread.copy(), thread.copy()
    assert copied.put(msgspec.structs.replace(first, id="2", parent="1"), by="me").whole
    thread.apply(Writes("", "1", "you", "task", "path", (Slot(1, "a", Blob("m", b"z")),)), at=3)
    thread.apply(thread.put(msgspec.structs.replace(first, id="1", values={}), by="you"), at=4)
    thread.apply(thread.put(msgspec.structs.replace(first, id="2", parent="1"), by="you"), at=5)
    thread.apply(Drop((("", "1"),)), at=6)
    for kept in (copied, twin):
        found = kept.find("")
        assert found is not None and (found.id, set(found.values), len(kept)) == ("1", {"a"}, 1)
        assert [slot.index for _, slot in kept.pending("", "1")] == [0]
        assert (kept.foreign("me"), kept.foreign("you")) == (0, 2)
        assert kept.put(msgspec.structs.replace(first, id="2", parent="1"), by="me").whole


async def test_what_a_page_repeats_is_enough():
    """What is put on top of it is a difference again, and of what was not repeated nothing is."""
    thread = Thread()
    given = Given("", "1", None, Blob("m", b""), Blob("r", b""), {}, {}, {"a": Blob("m", b"x")})
    for ns, name in (("", "1"), ("done:1", "2"), ("", "3"), ("now:2", "4")):
        thread.apply(thread.put(msgspec.structs.replace(given, ns=ns, id=name), by="me"), at=1)
    assert thread.lasting() == [("", "3"), ("now:2", "4")]
    for record in thread.repeat(thread.lasting()):
        thread.apply(record, at=2)
    parents = [("", "1"), ("done:1", "2"), ("", "3"), ("now:2", "4")]
    wholes = [thread.put(msgspec.structs.replace(given, ns=ns, id="5", parent=at), by="me").whole for ns, at in parents]
    assert wholes == [True, True, False, False]


async def test_a_damaged_page_is_an_error():
    """Never an older state (law 7)."""
    paper = Paper()
    for number in range(3):
        given = Given("", str(number), None, Blob("m", b""), Blob("r", b""), {}, {}, {"a": Blob("m", b"x" * 99)})
        await Book(paper).write(partial(Thread.put, given=given, by="me"))
    page: Any = paper.items[2]
    page["data"]["packed"] = page["data"]["packed"][:-8]
    with pytest.raises(Unreadable):
        await Book(paper).refresh()
