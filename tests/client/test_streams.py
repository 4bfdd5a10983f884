"""Streams go on from the last cursor on any replica, whatever breaks; what cannot be continued is an error."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from dalsegno.client import ApiError, Client, ContractBroken, Event, Transcript, TurnNotCompleted, Unreachable
from tests.client.scripted import QUICK, RECEIPT, Fleet, Replica, Reply, Request, answer, frame, problem, streamed

ITEM = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "hé\n€!"}]}
LOG = [
    ("1", frame("1", "turn.created", {"input": {"type": "message", "content": "hi"}})),
    ("2", frame("2", "turn.started", {"attempt": 1, "epoch": 1, "carried": 0})),
    ("2.1", frame("2.1", "item.added", {"item": {"type": "message", "id": "m", "content": []}})),
    ("2.3", frame("2.3", "item.delta", {"item_id": "m", "field": "text", "at": 0, "delta": "hé"})),
    ("2.6", frame("2.6", "item.delta", {"item_id": "m", "field": "text", "at": 2, "delta": "\n€!"})),
    ("3", frame("3", "item.done", {"item": ITEM})),
    ("4", frame("4", "turn.completed", {"usage": None})),
]
IDS = [cursor for cursor, _ in LOG]
RAW = streamed(*(raw for _, raw in LOG)).raw


def asked_after(request: Request) -> str:
    """The cursor that a replica goes on from: `Last-Event-ID` wins."""
    return request.headers.get("last-event-id") or parse_qs(urlsplit(request.path).query)["after"][0]


def continued(request: Request) -> Reply:
    """The rest of the log, as any replica streams it."""
    after = asked_after(request)
    return streamed(*(raw for _, raw in LOG[IDS.index(after) + 1 if after in IDS else 0 :]))


def first_then(reply: Reply, respond: Callable[[Request], Reply] = continued) -> Callable[[Request], Reply]:
    """`reply` to the first request, `respond` to those that follow."""
    replies = iter([reply])
    return lambda request: next(replies, None) or respond(request)


async def collect(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def text(events: list[Event]) -> str:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.texts["m"]


async def test_a_turn_is_streamed_to_its_end():
    """Events carry their cursor, envelope and data; the iteration ends with the turn, without waiting for the body."""
    async with Fleet(Replica([Reply(RAW.removesuffix(b"0\r\n\r\n"), "hang")])) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0, turn="t"))
        assert [event.id for event in events] == IDS
        assert [event.seq for event in events] == [1, 2, None, None, None, 3, 4]
        assert events[-1] == Event("turn.completed", "t", "2026-01-01T00:00:00Z", {"usage": None}, 4, "4")
        assert text(events) == "hé\n€!"
        [request] = fleet.requests()
        assert request.path == "/v1/sessions/s/events?after=0&turn=t"
        assert request.headers["accept"] == "text/event-stream" and "last-event-id" not in request.headers


@pytest.mark.parametrize("end", ["reset", "finish"])
async def test_a_cut_at_any_byte_loses_and_repeats_nothing(end: str):
    """The other replica is asked for what follows the last whole event, and all is there once, in order."""
    first, second = Replica(), Replica(respond=continued)
    async with first, second, Client([first.url, second.url], retry=QUICK) as client:
        for place in range(len(RAW.removesuffix(b"\r\n0\r\n\r\n"))):
            first.respond = lambda _, place=place: Reply(RAW[:place], end)  # type: ignore[misc, arg-type]
            second.requests.clear()
            client._replica = 0
            events = await collect(client.session("s").stream(after=0, turn="t"))
            assert [event.id for event in events] == IDS, place
            assert text(events) == "hé\n€!"
            whole = [cursor for cursor, raw in LOG if RAW.find(raw) + len(raw) <= place]
            expected = whole[-1:] or ["0"]
            asked = [asked_after(request) for request in second.requests]
            assert asked in (expected, []) if place >= len(RAW) - 9 else asked == expected, place


async def test_a_cut_without_a_turn_is_continued_too():
    """A session's stream ends with its deletion and nothing else: the end of a turn is not its end."""
    gone = frame("5", "session.deleted", turn=None)
    replies = [streamed(*(raw for _, raw in LOG)), streamed(gone)]
    async with Fleet(Replica(replies)) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0))
        assert [event.id for event in events] == [*IDS, "5"]
        assert [asked_after(request) for request in fleet.requests()] == ["0", "4"]


async def test_a_clean_end_without_a_terminal_event_is_a_cut():
    """A body that ends properly and too early comes from something that does not know the contract."""
    async with Fleet(Replica(respond=first_then(streamed(*(raw for _, raw in LOG[:4]))))) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0, turn="t"))
        assert [event.id for event in events] == IDS
        assert [asked_after(request) for request in fleet.requests()] == ["0", "2.3"]


async def test_draining_and_silent_replicas_are_left():
    """503, a body that stops moving, and a body of something else: the next replica goes on from the cursor."""
    begun = streamed(*(raw for _, raw in LOG[:3])).raw.removesuffix(b"0\r\n\r\n")
    page = Reply(b"HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>")
    silent, draining = Replica([Reply(begun, "hang")]), Replica([problem(503, "draining", retry_after="1")])
    odd, well = Replica([page]), Replica(respond=continued)
    retry = msgspec.structs.replace(QUICK, idle=timedelta(milliseconds=250))
    async with Fleet(silent, draining, odd, well, retry=retry) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0, turn="t"))
        assert [event.id for event in events] == IDS
        assert [asked_after(request) for request in fleet.requests()] == ["0", "2.1", "2.1", "2.1"]


async def test_patience_is_for_replicas_that_bring_nothing():
    """Each event that arrives starts the count of failures anew; without one there is an end to it."""

    def one_more(request: Request) -> Reply:
        full = continued(request)
        begin = full.raw.index(b"id: ")
        return full.cut(full.raw.index(b"\n\n", begin) + 2)

    async with Fleet(Replica(respond=one_more)) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0, turn="t"))
        assert [event.id for event in events] == IDS and len(list(fleet.requests())) == len(IDS)
    # a stream counts as one that has lasted when it outlasts the longest pause: here none is slow enough for that
    retry = msgspec.structs.replace(QUICK, longest=timedelta(minutes=1))
    async with Fleet(Replica(respond=lambda request: continued(request).cut(150)), retry=retry) as fleet:
        with pytest.raises(Unreachable):
            await collect((await fleet.client()).session("s").stream(after=4, turn="t"))
        assert len(list(fleet.requests())) == QUICK.rounds


async def test_signs_of_life_count_once_a_stream_has_lasted():
    """A turn may wait for hours behind something that cuts idle connections: comments keep the client patient."""
    greeting = streamed().raw.removesuffix(b"0\r\n\r\n")
    lasting = msgspec.structs.replace(QUICK, longest=timedelta(0))
    many = [Reply(greeting, "reset")] * (3 * QUICK.rounds)
    async with Fleet(Replica([*many, streamed(*(raw for _, raw in LOG))]), retry=lasting) as fleet:
        assert len(await collect((await fleet.client()).session("s").stream(after=0, turn="t"))) == len(LOG)


async def test_from_now_on_is_anchored():
    """Without a cursor the head is asked for first: what happens before the first event arrives is not lost."""
    replies = [answer(200, {"id": "s", "head": 3}), Reply(end="reset"), Reply(end="finish")]
    done = streamed(frame("4", "turn.completed"))
    async with Fleet(Replica([*replies, done])) as fleet:
        events = await collect((await fleet.client()).session("s").stream(turn="t"))
        assert [event.id for event in events] == ["4"]
        assert [asked_after(request) for request in list(fleet.requests())[1:]] == ["3", "3", "3"]


async def test_nothing_can_follow():
    """204: the turn ended at or before the cursor."""
    async with Fleet(Replica([answer(204)])) as fleet:
        assert await collect((await fleet.client()).session("s").stream(after="4", turn="t")) == []


async def test_a_cursor_that_is_refused_is_an_error():
    """`cursor_ahead` means that the server has lost what this client has seen: never an empty stream."""
    async with Fleet(Replica([problem(400, "cursor_ahead")])) as fleet:
        with pytest.raises(ApiError, match="cursor_ahead"):
            await collect((await fleet.client()).session("s").stream(after="17.240"))


STARTED, DONE = frame("2", "turn.started"), frame("3", "item.done", {"item": ITEM})


@pytest.mark.parametrize(
    ("turn", "frames"),
    [
        (None, [frame("1", "turn.created"), DONE]),
        (None, [frame("1", "turn.created"), frame("2.1", "item.added", {"item": ITEM})]),
        ("t", [STARTED, STARTED]),
        ("t", [DONE, STARTED]),
        ("t", [frame("2.3", "item.delta"), frame("2.3", "item.delta")]),
        ("t", [STARTED.replace(b"id: 2", b"id: 3")]),
        ("t", [STARTED.replace(b"id: 2\n", b"")]),
        ("t", [STARTED.replace(b"{", b"[", 1)]),
        ("t", [STARTED.replace(b"started", b"\xff")]),
    ],
    ids=[
        "gap",
        "gap before a delta",
        "twice",
        "backwards",
        "delta twice",
        "not its id",
        "no id",
        "no JSON",
        "no UTF-8",
    ],
)
async def test_a_stream_that_breaks_the_contract_is_an_error(turn: str | None, frames: list[bytes]):
    """Reconnecting would hide it: a history with a hole is not a history."""
    async with Fleet(Replica([streamed(*frames)])) as fleet:
        with pytest.raises(ContractBroken):
            await collect((await fleet.client()).session("s").stream(after=0, turn=turn))


async def test_a_dropped_item_leaves_the_cursor_alone():
    """`item.dropped` comes with the cursor of what was last seen of the item."""
    dropped = frame("2.3", "item.dropped", {"item_id": "m", "reason": "lost"})
    frames = [*(raw for _, raw in LOG[:4]), dropped, frame("3", "turn.failed", {"error": {}})]
    async with Fleet(Replica([streamed(*frames)])) as fleet:
        events = await collect((await fleet.client()).session("s").stream(after=0, turn="t"))
    assert [event.id for event in events] == ["1", "2", "2.1", "2.3", "2.3", "3"]


async def test_run_sends_and_streams_the_turn():
    """From the input's own event on, so that nothing said before the stream was open is missed."""
    replica = Replica(respond=lambda request: answer(202, RECEIPT) if request.method == "POST" else continued(request))
    async with Fleet(replica) as fleet:
        events = await collect((await fleet.client()).session("s").run("hi", on_busy="interrupt", key="k"))
        assert [event.id for event in events] == IDS
        said, heard = fleet.requests()
    assert (said.headers["idempotency-key"], said.json["on_busy"]) == ("k", "interrupt")
    assert heard.path.endswith("?after=0&turn=t")


async def test_ask_returns_the_last_words():
    """Of the agent's messages the last one counts; a turn that waited and goes on is still awaited."""
    draft = frame("2", "item.done", {"item": {**ITEM, "id": "d", "content": [{"type": "output_text", "text": "wait"}]}})
    tool = frame("4", "item.done", {"item": {"type": "function_call_output", "id": "o", "output": "42"}})
    frames = [draft, frame("3", "turn.waiting"), tool, frame("5", "item.done", {"item": ITEM})]
    replies = [
        answer(202, RECEIPT),
        streamed(*frames, frame("6", "turn.completed")),
        answer(200, {"status": "running"}),
    ]
    async with Fleet(Replica(replies)) as fleet:
        assert await (await fleet.client()).session("s").ask("hi") == "hé\n€!"


@pytest.mark.parametrize("end", ["turn.failed", "turn.cancelled", "turn.waiting"])
async def test_ask_says_why_there_is_no_answer(end: str):
    """The event that ended the turn, or that it waits for somebody: `ask` cannot approve anything."""
    replies = [answer(202, RECEIPT), streamed(frame("2", end, {"why": "because"})), answer(200, {"status": "waiting"})]
    async with Fleet(Replica(replies)) as fleet:
        with pytest.raises(TurnNotCompleted) as raised:
            await (await fleet.client()).session("s").ask("hi")
    assert (raised.value.event.type, raised.value.event.data) == (end, {"why": "because"})
