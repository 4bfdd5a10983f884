"""The HTTP face over sessions whose history is archived: nobody sees a difference (stream contract, 6)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from dalsegno.agents.plain import FunctionAgent
from dalsegno.agents.tool import tool
from dalsegno.core.context import Context
from dalsegno.core.idle import Policy
from dalsegno.http.app import App, build_app
from dalsegno.ops.ids import RandomIds
from dalsegno.ports import Member, Ref
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.runtime.shelf import with_shelf
from dalsegno.stores.memory import MemoryBlobs, MemoryDatabase, MemoryHot, MemoryLog
from tests.http.asgi import ask

STREAM = {"accept": "text/event-stream"}
LINES = {"accept": "application/x-ndjson"}
SAID = {"type": "message", "content": "hi"}
TEXT = ("Good ", "morning ", "👋🏽", "!")


@tool("read")
async def look_up() -> str:
    return "x" * 40_000


async def answer(turn: Any) -> None:
    """A large tool output, then a few words."""
    await turn.call(look_up)
    await turn.generate(_speak)


async def _speak(context: Context) -> AsyncIterator[str]:
    for text in TEXT:
        yield text
        await asyncio.sleep(0.002)


class Stage:
    """An application, and what archives behind its back."""

    def __init__(self) -> None:
        self.database, self.objects = MemoryDatabase(), dict[str, bytes]()
        blobs = MemoryBlobs(self.objects)
        warm = with_shelf(MemoryLog(self.database), blobs)
        agents = {"default": FunctionAgent(answer)}
        self.replica = Replica(Member("i1", "r1"), agents, warm=warm, hot=MemoryHot(), blobs=blobs)
        self.app: App = build_app(Service(self.replica, warm=warm, blobs=blobs, ids=RandomIds()))
        policy = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))
        self._archivist = Archivist(warm, blobs, eraser=self.replica.eraser, policy=policy, incarnation="i1")

    async def archive(self, session: str) -> None:
        while not await self._archivist.go_on():
            pass
        row = self.database.rows[Ref("default", session)]
        assert row.shelf is not None and not row.events, "the session is archived"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.replica.start()
    yield stage
    await stage.replica.stop()


async def talked(app: App) -> tuple[str, list[dict[str, Any]]]:
    """A session, and what a client saw of its one turn."""
    made = await ask(app, "POST", "/v1/sessions", body={})
    session = str(made.json["id"])
    reply = await ask(app, "POST", f"/v1/sessions/{session}/inputs", body=SAID, headers=STREAM)
    assert reply.events[-1]["event"] == "turn.completed"
    return session, reply.events


def said_in(events: list[dict[str, Any]], item: str) -> str:
    deltas = [event["data"]["data"] for event in events if event["event"] == "item.delta"]
    return "".join(delta["delta"] for delta in deltas if delta["item_id"] == item)


@pytest.mark.parametrize(
    ("route", "headers"),
    [
        ("/events?after=0", {"accept": "application/json"}),
        ("/events?after=3", {"accept": "application/json"}),
        ("/events", LINES),
        ("/items", {}),
        ("", {}),
    ],
    ids=["events", "later events", "export", "items", "session"],
)
async def test_archived_history_is_answered_like_any_other(stage: Stage, route: str, headers: dict[str, str]):
    """A page of the log, the conversation, an export: byte for byte what it was before."""
    session, _ = await talked(stage.app)
    before = await ask(stage.app, "GET", f"/v1/sessions/{session}{route}", headers=headers)
    await stage.archive(session)
    after = await ask(stage.app, "GET", f"/v1/sessions/{session}{route}", headers=headers)
    assert (after.status, after.body, after.headers.get("etag")) == (200, before.body, before.headers.get("etag"))


async def test_a_stream_is_resumed_at_every_cursor_of_archived_history(stage: Stage):
    """P8: every later durable event once and in order, the text of every item completely."""
    session, whole = await talked(stage.app)
    turn = whole[0]["data"]["turn"]
    durable = [event["data"]["seq"] for event in whole if "seq" in event["data"]]
    for cut, last in enumerate(whole):
        await stage.archive(session)
        headers = {**STREAM, "last-event-id": last["id"]}
        reply = await ask(stage.app, "GET", f"/v1/sessions/{session}/events?turn={turn}", headers=headers)
        both = whole[: cut + 1] + reply.events
        assert [event["data"]["seq"] for event in both if "seq" in event["data"]] == durable
        answered = [event["data"]["data"]["item"] for event in both if event["event"] == "item.done"][-1]
        assert answered["content"][0]["text"] == "".join(TEXT)
        assert said_in(both, answered["id"]) in ("".join(TEXT), "")
        if cut == len(whole) - 1:
            assert reply.status == 204


async def test_an_archived_session_is_spoken_to_forked_and_deleted(stage: Stage):
    """A turn and its artifact, a new message, a copy with artifacts of its own; and in the end nothing is left."""
    app = stage.app
    session, whole = await talked(app)
    base, turn = f"/v1/sessions/{session}", whole[0]["data"]["turn"]
    await stage.archive(session)
    ended = await ask(app, "GET", f"{base}/turns/{turn}")
    assert ended.json["status"] == "completed"
    (artifact,) = [item["artifact"]["id"] for item in ended.json["output"] if "artifact" in item]
    await stage.archive(session)
    found = await ask(app, "GET", f"/v1/artifacts/{artifact}", headers={"range": "bytes=0-9"})
    assert (found.status, found.body) == (206, b"x" * 10)
    again = await ask(app, "POST", f"{base}/inputs", body=SAID, headers=STREAM)
    assert again.events[-1]["event"] == "turn.completed"
    await stage.archive(session)
    fork = await ask(app, "POST", f"{base}/fork")
    assert fork.status == 201
    copy = await ask(app, "GET", f"/v1/sessions/{fork.json['id']}/events", headers=LINES)
    own = [json.loads(line)["data"].get("item", {}).get("artifact") for line in copy.body.splitlines()]
    assert all(one["id"].startswith(fork.json["id"]) for one in own if one) and any(own)
    await stage.archive(session)
    assert (await ask(app, "DELETE", base)).status == 204
    assert (await ask(app, "GET", f"{base}/events", headers=LINES)).status == 404
    assert not [name for name in stage.objects if name.startswith(f"default/{session}/")]
    (one, *_) = [one["id"] for one in own if one]
    assert len((await ask(app, "GET", f"/v1/artifacts/{one}")).body) == 40_000
