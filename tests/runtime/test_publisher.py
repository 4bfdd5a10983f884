"""The publisher: pieces go out in order, those of a step on record do not go again, and nothing stays behind a turn."""

import asyncio
from collections.abc import Sequence

import pytest

from dalsegno.core.lease import Lease
from dalsegno.core.stream import Piece
from dalsegno.errors import Unavailable
from dalsegno.ports import Hot, Ref
from dalsegno.runtime import publisher
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.publisher import Publisher
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import session
from tests.support import wait_until


class Tier(MemoryHot):
    """A hot tier that notes what it was asked, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = False

    async def publish(self, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> None:
        self.asked.append("".join(piece.delta for piece in pieces))
        await self.answers.wait()
        if self.fails:
            raise Unavailable("not now", outcome="not_applied")
        await super().publish(ref, epoch, pieces)

    async def clear(self, ref: Ref, epoch: int) -> None:
        self.asked.append("clear")
        await super().clear(ref, epoch)


@pytest.fixture
def hot(monkeypatch: pytest.MonkeyPatch) -> Tier:
    monkeypatch.setattr(publisher, "AGAIN_SECONDS", 0.01)
    return Tier()


def publishing(hot: Hot) -> Publisher:
    lease = Lease(session().tenant, session().id, epoch=1, turn=2, attempt=1, owner="r1")
    return Publisher(lease, hot=hot, hub=Hub(MemoryLog(MemoryDatabase()), hot), on_lost=lambda: None)


def word(at: int, text: str, *, base: int = 3) -> list[Piece]:
    return [Piece(base, at, 2, "msg_1", field="text", offset=at, delta=text)]


async def test_one_breath_is_not_published(hot: Tier):
    """Of a step that is whole before anybody was shown any of it, nothing goes out."""
    one = publishing(hot)
    one.push(word(0, "all at once"))
    one.hold()
    for _ in range(10):  # the step is being recorded
        await asyncio.sleep(0)
    one.close()
    one.push(word(0, "next", base=4))
    await wait_until(lambda: hot.asked == ["next"], description="the next step goes out, and nothing before it")
    one.leave()


async def test_what_was_not_taken_goes_with_what_follows(hot: Tier):
    """The tier comes back: what it has of the step has no gap, and what is on record goes no more."""
    one = publishing(hot)
    hot.fails = True
    one.push(word(0, "hel"))
    await wait_until(lambda: hot.asked == ["hel"], description="the tier refuses")
    one.push(word(3, "lo"))
    hot.fails = False
    await wait_until(lambda: hot.asked[-1] == "hello", description="both go together")

    hot.answers.clear()
    hot.fails = True
    one.push(word(5, "!"))
    await wait_until(lambda: hot.asked[-1] == "!", description="one more is under way")
    one.close()
    one.push(word(0, "next", base=9))
    hot.answers.set()
    await wait_until(lambda: "clear" in hot.asked, description="the step's pieces are forgotten")
    hot.fails = False
    await wait_until(lambda: hot.asked[-1] == "next", description="the next step goes out by itself")
    assert sum("!" in asked for asked in hot.asked) == 1
    one.leave()


async def test_what_is_shown_is_kept_until_it_is_on_record(hot: Tier):
    """A whole step waits for its commit: who takes over from here on goes on from what readers have. It is forgotten
    before the next step goes out, or with the turn.
    """
    one = publishing(hot)
    one.push(word(0, "first"))
    await wait_until(lambda: hot.asked == ["first"], description="it is out")
    one.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert hot.asked == ["first"]
    one.push(word(0, "second", base=4))
    await wait_until(lambda: hot.asked == ["first", "clear", "second"], description="the next step goes out")
    one.close()
    one.leave()
    await wait_until(lambda: hot.asked[3:] == ["clear"], description="the turn is over")


async def test_pieces_are_forgotten_after_those_under_way(hot: Tier):
    """A publication that comes late does not bring back what was cleared."""
    one = publishing(hot)
    hot.answers.clear()
    one.push(word(0, "slow"))
    await wait_until(lambda: hot.asked == ["slow"], description="it is under way")
    one.close()
    one.leave()
    hot.answers.set()
    await wait_until(lambda: hot.asked == ["slow", "clear"], description="then it is forgotten")
    await wait_until(lambda: _read(hot), description="nothing is left of it")


async def _read(hot: Tier) -> bool:
    return await hot.read(session()) is None


async def test_nothing_stays_behind_a_turn(hot: Tier):
    """When the turn is over here the task ends, also beside a tier that fails; what is said afterwards goes nowhere."""
    before = asyncio.all_tasks()
    one, other = publishing(hot), publishing(hot)
    one.push(word(0, "idle"))
    await wait_until(lambda: hot.asked == ["idle"], description="it is out")
    hot.answers.clear()
    hot.fails = True
    other.push(word(0, "refused"))
    await wait_until(lambda: "refused" in hot.asked, description="it is under way")
    one.leave()
    other.leave()
    hot.answers.set()
    await wait_until(lambda: asyncio.all_tasks() == before, description="no task is left")
    asked = len(hot.asked)
    one.push(word(4, "late"))
    assert asyncio.all_tasks() == before and len(hot.asked) == asked
