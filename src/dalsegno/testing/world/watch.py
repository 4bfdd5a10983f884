"""The world's eye: it sees every write at the moment it is carried out, every model call and every tool, and judges
them.

What can only be judged at the end is in `invariants`. Nothing here is known to the code that is being tested.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from dalsegno.core import codec
from dalsegno.core.append import Decide, Decision, Write
from dalsegno.core.archive import parse_shelf, unpack
from dalsegno.core.context import Context, context
from dalsegno.core.event import Event, TurnInput, TurnStarted
from dalsegno.core.ids import turn_id, turn_number, undo_key
from dalsegno.core.input import Approval, Cancel
from dalsegno.core.step import journal
from dalsegno.core.stream import Piece
from dalsegno.errors import Shelved
from dalsegno.ports import Call, Ref, Undo
from dalsegno.runtime.handle import Turn
from dalsegno.stores.memory import MemoryDatabase
from dalsegno.stores.memory.database import StoredSession
from dalsegno.testing.world.ledger import Lease
from dalsegno.testing.world.loop import here
from dalsegno.testing.world.provider import refused_by_providers
from dalsegno.testing.world.script import VOICES
from dalsegno.testing.world.weather import Weather

R = TypeVar("R")
CLIENT_EVENTS = frozenset(
    {"session.created", "session.updated", "session.deleted", "turn.created", "turn.input", "turn.cancelled"}
)


class WatchedDatabase(MemoryDatabase):
    """The memory database; `on_write` is shown each write with the row before it, `on_move` what is archived."""

    on_write: Callable[[Ref, StoredSession | None, Write[object]], None]
    on_move: Callable[[Ref, str], None]
    objects: dict[str, bytes]

    def decide(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        before = self.rows.get(ref)
        decision = super().decide(ref, decide, digest=digest)
        if isinstance(decision, Write):
            self.on_write(ref, before, decision)
        return decision

    def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        done = super().shelve(ref, shelf, head=head, epoch=epoch)
        if done:
            self.on_move(ref, "archived")
        return done

    def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        if self.rows[ref].shelf == shelf:
            self.on_move(ref, "came back")
        super().unshelve(ref, shelf, events)

    def whole(self, ref: Ref) -> Sequence[Event]:
        """The session's log, wherever it is."""
        row = self.rows[ref]
        try:
            return self.events(ref, row, after=0, limit=row.head)
        except Shelved as told:
            segments = parse_shelf(ref, told.shelf)
            archived = [event for one in segments for event in unpack(ref, one, self.objects[one.name])]
            return [*archived, *self.events(ref, row, after=archived[-1].seq, limit=row.head)]


class Watch:
    """What was seen to be wrong, in words, and what was seen at all."""

    def __init__(self, database: WatchedDatabase, weather: Weather) -> None:
        self.database = database
        self.weather = weather
        self.broken: list[str] = []
        self.written: dict[Ref, list[Event]] = {}
        """All that was ever written to each session, erased or not."""
        self.begun: dict[str, int] = {}
        """After which event each item began, as readers were shown it."""
        self._fences: dict[Ref, int] = {}
        self._silenced: set[Ref] = set()
        database.on_write = self._on_write
        database.on_move = lambda ref, where: weather.did(where, ref)

    def breaks(self, text: str) -> None:
        """A promise was broken."""
        self.weather.note("BROKEN", text)
        self.broken.append(f"{self.weather.clock():.3f} s: {text}")

    def lease(self, ref: Ref, turn: str, attempt: int) -> Lease:
        """Whether the running process holds the session's lease, in this attempt at this turn: one that was paused may
        hold it again, for a later turn, while others have begun this one anew.
        """
        process, row, first = here(), self.database.rows[ref], turn_number(ref.id, turn)
        held = process is not None and row.owner == process.incarnation and row.attempt == attempt
        begun = [codec.decode(event) for event in self.log(ref) if (event.turn, event.type) == (first, "turn.started")]
        anew = bool(begun) and isinstance(begun[-1], TurnStarted) and begun[-1].attempt != attempt
        return "held" if held and not anew else "stale"

    def log(self, ref: Ref) -> Sequence[Event]:
        """The session's whole log, as it was written."""
        return self.written.get(ref, [])

    def model_asked(self, turn: Turn, key: str, shown: Context, *, given: Sequence[str]) -> None:
        """P6: a step on record is not asked for again, and the model is shown exactly the log's prefix; the items that
        the agent was `given` before it asked are in it.
        """
        ref = Ref(turn.tenant, turn.session)
        log = self.log(ref)
        self.weather.note("model", ref.id[-4:], turn.id[-4:], key, shown.through)
        if (why := refused_by_providers(shown.items)) is not None:
            self.breaks(f"session {ref.id}: the model was shown what no provider takes: {why}")
        if context(log[: shown.through], session=ref.id).items != shown.items:
            self.breaks(f"session {ref.id}: the model was shown something else than the log up to {shown.through}")
        self._check_hidden(ref, log[: shown.through], shown)
        if missed := {*given} - {str(item["id"]) for item in shown.items}:
            self.breaks(f"session {ref.id}: {key} was not shown {sorted(missed)}, which its agent had been given")
        if self.lease(ref, turn.id, turn.attempt) == "stale":
            return
        first = turn_number(ref.id, turn.id)
        assert first is not None
        known = journal(log, first)
        if key in known.steps:
            self.breaks(f"session {ref.id}: {key} of turn {first} is on record and was asked for again")
        running = self.database.session(ref, self.database.rows[ref]).turn(first)
        beside = key.partition("#")[0] in VOICES  # others go on while it is about to be asked
        if running is not None and not beside and running.last > shown.through:
            self.breaks(f"session {ref.id}: turn {first} was shown its log up to {shown.through} of {running.last}")

    def _check_hidden(self, ref: Ref, log: Sequence[Event], shown: Context) -> None:
        """What was rolled back is not shown; told by the ids of items, not by the context's own fold.

        A summary stands for turns before its own, and stays.
        """
        ended = {event.turn for event in log if event.type == "turn.cancelled"}
        for event in log:
            data = codec.decode(event) if event.type == "turn.input" and event.turn in ended else None
            if isinstance(data, TurnInput) and isinstance(data.input, Cancel) and data.input.hide:
                mark = f"_{turn_id(ref.id, event.turn or 0)[:8]}{event.turn:x}_"
                if any(mark in str(item["id"]) and item.get("role") != "developer" for item in shown.items):
                    self.breaks(f"session {ref.id}: turn {event.turn} was rolled back, and the model was shown it")

    def tool_runs(self, call: Call, lease: Lease) -> None:
        """Law 4: the intent is on record before the effect, and a recorded call is not run again."""
        ref = Ref(call.tenant, call.session)
        first = turn_number(call.session, call.turn)
        assert first is not None
        known = journal(self.log(ref), first)
        if call.id not in known.intents:
            self.breaks(f"session {ref.id}: {call.name} {call.id} ran without its intent on record")
        elif known.intents[call.id][1].key != call.key:
            self.breaks(f"session {ref.id}: {call.name} {call.id} ran under another key than its intent's")
        answer = known.answers.get(call.id)
        approved = answer is not None and isinstance(answer[1], Approval) and answer[1].decision == "approve"
        if call.name in ("gated", "hasty", "vetted") and not approved:
            self.breaks(f"session {ref.id}: {call.name} {call.id} ran without an approval")
        if call.id in known.outputs and lease == "held":
            self.breaks(f"session {ref.id}: {call.name} {call.id} is on record and was run again")

    def undo_runs(self, undo: Undo, lease: Lease) -> None:
        """Law 4 of what is undone: the decision is on record before the first of it, and what is on record is not run
        again.
        """
        ref, call = Ref(undo.call.tenant, undo.call.session), undo.call
        known = journal(self.log(ref), turn_number(call.session, call.turn) or 0)
        if known.undoing is None:
            self.breaks(f"session {ref.id}: {call.name} {call.id} is undone, and no `turn.undoing` is on record")
        elif call.id not in known.intents or undo.key != undo_key(known.intents[call.id][1].key):
            self.breaks(f"session {ref.id}: {call.name} {call.id} is undone under {undo.key}")
        if call.id in known.undone and lease == "held":
            self.breaks(f"session {ref.id}: {call.name} {call.id} is on record as undone and was undone again")

    def on_hot(self, ref: Ref, epoch: int, what: str, pieces: Sequence[Piece]) -> None:
        """P4: what the hot tier accepted, under which epoch."""
        self.begun |= {piece.item_id: piece.base for piece in pieces if piece.item is not None}
        newest = self._fences.get(ref, 0)
        if epoch < newest:
            self.breaks(f"session {ref.id}: {what} under epoch {epoch}, after {newest} was seen")
        self._fences[ref] = max(newest, epoch)
        if what == "publish" and ref in self._silenced:
            self.breaks(f"session {ref.id} is deleted, and readers were shown more of its open step")
        row = self.database.rows.get(ref)
        if what == "fence" and row is not None and row.deleted:
            self._silenced.add(ref)

    def on_flush(self) -> None:
        """The hot tier forgot everything, its fences included; that is allowed (P10)."""
        self._fences.clear()
        self._silenced.clear()

    def _on_write(self, ref: Ref, before: StoredSession | None, write: Write[object]) -> None:
        process, after = here(), write.session
        name = process.incarnation if process is not None else ""
        kinds = tuple(event.type for event in write.events)
        self.written.setdefault(ref, []).extend(write.events)
        self.weather.note("write", name, ref.id[-4:], after.head, kinds)
        owner, epoch = (None, 0) if before is None else (before.owner, before.epoch)
        if after.epoch < epoch or (after.owner is not None and after.owner != owner and after.epoch <= epoch):
            self.breaks(f"session {ref.id}: epoch {epoch} of {owner} became {after.epoch} of {after.owner}")
        made = [event for event in write.events if event.type not in CLIENT_EVENTS]
        copied = after.owner is None and (before is None or (before.head == 1 and epoch == 0))
        if not made or copied or name in (owner, after.owner):
            return
        claimed = after.owner is None and not self.database.alive(owner) and made[0].type == "turn.failed"
        if not claimed:
            self.breaks(f"session {ref.id}: {name} wrote {kinds} although the lease is {owner}'s")
