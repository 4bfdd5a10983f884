"""Whatever comes in by the front door: it is understood or refused, and nobody else is harmed by it."""

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from dalsegno.client import ApiError, Client, SessionHandle
from dalsegno.testing.fleet import Fleet
from tests.acceptance import hostile
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.hostile import Shot, nasty
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.verdict import ends, log_of

pytestmark = [pytest.mark.timeout(seconds(180))]

SEED = 5
LANES = 16
ANSWER_SECONDS = 10.0
HANGS_UP_SECONDS = 1.0
"""How long an answer is waited for that need not come: for half a request, say."""


async def test_hostile_requests_break_nothing(serving: Serving):
    """P12: "Accepted text comes back code point for code point; what cannot be stored is refused before it is
    acknowledged; each error says whether anything was applied." No 5xx, no death, no session that answers no more.
    """
    async with serving(replicas=1) as fleet:
        await survive_shots(fleet, size(1000, 50_000))


async def survive_shots(fleet: Fleet, count: int) -> None:
    """Fire at the sessions of one replica, in lanes, and see after each shot that its session still answers."""
    async with Client(fleet.urls, retry=STUBBORN) as client:
        replica = fleet["r1"]
        pid = replica.pid
        sessions = [await client.sessions.create() for _ in range(LANES)]
        statuses, wrong, accepted = Counter[int](), list[str](), defaultdict[str, list[str]](list)

        async def lane(number: int) -> None:
            for place in range(number, count, LANES):
                shot = hostile.shot(SEED, place, sessions[number].id)
                answers = await fire(fleet.addresses[0], shot)
                statuses.update(status for status, _ in answers)
                wrong.extend(f"shot {place} ({shot.kind}): {fault}" for fault in faults(shot, answers))
                if shot.text is not None and answers and answers[0][0] == 202:
                    accepted[sessions[number].id].append(shot.text)
                if shot.deletes and answers and answers[0][0] == 204:
                    sessions[number] = await client.sessions.create()
                elif not await usable(sessions[number], place):
                    wrong.append(
                        f"shot {place} ({shot.kind}): session {sessions[number].id} is bricked by {shot.raw[:300]!r}"
                    )
                    sessions[number] = await client.sessions.create()

        async with asyncio.TaskGroup() as group:
            for number in range(LANES):
                group.create_task(lane(number))
        for session in sessions:
            wrong += altered(await log_of(session), accepted.pop(session.id, []))
        assert replica.pid == pid and replica.alive and replica.starts == 1
    publish(f"{count} shots: {dict(sorted(statuses.items()))}, {len(wrong)} wrong")
    assert wrong == [], "\n".join(wrong)
    assert "Traceback" not in replica.text(), "an input was an error of ours"
    assert statuses[202] > count // 20 and statuses[400] > count // 5 and len(statuses) >= 8


async def fire(address: tuple[str, int], shot: Shot) -> list[tuple[int, bytes]]:
    """The answers, each with its status and (the beginning of) its body; none if the connection was closed."""
    reader, writer = await asyncio.open_connection(*address, limit=2**22)
    answers: list[tuple[int, bytes]] = []
    try:
        async with asyncio.timeout(HANGS_UP_SECONDS if shot.hangs_up else ANSWER_SECONDS):
            with suppress(ConnectionError):
                writer.write(shot.raw)
                await writer.drain()
            answers.append(await _answer(reader))
            if answers[0][0] == 101 and shot.frames is not None:
                with suppress(ConnectionError):
                    writer.write(shot.frames)
                    await writer.drain()
                    async with asyncio.timeout(0.05):  # it may be listened to for ever
                        await reader.read(65536)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # closed without an answer: for bytes that are no request
    except TimeoutError:
        if not shot.hangs_up and not answers:
            answers.append((0, b"no answer"))
    finally:
        writer.transport.abort()
    return answers


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status == 100:
        return await _answer(reader)
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths and status != 101 else b""
    return status, body


def faults(shot: Shot, answers: list[tuple[int, bytes]]) -> list[str]:
    """What is wrong with the answers to a shot."""
    found = []
    for status, body in answers:
        if status >= 500 or status == 0:
            found.append(f"{status} {body[:300]!r} for {shot.raw[:300]!r}")
        elif status >= 400 and body and _outcome(body) != "not_applied":
            found.append(f"{status} does not say that nothing was applied: {body[:300]!r}")
    if shot.text is not None and not answers:
        found.append(f"a valid message was not answered: {shot.raw[:300]!r}")
    if shot.text is not None and answers and answers[0][0] not in (202, 413):
        found.append(f"a valid message was refused: {answers[0]} {shot.raw[:300]!r}")
    return found


def _outcome(body: bytes) -> object:
    try:
        return json.loads(body).get("outcome")
    except ValueError:
        return "not a problem document"


async def usable(session: SessionHandle, place: int) -> bool:
    """Whether the session still answers."""
    try:
        receipt = await session.send(f"still there after {place}?")
        turn = await session.turn(receipt.turn, wait=timedelta(seconds=20))
    except ApiError:
        return False
    said = [item["content"][0]["text"] for item in turn["output"] if item["type"] == "message"]
    return turn["status"] == "completed" and said == [f"still there after {place}?"]


def altered(log: Any, texts: list[str]) -> list[str]:
    """Accepted texts that are not in the log as they were sent, or were not said back so."""
    inputs = Counter(event["data"]["input"].get("content") for event in log if event["type"] == "turn.created")
    said = Counter(
        event["data"]["item"]["content"][0]["text"]
        for event in log
        if event["type"] == "item.done" and event["data"]["item"]["type"] == "message"
    )
    cancelled = sum(event["type"] == "turn.cancelled" for event in ends(log).values())
    wrong = [f"altered: {text[:80]!r}" for text, count in Counter(texts).items() if inputs[text] < count]
    silent = [text for text, count in Counter(texts).items() if said[text] < count]
    return wrong + ([f"not said back: {text[:80]!r}" for text in silent] if len(silent) > cancelled else [])


async def test_a_damaged_export_is_refused_or_harmless(serving: Serving):
    """P9: an import that is not the export of a session is refused; one that is accepted is a session that answers."""
    chance, refused, taken = random.Random(SEED), Counter[str](), 0
    async with serving(replicas=1) as fleet, Client(fleet.urls, retry=STUBBORN) as client:
        session = await client.sessions.create()
        for number in range(3):
            do = ["keyed", "read"]
            receipt = await session.send(json.dumps({"id": f"e{number}", "do": do, "words": 2, "pace_ms": 0}))
            assert (await session.turn(receipt.turn, wait=timedelta(seconds=10)))["status"] == "completed"
        lines = (await session.export()).splitlines(keepends=True)
        for _ in range(size(100, 2000)):
            try:
                copy = await client.sessions.import_(damaged(lines, chance))
            except ApiError as error:
                assert error.status < 500, error
                refused[error.code] += 1
                continue
            taken += 1
            assert await usable(copy, taken)
        assert fleet["r1"].alive and fleet["r1"].starts == 1
    publish(f"{taken} damaged exports were taken, {sum(refused.values())} refused: {dict(refused)}")
    assert refused


def damaged(lines: list[bytes], chance: random.Random) -> bytes:
    """A line lost, doubled, moved, cut, or with another value in it."""
    copy = list(lines)
    place = chance.randrange(len(copy))
    match chance.randrange(6):
        case 0:
            del copy[place]
        case 1:
            copy.insert(place, copy[place])
        case 2:
            chance.shuffle(copy)
        case 3:
            copy[place] = copy[place][: chance.randrange(len(copy[place]))]
        case 4:
            event = json.loads(copy[place])
            event[chance.choice(list(event))] = chance.choice((None, -1, "", [], {}, "x" * 100, 10**12))
            copy[place] = json.dumps(event).encode() + b"\n"
        case _:
            event = json.loads(copy[place])
            data = event.get("data") or {"": 0}
            data[chance.choice([*data, "extra"])] = chance.choice((None, -1, "", [], {}, nasty(chance)[:100]))
            copy[place] = json.dumps(event).encode() + b"\n"
    return b"".join(copy)


async def test_the_openapi_document_is_kept(serving: Serving):
    """Schemathesis generates requests from the server's own `/openapi.json`: none makes it fail."""
    async with serving(replicas=1) as fleet:
        arguments = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{fleet.urls[0]}/openapi.json"),
            *("--checks", "not_a_server_error", "--max-examples", str(size(25, 500)), "--seed", str(SEED)),
            *("--request-timeout", "5", "--header", "Accept:application/json", "--phases", "examples,coverage,fuzzing"),
            *("--suppress-health-check", "all", "--no-color"),
        ]
        process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await process.communicate()
        report = said.decode("utf-8", "replace")
        publish(report[-1500:])
        assert process.returncode == 0, report
        assert fleet["r1"].alive and fleet["r1"].starts == 1
