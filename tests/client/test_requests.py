"""What the client does about refusals and lost answers: what it repeats, under which key, and what it raises."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import anyio
import msgspec
import pytest

from dalsegno.client import ApiError, Client, ContractBroken, Retry, Unreachable
from dalsegno.http import problems
from tests.client.scripted import QUICK, RECEIPT, Fleet, Replica, Reply, answer, problem

SESSION = {"id": "s", "status": "idle", "head": 3}
LOST = [
    Reply(end="reset"),
    Reply(end="finish"),
    answer(202, RECEIPT).cut(30),
    answer(202, RECEIPT).cut(90, end="finish"),
]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses, taken down and not taken."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr("random.random", lambda: 0.5)
    return taken


@pytest.mark.parametrize("lost", [*LOST, problem(503, "store_unavailable", "unknown"), answer(502)])
async def test_an_input_is_repeated_under_its_key(lost: Reply):
    """However an answer got lost, the input is sent again, byte for byte, under the same key."""
    async with Fleet(Replica([lost, lost, answer(202, RECEIPT)])) as fleet:
        receipt = await (await fleet.client()).session("s").send("hi")
        first, *others = fleet.requests()
        assert first.json == {"type": "message", "content": "hi", "on_busy": "queue"}
        assert len(others) == 2
        assert all(other.headers == first.headers and other.body == first.body for other in others)
        assert (receipt.key, receipt.seq) == (first.headers["idempotency-key"], 1)


async def test_every_input_has_a_key_of_its_own():
    """Saying the same twice is saying it twice; a key that the caller chose is used as it is."""
    async with Fleet(Replica([answer(202, RECEIPT)] * 3)) as fleet:
        session = (await fleet.client()).session("s")
        receipts = [await session.send("hi"), await session.send("hi"), await session.send("hi", key="mine")]
        assert [each.headers["idempotency-key"] for each in fleet.requests()] == [each.key for each in receipts]
        assert receipts[2].key == "mine" and receipts[0].key != receipts[1].key


async def test_the_next_replica_is_asked():
    """A replica that drains, resets or is gone is left for the next one, and stayed away from."""
    gone = Replica()
    async with gone:
        pass
    draining, well = Replica([problem(503, "draining", retry_after="2")]), Replica([answer(202, RECEIPT)] * 2)
    async with draining, well:
        urls = [gone.url, draining.url, well.url]
        async with Client(urls, retry=QUICK) as client:
            await client.session("s").send("hi")
            await client.session("s").send("again")
    assert (len(draining.requests), len(well.requests)) == (1, 2)
    assert draining.requests[0].headers["idempotency-key"] == well.requests[0].headers["idempotency-key"]


async def test_retry_after_is_honoured(pauses: list[float]):
    """The only replica says when to come back: not before that, and not all at the same moment."""
    patient = Retry(base=timedelta(seconds=1), longest=timedelta(seconds=3))
    busy = [problem(503, "overloaded", retry_after="2"), problem(429, "rate_limited", retry_after="3")]
    async with Fleet(Replica([*busy, answer(200, SESSION)]), retry=patient) as fleet:
        await (await fleet.client()).session("s").get()
    assert pauses == [2 + 0.5 * 2, 3 + 0.5 * 3]


async def test_a_retry_after_beyond_patience_is_raised(pauses: list[float]):
    """Whoever asked can come back in a minute; sleeping for a minute unasked is no help."""
    async with Fleet(Replica([problem(503, "overloaded", retry_after="60")])) as fleet:
        with pytest.raises(ApiError) as raised:
            await (await fleet.client()).session("s").get()
    assert raised.value.retry_after == timedelta(seconds=60)
    assert pauses == []


async def test_the_second_that_servers_ask_for_is_within_everybodys_patience(pauses: list[float]):
    """An outage of the store is waited for by whoever says nothing else; less patience than that is none at all."""
    asked = max(problems.RETRY_AFTER_SECONDS.values())
    assert timedelta(seconds=asked) <= Retry().longest
    away = problem(503, "store_unavailable", retry_after=str(asked))
    async with Fleet(Replica([away, answer(200, SESSION)]), retry=Retry()) as fleet:
        await (await fleet.client()).session("s").get()
    assert len(pauses) == 1 and pauses[0] >= asked
    hasty = Retry(rounds=200, longest=timedelta(seconds=asked) - timedelta(milliseconds=1))
    async with Fleet(Replica([away]), retry=hasty) as fleet:
        with pytest.raises(ApiError):
            await (await fleet.client()).session("s").get()


async def test_pauses_grow_to_a_bound_and_end(pauses: list[float]):
    """Full jitter under a bound that doubles; after the last round the error is raised."""
    retry = Retry(rounds=5, base=timedelta(seconds=1), longest=timedelta(seconds=6))
    async with Fleet(Replica([problem(503, "overloaded")] * 5), retry=retry) as fleet:
        with pytest.raises(ApiError) as raised:
            await (await fleet.client()).session("s").send("hi", key="k")
    assert pauses == [1, 2, 3, 3]
    error = raised.value
    assert (error.status, error.code, error.outcome, error.key) == (503, "overloaded", "not_applied", "k")


@pytest.mark.parametrize(
    "refusal",
    [
        problem(400, "invalid_request"),
        problem(409, "session_busy"),
        problem(422, "key_reused"),
        problem(503, "overloaded", x_should_retry="false"),
    ],
)
async def test_a_refusal_is_raised_at_once(refusal: Reply):
    """4xx, and whatever says that it should not be retried: the same request would fail again."""
    async with Fleet(Replica([refusal])) as fleet:
        with pytest.raises(ApiError, match=r"4|503") as raised:
            await (await fleet.client()).session("s").send("hi", on_busy="reject")
        assert (raised.value.outcome, raised.value.detail) == ("not_applied", f"because {raised.value.code}")


async def test_what_is_unknown_stays_unknown():
    """A refusal of the repetition says nothing of the first attempt, whose answer was lost."""
    async with Fleet(Replica([Reply(end="reset"), problem(503, "overloaded", x_should_retry="false")])) as fleet:
        with pytest.raises(ApiError) as raised:
            await (await fleet.client()).session("s").send("hi")
    assert raised.value.outcome == "unknown"


async def test_nobody_there():
    """Refused connections: nothing was applied."""
    gone = Replica()
    async with gone:
        pass
    async with Client(gone.url, retry=QUICK) as client:
        with pytest.raises(Unreachable) as raised:
            await client.session("s").send("hi")
    assert raised.value.outcome == "not_applied" and raised.value.key


async def test_a_replica_that_never_answers_is_left():
    """`timeout` bounds the silence of one replica, not the patience of the client."""
    deaf, well, short = Replica([Reply(end="hang")]), Replica([answer(200, SESSION)]), timedelta(milliseconds=50)
    async with deaf, well, Client([deaf.url, well.url], timeout=short, retry=QUICK) as client:
        assert await client.session("s").get() == SESSION


async def test_a_fork_is_not_repeated():
    """A second fork would be a second session; a fork that was surely refused may be repeated."""
    forked = answer(201, {**SESSION, "id": "f"})
    async with Fleet(Replica([problem(503, "draining"), forked, Reply(end="reset")])) as fleet:
        session = (await fleet.client()).session("s")
        assert (await session.fork(at=3)).id == "f"
        with pytest.raises(Unreachable) as raised:
            await session.fork()
    assert raised.value.outcome == "unknown"
    assert [each.json for each in fleet.requests()] == [{"at": 3}, {"at": 3}, {}]


async def test_a_session_is_created_once():
    """The client names it, so a repetition names the same one; that it is there already is then no error."""
    async with Fleet(Replica([Reply(end="reset"), problem(409, "exists"), problem(409, "exists")])) as fleet:
        client = await fleet.client()
        session = await client.sessions.create(agent="a", metadata={"k": "v"})
        first, second = fleet.requests()
        assert first.json == second.json == {"id": session.id, "agent": "a", "metadata": {"k": "v"}}
        with pytest.raises(ApiError):
            await client.sessions.create(id=session.id)


async def test_deleting_twice_is_deleting():
    """404 after a lost answer is what a deletion leaves behind; 404 at once is a mistake."""
    async with Fleet(Replica([Reply(end="reset"), problem(404, "not_found"), problem(404, "not_found")])) as fleet:
        session = (await fleet.client()).session("s")
        await session.delete()
        with pytest.raises(ApiError):
            await session.delete()


async def test_lists_are_read_page_by_page():
    """The filters go with every page."""
    pages = [answer(200, {"data": [{"id": "a"}, {"id": "b"}], "next": "b"}), answer(200, {"data": [], "next": None})]
    async with Fleet(Replica(pages)) as fleet:
        found = (await fleet.client()).sessions.list(status="idle", metadata={"k": "v"})
        assert [session["id"] async for session in found] == ["a", "b"]
        asked = [each.path for each in fleet.requests()]
    assert asked == ["/v1/sessions?status=idle&metadata.k=v", "/v1/sessions?status=idle&metadata.k=v&after=b"]


async def test_the_other_routes():
    """Each method asks for what the contract says."""
    ok = [answer(200, SESSION), answer(200, {"data": [{"id": "i"}], "next": None}), answer(200, {"status": "running"})]
    replies = [*ok, Reply(b"HTTP/1.1 200 X\r\ncontent-length: 3\r\n\r\n{}\n"), answer(201, SESSION), answer(204)]
    async with Fleet(Replica(replies)) as fleet:
        client = await fleet.client()
        session = client.session("s")
        assert await session.update({"a": 1}, if_head=3) == SESSION
        assert [item["id"] async for item in session.items()] == ["i"]
        assert await session.turn("t", wait=timedelta(seconds=30)) == {"status": "running"}
        exported = await session.export()
        assert (await client.sessions.import_(exported)).id == "s"
        await session.delete()
        said = [(each.method, each.path.removeprefix("/v1/sessions")) for each in fleet.requests()]
        patch, *_, export, imported, _ = fleet.requests()
    assert said[:3] == [("PATCH", "/s"), ("GET", "/s/items"), ("GET", "/s/turns/t?wait=30")]
    assert said[3:] == [("GET", "/s/events"), ("POST", ""), ("DELETE", "/s")]
    assert (patch.json, patch.headers["if-match"]) == ({"metadata": {"a": 1}}, '"3"')
    assert (export.headers["accept"], imported.headers["content-type"]) == ("application/x-ndjson",) * 2
    assert imported.body == exported == b"{}\n"


async def test_what_else_can_be_said():
    """Approvals, tool results and cancels are inputs like any other."""
    async with Fleet(Replica([answer(202, RECEIPT)] * 6)) as fleet:
        session = (await fleet.client()).session("s")
        await session.approve("c")
        await session.deny("c", reason="no")
        await session.tool_result("c", output="")
        await session.tool_result("c", error="broken")
        await session.cancel(turn="t")
        await session.send([{"type": "message"}], on_busy="steer")
        said: list[Any] = [each.json for each in fleet.requests()]
    assert said == [
        {"type": "approval", "call_id": "c", "decision": "approve"},
        {"type": "approval", "call_id": "c", "decision": "deny", "reason": "no"},
        {"type": "tool_result", "call_id": "c", "output": ""},
        {"type": "tool_result", "call_id": "c", "error": "broken"},
        {"type": "cancel", "turn": "t"},
        {"type": "message", "items": [{"type": "message"}], "on_busy": "steer"},
    ]


@pytest.mark.parametrize("body", [b"<html>", b'{"seq":"x"}', b"[]"])
async def test_an_answer_that_makes_no_sense_is_reported(body: bytes):
    """Something else lives at that URL, or the contract was broken; it is not taken for an empty answer."""
    raw = b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with Fleet(Replica([Reply(raw)])) as fleet:
        with pytest.raises(ContractBroken):
            await (await fleet.client()).session("s").send("hi")


async def test_a_refusal_of_something_in_between_is_one_too():
    """A load balancer knows no problem+json, and not always UTF-8; what it did with the request is unknown."""
    raw = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\nx-should-retry: false\r\n\r\n\xff\xfe"
    async with Fleet(Replica([Reply(raw)])) as fleet:
        with pytest.raises(ApiError) as raised:
            await (await fleet.client()).session("s").get()
    assert (raised.value.code, raised.value.detail, raised.value.outcome) == ("http_502", "Bad Gateway", "unknown")


@pytest.mark.parametrize("text", ["\ud800", float("nan")])
async def test_what_json_cannot_say_is_not_sent(text: Any):
    """Text comes back code point for code point or is refused, here as at the server."""
    async with Fleet(Replica()) as fleet:
        with pytest.raises(ValueError):
            await (await fleet.client()).session("s").send([{"type": "message", "content": text}])
        assert not fleet.requests()


async def test_the_api_key_is_a_bearer_token():
    """It goes with every request."""
    async with Replica([answer(200, SESSION)]) as replica, Client(replica.url, api_key="secret") as client:
        await client.session("s").get()
    assert replica.requests[0].headers["authorization"] == "Bearer secret"


def test_retry_is_a_value():
    """Nobody can change the patience of a client that is at work."""
    with pytest.raises(AttributeError):
        Retry().rounds = 3  # type: ignore[misc]
    assert msgspec.structs.replace(Retry(), rounds=3).rounds == 3


def test_the_missing_extra_is_named():
    """Without httpx2 the import says what to install."""
    code = "import sys; sys.modules['httpx2'] = None; import dalsegno.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: the client needs httpx2: pip install 'dalsegno[client]'" in done.stderr
