"""The measures. Everybody works in short windows, one after another: a slow minute of the machine is everyone's."""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from bench.content import CONTENT_BYTES
from bench.peers.harness import Driver, DriverError, Stores, driver, python_for, stores
from bench.peers.roster import Entry
from bench.peers.verdict import Crash, Writers, judge, kept

LOOK_SECONDS = 0.02
LONG_SECONDS = 0.2
LONG_MAX = 8
"""Long conversations are begun until their first segments took so long together, or are so many."""
BROKEN = "t3"
"""The mark of the turn in which the process dies."""
WARM = 16
"""Turns, and then sessions, that are not counted: connections, plans and caches are made."""


class Sizes(msgspec.Struct, frozen=True):
    """How much is enough. `seconds` is the least that a window of many sessions takes."""

    turns: tuple[int, ...] = (10, 50, 100, 200)
    bytes_at: int = 100
    segment: int = 25
    sessions: tuple[int, ...] = (1, 16, 64)
    conversation: int = 20
    window: int = 4
    seconds: float = 0.7
    writers: int = 50
    patience: float = 3.0


RELEASE = Sizes(turns=(10, 50, 100, 200, 500), seconds=2.0, patience=10.0)
QUICK = Sizes(
    turns=(6,), bytes_at=10, segment=5, sessions=(1, 4), conversation=4, window=2, seconds=0.1, writers=8, patience=2.0
)


class Row(msgspec.Struct, frozen=True):
    """What was measured of one entry: p50 in ms by turn, bytes a turn, turns a second by sessions at once."""

    name: str
    does: str
    versions: dict[str, str]
    ms: dict[int, float]
    bytes_per_turn: float
    rates: dict[int, float]
    writers: Writers
    crash: Crash


class Comparison(msgspec.Struct, frozen=True):
    """One run. `load` is the machine's load average when it began, which others made."""

    made: str
    machine: str
    servers: dict[str, str]
    sizes: Sizes
    content_bytes: int
    rows: list[Row]
    load: float | None = None


class Bench:
    """One entry with its store and its process, and what has been measured of it so far."""

    def __init__(self, entry: Entry, url: str, process: Driver) -> None:
        self.entry = entry
        self.url = url
        self.process = process
        self.seconds: list[list[float]] = []
        self.firsts: list[float] = []
        self.spent: dict[int, float] = {}
        self.done: dict[int, int] = {}
        self.sets: dict[int, int] = {}


async def compare(entries: Sequence[Entry], sizes: Sizes) -> Comparison:
    """Measure them all, in one run."""
    for entry in entries:
        python_for(entry)
    load = os.getloadavg()[0]
    with stores(cache=any(entry.store == "redis" for entry in entries)) as found:
        benches = await _figures(entries, found, sizes)
        rows = []
        for bench in benches:
            _say(f"bytes, two writers, a crash: {bench.entry.name}")
            stored = await bytes_per_turn(bench.entry, found, sizes)
            writers = await two_writers(bench.entry, found, sizes)
            rows.append(_row(bench, sizes, stored, writers, await crash(bench.entry, found, sizes)))
        machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        made = datetime.now(UTC).date().isoformat()
        return Comparison(made, machine, found.versions(), sizes, CONTENT_BYTES, rows, load)


async def _figures(entries: Sequence[Entry], found: Stores, sizes: Sizes) -> list[Bench]:
    async with AsyncExitStack() as stack:
        benches = []
        for entry in entries:
            url = found.fresh(entry.store)
            benches.append(Bench(entry, url, await stack.enter_async_context(driver(entry, url))))
        for bench in benches:
            await bench.process.ask("turns", session="warm", first=1, count=WARM)
        await _one_session(benches, sizes)
        for bench in benches:
            await bench.process.ask("many", sessions=[f"warm-{n}" for n in range(WARM)], first=1, count=2)
        for count in sizes.sessions:
            await _sessions(benches, count, sizes)
        return benches


async def _one_session(benches: Sequence[Bench], sizes: Sizes) -> None:
    """One long conversation at a time, by segments; for who is quick, several of them, so that chance evens out."""
    last = max(sizes.turns) + 5
    stops = [0, *range(sizes.segment, last, sizes.segment), last]
    for window, (begin, end) in enumerate(pairwise(stops)):
        _say(f"turns {begin + 1} to {end} of one session")
        for bench in _from(benches, window):
            while begin == 0 and len(bench.seconds) < LONG_MAX and _spent(bench) < LONG_SECONDS:
                bench.seconds.append(await _turns(bench.process, len(bench.seconds), begin, end))
            if begin:
                for number, seconds in enumerate(bench.seconds):
                    seconds += await _turns(bench.process, number, begin, end)


async def _turns(process: Driver, number: int, begin: int, end: int) -> list[float]:
    found: list[float] = await process.ask("turns", session=f"long-{number}", first=begin + 1, count=end - begin)
    return found


def _spent(bench: Bench) -> float:
    return sum(map(sum, bench.seconds))


async def _sessions(benches: Sequence[Bench], count: int, sizes: Sizes) -> None:
    """So many conversations at once, all from their beginning to their end, by windows.

    Whoever is done before the window's time is over begins as many more; then they, too, go on in the next window.
    """
    for window, begin in enumerate(range(0, sizes.conversation, sizes.window)):
        turns = min(sizes.window, sizes.conversation - begin)
        _say(f"{count} sessions at once, turns {begin + 1} to {begin + turns}")
        for bench in _from(benches, window):
            spent, number = 0.0, 0
            while number < bench.sets[count] if begin else spent < sizes.seconds:
                names = [f"s{count}-{number}-{place}" for place in range(count)]
                took, *firsts = await bench.process.ask("many", sessions=names, first=begin + 1, count=turns)
                if count == 1 and begin == 0:
                    bench.firsts += firsts
                spent, number = spent + took, number + 1
            bench.sets[count] = number
            bench.spent[count] = bench.spent.get(count, 0.0) + spent
            bench.done[count] = bench.done.get(count, 0) + number * count * turns


async def bytes_per_turn(entry: Entry, found: Stores, sizes: Sizes) -> float:
    """What one conversation adds to a store that has had another one."""
    url = found.fresh(entry.store)
    async with driver(entry, url) as process:
        await process.ask("turns", session="warm", first=1, count=WARM)
        empty = found.size(url)
        await process.ask("turns", session="stored", first=1, count=sizes.bytes_at)
        stored = found.size(url) - empty
    found.drop(url)
    return stored / sizes.bytes_at


async def two_writers(entry: Entry, found: Stores, sizes: Sizes) -> Writers:
    """All turns at once on one session that has had one turn, half of them from each of two processes."""
    url, half = found.fresh(entry.store), sizes.writers // 2
    async with driver(entry, url) as one, driver(entry, url, name="two") as two:
        await one.ask("turns", session="shared", first=1, count=1)
        marks = [f"x{number}" for number in range(2 * half)]
        asked = (
            each.ask("burst", session="shared", marks=part) for each, part in ((one, marks[:half]), (two, marks[half:]))
        )
        said = [outcome for outcomes in await asyncio.gather(*asked) for outcome in outcomes]
        history = await one.ask("history", session="shared")
    found.drop(url)
    return judge(history, dict(zip(marks, said, strict=True)))


async def crash(entry: Entry, found: Stores, sizes: Sizes) -> Crash:
    """The third turn's process dies in its tool, after the effect. Then another process comes, and time passes; then
    one of the same name, where names matter; then somebody does by hand what the documentation says.
    """
    url, names = found.fresh(entry.store), ("two", "one") if entry.named else ("two",)
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        options = entry.crash or entry.options
        async with driver(entry, url, options=options, book=str(book), dies=BROKEN) as dying:
            await dying.ask("turns", session="broken", first=1, count=2)
            try:
                await dying.ask("turns", session="broken", first=3, count=1)
            except DriverError:
                await dying.died()
            else:
                raise RuntimeError(f"{entry.name} was to die in its tool, and answered")
        crashed: Crash | None = None
        for name in names:
            async with driver(entry, url, name=name, options=options, book=str(book)) as process:
                seconds = await _goes_on(process, sizes.patience)
                if seconds is not None or name == names[-1]:
                    crashed = await _aftermath(process, name, seconds, book)
                    break
    found.drop(url)
    assert crashed is not None
    return crashed


async def _aftermath(process: Driver, name: str, seconds: float | None, book: Path) -> Crash:
    seen, begin = await _broken(process), time.perf_counter()
    if seconds is None:
        by = "by hand: " + await process.ask("go_on", session="broken", mark=BROKEN)
        seconds = time.perf_counter() - begin
    else:
        by = "another process, by itself" if name == "two" else "only a process of the same name, by itself"
    turn, calls = await _broken(process), _calls(book)
    try:
        await process.ask("turns", session="broken", first=4, count=1)
    except DriverError:
        return Crash(by, seconds, seen, turn, len(calls), len(set(calls)), next_turn=False)
    return Crash(by, seconds, seen, turn, len(calls), len(set(calls)), next_turn=True)


async def _goes_on(process: Driver, patience: float) -> float | None:
    """Seconds until the turn has its answer without anybody's doing; None if it has none after so many."""
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < patience:
        if (await _broken(process)).endswith("a"):
            return spent
        await asyncio.sleep(LOOK_SECONDS)
    return None


async def _broken(process: Driver) -> str:
    """What is stored of the turn that broke off."""
    return kept(await process.ask("history", session="broken"), BROKEN)


def _calls(book: Path) -> list[str]:
    """The call ids that the tool wrote down for it."""
    lines = (line.split() for line in book.read_text().splitlines())
    return [call for mark, call in lines if mark == BROKEN]


def _row(bench: Bench, sizes: Sizes, stored: float, writers: Writers, crashed: Crash) -> Row:
    ms = {1: statistics.median(bench.firsts) * 1000}
    for turn in sizes.turns:
        around = [second for seconds in bench.seconds for second in seconds[turn - 6 : turn + 4]]
        ms[turn] = statistics.median(around) * 1000
    rates = {count: bench.done[count] / bench.spent[count] for count in sizes.sessions}
    entry = bench.entry
    return Row(entry.name, entry.does, bench.process.versions, ms, stored, rates, writers, crashed)


def _from(benches: Sequence[Bench], window: int) -> Sequence[Bench]:
    """In an order that begins elsewhere in each window, so that nobody always follows the same one."""
    first = window % len(benches)
    return [*benches[first:], *benches[:first]]


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
