"""The HTTP face over the real runtime and the memory store: a conversation from its first message to its deletion."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dalsegno.agents.plain import FunctionAgent
from dalsegno.core.context import Context
from dalsegno.http.app import App, build_app
from dalsegno.http.auth import Keys
from dalsegno.ops.ids import RandomIds
from dalsegno.ports import Member
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.stores.memory import MemoryBlobs, MemoryDatabase, MemoryHot, MemoryLog
from tests.http.asgi import Exchange, ask

ANN = {"x-api-key": "a"}
BOB = {"x-api-key": "b"}
STREAM = {"accept": "text/event-stream"}
TEXT = ("Good ", "morning ", "👋🏽", "\u0000", "!")


class Stage:
    """The agent of these tests says `TEXT`, piece by piece; `curtain` holds it back before the last piece."""

    def __init__(self) -> None:
        self.curtain = asyncio.Event()
        self.curtain.set()

    async def answer(self, turn: Any) -> None:
        await turn.generate(self._speak)

    async def _speak(self, context: Context) -> AsyncIterator[str]:
        for text in TEXT:
            if text == TEXT[-1]:
                await self.curtain.wait()
            yield text
            await asyncio.sleep(0.002)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


@pytest.fixture
async def app(stage: Stage) -> AsyncIterator[App]:
    warm, blobs = MemoryLog(MemoryDatabase()), MemoryBlobs()
    agents = {"default": FunctionAgent(stage.answer)}
    replica = Replica(Member("i1", "r1"), agents, warm=warm, hot=MemoryHot(), blobs=blobs)
    await replica.start()
    service = Service(replica, warm=warm, blobs=blobs, ids=RandomIds())
    yield build_app(service, keys=Keys([("a", "ann"), ("b", "bob")]))
    await replica.stop()


async def session_of(app: App) -> str:
    made = await ask(app, "POST", "/v1/sessions", body={}, headers=ANN)
    return str(made.json["id"])


def said_in(events: list[dict[str, Any]]) -> str:
    return "".join(event["data"]["data"]["delta"] for event in events if event["event"] == "item.delta")


async def test_a_message_is_answered_in_a_stream(app: App):
    """From the receipt's event to the turn's end, with the whole text between them."""
    session = await session_of(app)
    body = {"type": "message", "content": "hi"}
    reply = await ask(app, "POST", f"/v1/sessions/{session}/inputs", body=body, headers={**ANN, **STREAM})
    types = [event["event"] for event in reply.events]
    assert types[0] == "turn.created" and types[-1] == "turn.completed"
    done = next(event for event in reply.events if event["event"] == "item.done")
    assert done["data"]["data"]["item"]["content"][0]["text"] == "".join(TEXT)
    assert reply.clean
    turn = await ask(app, "GET", f"/v1/sessions/{session}/turns/{reply.events[0]['data']['turn']}", headers=ANN)
    assert turn.json["status"] == "completed"
    assert turn.json["last_seq"] == reply.events[-1]["data"]["seq"]


async def test_a_page_begins_no_further_than_the_head(app: App):
    """Who is further than the session has another one, or an older copy of it: an error, and no empty page (P9)."""
    session = await session_of(app)
    for path in ("items?after=", "events?after="):
        last = await ask(app, "GET", f"/v1/sessions/{session}/{path}1", headers=ANN)
        assert (last.status, last.json["data"]) == (200, [])
        ahead = await ask(app, "GET", f"/v1/sessions/{session}/{path}2", headers=ANN)
        assert (ahead.status, ahead.json["code"]) == (400, "cursor_ahead")


async def test_a_live_stream_resumes_at_every_cursor(app: App, stage: Stage):
    """Cut while the step is open and resumed after the end: every durable event once, the text whole."""
    session = await session_of(app)
    stage.curtain.clear()
    headers = {**ANN, **STREAM}
    body = {"type": "message", "content": "hi"}
    live = await Exchange(app, "POST", f"/v1/sessions/{session}/inputs", body=body, headers=headers).start()
    await live.until("👋🏽".encode())
    stage.curtain.set()
    whole = (await live.done()).events
    assert said_in(whole) == "".join(TEXT)
    durable = [event["data"]["seq"] for event in whole if "seq" in event["data"]]
    turn = whole[0]["data"]["turn"]
    for cut, last in enumerate(whole):
        again = {**headers, "last-event-id": last["id"]}
        reply = await ask(app, "GET", f"/v1/sessions/{session}/events?turn={turn}", headers=again)
        both = whole[: cut + 1] + reply.events
        assert [event["data"]["seq"] for event in both if "seq" in event["data"]] == durable
        assert said_in(both) in ("".join(TEXT), "")
        assert reply.status == (204 if cut == len(whole) - 1 else 200)


async def test_waiting_exporting_importing_forking_deleting(app: App):
    """Every other route, once, over the real thing."""
    session = await session_of(app)
    base = f"/v1/sessions/{session}"
    said = await ask(app, "POST", f"{base}/inputs", body={"type": "message", "content": "hi"}, headers=ANN)
    turn = await ask(app, "GET", f"{base}/turns/{said.json['turn']}?wait=10", headers=ANN)
    assert turn.json["status"] == "completed"
    items = (await ask(app, "GET", f"{base}/items", headers=ANN)).json["data"]
    assert [item["role"] for item in items] == ["user", "assistant"]
    export = await ask(app, "GET", f"{base}/events", headers={**ANN, "accept": "application/x-ndjson"})
    lines = {**BOB, "content-type": "application/x-ndjson"}
    copy = await ask(app, "POST", "/v1/sessions", body=export.body, headers=lines)
    assert (copy.status, copy.json["head"]) == (201, len(export.body.splitlines()))
    fork = await ask(app, "POST", f"{base}/fork", headers=ANN)
    assert fork.json["parent"] == {"session": session, "seq": copy.json["head"]}
    tag = {**ANN, "if-match": '"1"'}
    assert (await ask(app, "PATCH", base, body={"metadata": {"a": 1}}, headers=tag)).status == 412
    change = {"metadata": {"plan": "pro", "seats": 2}}
    assert (await ask(app, "PATCH", base, body=change, headers=ANN)).json["metadata"] == change["metadata"]
    for query, count in [("plan=pro", 1), ("plan=free", 0), ("none=pro", 0)]:
        page = await ask(app, "GET", f"/v1/sessions?metadata.{query}", headers=ANN)
        assert len(page.json["data"]) == count, query
    assert (await ask(app, "GET", base, headers=BOB)).status == 404
    stream = await Exchange(app, "GET", f"{base}/events", headers={**ANN, **STREAM}).start()
    await stream.until(b"retry")
    assert (await ask(app, "DELETE", base, headers=ANN)).status == 204
    reply = await stream.done()
    assert reply.events[-1]["event"] == "session.deleted" and reply.clean
    assert (await ask(app, "GET", base, headers=ANN)).status == 404
    assert (await ask(app, "GET", "/health")).json["ready"] is True
