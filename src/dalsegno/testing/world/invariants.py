"""What must be true of a world in the end, whatever happened to it: the promises, over everything that was seen."""

from collections.abc import Iterator, Sequence

import msgspec

from dalsegno.core import codec
from dalsegno.core.claim import ATTEMPTS_MAX
from dalsegno.core.event import (
    TERMINAL,
    Event,
    ItemDone,
    ToolIntent,
    TurnCompleted,
    TurnCreated,
    TurnInput,
    TurnStarted,
    TurnUndoing,
)
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Cancel, Message
from dalsegno.core.item import OUTPUT
from dalsegno.core.lifecycle import artifact_of
from dalsegno.core.session import fold
from dalsegno.errors import Unreadable
from dalsegno.ports import Ref
from dalsegno.stores.memory import MemoryCache
from dalsegno.testing.world.ledger import Ledger, rows_of
from dalsegno.testing.world.people import Ack, Town
from dalsegno.testing.world.remains import copied, copy_problems, gone_problems, left_over
from dalsegno.testing.world.undone import undone_problems
from dalsegno.testing.world.watch import Watch

replace = msgspec.structs.replace


def broken_promises(town: Town, watch: Watch, ledger: Ledger, cache: MemoryCache) -> Iterator[str]:
    """Every promise that was not kept, in words."""
    yield from watch.broken
    yield from ledger.problems
    yield from (f"{name} is left over" for name in left_over(watch))
    for ref in sorted(watch.database.rows, key=lambda ref: ref.id):
        log = watch.log(ref)
        acks = [ack for ack in town.acks if ack.ref == ref]
        first = list({ack.key: ack for ack in reversed(acks)}.values())
        own = log[copied(ref, town, log) :]
        deleted = watch.database.rows[ref].deleted
        problems = (
            *(_row(ref, watch), _inputs(acks, log), _order(first), _ends(log), _effects(ref, watch, ledger, own)),
            *(_shared(ref, ledger, log), copy_problems(ref, town, watch), undone_problems(ref, watch, ledger, own)),
            _streams(watch, own),
            *((gone_problems(ref, watch, cache),) if deleted else (_turns(log), _artifacts(ref, watch, own))),
        )
        for problem in problems:
            yield from (f"session {ref.id}: {text}" for text in problem)


def _row(ref: Ref, watch: Watch) -> Iterator[str]:
    """Law 1: the row is the fold of the log, and nobody holds anything any more."""
    row, events = watch.database.rows[ref], watch.log(ref)
    session, folded = watch.database.session(ref, row), fold(ref.id, ref.tenant, events)
    try:
        if not row.deleted and watch.database.whole(ref) != events:
            yield "its log is not what was written to it"
    except Unreadable as error:
        yield f"its log cannot be read: {error}"
    if not events:
        yield "it has a row and no events"
    if [event.seq for event in events] != list(range(1, row.head + 1)):
        yield "its numbers have gaps"
    if replace(folded, epoch=0) != replace(session, owner=None, epoch=0, swept=0):
        yield f"its row is {session}, its log folds to {folded}"
    if session.open or session.owner is not None:
        yield f"it is not at rest: {session.open}, owned by {session.owner}"


def _artifacts(ref: Ref, watch: Watch, log: Sequence[Event]) -> Iterator[str]:
    """P9: whatever the log points to is there, and the session's own."""
    for event in log:
        artifact = artifact_of(event)
        if artifact is not None and artifact.name(ref.tenant) not in watch.database.objects:
            yield f"event {event.seq} points to {artifact}, which is gone"
        if artifact is not None and artifact.session != ref.id:
            yield f"event {event.seq} points to {artifact}, which is not its own"


def _inputs(acks: Sequence[Ack], log: Sequence[Event]) -> Iterator[str]:
    """P1, P2: each acknowledged input is in the log, and no input twice; repeats were told the same."""
    places: dict[str, list[int]] = {}
    for event in log:
        data = codec.decode(event)
        if isinstance(data, TurnCreated | TurnInput) and data.key is not None:
            places.setdefault(data.key, []).append(event.seq)
    for key, found in places.items():
        if len(found) > 1:
            yield f"{key} is in the log at {found}"
    first: dict[str, Ack] = {}
    for ack in acks:
        told = first.setdefault(ack.key, ack).receipt
        if replace(told, replayed=False) != replace(ack.receipt, replayed=False):
            yield f"{ack.key} was told {told} and {ack.receipt}"
        if places.get(ack.key) != [ack.receipt.seq]:
            yield f"{ack.key} was acknowledged as {ack.receipt.seq}; the log has it at {places.get(ack.key)}"


def _order(acks: Sequence[Ack]) -> Iterator[str]:
    """P3: what was acknowledged before something else was sent comes before it."""
    for one in acks:
        for other in acks:
            if one.key != other.key and one.acked < other.sent and one.receipt.seq >= other.receipt.seq:
                yield f"{one.key} was acknowledged before {other.key} was sent, and comes after it"


def _turns(log: Sequence[Event]) -> Iterator[str]:
    """P5: each turn has exactly one end, after which nothing is heard of it."""
    ends: dict[int | None, int] = {}
    for event in log:
        if event.turn in ends:
            yield f"event {event.seq} ({event.type}) follows the end of its turn at {ends[event.turn]}"
        if event.type in TERMINAL:
            ends[event.turn] = event.seq
    for event in log:
        if event.type == "turn.created" and event.seq not in ends:
            yield f"turn {event.seq} has no end"


def _ends(log: Sequence[Event]) -> Iterator[str]:
    """How a turn ends follows from what was said to it before: a cancel cancels it, a message that joined is
    answered.
    """
    cancelled: set[int | None] = set()
    joined: dict[int | None, int] = {}
    shown: dict[int | None, int] = {}
    undoing: set[int | None] = set()
    for event in log:
        data = codec.decode(event)
        if isinstance(data, TurnInput) and isinstance(data.input, Cancel):
            cancelled.add(event.turn)
        elif isinstance(data, TurnInput) and isinstance(data.input, Message):
            joined[event.turn] = event.seq
        elif isinstance(data, ItemDone) and data.through is not None:
            shown[event.turn] = data.through
        elif isinstance(data, TurnUndoing):
            undoing.add(event.turn)
        elif isinstance(data, TurnStarted) and data.attempt > ATTEMPTS_MAX and event.turn not in undoing:
            yield f"turn {event.turn} is tried for the {data.attempt}th time"
        elif isinstance(data, TurnCompleted) and event.turn in cancelled:
            yield f"turn {event.turn} completed although it had been cancelled"
        elif isinstance(data, TurnCompleted) and joined.get(event.turn, 0) > shown.get(event.turn, 0):
            yield f"turn {event.turn} completed without an answer to {joined[event.turn]}"


def _streams(watch: Watch, log: Sequence[Event]) -> Iterator[str]:
    """P8: readers are shown a step once the one that they were shown before it is on record."""
    step: tuple[int | None, str | None] | None = None
    last = behind = 0
    for event in log:
        data = codec.decode(event)
        if isinstance(data, ItemDone) and data.streamed:
            if (event.turn, data.step) != step:
                step, behind = (event.turn, data.step), last
            name, last = str(data.item["id"]), event.seq
            if watch.begun.get(name, behind) < behind:
                yield f"{name} was shown as if it began after event {watch.begun[name]}; it is behind {behind}"


def _shared(ref: Ref, ledger: Ledger, log: Sequence[Event]) -> Iterator[str]:
    """Identical calls of a turn, one after another, change the world once if the first one's result is on record."""
    results: dict[tuple[int | None, str], str] = {}
    digests: dict[tuple[int | None, str], str] = {}
    for event in log:
        data = codec.decode(event)
        if isinstance(data, ToolIntent) and data.dedupe is not None:
            digests[event.turn, data.call_id] = data.dedupe
            name = f"{ref.tenant}/{ref.id}/{turn_id(ref.id, event.turn or 0)}/{data.call_id}"
            if (event.turn, data.dedupe) in results and ledger.applied[name]:
                yield f"{data.name} {data.call_id} ran again; {results[event.turn, data.dedupe]} had the same digest"
        elif isinstance(data, ItemDone) and data.item["type"] == OUTPUT and data.item["status"] == "completed":
            digest = digests.get((event.turn, str(data.item["call_id"])))
            if digest is not None:
                results[event.turn, digest] = str(data.item["call_id"])


def _effects(ref: Ref, watch: Watch, ledger: Ledger, log: Sequence[Event]) -> Iterator[str]:
    """P7: each class of effect as often as it promises, for every decision on record."""
    intents: dict[tuple[int | None, str], ToolIntent] = {}
    outputs: dict[tuple[int | None, str], dict[str, object]] = {}
    completed: set[int | None] = set()
    for event in log:
        data = codec.decode(event)
        if isinstance(data, ToolIntent):
            intents[event.turn, data.call_id] = data
        elif isinstance(data, TurnCompleted):
            completed.add(event.turn)
        elif isinstance(data, ItemDone) and data.item["type"] == OUTPUT:
            if (event.turn, str(data.item["call_id"])) in outputs:
                yield f"{data.item['call_id']} has two outputs"
            outputs[event.turn, str(data.item["call_id"])] = dict(data.item)
    for (turn, call_id), intent in intents.items():
        name = f"{ref.tenant}/{ref.id}/{turn_id(ref.id, turn or 0)}/{call_id}"
        output = outputs.get((turn, call_id))
        if turn in completed and output is None:
            yield f"{intent.name} {call_id} of a completed turn has no output"
        yield from _effect(name, intent, output, watch, ledger)


def _effect(
    name: str, intent: ToolIntent, output: dict[str, object] | None, watch: Watch, ledger: Ledger
) -> Iterator[str]:
    applied, tries = ledger.applied[name], ledger.tries.get(name, [])
    said = output is not None and str(output["output"]).startswith(("did ", '{"read"', "dal segno"))
    copied = intent.dedupe is not None
    if intent.effect == "transactional":
        applied = rows_of(name, watch.database.scratch)
        done = output is not None and output["status"] == "completed"
        if applied != (1 if done else 0):
            yield f"{intent.name} {name} is in the database {applied} times; its output is {output}"
        return
    if intent.effect == "read" and said and not tries:
        yield f"{intent.name} {name} was never read"
    if intent.effect == "keyed" and (applied > 1 or (said and not copied and applied != 1)):
        yield f"{intent.name} {name} was applied {applied} times; its output is {output}"
    if intent.effect == "once":
        # a human or a probe may send a call again while a paused replica still holds the first: no store can stop that
        again = 1 if intent.name in ("probed", "asked") and ledger.applied_stale[name] else 0
        if applied > 1 + again or (said and not copied and applied == 0):
            yield f"{intent.name} {name} was applied {applied} times; its output is {output}"
    if {*tries} - {intent.key}:
        yield f"{intent.name} {name} ran under several keys"
