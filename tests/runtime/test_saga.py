"""Undoing: of a turn that fails or is cancelled nothing is left done that its tools can undo; of one that completes,
everything is.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from dalsegno.core.event import ToolUndone, TurnUndoing
from dalsegno.core.ids import undo_key
from dalsegno.core.input import Approval, Cancel, Message
from dalsegno.core.part import ToolCall
from dalsegno.core.tool import Tool
from dalsegno.ports import Call, Undo
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from dalsegno.testing.world.provider import refused_by_providers
from tests.runtime.commits import slow
from tests.runtime.fleet import Fleet, fleet
from tests.support import wait_until

IMPATIENT = 0.3


class Shop:
    """Tools that do and undo, and an agent that calls them one after another, and then does as it was told."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.done: list[str] = []
        self.undone: list[str] = []
        self.undos: list[Undo] = []
        self.refuses = False
        """Whether nothing can be undone just now."""
        self.held: set[str] = set()
        """Calls, and undos (`undo pay`), that wait until they are let go."""
        self.keyed_tools: Sequence[Tool] = [
            Tool(name, self._do, effect="keyed", compensate=self._undo, compensate_within_seconds=IMPATIENT)
            for name in ("pay", "book", "post")
        ]
        self.tools = [
            *self.keyed_tools,
            Tool("look", self._do, effect="read"),
            Tool("mail", self._do, effect="once"),
            Tool("wire", self._do, effect="once", compensate=self._undo),
            Tool("vet", self._do, effect="keyed", gate="approval", compensate=self._undo),
            Tool("once", self._do, effect="keyed", dedupe="session", compensate=self._undo),
            Tool("seat", self._seat, effect="transactional", compensate=self._unseat),
        ]

    async def agent(self, turn: Turn) -> None:
        if turn.text == "hi":
            self.shown = [dict(item) for item in turn.context.items]
            await turn.say("hello")
            return

        async def model(context: Any) -> Any:
            made = sum(item["type"] == "function_call" for item in context.items)
            yield ToolCall(self.names[made], {}, id=f"c{made}") if made < len(self.names) else "done"

        while (reply := await turn.generate(model, tools=self.tools)).calls:
            await turn.perform(reply)
        if turn.text == "wait":
            await asyncio.Event().wait()
        if turn.text == "fail":
            raise ValueError("not good enough")

    async def wait(self, name: str) -> None:
        await wait_until(lambda: name not in self.held, description=f"{name} is let go")

    async def _do(self, call: Call) -> str:
        self.done.append(call.id)
        await self.wait(call.name)
        return f"did {call.id}"

    async def _undo(self, undo: Undo) -> str:
        if self.refuses:
            raise OSError("the service is down")
        self.undos.append(undo)
        await self.wait(f"undo {undo.call.name}")
        self.undone.append(undo.call.id)
        return f"undid {undo.call.id}"

    async def _seat(self, call: Call) -> str:
        assert call.transaction is not None
        await call.transaction.execute("add", ("seats", 1))
        await self.wait(call.name)
        return "seated"

    async def _unseat(self, undo: Undo) -> str:
        assert undo.call.transaction is not None
        await undo.call.transaction.execute("add", ("seats", -1))
        self.undone.append(undo.call.id)
        if self.refuses:
            raise OSError("the service is down")
        return "free"


def busy(world: Fleet) -> int:
    """Which replica runs a turn."""
    return next(place for place, one in enumerate(world.ones) if one.replica.turns)


async def test_an_agent_that_fails_before_its_calls_are_on_record_is_not_run_again():
    """What it asked for is known when its end is decided, and that nothing of it was done."""
    shop, runs = Shop("pay"), list[int]()

    async def model(context: Any) -> Any:
        yield ToolCall("pay")

    async def agent(turn: Turn) -> None:
        runs.append(1)
        turn.notes.go_ahead()
        await turn.generate(model, tools=shop.tools)
        raise ValueError("not like this")

    async with fleet(agent) as world:
        world.ones[0].warm.commit = slow(world.ones[0].warm.commit)  # type: ignore[method-assign]
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, len(runs), shop.done) == ("failed", 1, [])


async def test_a_failed_turn_is_undone_in_reverse():
    """Each effect once, the latest first, with a key of its own, the call as it was and its output; then the turn
    fails, and the log says what was done.
    """
    shop = Shop("pay", "look", "book", "mail", "wire")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "fail")
        assert (turn.status, turn.error.code) == ("failed", "ValueError")
        assert shop.undone == ["c4", "c2", "c0"]
        intents = {intent.call_id: intent for intent in await world.data(ref, "tool.intent")}
        for undo in shop.undos:
            key = intents[undo.call.id].key
            assert (undo.call.key, undo.key, undo.output) == (key, undo_key(key), f"did {undo.call.id}")
            assert undo.outcome == "completed"
        types = await world.types(ref)
        assert types[types.index("turn.undoing") :] == [
            "turn.undoing",
            *["tool.undone"] * 3,
            "item.done",
            "turn.failed",
        ]
        assert (await world.data(ref, "turn.failed"))[0].not_undone == ()


async def test_a_completed_turn_is_not_undone():
    """There is nothing of it in the log either."""
    shop = Shop("pay", "book")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "completed"
        assert not shop.undos
        assert not {"turn.undoing", "tool.undone"} & set(await world.types(ref))


async def test_the_model_is_told_and_providers_take_it():
    """The next turn's model is shown each call with its output, and a note of what was undone; a turn that is rolled
    back is not shown at all.
    """
    shop = Shop("pay")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        await world.ask(ref, "fail")
        await world.ask(ref, "hi")
        types = [item["type"] for item in shop.shown]
        assert types == ["message", "function_call", "function_call_output", "message", "message", "message"]
        assert shop.shown[2]["output"] == "did c0"
        assert shop.shown[4]["role"] == "developer"
        assert "pay (c0) was undone" in str(shop.shown[4]["content"])
        assert refused_by_providers(shop.shown) is None


@pytest.mark.parametrize("how", ["cancel", "interrupt", "rollback"])
async def test_a_running_turn_that_is_stopped_is_undone(how: Any):
    """Whoever stops it; what was under way is seen through, and undone, too. The next message waits for that."""
    shop = Shop("pay", "book", "post")
    shop.held.add("post")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: "c2" in shop.done, description="the last tool runs")
        stop = Cancel() if how == "cancel" else Message("hi", on_busy=how)
        said = await world.say(ref, stop)
        shop.held.clear()
        turn = await world.end_of(ref, receipt)
        assert turn.status == "cancelled"
        assert shop.undone == ["c2", "c1", "c0"]
        if how != "cancel":
            assert (await world.end_of(ref, said)).status == "completed"
            assert len(shop.shown) == (1 if how == "rollback" else 9)


async def test_a_turn_that_is_stopped_twice_is_undone():
    """Who is impatient does not cut off the tool that the first cancel has let go on."""
    shop = Shop("pay", "wire")
    shop.held.add("wire")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: "c1" in shop.done, description="the last tool runs")
        poke: Any = next(iter(world.ones[0].replica.hub._watchers.values()))
        for times in (1, 2):
            await world.say(ref, Cancel())
            heard = partial(lambda head: poke.__self__.head >= head, (await world.log(ref))[-1].seq)
            await wait_until(heard, description=f"the turn has heard cancel {times}")
        shop.held.clear()
        assert (await world.end_of(ref, receipt)).status == "cancelled"
        assert shop.undone == ["c1", "c0"]
        assert shop.undos[0].outcome == "completed"


async def test_a_cancel_that_meets_the_end_is_undone(monkeypatch: pytest.MonkeyPatch):
    """The agent is done, and a cancel is in the log before its end is: the turn is cancelled, so it is undone."""
    shop = Shop("pay")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        one = world.ones[0]
        real, told = one.shelf.commit, list[Any]()

        async def commit(ref: Any, decide: Any, **more: Any) -> Any:
            drafts = getattr(decide, "keywords", {}).get("drafts", ())
            if not told and any(type(draft.data).__name__ == "TurnCompleted" for draft in drafts):
                told.append(await world.say(ref, Cancel()))
            return await real(ref, decide, **more)

        monkeypatch.setattr(one.shelf, "commit", commit)
        turn = await world.ask(ref, "go")
        assert (turn.status, shop.undone) == ("cancelled", ["c0"])
        assert told


async def test_a_parked_turn_that_is_cancelled_is_undone():
    """Nobody runs it: a replica takes it, hears from its agent which tools there are, and undoes it. What waits for an
    approval has not happened, and can no longer be approved.
    """
    shop = Shop("pay", "seat", "vet")
    async with fleet(shop.agent, count=2) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "waiting"
        assert [intent.gated for intent in await world.data(ref, "tool.intent")] == [False, False, True]
        await world.kill(0)
        receipt = await world.say(ref, Cancel())
        with pytest.raises(Exception, match="already_decided"):
            await world.say(ref, Approval("c2", "approve"))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, shop.undone) == ("cancelled", ["c1", "c0"])
        assert shop.done == ["c0"], "no tool ran again"
        assert world.database.scratch["seats"] == msgspec.msgpack.encode(0)


async def test_a_turn_that_did_nothing_ends_at_once():
    """A parked turn of tools that declare nothing costs no replica when it is cancelled."""
    shop = Shop("mail", "vet")
    shop.tools = [msgspec.structs.replace(tool, compensate=None) for tool in shop.tools]
    async with fleet(shop.agent) as world:
        ref = await world.session()
        await world.ask(ref, "go")
        receipt = await world.say(ref, Cancel())
        assert receipt.status == "done"
        assert (await world.types(ref))[-1] == "turn.cancelled"


async def test_a_transaction_is_undone_exactly_once():
    """The compensation of a transactional tool and the record of it are one commit; one that raises leaves nothing."""
    shop = Shop("seat")
    shop.refuses = True
    async with fleet(shop.agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "fail")
        await wait_until(lambda: len(shop.undone) > 1, description="it was tried twice")
        assert world.database.scratch["seats"] == msgspec.msgpack.encode(1)
        shop.refuses = False
        assert (await world.end_of(ref, receipt)).status == "failed"
        assert world.database.scratch["seats"] == msgspec.msgpack.encode(0)
        (told,) = await world.data(ref, "tool.undone")
        assert (told.status, told.output) == ("completed", "free")


async def test_what_cannot_be_undone_is_said():
    """Tried for as long as the tool says, then recorded; the others are undone all the same; the end names it, and so
    does the note to the model.
    """
    shop = Shop("wire", "pay")
    shop.refuses = True
    async with fleet(shop.agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "fail")

        async def given_up() -> Any:
            return await world.data(ref, "tool.undone")

        (told,) = await wait_until(given_up, description="the first is given up")
        assert told == ToolUndone("c1", "pay", told.key, "incomplete", "Error: OSError: the service is down")
        shop.refuses = False
        assert (await world.end_of(ref, receipt)).status == "failed"
        assert shop.undone == ["c0"]
        assert (await world.data(ref, "turn.failed"))[0].not_undone == ("c1",)
        await world.ask(ref, "hi")
        assert "pay (c1) was NOT undone and is still in effect" in str(shop.shown)


async def test_a_call_that_was_not_made_is_not_undone():
    """An identical call that was answered from the record, a denied one, one whose arguments do not fit."""
    shop = Shop("once", "once", "vet")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "fail")
        await world.say(ref, Approval("c2", "deny"))
        turn = await world.any.turn(ref, turn.id, wait=timedelta(seconds=20))
        assert turn.status == "failed"
        assert shop.undone == ["c0"]


async def test_what_was_undone_is_done_again_when_it_is_asked_for_again():
    """An identical call of the session is answered from the record, but not with what is not so any more: as often as
    it is undone.
    """
    shop = Shop("once")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        for calls, text in enumerate(("fail", "fail", "go", "go"), 1):
            await world.ask(ref, text)
            shop.names = ("", *shop.names)  # the model of the next turn counts the calls that it is shown
            assert len(shop.done) == min(calls, 3)
        assert len(shop.undone) == 2


# ------------------------------------------------------------------------------------------- deaths and departures


@pytest.mark.parametrize("place", ["call", "compensation"])
async def test_a_replica_dies_and_another_goes_on(place: str):
    """In the middle of a call, which may have happened then; or of a compensation, which is sent again under its key.
    What is on record as undone is not undone again.
    """
    shop = Shop("pay", "book", "post")
    shop.held.add("post" if place == "call" else "undo book")
    async with fleet(shop.agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "fail")
        if place == "call":
            await wait_until(lambda: "c2" in shop.done, description="the last tool runs")
            shop.names = ("pay", "book", "post")
            await world.say(ref, Cancel(), place=1)
        else:
            await wait_until(lambda: len(shop.undos) == 2, description="the second is being undone")
        await world.kill(0)
        shop.held.clear()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("cancelled" if place == "call" else "failed", 2)
        assert shop.undone == ["c2", "c1", "c0"]
        assert shop.done == ["c0", "c1", "c2"]
        if place == "call":
            assert (shop.undos[0].outcome, shop.undos[0].output) == ("unknown", None)
        else:
            assert [undo.call.id for undo in shop.undos] == ["c2", "c1", "c1", "c0"]
            assert shop.undos[1].key == shop.undos[2].key


async def test_a_draining_replica_hands_over_what_is_left_to_undo():
    """Between two of them; the other replica does the rest."""
    shop = Shop("pay", "book")
    shop.held.add("undo book")
    async with fleet(shop.agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "fail")
        await wait_until(lambda: shop.undos, description="the first is being undone")
        drained = asyncio.ensure_future(world.ones[0].replica.drain())
        await wait_until(lambda: world.ones[0].replica.draining, description="it drains")
        shop.held.clear()
        await drained
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt, shop.undone) == ("failed", 1, ["c1", "c0"])
        types = await world.types(ref)
        assert [kind for kind in types if kind in ("tool.undone", "turn.started")] == [
            *("turn.started", "tool.undone", "turn.started", "tool.undone")
        ]


async def test_a_poisonous_turn_is_undone():
    """Three replicas died over it: it fails as poisoned, and a fourth undoes it without running its tools again."""
    shop = Shop("pay", "post")
    shop.held.add("post")
    async with fleet(shop.agent, count=5) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        for deaths in range(1, 4):
            await wait_until(lambda: shop.done.count("c1") == deaths, description="it runs")  # noqa: B023
            await world.kill(busy(world))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.error.code) == ("failed", "poisoned")
        assert shop.undone == ["c1", "c0"]
        assert shop.done.count("c1") == 3
        assert (await world.data(ref, "turn.undoing"))[0].died


async def test_undoing_that_kills_is_given_up():
    """After three more deaths nothing of the user's is run any more; the end says that the effects are still there."""
    shop = Shop("pay", "book")
    shop.held.add("undo book")
    async with fleet(shop.agent, count=5) as world:
        ref = await world.session()
        receipt = await world.say(ref, "fail")
        for deaths in range(1, 4):
            await wait_until(lambda: len(shop.undos) == deaths, description="it is being undone")  # noqa: B023
            await world.kill(busy(world))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.error.code) == ("failed", "ValueError")
        assert (await world.data(ref, "turn.failed"))[0].not_undone == ("c1", "c0")
        assert (await world.ask(ref, "hi")).status == "completed"


# ------------------------------------------------------------------------------------------- hearing of the tools


async def test_tools_of_branches_are_heard_of():
    """An agent that does things side by side offers its tools in any order; a branch that comes to the end of its
    record waits for the others.
    """
    shop, changed = Shop(), list[bool]()

    async def agent(turn: Turn) -> None:
        async def quick() -> None:
            await turn.call(shop.tools[0])
            await turn.ask("is that all?")

        async def slow() -> None:
            for _ in range(10 if changed else 0):
                await asyncio.sleep(0.01)
            await turn.call(shop.tools[1])

        await asyncio.gather(quick(), slow())

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "waiting"
        await world.kill(0)
        changed.append(True)
        turn = await world.end_of(ref, await world.say(ref, Cancel()))
        assert (turn.status, len(shop.done), len(shop.undone)) == ("cancelled", 2, 2)


@pytest.mark.parametrize("why", ["the tool is gone", "the agent raises", "the agent never gets there"])
async def test_an_agent_that_is_not_what_it_was_leaves_effects_and_says_so(why: str, monkeypatch: pytest.MonkeyPatch):
    """After a deployment its tools may have other names, or it may not get so far: nothing hangs, and the end tells."""
    monkeypatch.setattr("dalsegno.runtime.saga.REHEARSAL_SECONDS", 0.2)
    monkeypatch.setattr("dalsegno.runtime.recorder.BESIDE_SECONDS", 0.05)
    shop, changed = Shop("pay", "vet"), list[str]()

    async def agent(turn: Turn) -> None:
        if changed == ["the agent raises"]:
            raise ValueError("new")
        if changed == ["the agent never gets there"]:
            await asyncio.Event().wait()
        await shop.agent(turn)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "waiting"
        await world.kill(0)
        changed.append(why)
        shop.tools = shop.tools[1:]
        receipt = await world.say(ref, Cancel())
        turn = await world.end_of(ref, receipt)
        assert (turn.status, shop.undone) == ("cancelled", [])
        (told,) = await world.data(ref, "tool.undone")
        assert (told.status, "no tool named 'pay'" in told.output) == ("incomplete", True)
        assert (await world.data(ref, "turn.cancelled"))[0].not_undone == ("c0",)


async def test_a_message_does_not_join_a_turn_that_is_being_undone():
    """Nobody would read it there: it becomes a turn of its own."""
    shop = Shop("pay")
    shop.held.add("undo pay")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        first = await world.say(ref, "fail")
        await wait_until(lambda: shop.undos, description="it is being undone")
        receipt = await world.say(ref, Message("hi", on_busy="steer"))
        assert (receipt.status, receipt.turn != first.turn) == ("queued", True)
        shop.held.clear()
        assert (await world.end_of(ref, receipt)).status == "completed"


async def test_the_turn_of_a_deleted_session_is_left_as_it_is():
    """At once, also in the middle of undoing it: there is no log any more that could say what was done."""
    shop = Shop("pay", "book")
    shop.held.add("undo book")
    async with fleet(shop.agent) as world:
        ref = await world.session()
        await world.say(ref, "fail")
        await wait_until(lambda: shop.undos, description="it is being undone")
        await world.any.delete(ref)
        await wait_until(lambda: not world.ones[0].replica.turns, description="the turn is left")
        assert shop.undone == []


async def test_a_deadline_undoes():
    """A turn that took too long has failed like any other."""
    shop = Shop("pay")
    tuning = Tuning(bury_every=timedelta(milliseconds=10), turn_deadline=timedelta(seconds=1))
    async with fleet(shop.agent, tuning=tuning) as world:
        turn = await world.ask(await world.session(), "wait")
        assert (turn.error.code, shop.undone) == ("deadline_exceeded", ["c0"])


async def test_a_call_beside_the_one_that_failed_is_undone():
    """An agent that does not wait for what it has begun: it is seen through, and undone."""
    shop = Shop("pay")
    shop.held.add("pay")

    async def agent(turn: Turn) -> None:
        call = asyncio.ensure_future(turn.call(shop.tools[0]))
        await wait_until(lambda: shop.done, description="it runs")
        asyncio.get_running_loop().call_later(0.1, shop.held.clear)
        raise ValueError(str(call.done()))

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert (turn.error.message, len(shop.undone)) == ("False", 1)
        assert isinstance((await world.data(ref, "turn.undoing"))[0], TurnUndoing)
