"""The disk fills up: what cannot be kept is refused, what was acknowledged stays, and room is all that is needed."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import httpx2
import pytest

from dalsegno.client import TERMINAL, Client
from dalsegno.testing.fleet import Fleet
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import publish, seconds
from tests.acceptance.verdict import log_of

pytestmark = [pytest.mark.timeout(seconds(90)), pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

FILLING = "x" * 20_000
Room: TypeAlias = Callable[[Fleet, bool], None]


@pytest.fixture(params=["limit", "tmpfs"])
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Room, set[str]]]:
    """A folder for the database, the way to take the room away and give it back, and what refusals may say."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limit":
        yield folder, _limit, {"not_applied", "unknown"}
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder, lambda _, full: _ballast(folder, full), {"not_applied"}
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _limit(fleet: Fleet, full: bool) -> None:
    """No file of a replica may grow beyond what it has now (its write-ahead log included), as with a quota."""
    for replica in fleet:
        _, hard = resource.prlimit(replica.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (200_000 if full else hard, hard))


def _ballast(folder: Path, full: bool) -> None:
    """Fill what is left of the file system but for a little, or give it back."""
    path = folder / "ballast"
    if not full:
        path.unlink()
        return
    state = os.statvfs(folder)
    path.write_bytes(b"\0" * max(0, state.f_bavail * state.f_bsize - 200_000))


async def test_a_full_disk_refuses_and_loses_nothing(serving: Serving, room: tuple[Path, Room, set[str]]):
    """P1, P12: while there is no room a message is refused with 503 and "each error says whether anything was applied";
    nothing acknowledged is lost, and with room the same sessions go on.
    """
    folder, take, outcomes = room
    options = ("--warm", f"sqlite:///{folder}/warm.db")
    async with serving(replicas=1, options=options) as fleet, Client(fleet.urls, retry=STUBBORN) as client:
        session = await client.sessions.create()
        assert await session.ask("before") == "before"
        take(fleet, True)
        kept, refused = list[str](), list[dict[str, str]]()
        async with httpx2.AsyncClient(base_url=fleet.urls[0], timeout=30) as raw:
            for number in range(400):
                text = f"{number} {FILLING}"
                answer = await raw.post(
                    f"/v1/sessions/{session.id}/inputs",
                    json={"type": "message", "content": text},
                    headers={"idempotency-key": str(number)},
                )
                if answer.status_code == 202:
                    kept.append(text)
                elif answer.status_code != 429:
                    assert answer.status_code == 503, answer.text
                    refused.append(answer.json())
                    if len(refused) == 5:
                        break
            assert refused, "the disk was never full"
            assert {problem["code"] for problem in refused} == {"store_unavailable"}
            # A limit is an I/O error to SQLite, of which it does not say what it left; a full disk leaves nothing.
            assert {problem["outcome"] for problem in refused} <= outcomes
            assert (await raw.get("/livez")).status_code == 200
        take(fleet, False)
        receipt = await session.send("after", key="after")
        turn = await session.turn(receipt.turn, wait=timedelta(seconds=40))
        assert turn["status"] == "completed", turn
        log = await log_of(session)
        said = [event["data"]["input"]["content"] for event in log if event["type"] == "turn.created"]
        unsure = [text for text in said if text not in ("before", "after", *kept)]
        assert [text for text in said if text not in unsure] == ["before", *kept, "after"]
        assert len(unsure) <= sum(problem["outcome"] == "unknown" for problem in refused)
        ends = [event["type"] for event in log if event["type"] in TERMINAL]
        assert len(ends) == len(said)
        assert fleet["r1"].starts == 1 and fleet["r1"].alive
        publish(f"{len(kept)} messages kept, {len(refused)} refused with {refused[0]['detail']!r}")
        await fleet["r1"].kill()
        await fleet["r1"].start()
        assert await log_of(session) == log
