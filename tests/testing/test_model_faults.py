"""The scripted model server fails on purpose, exactly where it is told to, as a provider's client would see it."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import anthropic
import openai
import pytest

from dalsegno.testing.model import Die, Fail, Garble, Message, ModelServer, Shown, To, ToolCall, at_pace, by_words
from tests.support import wait_until
from tests.testing.providers import Got, Provider, providers

WORDS = "one two three four five"
DELTAS = 5
HELLO = (Message("user", "hello"),)
OTHER = (Message("user", "other"),)
STATUS_ERRORS = (openai.APIStatusError, anthropic.APIStatusError)


def keep(kept: Got, got: Got) -> None:
    """What was there before an error came."""
    kept.pieces = [*got.pieces]


def has(kept: Got, count: int) -> bool:
    return len(kept.pieces) == count


@pytest.fixture(autouse=True)
def five_words(model: ModelServer) -> None:
    model.script = by_words({}, otherwise=WORDS)


async def test_an_answer_is_held_exactly_where_a_test_wants_it(provider: Provider, model: ModelServer) -> None:
    """Behind each delta, and before the first: the client has so many and no more, until the hold is released."""
    for at in range(DELTAS + 1):
        hold, so_far = model.hold(at), Got()

        asking = asyncio.create_task(provider.stream(HELLO, seen=partial(keep, so_far)))
        await asyncio.wait_for(hold.reached(), 20)
        entry = model.log.entries[-1]
        assert (entry.sent, entry.ended, entry.deltas) == (at, "open", DELTAS)
        await wait_until(partial(has, so_far, at), description=f"{at} deltas had arrived")
        assert not asking.done()
        hold.release()
        assert (await asking).text == WORDS
        assert entry.ended == "done"


async def test_a_hold_is_for_the_first_that_fits(provider: Provider, model: ModelServer) -> None:
    """Others pass, and so does the same question asked again: a successor is not held where its predecessor was."""
    hold = model.hold(2, to=To(said="hell"))
    held = asyncio.create_task(provider.stream(HELLO))
    await asyncio.wait_for(hold.reached(), 20)
    assert (await provider.stream(OTHER)).text == WORDS
    assert (await provider.stream(HELLO)).text == WORDS
    hold.release()
    assert (await held).text == WORDS


async def test_a_connection_dies_exactly_behind_a_delta(provider: Provider, model: ModelServer) -> None:
    """The client has what was sent, to the last delta, and then an error; never the end of an answer."""
    for at in range(DELTAS + 1):
        model.plan(Die(at))
        so_far = Got()

        with pytest.raises(Exception, match=r"(?i)connection|closed|without sending"):
            await provider.stream(HELLO, seen=partial(keep, so_far))
        assert has(so_far, at)
        entry = model.log.entries[-1]
        assert (entry.sent, entry.ended, entry.fault) == (at, "cut", Die(at))
    assert (await provider.stream(HELLO)).text == WORDS


async def test_what_is_meant_for_further_on_happens_at_the_end(provider: Provider, model: ModelServer) -> None:
    """A test that miscounts deltas still gets its hold and its fault: behind the last one."""
    hold = model.hold(99)
    model.plan(Die(at=99))
    asking = asyncio.create_task(provider.stream(HELLO))
    await asyncio.wait_for(hold.reached(), 20)
    assert model.log.entries[-1].sent == DELTAS
    hold.release()
    with pytest.raises(Exception, match=r"(?i)connection|closed"):
        await asking


async def test_an_answer_in_one_piece_dies_whole(provider: Provider, model: ModelServer) -> None:
    """Wherever the cut was meant to be, nothing arrives."""
    model.plan(Die(at=3))
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
        await provider.ask(HELLO)


@pytest.mark.parametrize("status", [401, 429, 500, 503, 529])
async def test_a_provider_that_cannot_answer_says_so(provider: Provider, model: ModelServer, status: int) -> None:
    """The status, in the provider's own form, with the time after which to try again."""
    model.plan(Fail(status, retry_after=2.5))
    with pytest.raises(STATUS_ERRORS) as raised:
        await provider.stream(HELLO)
    error: Any = raised.value
    assert error.status_code == status
    assert error.response.headers["retry-after"] == "2.5"
    assert error.body["message"] if "message" in error.body else error.body["error"]["message"]
    assert (model.log.entries[-1].status, model.log.entries[-1].ended) == (status, "failed")


async def test_clients_try_again_when_they_are_told_to(model: ModelServer) -> None:
    """With retries switched on, a 429 and a 529 cost a request each and nothing else."""
    for name in ("chat", "responses", "messages"):
        model.plan(Fail(429, retry_after=0.01), Fail(529, retry_after=0.01))
        async with providers(model, retries=2) as clients:
            assert (await clients[name].stream(HELLO)).text == WORDS
        assert [entry.status for entry in model.log.entries[-3:]] == [429, 529, 200]


async def test_a_provider_may_fail_in_the_middle(provider: Provider, model: ModelServer) -> None:
    """After three deltas the stream brings an error, not an end."""
    model.plan(Fail(529, at=3))
    so_far = list[str]()
    with pytest.raises((openai.APIError, anthropic.APIError, RuntimeError)):
        await provider.stream(HELLO, seen=lambda got: so_far.append(got.text))
    assert so_far[-1] == "one two three"
    assert model.log.entries[-1].ended == "failed"


async def test_what_is_sent_may_be_no_json(provider: Provider, model: ModelServer) -> None:
    """In one piece, at the beginning of a stream, and in its middle."""
    model.plan(Garble(), Garble(at=2), Garble())
    for at in (0, 2):
        so_far = Got()
        with pytest.raises(ValueError, match=r"(?i)json|column|unterminated"):
            await provider.stream(HELLO, seen=partial(keep, so_far))
        assert has(so_far, at)
    with pytest.raises(Exception):  # noqa: B017 each client in its own way
        await provider.ask(HELLO)
    assert [entry.ended for entry in model.log.entries] == ["failed"] * 3


async def test_a_request_may_ask_for_its_fault(provider: Provider, model: ModelServer) -> None:
    """By a header, for tests that share a server; others are not touched."""
    with pytest.raises(STATUS_ERRORS):
        await provider.ask(HELLO, extra_headers={"x-fault": '{"kind":"fail","status":500}'})
    assert (await provider.ask(HELLO)).text == WORDS


async def test_a_fault_is_for_whom_it_is_meant(provider: Provider, model: ModelServer) -> None:
    """By what the user said, by round, and so many times."""
    model.plan(Fail(500), to=To(said="other", times=2))
    model.plan(Fail(500), to=To(round=1))
    assert (await provider.ask(HELLO)).text == WORDS
    for _ in range(2):
        with pytest.raises(STATUS_ERRORS):
            await provider.ask(OTHER)
    assert (await provider.ask(OTHER)).text == WORDS


async def test_a_client_that_leaves_is_noticed(provider: Provider, model: ModelServer) -> None:
    """Also while its answer is held; what it had been sent stands in the log."""
    hold = model.hold(2)
    asking = asyncio.create_task(provider.stream(HELLO))
    await asyncio.wait_for(hold.reached(), 20)
    asking.cancel()
    await wait_until(lambda: model.log.entries[-1].ended == "left", description="the client was seen to leave")
    assert model.log.entries[-1].sent == 2


async def test_a_server_leaves_with_answers_open() -> None:
    """Held answers and idle connections do not keep it."""
    async with ModelServer(by_words({}, otherwise=WORDS)) as server, providers(server) as clients:
        hold = server.hold(1)
        asking = asyncio.create_task(clients["chat"].stream(HELLO))
        await asyncio.wait_for(hold.reached(), 20)
        await server.__aexit__()
        with pytest.raises(openai.APIConnectionError):
            await asking


@pytest.mark.parametrize("name", ["chat", "responses"])
async def test_the_model_itself_may_write_wrong_json(
    name: str, clients: dict[str, Provider], model: ModelServer
) -> None:
    """Arguments that are none reach the client as they are."""
    model.script = by_words({}, otherwise=ToolCall("weather", '{"city": '))
    assert (await clients[name].ask(HELLO)).calls[0].arguments == '{"city": '
    assert (await clients[name].stream(HELLO)).calls[0].arguments == '{"city": '


async def test_a_script_that_raises_is_an_error_of_the_provider(
    clients: dict[str, Provider], model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is answered with 500, and the traceback stands in the log."""

    def wrong(shown: Shown) -> str:
        raise LookupError(f"nothing to say to {shown.said}")

    model.script = wrong
    with pytest.raises(openai.InternalServerError):
        await clients["chat"].ask(HELLO)
    assert "nothing to say to hello" in caplog.text
    assert model.log.entries[-1].ended == "failed"


async def test_an_answer_takes_its_time(clients: dict[str, Provider], model: ModelServer) -> None:
    """A pause between deltas; none before the first."""
    loop, pause = asyncio.get_running_loop(), timedelta(milliseconds=20)
    model.script = at_pace(WORDS, delay=pause)
    began = loop.time()
    assert (await clients["chat"].stream(HELLO)).text == WORDS
    assert loop.time() - began >= (DELTAS - 1) * pause.total_seconds()
