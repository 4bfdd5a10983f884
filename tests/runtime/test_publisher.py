"""The press: pieces go out in order, those of a step on record do not go again, nobody waits for others' sessions, and
nothing stays behind a turn.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from dalsegno.core import item as items
from dalsegno.core.generation import Generation
from dalsegno.core.lease import Lease
from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, LeaseLost, Unavailable
from dalsegno.ports import Batch, Failures, Ref
from dalsegno.runtime import publisher
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.publisher import Press, Publisher
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import session
from tests.support import wait_until

KEPT: ContextVar[object] = ContextVar("kept")


class Tier(MemoryHot):
    """A hot tier that notes what it was asked, and answers when it is told to; some sessions it does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.calls = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.slow: Ref | None = None
        """Who alone waits until it answers, with all that is published together with it."""
        self.fails = False
        self.raises: BaseException | None = None
        self.keeps: DalsegnoError | None = None
        self.refuses: dict[Ref, DalsegnoError | LeaseLost] = {}

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        self.calls += 1
        self.asked += ["".join(piece.delta for piece in batch.pieces) for batch in batches]
        if self.slow in (None, *(batch.ref for batch in batches)):
            await self.answers.wait()
        if self.fails:
            raise Unavailable("not now", outcome="not_applied")
        if self.raises is not None:
            raise self.raises
        refused = {batch.ref: self.refuses[batch.ref] for batch in batches if batch.ref in self.refuses}
        return {**refused, **await super().publish([batch for batch in batches if batch.ref not in refused])}

    async def clear(self, ref: Ref, epoch: int) -> None:
        self.asked.append("clear")
        if self.keeps is not None:
            raise self.keeps
        await super().clear(ref, epoch)


class Readers(Hub):
    """A hub that notes what readers in this process are shown."""

    def __init__(self, hot: Tier) -> None:
        super().__init__(MemoryLog(MemoryDatabase()), hot)
        self.shown = ""

    def live(self, ref: Ref, pieces: Sequence[Piece], *, epoch: int) -> None:
        self.shown += "".join(piece.delta for piece in pieces)
        super().live(ref, pieces, epoch=epoch)


def shown(press: Press) -> str:
    assert isinstance(press.hub, Readers)
    return press.hub.shown


async def until_shown(press: Press, text: str) -> None:
    await wait_until(lambda: shown(press) == text, description=f"readers here have {text}")


async def until_kept(hot: Tier, text: str, *, number: int = 1) -> None:
    await wait_until(lambda: _text(hot, number, text), description=f"the tier has {text}")


async def say_slowly(press: Press, one: "Voice", text: str) -> None:
    """A letter at a time, each shown before the next is said."""
    for end, letter in enumerate(text, 1):
        one.say(letter)
        await until_shown(press, text[:end])


@pytest.fixture
def hot(monkeypatch: pytest.MonkeyPatch) -> Tier:
    monkeypatch.setattr(publisher, "AGAIN_SECONDS", 0.01)
    return Tier()


@asynccontextmanager
async def pressing(hot: Tier) -> AsyncIterator[Press]:
    press = Press(hot, Readers(hot))
    yield press
    await press.stop()


class Voice(Publisher):
    """A turn's publisher, and what its model says."""

    _step: Generation | None = None

    def say(self, text: str, *, base: int = 3) -> None:
        """More of the step that begins after that event."""
        if self._step is None or self._step.base != base:
            self._step = Generation(turn=2, base=base)
            self._step.open(items.opened(items.message("", item_id="msg_1")))
        self._step.text(text)
        self.push(self._step.news)


def publishing(press: Press, number: int = 1, *, lost: list[int] | None = None, epoch: int = 1) -> Voice:
    ref, noted = session(number), [] if lost is None else lost
    lease = Lease(ref.tenant, ref.id, epoch=epoch, turn=2, attempt=1, owner="r1")
    return Voice(lease, press=press, on_lost=lambda: noted.append(number))


async def test_one_breath_is_not_published(hot: Tier):
    """Of a step that is whole before anybody was shown any of it, nothing goes out, whatever was shown of the one
    before. Of one that was begun to be shown, the rest follows until it is on record.
    """
    async with pressing(hot) as press:
        one, other = publishing(press), publishing(press, 2)
        for base, text in ((4, "first"), (6, "third")):
            one.say("all at once", base=base - 1)
            one.hold()
            other.say("-")  # the step is being recorded, and a round passes
            await until_kept(hot, "-" * (base // 2 - 1), number=2)
            one.close()
            one.say(text, base=base)
            await until_kept(hot, text)
            one.say("!", base=base)
            one.hold()
            await until_kept(hot, text + "!")
            one.close()
        assert hot.asked == ["-", "first", "!", "-", "third", "!"]


async def test_a_step_that_nobody_closed_gives_way_to_the_next(hot: Tier):
    """Whoever was about to record it was interrupted, say: the next one is shown all the same."""
    async with pressing(hot) as press:
        one = publishing(press)
        one.say("left")
        await until_kept(hot, "left")
        one.say("next", base=4)
        await until_kept(hot, "next")


async def test_what_many_say_goes_together(hot: Tier):
    """In one round every session's pieces are one call, of so many sessions at most; and the next says the rest. It
    costs one task, however many they are.
    """
    before = asyncio.all_tasks()
    async with pressing(hot) as press:
        ones = [publishing(press, number) for number in range(1, publisher.TOGETHER_MAX + 11)]
        for text in ("hello", "world"):
            hot.asked.clear()
            for one in ones:
                one.say(text[:2])
                one.say(text[2:])
            assert len(asyncio.all_tasks() - before) == 1
            await wait_until(lambda: len(hot.asked) == len(ones), description="all of it is out")
            assert set(hot.asked) == {text}
            await wait_until(lambda: len(asyncio.all_tasks() - before) == 1, description="one task waits for more")
        assert hot.calls == 4


async def test_what_was_not_taken_goes_with_what_follows(hot: Tier):
    """The tier comes back: what it has of the step has no gap, and what is on record goes no more."""
    async with pressing(hot) as press:
        one = publishing(press)
        hot.fails = True
        one.say("hel")
        await wait_until(lambda: hot.asked == ["hel"], description="the tier refuses")
        one.say("lo")
        hot.fails = False
        await wait_until(lambda: hot.asked[-1] == "hello", description="both go together")

        hot.answers.clear()
        hot.fails = True
        one.say("!")
        await wait_until(lambda: hot.asked[-1] == "!", description="one more is under way")
        one.say("?")
        await wait_until(lambda: shown(press)[-1] == "?", description="and one waits behind it")
        one.close()
        one.say("next", base=9)
        hot.answers.set()
        await wait_until(lambda: hot.asked[-1] == "next", description="the next step goes out by itself")
        hot.fails = False
        await wait_until(lambda: _text(hot, 1, "next"), description="and takes the place of the one before")
        assert sum("!" in asked or "?" in asked for asked in hot.asked) == 1


async def test_readers_here_do_not_wait_for_the_tier(hot: Tier):
    """While the hot tier does not answer, who reads from this replica is shown every word as it comes; the tier gets
    them all once it is back.
    """
    async with pressing(hot) as press:
        one = publishing(press)
        hot.answers.clear()
        await say_slowly(press, one, "hello")
        assert hot.asked == ["h"]
        hot.answers.set()
        await wait_until(lambda: hot.asked == ["h", "ello"], description="the rest goes together")


async def test_a_tier_that_stays_away_costs_little(hot: Tier, monkeypatch: pytest.MonkeyPatch):
    """So many pieces wait for it; when there are more, all are let go, and readers elsewhere wait for the item."""
    monkeypatch.setattr(publisher, "LATE_MAX", 3)
    async with pressing(hot) as press:
        one = publishing(press)
        hot.answers.clear()
        await say_slowly(press, one, "abcdef")
        hot.answers.set()
        await wait_until(lambda: hot.asked == ["a", "f"], description="what came last goes")


async def test_a_round_gathers(hot: Tier, monkeypatch: pytest.MonkeyPatch):
    """The first word goes at once; what follows in the next moment goes together."""
    monkeypatch.setattr(publisher, "PACE_SECONDS", 0.05)
    async with pressing(hot) as press:
        one = publishing(press)
        for letter in "hello":
            one.say(letter)
            for _ in range(10):
                await asyncio.sleep(0)
        await wait_until(lambda: hot.asked == ["h", "ello"], description="all is out")


async def test_nobody_waits_for_the_session_of_another(hot: Tier):
    """One session's part of the tier does not answer, another one's is refused: the third goes on at once, who was
    refused is told so, and the first is tried again.
    """
    async with pressing(hot) as press:
        lost = list[int]()
        late, fenced, well = (publishing(press, number, lost=lost) for number in (1, 2, 3))
        hot.refuses = {
            session(1): Unavailable("not now", outcome="not_applied"),
            session(2): LeaseLost("a newer epoch"),
        }
        for one, text in ((late, "late"), (fenced, "fenced"), (well, "well")):
            one.say(text)
        await wait_until(lambda: lost == [2], description="it is told that it is not the owner")
        well.say("!")
        await wait_until(lambda: hot.asked.count("late") > 1 and "!" in hot.asked, description="both go on")
        hot.refuses = {}
        late.say("r")
        await wait_until(lambda: _text(hot, 1, "later"), description="all of it has arrived")
        assert await _text(hot, 3, "well!")
        assert lost == [2]


async def test_nobody_waits_for_a_part_of_the_tier_that_is_away(hot: Tier, monkeypatch: pytest.MonkeyPatch):
    """Whose pieces were not taken is asked for again by itself: where it is kept, perhaps nobody answers."""
    monkeypatch.setattr(publisher, "PACE_SECONDS", 0.05)
    async with pressing(hot) as press:
        late, well = publishing(press, 1), publishing(press, 2)
        hot.refuses = {session(1): Unavailable("not now", outcome="not_applied")}
        late.say("late")
        well.say("we")
        await until_kept(hot, "we", number=2)
        hot.refuses, hot.slow = {}, session(1)
        hot.answers.clear()
        well.say("ll")  # in the round in which the other is tried again
        await until_kept(hot, "well", number=2)
        await wait_until(lambda: hot.asked.count("late") == 2, description="it is tried again")
        hot.answers.set()
        await until_kept(hot, "late")


async def test_what_is_shown_is_kept_until_it_is_on_record(hot: Tier):
    """A whole step waits for its commit: who takes over from here on goes on from what readers have, also if its last
    word was not out when it was whole. The next step takes its place; with the turn it is forgotten.
    """
    async with pressing(hot) as press:
        one, other = publishing(press), publishing(press, 2)
        one.say("first")
        await wait_until(lambda: hot.asked == ["first"], description="it is out")
        one.say(" and last")
        one.hold()
        one.close()
        other.say("a")
        await wait_until(lambda: hot.asked[-1] == "a", description="a round has passed")
        other.say("b")
        await wait_until(lambda: hot.asked[-1] == "b", description="and another")
        assert hot.asked == ["first", "a", "b"]
        assert await _text(hot, 1, "first")
        one.say("second", base=4)
        await wait_until(lambda: _text(hot, 1, "second"), description="the next step goes out")
        one.close()
        one.leave()
        other.say("c")
        await wait_until(lambda: hot.asked[-1] == "c", description="the turn has been left: nothing is forgotten yet")
        assert await _text(hot, 1, "second")
        one.forget()
        await wait_until(lambda: _text(hot, 1, ""), description="all is on record")
        assert hot.asked[3:] == ["second", "c", "clear"]


async def test_pieces_are_forgotten_after_those_under_way(hot: Tier):
    """A publication that comes late does not bring back what was cleared."""
    async with pressing(hot) as press:
        one = publishing(press)
        hot.answers.clear()
        one.say("slow")
        await wait_until(lambda: hot.asked == ["slow"], description="it is under way")
        one.close()
        one.leave()
        one.forget()
        hot.answers.set()
        await wait_until(lambda: hot.asked == ["slow", "clear"], description="then it is forgotten")
        await wait_until(lambda: _text(hot, 1, ""), description="nothing is left of it")


async def _text(hot: Tier, number: int, text: str) -> bool:
    found = await hot.read(session(number))
    return text == ("" if found is None else "".join(piece.delta for piece in found.pieces))


async def test_nothing_stays_behind_a_turn(hot: Tier):
    """When the turn is over here nothing more of it goes out, also beside a tier that fails; what is said afterwards
    goes nowhere. One task of the press is left, for the next turn.
    """
    before = asyncio.all_tasks()
    async with pressing(hot) as press:
        one, other = publishing(press), publishing(press, 2)
        one.say("idle")
        await wait_until(lambda: hot.asked == ["idle"], description="it is out")
        hot.answers.clear()
        hot.fails = True
        other.say("refused")
        await wait_until(lambda: "refused" in hot.asked, description="it is under way")
        other.say("waits")
        await wait_until(lambda: shown(press).endswith("waits"), description="more of it waits")
        for late in (one, other):
            late.say("unsaid")
            late.leave()
        hot.answers.set()
        hot.asked.clear()
        one.say("late")
        third = publishing(press, 3)
        third.say("third")
        await wait_until(lambda: hot.asked.count("third") > 2, description="the tier was tried again and again")
        assert set(hot.asked) == {"third"}
        third.leave()
        await wait_until(lambda: len(asyncio.all_tasks() - before) == 1, description="one task is left")


async def test_the_press_stops_with_its_replica(hot: Tier):
    """What is under way is let go of."""
    before = asyncio.all_tasks()
    async with pressing(hot) as press:
        hot.answers.clear()
        publishing(press).say("slow")
        await wait_until(lambda: hot.asked == ["slow"], description="it is under way")
    await wait_until(lambda: asyncio.all_tasks() == before, description="no task is left")


@pytest.mark.parametrize("raised", [ValueError("a defect"), LeaseLost("stale"), asyncio.CancelledError()])
async def test_whatever_a_tier_raises_what_it_did_not_take_goes_again(hot: Tier, raised: BaseException):
    """No session is kept away for good by what happened to it, or to others beside it."""
    async with pressing(hot) as press:
        ones = [publishing(press, number) for number in (1, 2)]
        hot.raises = raised
        for one in ones:
            one.say("hel")
        await wait_until(lambda: hot.calls == 1, description="the tier raises it")
        hot.raises = None
        for one in ones:
            one.say("lo")
        await wait_until(lambda: _text(hot, 1, "hello"), description="all of it has arrived")
        await wait_until(lambda: _text(hot, 2, "hello"), description="and of the other")


async def test_what_cannot_be_forgotten_keeps_nobody(hot: Tier, monkeypatch: pytest.MonkeyPatch):
    """A turn's last step that one session's part of the tier will not forget expires; the others hear nothing of it."""
    monkeypatch.setattr(publisher, "AGAIN_SECONDS", 3600)
    async with pressing(hot) as press:
        one, other = publishing(press, 1), publishing(press, 2)
        for late in (one, other):
            late.say("first")
        await wait_until(lambda: hot.asked == ["first"] * 2, description="both are out")
        hot.keeps = Unavailable("not now", outcome="not_applied")
        one.close()
        one.leave()
        one.forget()
        other.say("!")
        await wait_until(lambda: hot.asked[2:] == ["clear", "!"], description="the other goes on in the same round")


async def test_a_zombie_takes_nobody_along(hot: Tier):
    """Both turns of one session run here, and speak in one moment: one of them is refused, and the owner is not. P4."""
    async with pressing(hot) as press:
        lost = list[int]()
        zombie, owner = publishing(press, lost=lost), publishing(press, lost=lost, epoch=2)
        await hot.fence(session(), 2)
        zombie.say("boo")
        owner.say("mine")
        await wait_until(lambda: sorted(hot.asked) == ["boo", "mine"], description="both have gone out")
        await wait_until(lambda: _text(hot, 1, "mine"), description="it is the owner's")
        await wait_until(lambda: lost == [1], description="the zombie is told")
        owner.say("!")
        await wait_until(lambda: _text(hot, 1, "mine!"), description="the owner goes on")
        assert lost == [1]


async def test_a_step_that_closes_as_it_goes_out_is_forgotten_behind(hot: Tier):
    """The model ends in the moment in which its last word is sent: the word is cleared after it, and not before."""
    for rounds in range(6):
        async with pressing(hot) as press:
            one = publishing(press)
            one.say("last")
            for _ in range(rounds):
                await asyncio.sleep(0)
            one.close()
            one.leave()
            one.forget()
            await wait_until(lambda: hot.asked in ([], ["last", "clear"]), description="it is out and over, or neither")
            await wait_until(lambda: _text(hot, 1, ""), description="nothing is left of it")
            hot.asked.clear()


async def test_nothing_goes_out_behind_its_stop(hot: Tier):
    """A turn that was left behind, a zombie for instance, still speaks: nobody is told."""
    async with pressing(hot) as press:
        one = publishing(press)
        one.say("said")
        await wait_until(lambda: hot.asked == ["said"], description="it is out")
    one.say("unsaid")
    for _ in range(10):
        await asyncio.sleep(0)
    assert hot.asked == ["said"]


async def test_a_turn_that_is_over_is_let_go_of(hot: Tier):
    """What a framework keeps in its task's context goes with the turn, though the turn was the first to speak."""

    class Kept:
        pass

    async def turn(press: Press) -> "weakref.ref[Kept]":
        kept = Kept()
        KEPT.set(kept)
        one = publishing(press)
        one.say("said")
        await wait_until(lambda: hot.asked == ["said"], description="it is out")
        one.leave()
        return weakref.ref(kept)

    async with pressing(hot) as press:
        kept = await asyncio.create_task(turn(press))
        await wait_until(lambda: kept() is None, description="nobody has it")
