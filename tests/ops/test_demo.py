"""`dalsegno demo`: it ends well, it would notice if it did not, and what it tells people to try works."""

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dalsegno.client import Event
from dalsegno.ops.demo.ledger import Ledger
from dalsegno.ops.demo.verdict import Seen, Sent, judge
from tests.ops.processes import alive, command, environment, run
from tests.support import wait_until


async def test_the_demonstration_ends_well(tmp_path: Path):
    """Two replicas are killed, nothing is lost, doubled or skipped; without a terminal there are no colours."""
    async with asyncio.timeout(30):
        done = await run("demo", cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    figures = {row[0]: row[1:] for row in (re.split(r"\s{2,}", line.strip()) for line in done.out.splitlines())}
    assert figures["replicas killed while answering"][0] == "2"
    assert all(int(ms) <= 1000 for ms in figures["take-over ms"][0].split(", "))
    for name in ("messages lost", "effects doubled", "effects missing", "stream gaps"):
        assert figures[name][0] == "0"
    assert "\x1b" not in done.out and not done.err
    assert "goes on in the same sentence" in done.out and "the same receipt" in done.out
    assert not list(tmp_path.iterdir())
    assert not any(alive(int(pid)) for pid in re.findall(r"pid=(\d+)", done.out))


async def test_serve_keeps_the_fleet_and_its_advice_works(tmp_path: Path):
    """Every command that is printed answers, also where `dalsegno` is on no path; Ctrl-C ends the fleet with code 0."""
    process = await asyncio.create_subprocess_exec(
        *command("demo", "--serve", "--port", "0"),
        cwd=tmp_path,
        env=environment({"PYTHONUNBUFFERED": "1"}),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(30):
            while "/health\n" not in text:
                text += (await process.stdout.readline()).decode()
        advice = re.findall(r"^  (curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
        assert len(advice) == 3
        for line in advice:
            answer = await asyncio.to_thread(_shell, line, tmp_path)
            assert "turn.completed" in answer or json.loads(answer)
        (tree,) = re.findall(r"^  (.*dalsegno sessions show .*)$", text, re.MULTILINE)
        assert "What does dal segno mean?" in await asyncio.to_thread(_shell, tree, tmp_path)
        pids = [int(pid) for pid in re.findall(r"pid=(\d+)", text)]
        (kill,) = re.findall(r"^  (kill -9 \d+)$", text, re.MULTILINE)
        await asyncio.to_thread(_shell, kill, tmp_path)
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
        assert process.returncode == 0
        pids += [int(pid) for pid in re.findall(r"pid=(\d+)", rest.decode())]
        await wait_until(lambda: not any(map(alive, pids)), description="the fleet is gone")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _shell(line: str, folder: Path) -> str:
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment(), capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


TURN = "0a0b0c0d-0000-8000-8000-000000000002"
ITEM = {"type": "message", "id": "m1", "role": "assistant", "content": [{"type": "output_text", "text": "one two"}]}


def _log() -> list[Any]:
    said = {"input": {"type": "message", "content": "hi"}}
    rows = [
        ("turn.created", said),
        ("turn.started", {"attempt": 1}),
        ("item.done", {"item": ITEM}),
        ("turn.completed", {}),
    ]
    return [{"seq": 2 + n, "type": kind, "turn": TURN, "data": data} for n, (kind, data) in enumerate(rows)]


def _seen() -> Seen:
    live = [
        Event("item.added", TURN, data={"item": {**ITEM, "content": []}}),
        Event("item.delta", TURN, data={"item_id": "m1", "field": "text", "at": 0, "delta": "one "}),
        Event("item.delta", TURN, data={"item_id": "m1", "field": "text", "at": 4, "delta": "two"}),
    ]
    done = [Event(row["type"], TURN, data=row["data"], seq=row["seq"]) for row in _log()]
    return Seen(Sent(2, TURN, "hi"), [*done[:2], *live, *done[2:]], [40.0])


def test_a_verdict_on_what_should_be_holds():
    """Everything once, in order, whole."""
    assert judge([_seen()], _log(), kills=1, bookings=1, wanted=1).holds


def _gap(seen: Seen, log: list[Any]) -> None:
    del seen.events[1]


def _repeated(seen: Seen, log: list[Any]) -> None:
    seen.events.insert(2, seen.events[1])


def _hole_in_the_text(seen: Seen, log: list[Any]) -> None:
    del seen.events[3]


def _unfinished_text(seen: Seen, log: list[Any]) -> None:
    del seen.events[4]


def _lost(seen: Seen, log: list[Any]) -> None:
    del log[0]


def _said_twice(seen: Seen, log: list[Any]) -> None:
    log.append(log[0])


def _never_completed(seen: Seen, log: list[Any]) -> None:
    log.pop()


def _never_taken_over(seen: Seen, log: list[Any]) -> None:
    seen.takeovers_ms.clear()


def _taken_over_late(seen: Seen, log: list[Any]) -> None:
    seen.takeovers_ms[:] = [1000.1]


@pytest.mark.parametrize(
    "harm",
    [
        _gap,
        _repeated,
        _hole_in_the_text,
        _unfinished_text,
        _lost,
        _said_twice,
        _never_completed,
        _never_taken_over,
        _taken_over_late,
    ],
)
def test_a_verdict_notices(harm: Any):
    """A demonstration that cannot fail shows nothing."""
    seen, log = _seen(), _log()
    harm(seen, log)
    assert not judge([seen], log, kills=1, bookings=1, wanted=1).holds


@pytest.mark.parametrize("bookings", [0, 2])
def test_a_verdict_counts_effects(bookings: int):
    """One was asked for: none is missing, two are doubled."""
    assert not judge([_seen()], _log(), kills=1, bookings=bookings, wanted=1).holds


async def test_the_ledger_books_a_key_once(tmp_path: Path):
    """And writes down everybody who asked."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.book("k1", "table") == ledger.book("k1", "table") != ledger.book("k2", "table")
    assert (ledger.booked, len(ledger.asked)) == (2, 3)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 3
