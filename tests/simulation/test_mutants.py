"""Mutants: a mechanism of the protocol is taken out, and the worlds must notice. A harness that kills none proves
nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dalsegno.core import admit as core_admit
from dalsegno.core import append as core_append
from dalsegno.core import claim as core_claim
from dalsegno.core import context as core_context
from dalsegno.core import effect as core_effect
from dalsegno.core import frozen, lifecycle
from dalsegno.core import saga as core_saga
from dalsegno.core.admit import Admission, admit
from dalsegno.core.append import Expect, Keep, Write, append
from dalsegno.core.cursor import Cursor
from dalsegno.core.session import fold
from dalsegno.core.step import Journal
from dalsegno.runtime import archivist, contexts, eraser, feed, recorder, replica, service, steps, tools
from dalsegno.runtime import saga as runtime_saga
from dalsegno.runtime.decided import result_of
from dalsegno.runtime.duty import Duty
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.service import Service
from dalsegno.stores.memory import MemoryDatabase
from dalsegno.stores.memory.hot import MemoryCache
from dalsegno.stores.memory.log import MemoryTransaction
from dalsegno.testing.world.world import comings_and_goings, run_seed, troubles
from tests.simulation.small import make_much_of_little

WORLDS_MOST = 800
SEEN_IN = {
    "a_deletion_under_the_old_epoch": 542,
    "hints_without_a_poll": 311,
    "what_is_undone_is_undone_again": 62,
    "a_lost_answer_is_taken_for_a_refusal": 61,
    "a_death_is_not_noticed_by_calls": 57,
    "once_runs_again": 57,
    "no_fence_in_append": 50,
    "a_sweep_without_an_epoch": 46,
    "the_first_is_undone_first": 38,
    "recovery_at_start_only": 37,
    "a_turn_that_owes_is_ended": 26,
    "a_step_begins_before_the_one_before_it_is_recorded": 24,
    "a_message_that_joins_is_lost_at_the_end": 21,
    "a_poisonous_turn_is_never_given_up": 19,
    "half_a_fork_is_not_on_record": 19,
    "what_is_half_erased_is_read": 17,
    "the_hot_tier_forgets_its_fence": 15,
}
"""Worlds that notice what few notice, as far as is known: a seed that is out of date costs time and nothing else."""
Mutate = Callable[[pytest.MonkeyPatch], None]
replace = msgspec.structs.replace
MUTANTS: dict[str, Mutate] = {}
COMING_AND_GOING: set[str] = set()


def mutant(mutate: Mutate) -> Mutate:
    """One more; its docstring says what it takes out."""
    MUTANTS[mutate.__name__] = mutate
    return mutate


def mutant_of_tiers(mutate: Mutate) -> Mutate:
    """One more, for worlds where sessions are archived and swept all the time."""
    COMING_AND_GOING.add(mutate.__name__)
    return mutant(mutate)


@mutant
def no_fence_in_append(patch: pytest.MonkeyPatch) -> None:
    """A replica writes for its turn whatever became of its lease."""
    real = append

    def unfenced(session: Any, now: int, *, lease: Any, expect: Expect, **more: Any) -> Any:
        if session is None:
            return real(session, now, lease=lease, expect=expect, **more)
        claimed = replace(session, owner=lease.owner)
        decision = real(
            claimed, now, lease=replace(lease, epoch=session.epoch), expect=Expect(seen=expect.seen), **more
        )
        if isinstance(decision, Write) and decision.session.owner == lease.owner:
            return replace(decision, session=replace(decision.session, owner=session.owner))
        return decision

    patch.setattr(recorder, "append", unfenced)


@mutant
def acknowledged_before_it_is_committed(patch: pytest.MonkeyPatch) -> None:
    """The receipt goes out while the commit is still under way."""
    real = Service.admit

    async def early(self: Any, ref: Any, said: Any, *, key: Any = None, opening: Any = None) -> Any:
        session = await self._warm.load(ref)
        if session is None or session.deleted:
            return await real(self, ref, said, key=key, opening=opening)
        guess = admit(session, None, session.updated_at, admission=Admission(ref.tenant, ref.id, said))
        asyncio.ensure_future(real(self, ref, said, key=key, opening=opening)).add_done_callback(_ignore)
        return result_of(guess).receipt

    patch.setattr(Service, "admit", early)


def _ignore(task: Any) -> None:
    if not task.cancelled():
        task.exception()


@mutant
def a_key_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Admission does not look whether the idempotency key is known."""
    real = MemoryDatabase.decide
    patch.setattr(MemoryDatabase, "decide", lambda self, ref, decide, **more: real(self, ref, decide))


@mutant
def an_unstable_effect_key(patch: pytest.MonkeyPatch) -> None:
    """A call's key depends on the attempt that makes it."""
    real = tools.ToolBox._call

    def unstable(self: Any, call: Any, arguments: Any) -> Any:
        made = real(self, call, arguments)
        return replace(made, key=f"{made.key}.{self._recorder.lease.epoch}")

    patch.setattr(tools.ToolBox, "_call", unstable)


@mutant
def a_call_is_made_before_its_record(patch: pytest.MonkeyPatch) -> None:
    """The step that asks for calls is written when the loop next comes round, and its calls are made at once."""
    real = recorder.Recorder.begin

    async def late(self: Any, drafts: Any) -> None:
        intents = [draft.data for draft in drafts if type(draft.data).__name__ == "ToolIntent"]
        if not intents:
            return await real(self, drafts)
        for draft in drafts:
            if hasattr(draft.data, "item") and draft.data.item["type"] == "function_call":
                self.journal.calls[draft.data.item["call_id"]] = draft.data.item
        for intent in intents:
            self.journal.intents[intent.call_id] = (self.head + 1, intent)
        asyncio.get_running_loop().call_later(0.05, self.defer, list(drafts))

    patch.setattr(recorder.Recorder, "begin", late)


@mutant
def a_recorded_step_is_run_again(patch: pytest.MonkeyPatch) -> None:
    """What the journal knows of model steps is not looked at."""
    real = Turn._recorded

    async def forgetful(self: Any, key: str) -> Any:
        found = await real(self, key)
        return None if key.startswith("model") else found

    patch.setattr(Turn, "_recorded", forgetful)


@mutant
def a_recorded_result_is_not_found(patch: pytest.MonkeyPatch) -> None:
    """A successor does not see which calls have their output on record."""
    real = Journal.note

    def blind(self: Journal, event: Any) -> None:
        real(self, event)
        if event.type == "turn.started":
            self.outputs.clear()

    patch.setattr(Journal, "note", blind)


@mutant
def once_runs_again(patch: pytest.MonkeyPatch) -> None:
    """A `once` call is sent again after a crash."""
    patch.setitem(core_effect.RECOVERY, "once", "again")


@mutant
def a_death_is_not_noticed_by_calls(patch: pytest.MonkeyPatch) -> None:
    """A successor takes every call without a result for one that has not begun."""
    patch.setattr(Journal, "interrupted", lambda self, call_id: False)


@mutant
def an_epoch_that_does_not_grow(patch: pytest.MonkeyPatch) -> None:
    """A take-over leaves the epoch as it was."""
    real = core_claim._adopt

    def tame(session: Any, turn: Any, written: Any, owner: str) -> Any:
        return real(replace(session, epoch=session.epoch - 1), turn, written, owner)

    patch.setattr(core_claim, "_adopt", tame)


@mutant
def the_hot_tier_forgets_its_fence(patch: pytest.MonkeyPatch) -> None:
    """Pieces are accepted under any epoch."""
    real = MemoryCache.touch

    def unfenced(self: Any, ref: Any, epoch: int) -> Any:
        known = self.find(ref)
        return real(self, ref, max(epoch, 0 if known is None else known.epoch))

    patch.setattr(MemoryCache, "touch", unfenced)


@mutant
def hints_without_a_poll(patch: pytest.MonkeyPatch) -> None:
    """Duties run when they are poked, and never by themselves."""
    real = Duty.__init__

    def lazy(self: Any, name: str, verb: Any, *, interval: Any) -> None:
        real(self, name, verb, interval=interval * 100_000 if name in ("claim", "sweep") else interval)

    patch.setattr(Duty, "__init__", lazy)


@mutant
def recovery_at_start_only(patch: pytest.MonkeyPatch) -> None:
    """The dead are looked for once, when a replica starts."""
    real = replica.Replica._bury

    async def once(self: Any) -> None:
        if not hasattr(self, "buried"):
            self.buried = True
            await real(self)

    patch.setattr(replica.Replica, "_bury", once)
    hints_without_a_poll(patch)


@mutant
def a_cursor_without_its_offset(patch: pytest.MonkeyPatch) -> None:
    """A reader that comes back inside an open step is taken to have nothing of it."""
    real = Service.follow

    async def coarse(self: Any, ref: Any, *, after: Any, turn: Any = None) -> Any:
        return await real(self, ref, after=None if after is None else Cursor(after.seq), turn=turn)

    patch.setattr(Service, "follow", coarse)


@mutant
def a_step_is_shown_after_it_is_over(patch: pytest.MonkeyPatch) -> None:
    """Readers are shown pieces without a look whether their step is still open."""
    patch.setattr(feed, "closes", lambda event: False)


@mutant
def what_was_carried_is_not_continued(patch: pytest.MonkeyPatch) -> None:
    """A successor says how much of the open step it goes on from, and begins anew."""
    patch.setattr(steps.Speaker, "adopt", lambda self, base, pieces: None)


@mutant
def what_is_being_written_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A model is asked while the answer before it is on its way into the log."""
    real = recorder.Recorder.settle

    async def hasty(self: Any) -> None:
        await (real(self) if self._outbox or self._unsure is not None else self._look())

    patch.setattr(recorder.Recorder, "settle", hasty)


@mutant
def a_step_begins_before_the_one_before_it_is_recorded(patch: pytest.MonkeyPatch) -> None:
    """Models that speak side by side: what one is said to begin after has been overtaken by another."""
    real = steps.Speaker.speak

    async def hasty(self: Any, model: Any, **more: Any) -> Any:
        if self._speaking is None and self._open is None and more.get("inside") is None:
            self._open = self._generation()
        return await real(self, model, **more)

    patch.setattr(steps.Speaker, "speak", hasty)


@mutant
def a_message_that_joins_is_lost_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """A turn ends whatever has joined it since the model was last asked."""
    real = recorder.Recorder.append

    async def hasty(self: Any, drafts: Any, *, then: Any = "hold", seen: Any = None) -> Any:
        return await real(self, drafts, then=then)

    patch.setattr(recorder.Recorder, "append", hasty)


@mutant
def a_cancel_does_not_decide_the_end(patch: pytest.MonkeyPatch) -> None:
    """An end is written as the replica thought, although a cancel came before it."""
    patch.setattr(core_append, "_settle", lambda draft, turn: draft)


@mutant
def a_rollback_is_shown(patch: pytest.MonkeyPatch) -> None:
    """The context keeps turns that were rolled back."""
    real = core_context.Transcript._settle

    def shown(self: Any, first: int, turn: Any, event: Any) -> None:
        real(self, first, turn, replace(event, data=event.data.replace(b',"hidden":true', b"")))

    patch.setattr(core_context.Transcript, "_settle", shown)


@mutant
def a_lost_answer_is_taken_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    """A write whose answer was lost is simply written again."""
    patch.setattr(recorder, "Expect", lambda last=None, seen=None: Expect(seen=seen))


@mutant
def a_transaction_in_two_halves(patch: pytest.MonkeyPatch) -> None:
    """What a transactional tool wrote is kept before its record is decided."""
    real = MemoryTransaction.commit

    async def halves(self: Any, decide: Any) -> Any:
        self._database.scratch.update(self._written)
        await asyncio.sleep(0.5)
        return await real(self, decide)

    patch.setattr(MemoryTransaction, "commit", halves)


@mutant
def identical_calls_are_not_recognised(patch: pytest.MonkeyPatch) -> None:
    """`dedupe` is declared and not done."""

    async def never(self: Any, call_id: str) -> None:
        return None

    patch.setattr(tools.ToolBox, "_shared", never)


@mutant
def a_poisonous_turn_is_never_given_up(patch: pytest.MonkeyPatch) -> None:
    """There is no last attempt."""
    patch.setattr(core_claim, "ATTEMPTS_MAX", 10**9)
    patch.setattr(replica, "ATTEMPTS_MAX", 10**9)


@mutant
def a_gate_that_is_open(patch: pytest.MonkeyPatch) -> None:
    """Tools that need an approval run without one."""
    real = tools.ToolBox._gated

    async def open_gate(self: Any, tool: Any, call: Any, arguments: Any) -> Any:
        return await real(self, replace(tool, gate="none"), call, arguments)

    patch.setattr(tools.ToolBox, "_gated", open_gate)


@mutant
def what_is_near_is_taken_for_the_whole(patch: pytest.MonkeyPatch) -> None:
    """Nobody reads what the log has after the context that is kept near."""
    real = contexts.Contexts._nearby

    async def whole(self: Any, ref: Any, session: Any, *, after: int, before: int) -> Any:
        found = await real(self, ref, session, after=after, before=before)
        kept = await self._near.get(ref, frozen.CONTEXT)
        if found is None or kept is None:
            return None
        stale = frozen.thaw(kept[1], tenant=ref.tenant, session=ref.id)
        assert stale is not None
        stale.head = before
        return stale

    patch.setattr(contexts.Contexts, "_nearby", whole)


@mutant
def a_deletion_under_the_old_epoch(patch: pytest.MonkeyPatch) -> None:
    """Whoever ran the session may still publish to its stream."""
    real = lifecycle.delete

    def tame(session: Any, known: Any, now: int) -> Any:
        decision = real(session, known, now)
        if not isinstance(decision, Write):
            return decision
        return replace(decision, session=replace(decision.session, epoch=session.epoch))

    patch.setattr(service, "delete", tame)


@mutant
def a_deletion_is_left_to_who_was_asked(patch: pytest.MonkeyPatch) -> None:
    """Nobody finishes an erasure that was broken off."""

    async def nothing(self: Any) -> None:
        return None

    patch.setattr(eraser.Eraser, "finish", nothing)


@mutant
def a_fork_keeps_its_turns_open(patch: pytest.MonkeyPatch) -> None:
    """What is open where the fork begins is not cancelled."""
    real = lifecycle.replay

    def keep(session: Any, known: Any, now: int, *, ref: Any, events: Any, by: str) -> Any:
        decision = real(session, known, now, ref=ref, events=events, by=by)
        if not isinstance(decision, Write):
            return decision
        head = 0 if session is None else session.head
        made = fold(ref.id, ref.tenant, events)
        return Write(made, tuple(events[head:]), made)

    patch.setattr(service, "replay", keep)


@mutant
def a_fork_has_its_parents_artifacts(patch: pytest.MonkeyPatch) -> None:
    """A fork's log points to what goes with its parent."""
    real = lifecycle.moved_event
    patch.setattr(service, "moved_event", lambda event, target, first: real(event, target, first) if first else event)


@mutant
def half_a_fork_stays(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for forks whose maker died."""
    patch.setattr(archivist, "half", lambda session: False)


@mutant_of_tiers
def half_a_fork_is_not_on_record(patch: pytest.MonkeyPatch) -> None:
    """Artifacts are copied for a session that nobody knows of yet."""
    real = service.Service._write

    async def unknown(self: Any, ref: Any, decide: Any) -> Any:
        begun = getattr(decide, "keywords", {})
        if begun.get("by") == "fork" and len(begun["events"]) == 1:
            return None
        return await real(self, ref, decide)

    patch.setattr(service.Service, "_write", unknown)


@mutant_of_tiers
def what_is_half_erased_is_read(patch: pytest.MonkeyPatch) -> None:
    """Whoever reads a session while it is erased is given what is left."""

    async def read(self: Any, ref: Any, *, after: int, limit: int) -> Any:
        return await self._warm.read(ref, after=after, limit=limit)

    patch.setattr(service.Service, "_read", read)


@mutant_of_tiers
def a_sweep_without_an_epoch(patch: pytest.MonkeyPatch) -> None:
    """What no log points to is removed, although somebody who came meanwhile may be about to."""
    patch.setattr(archivist, "fence", lambda session, known, now, *, seen: Keep(None if session.deleted else session))
    patch.setattr(archivist, "unwanted", lambda names, *, epoch, wanted: [name for name in names if name not in wanted])


@mutant
def the_first_is_undone_first(patch: pytest.MonkeyPatch) -> None:
    """Effects are undone in the order in which they were done."""
    real = core_saga.owed
    patch.setattr(core_saga, "owed", lambda journal: tuple(reversed(real(journal))))


@mutant
def what_is_undone_is_undone_again(patch: pytest.MonkeyPatch) -> None:
    """A successor does not see what has been undone already."""
    real = Journal.note

    def blind(self: Journal, event: Any) -> None:
        real(self, event)
        if event.type == "turn.started":
            self.undone.clear()

    patch.setattr(Journal, "note", blind)


@mutant
def an_undo_key_of_its_attempt(patch: pytest.MonkeyPatch) -> None:
    """A compensation that is sent again is another one."""
    real = runtime_saga.Saga._undo_one

    async def fresh(self: Any, one: Any) -> None:
        await real(self, replace(one, key=f"{one.key}.{self._recorder.lease.epoch}"))

    patch.setattr(runtime_saga.Saga, "_undo_one", fresh)


@mutant
def a_turn_that_owes_is_ended(patch: pytest.MonkeyPatch) -> None:
    """Nobody is asked to undo what a parked or dead turn has done."""
    real_stop, real_end = core_admit._stop, core_claim._end
    patch.setattr(core_admit, "_stop", lambda turn, *said, **more: real_stop(replace(turn, owes=False), *said, **more))
    patch.setattr(core_claim, "_end", lambda turn, orphaned: real_end(replace(turn, owes=False), orphaned))


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch):
    """Without the mechanism that the mutant takes out, a promise is broken in one of the first worlds.

    None is broken there with it: `test_worlds` looks at the same seeds.
    """
    if name in COMING_AND_GOING:
        make_much_of_little(monkeypatch)
    story = comings_and_goings if name in COMING_AND_GOING else troubles
    MUTANTS[name](monkeypatch)
    for seed in (SEEN_IN.get(name, 0), *range(WORLDS_MOST)):
        if run_seed(seed, story).broken:
            return
    pytest.fail(f"{WORLDS_MOST} worlds did not notice: {MUTANTS[name].__doc__}")


def test_there_are_enough_mutants():
    """Twelve are promised; each has a sentence."""
    assert len(MUTANTS) >= 12
    assert all(mutate.__doc__ for mutate in MUTANTS.values())
    assert run_seed(0).broken == [], "and without one, nothing is caught"
