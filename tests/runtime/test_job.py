"""Jobs and functions that run once: recorded steps are not done again, whichever process goes on (law 4, P6, P7)."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dalsegno
from dalsegno import open_store
from dalsegno.core.bring import BYTES_MAX
from dalsegno.core.effect import DidNotHappen, Happened
from dalsegno.errors import ConfigError, Conflict, DalsegnoError, InDoubt, NotDone, Refused, Unavailable
from dalsegno.runtime.store import Store
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """The program of `job_child`, as a process."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def says(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 20)).decode().strip()

    async def die(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()


class Program:
    """Runs the program again and again on one store; `done` is what it did to the world."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._ledger = folder / "ledger"
        self._children: list[Child] = []

    async def start(self, what: str, *, stop: str = "nowhere") -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.runtime.job_child", self._url, what, str(self._ledger), stop),
            stdout=PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{Path(dalsegno.__file__).parents[1]}{os.pathsep}{ROOT}"},
        )
        self._children.append(Child(process))
        return self._children[-1]

    async def end(self) -> None:
        for child in self._children:
            await child.die()

    @property
    def done(self) -> list[str]:
        return self._ledger.read_text().splitlines() if self._ledger.exists() else []


class ProcessCases:
    """What holds through `kill -9`, whatever the store is kept in."""

    @pytest.fixture
    async def program(self, url: str, tmp_path: Path) -> AsyncIterator[Program]:
        program = Program(url, tmp_path)
        yield program
        await program.end()

    async def test_a_job_goes_on_in_another_process(self, program: Program):
        """P6: what is on record is not done again; the step that was under way is."""
        for stop in ("in 2", "after 3"):
            child = await program.start("job", stop=stop)
            assert await child.says() == f"at {stop}"
            await child.die()
        assert await (await program.start("job")).says() == "done [0, 1, 4, 9, 16]"
        assert program.done == [f"page {number}" for number in (0, 1, 2, 2, 3, 4)]

    @pytest.mark.parametrize(
        ("effect", "stop", "said", "times"),
        [
            ("once", "after", "InDoubt", 1),
            ("keyed", "after", "done booked A1", 2),
        ],
    )
    async def test_a_crash_in_the_window(self, program: Program, effect: str, stop: str, said: str, times: int):
        """P7: `once` is not repeated by itself, and says so; `keyed` and `read` are, under the same key."""
        first = await program.start(effect, stop=stop)
        assert await first.says() == f"at {stop}"
        await first.die()
        second = await program.start(effect)
        assert (await second.says()).startswith(said)
        assert len(program.done) == times and len(set(program.done)) <= 1

    async def test_two_processes_make_one_call(self, program: Program):
        """The second waits, and is told what the first came to; a third finds the record."""
        children = [await program.start("once") for _ in range(3)]
        assert [await child.says() for child in children] == ["done booked A1"] * 3
        assert len(program.done) == 1


class TestSqlite(ProcessCases):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/warm.db"

    async def test_two_processes_do_not_share_a_job(self, program: Program):
        """While one has it, the other is told so, and does nothing."""
        first = await program.start("job", stop="after 1")
        await first.says()
        second = await program.start("job")
        assert (await second.says()).startswith("Conflict session_busy: job:import is run by ")
        assert program.done == ["page 0", "page 1"]

    async def test_a_paused_owner_cannot_go_on(self, program: Program):
        """P4: stopped until it counts as dead, it comes back to a job that went on without it, and writes nothing."""
        first = await program.start("job", stop="pause in 1")
        assert await first.says() == "paused in 1"
        async with asyncio.timeout(20):
            while not (said := await (await program.start("job")).says()).startswith("done"):
                assert said.startswith("Conflict"), said
        first.process.send_signal(signal.SIGCONT)
        assert (await first.says()).startswith("Conflict version_mismatch")
        assert program.done == [f"page {number}" for number in (0, 1, 1, 2, 3, 4)]


class TestPostgres(ProcessCases):
    @pytest.fixture
    def url(self, database: str) -> str:
        return database


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store("memory:") as store:
        yield store


def counted(result: Any = "ok") -> tuple[list[Any], Callable[..., Any]]:
    calls: list[Any] = []

    async def function(*args: Any) -> Any:
        calls.append(args)
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    return calls, function


async def test_steps_side_by_side(store: Store):
    """Each is on record once it is done; the next run has them all."""
    calls, page = counted({"n": 1})
    async with store.job("pages") as job:
        await asyncio.gather(*(job.step(f"page-{number}", page, number) for number in range(10)))
    async with store.job("pages") as job:
        assert len(job.results) == 10
        assert await job.step("page-3", page, 3) == {"n": 1}
    assert len(calls) == 10


async def test_a_step_that_raises_is_tried_again(store: Store):
    """Nothing is recorded of it, and the job is free at once."""
    with pytest.raises(ValueError, match="no"):
        async with store.job("pages") as job:
            await job.step("page", counted(ValueError("no"))[1])
    async with store.job("pages") as job:
        assert await job.step("page", counted()[1]) == "ok"


async def test_what_is_no_json_is_refused(store: Store):
    """A result that cannot be given back is an error now, and not when the job is resumed."""
    async with store.job("pages") as job:
        with pytest.raises(Refused, match="invalid_json"):
            await job.step("page", counted(object())[1])


async def test_a_job_is_taken_once(store: Store):
    """Also within one process."""
    async with store.job("pages"):
        with pytest.raises(Conflict, match="is alive"):
            async with store.job("pages"):
                pass
    async with store.job("pages"), store.job("others"):
        pass


async def test_the_same_arguments_are_one_call(store: Store):
    """However they are given; other arguments, and another name, are another call."""
    calls: list[Any] = []

    @store.idempotent("book")
    async def book(seat: str, *, row: int = 1, idempotency_key: str = "") -> str:
        calls.append((seat, row, idempotency_key))
        return f"{seat}{row}"

    assert list(await asyncio.gather(book("A"), book(seat="A"), book("A", row=1))) == ["A1"] * 3
    assert await book("A", row=2) == "A2"
    assert [call[:2] for call in calls] == [("A", 1), ("A", 2)]
    assert len({call[2] for call in calls}) == 2 and all(call[2] for call in calls)


async def test_a_given_key_is_the_call(store: Store):
    """Whatever the arguments are."""
    calls, function = counted()

    async def pay(order: str, note: str) -> Any:
        return await function(order, note)

    once = store.idempotent("pay", key=lambda order, note: order)(pay)
    assert [await once("7", "a"), await once("7", "b"), await once("8", "a")] == ["ok"] * 3
    assert calls == [("7", "a"), ("8", "a")]


@pytest.mark.parametrize(("effect", "calls_made"), [("once", 1), ("keyed", 2), ("read", 2)])
async def test_a_call_that_raised(store: Store, effect: Any, calls_made: int):
    """It may have happened before it raised: `once` is not repeated until somebody has found out."""
    calls, function = counted(ValueError("the connection broke"))
    once = store.idempotent("pay", effect=effect)(function)
    with pytest.raises(ValueError, match="broke"):
        await once()
    with pytest.raises(InDoubt if effect == "once" else ValueError, match="the connection broke"):
        await once()
    assert len(calls) == calls_made


async def test_a_call_that_says_that_nothing_happened(store: Store):
    """`NotDone` from the function: it may be called again."""
    calls, function = counted(NotDone("no seats"))
    once = store.idempotent("pay")(function)
    for _ in range(2):
        with pytest.raises(NotDone, match="no seats"):
            await once()
    assert len(calls) == 2


@pytest.mark.parametrize("returned", [object(), 2**53 + 1, float("nan"), "\ud800"])
async def test_a_result_that_cannot_be_recorded(store: Store, returned: Any):
    """It happened all the same: the call is in doubt, and not made again."""
    calls, function = counted(returned)
    once = store.idempotent("pay")(function)
    with pytest.raises(Refused):
        await once()
    with pytest.raises(InDoubt, match="cannot be recorded"):
        await once()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        Conflict("version_mismatch", "by a store"),
        Refused("not_found", "the session that it writes to when it has paid"),
        OSError("half a pair: \ud800"),
    ],
)
async def test_a_call_that_ends_in_somebody_elses_words(store: Store, error: Exception):
    """What a store raises says nothing about what the function did before it; no words keep it from being recorded."""
    calls, function = counted(error)
    once = store.idempotent("pay")(function)
    with pytest.raises(type(error)):
        await once()
    with pytest.raises(InDoubt, match="it raised"):
        await once()
    assert len(calls) == 1


async def test_a_name_is_no_part_of_a_key(store: Store):
    """`refund` for `eu:1` and `refund:eu` for `1` would be one call."""
    with pytest.raises(ConfigError, match="colon"):
        store.idempotent("refund:eu")(counted()[1])


@pytest.mark.parametrize("record", ["job.taken", "page", "job.left"])
async def test_a_job_that_is_cancelled_while_it_writes(store: Store, record: str, monkeypatch: pytest.MonkeyPatch):
    """Its log knows that it was left: other processes need not wait for this one's end."""
    wrote, go, real = asyncio.Event(), asyncio.Event(), store._log.commit

    async def commit(ref: Any, decide: Any, **more: Any) -> Any:
        decision = await real(ref, decide, **more)
        if any(record.encode() in event.data for event in getattr(decision, "events", ())) and not wrote.is_set():
            wrote.set()
            await go.wait()
        return decision

    async def run() -> None:
        async with store.job("pages") as job:
            await job.step("page", counted()[1])

    monkeypatch.setattr(store._log, "commit", commit)
    running = asyncio.create_task(run())
    await wrote.wait()
    running.cancel()
    asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    names = [one.item["name"] for one in (await store.read("job:pages")).records]
    assert names in (["job.taken", "job.left"], ["job.taken", "page", "job.left"])


@pytest.mark.parametrize(
    ("finding", "answer", "made"), [(Happened("found"), "found", 1), (DidNotHappen(), "ok", 2), (None, InDoubt, 1)]
)
async def test_a_probe_finds_out(store: Store, finding: Any, answer: Any, made: int):
    """What happened is put on record, what did not is done, and what nobody knows stays in doubt."""
    calls: list[str] = []
    asked: list[str] = []

    async def probe(order: str) -> Any:
        asked.append(order)
        return finding

    @store.idempotent("pay", probe=probe)
    async def pay(order: str) -> str:
        calls.append(order)
        if len(calls) == 1:
            raise OSError("broken pipe")
        return "ok"

    with pytest.raises(OSError, match="broken pipe"):
        await pay("7")
    if answer is InDoubt:
        with pytest.raises(InDoubt):
            await pay("7")
    else:
        assert [await pay("7"), await pay("7")] == [answer] * 2
    assert (len(calls), asked) == (made, ["7"])


async def test_a_doubt_is_settled(store: Store):
    """Somebody looked, and says so; then the call has its result, or may be made."""
    calls, function = counted(ValueError("no"))
    once = store.idempotent("pay")(function)
    for order in ("1", "2"):
        with pytest.raises(ValueError, match="no"):
            await once(order)
    await once.settle(Happened({"paid": True}), "1")
    await once.settle(DidNotHappen(), "2")
    assert await once("1") == {"paid": True}
    with pytest.raises(ValueError, match="no"):
        await once("2")
    assert len(calls) == 3
    with pytest.raises(Conflict):
        await once.settle(DidNotHappen(), "1")


async def test_an_owner_that_ends_while_it_is_looked_for(store: Store):
    """It was there, and is gone with its result on record: that is no doubt."""
    go, begun = asyncio.Event(), asyncio.Event()

    @store.idempotent("pay")
    async def pay() -> str:
        begun.set()
        await go.wait()
        return "ok"

    first = asyncio.create_task(pay())
    await begun.wait()
    alive = store._presence.alive

    async def late(owner: str) -> bool:
        go.set()
        await first
        return await alive(owner)

    store._presence.alive = late  # type: ignore[method-assign]
    assert await pay() == "ok"


async def test_an_owner_that_was_taken_for_dead_answers_what_is_on_record(store: Store):
    """Also where its function is given a key, of which whoever makes the call's own key knows nothing."""
    go, begun, keys = asyncio.Event(), asyncio.Event(), list[str]()

    @store.idempotent("pay", key=lambda order: order, effect="keyed")
    async def pay(order: str, idempotency_key: str = "") -> str:
        keys.append(idempotency_key)
        if not begun.is_set():
            begun.set()
            await go.wait()
        return f"ok {len(keys)}"

    first = asyncio.create_task(pay("7"))
    await begun.wait()
    store._presence._held.clear()
    assert await pay("7") == "ok 2"
    go.set()
    assert await first == "ok 2"
    assert len(keys) == 2 and len(set(keys)) == 1


async def test_waiting_is_bounded(store: Store):
    """Who waits too long for another's call is told, and may come again."""
    go, begun = asyncio.Event(), asyncio.Event()

    @store.idempotent("pay", wait=timedelta(milliseconds=50))
    async def pay() -> str:
        begun.set()
        await go.wait()
        return "ok"

    first = asyncio.create_task(pay())
    await begun.wait()
    with pytest.raises(Conflict, match="session_busy"):
        await pay()
    go.set()
    assert [await first, await pay()] == ["ok"] * 2


async def test_a_transaction_is_a_turns(store: Store):
    """A function outside of a turn has no transaction to share."""
    with pytest.raises(ConfigError, match="transactional"):
        store.idempotent("pay", effect="transactional")(counted()[1])


class Silence:
    """A store's log that does not answer while it is `silent`; what it is asked for then may have been `heard`."""

    def __init__(self, store: Store) -> None:
        self.silent = self.heard = False
        self.asked = 0
        self._commit = store._log.commit
        store._log.commit = self._answer  # type: ignore[method-assign]

    async def _answer(self, ref: Any, decide: Any, **more: Any) -> Any:
        silent, self.asked = self.silent, self.asked + 1
        decision = None if silent and not self.heard else await self._commit(ref, decide, **more)
        if silent:
            raise Unavailable("the log does not answer")
        return decision


@pytest.fixture
async def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes' stores on one log, which do not wait long for it."""
    monkeypatch.setattr("dalsegno.runtime.job.PAUSES_SECONDS", (0.01, 0.01))
    monkeypatch.setattr("dalsegno.runtime.patience.PAUSES_SECONDS", (0.05,))
    url = f"sqlite:///{tmp_path}/warm.db"
    async with open_store(url) as one, open_store(url) as other:
        yield one, other


def order() -> str:
    return "7"


async def taken_by(store: Store, name: str) -> dict[str, Any]:
    """The job's results, once it can be taken."""

    async def taken() -> dict[str, Any] | None:
        with suppress(Conflict):
            async with store.job(name) as job:
                return {"results": dict(job.results)}
        return None

    found = await wait_until(taken, description="the job is free")
    return dict(found["results"])


@pytest.mark.parametrize("heard", [False, True])
async def test_a_job_that_is_left_while_the_log_is_silent(beside: tuple[Store, Store], heard: bool):
    """It is left once the log answers: other processes need not wait for this one's end."""
    one, other = beside
    log = Silence(one)
    async with one.job("pages"):
        log.silent, log.heard = True, heard
    log.silent = False
    assert await taken_by(other, "pages") == {}


async def test_a_job_that_is_left_in_silence_is_free_here_too(beside: tuple[Store, Store]):
    """Who takes it again in the same process waits until it has been left."""
    log = Silence(beside[0])
    async with beside[0].job("pages"):
        log.silent = True
    log.silent = False
    async with beside[0].job("pages"):
        pass


@pytest.mark.parametrize("heard", [False, True])
async def test_a_job_that_is_taken_while_the_log_is_silent(beside: tuple[Store, Store], heard: bool):
    """Nobody knows whether it was taken; it is not kept from others."""
    one, other = beside
    log = Silence(one)
    log.silent, log.heard = True, heard
    with pytest.raises(Unavailable):
        async with one.job("pages"):
            pass
    log.silent = False
    assert await taken_by(other, "pages") == {}


@pytest.mark.parametrize("heard", [False, True])
async def test_a_step_that_the_log_did_not_answer_to(beside: tuple[Store, Store], heard: bool):
    """It is on record before what comes next, and what comes next is no conflict."""
    one, other = beside
    log = Silence(one)
    async with one.job("pages") as job:
        log.silent, log.heard = True, heard
        with pytest.raises(Unavailable):
            await job.step("first", counted()[1])
        log.silent = False
        assert await job.step("second", counted()[1]) == "ok"
    assert await taken_by(other, "pages") == {"first": "ok", "second": "ok"}


async def test_a_record_that_is_refused_takes_no_other_with_it(beside: tuple[Store, Store]):
    """Nobody knew of either of two; one can be written, the other never can."""
    one, other = beside
    log = Silence(one)
    async with one.job("pages") as job:
        log.silent = True
        for name, result in (("first", "ok"), ("large", "x" * (BYTES_MAX + 1))):
            with pytest.raises(Unavailable):
                await job.step(name, counted(result)[1])
        log.silent = False
    assert await taken_by(other, "pages") == {"first": "ok"}


@pytest.mark.parametrize("heard", [False, True])
async def test_a_result_that_the_log_did_not_answer_to(tmp_path: Path, beside: tuple[Store, Store], heard: bool):
    """It happened, and is put on record as soon as that can be: at the latest when the store is closed."""
    calls, function = counted()
    async with open_store(f"sqlite:///{tmp_path}/warm.db") as store:
        log = Silence(store)

        async def pay() -> Any:
            log.silent, log.heard = True, heard
            return await function()

        with pytest.raises(Unavailable):
            await store.idempotent("pay", key=order)(pay)()
        asked = log.asked
        await wait_until(lambda: log.asked > asked, description="it is tried in the background")
        log.silent = False
    assert await beside[1].idempotent("pay", key=order)(function)() == "ok"
    assert len(calls) == 1


async def test_what_a_function_raises_while_the_log_is_silent(beside: tuple[Store, Store]):
    """Is what its caller is told, a cancel among it; the doubt is recorded later."""
    one, other = beside
    log = Silence(one)

    async def pay() -> None:
        log.silent = True
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await one.idempotent("pay", key=order)(pay)()
    log.silent = False
    with pytest.raises(InDoubt, match="it raised CancelledError"):
        await other.idempotent("pay", key=order)(counted()[1])()


async def test_who_cannot_settle_a_doubt_leaves_it(beside: tuple[Store, Store]):
    """P7: the log fell silent between taking the call and recording what was found out about it: nobody knows still."""
    one, other = beside
    calls, function = counted(ValueError("the connection broke"))
    with pytest.raises(ValueError, match="broke"):
        await one.idempotent("pay", key=order)(function)()
    log = Silence(one)
    log.silent = log.heard = True
    with pytest.raises(Unavailable):
        await one.idempotent("pay", key=order)(function).settle(Happened("paid"))
    log.silent = False
    with pytest.raises(InDoubt, match="the connection broke"):
        await other.idempotent("pay", key=order)(function)()
    assert len(calls) == 1


async def test_who_is_cancelled_over_a_doubt_leaves_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    """P7: it had taken the call, and recorded nothing yet: the call is not made again by itself."""
    calls, function = counted(ValueError("the connection broke"))
    pay = store.idempotent("pay")(function)
    with pytest.raises(ValueError, match="broke"):
        await pay()
    wrote, go, real = asyncio.Event(), asyncio.Event(), store._log.commit

    async def commit(ref: Any, decide: Any, **more: Any) -> Any:
        decision = await real(ref, decide, **more)
        wrote.set()
        await go.wait()
        return decision

    monkeypatch.setattr(store._log, "commit", commit)
    settling = asyncio.create_task(pay.settle(Happened("paid")))
    await wrote.wait()
    settling.cancel()
    asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(asyncio.CancelledError):
        await settling
    with pytest.raises(InDoubt, match="the connection broke"):
        await pay()
    assert len(calls) == 1


async def test_a_result_that_is_too_large(beside: tuple[Store, Store]):
    """It happened, and cannot be recorded: nobody waits for it any longer, and nobody does it again."""
    one, other = beside
    calls, function = counted("x" * (BYTES_MAX + 1))
    with pytest.raises(Refused, match="too_large"):
        await one.idempotent("pay", key=order)(function)()
    with pytest.raises(InDoubt, match="cannot be recorded"):
        await other.idempotent("pay", key=order, wait=timedelta(seconds=1))(function)()
    assert len(calls) == 1


async def test_a_step_twice_at_once(store: Store):
    """The second waits for what the first comes to; if that raises, it does the step itself."""
    results: list[Any] = [ValueError("no"), "second", "third"]

    async def page() -> Any:
        await asyncio.sleep(0)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async with store.job("pages") as job:
        came = await asyncio.gather(*(job.step("page", page) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in came] == ["no", "second", "second"] and results == ["third"]
    records = [one.item["name"] for one in (await store.read("job:pages")).records]
    assert records == ["job.taken", "page", "job.left"]


async def test_a_step_that_asks_for_itself(store: Store):
    """Is told so, and does not wait for ever."""
    async with store.job("pages") as job:

        async def page() -> Any:
            return await job.step("page", counted()[1])

        with pytest.raises(DalsegnoError, match="asks for itself"):
            await job.step("page", page)
