"""What must be true of a world in the end, whatever happened to it: the promises, over everything that was seen."""

from collections.abc import Iterator

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import TERMINAL, Event, ItemDone, ToolIntent, TurnCompleted, TurnCreated, TurnInput
from dalsegno.core.ids import turn_id
from dalsegno.core.session import fold
from dalsegno.ports import Ref
from dalsegno.testing.world.ledger import Ledger
from dalsegno.testing.world.people import Ack, Town
from dalsegno.testing.world.watch import Watch

replace = msgspec.structs.replace


def broken_promises(town: Town, watch: Watch, ledger: Ledger) -> Iterator[str]:
    """Every promise that was not kept, in words."""
    yield from watch.broken
    yield from ledger.problems
    for ref in sorted(watch.database.rows, key=lambda ref: ref.id):
        log = watch.log(ref)
        for problem in _row(ref, watch, log), _acks(ref, town, log), _turns(log), _effects(ref, watch, ledger, log):
            yield from (f"session {ref.id}: {text}" for text in problem)


def _row(ref: Ref, watch: Watch, log: list[Event] | object) -> Iterator[str]:
    """Law 1: the row is the fold of the log, and nobody holds anything any more."""
    row = watch.database.rows[ref]
    events = watch.log(ref)
    session = watch.database.session(ref, row)
    if [event.seq for event in events] != list(range(1, row.head + 1)):
        yield "its numbers have gaps"
    if replace(fold(ref.id, ref.tenant, events), epoch=0) != replace(session, owner=None, epoch=0):
        yield f"its row is {session}, its log folds to {fold(ref.id, ref.tenant, events)}"
    if session.open or session.owner is not None:
        yield f"it is not at rest: {session.open}, owned by {session.owner}"


def _acks(ref: Ref, town: Town, log: object) -> Iterator[str]:
    """P1, P2, P3: each acknowledged input is there once, in order; repeats were told the same."""
    events = town.watch.log(ref)
    by_key: dict[str, list[Event]] = {}
    for event in events:
        data = codec.decode(event)
        if isinstance(data, TurnCreated | TurnInput) and data.key is not None:
            by_key.setdefault(data.key, []).append(event)
    for key, found in by_key.items():
        if len(found) > 1:
            yield f"{key} is in the log {len(found)} times"
    acks = [ack for ack in town.acks if ack.ref == ref]
    receipts: dict[str, Ack] = {}
    for ack in acks:
        first = receipts.setdefault(ack.key, ack)
        if replace(first.receipt, replayed=False) != replace(ack.receipt, replayed=False):
            yield f"{ack.key} was told {first.receipt} and {ack.receipt}"
        place = [event.seq for event in by_key.get(ack.key, ())]
        if place != [ack.receipt.seq]:
            yield f"{ack.key} was acknowledged as {ack.receipt.seq}; the log has it at {place}"
    for one in receipts.values():
        for other in receipts.values():
            if one.acked < other.sent and one.receipt.seq >= other.receipt.seq:
                yield f"{one.key} was acknowledged before {other.key} was sent, and comes after it"


def _turns(log: object) -> Iterator[str]:
    """P5: each turn has exactly one end, after which nothing is heard of it."""
    ends: dict[int | None, int] = {}
    assert isinstance(log, list)
    for event in log:
        if event.turn in ends:
            yield f"event {event.seq} ({event.type}) follows the end of its turn at {ends[event.turn]}"
        if event.type in TERMINAL:
            ends[event.turn] = event.seq
    for event in log:
        if event.type == "turn.created" and event.seq not in ends:
            yield f"turn {event.seq} has no end"


def _effects(ref: Ref, watch: Watch, ledger: Ledger, log: object) -> Iterator[str]:
    """P7: each class of effect as often as it promises, for every decision on record."""
    assert isinstance(log, list)
    intents: dict[tuple[int, str], ToolIntent] = {}
    outputs: dict[tuple[int, str], dict[str, object]] = {}
    completed: set[int] = set()
    for event in log:
        data = codec.decode(event)
        if isinstance(data, ToolIntent):
            intents[event.turn, data.call_id] = data
        elif isinstance(data, TurnCompleted):
            completed.add(event.turn)
        elif isinstance(data, ItemDone) and data.item["type"] == "function_call_output":
            if (event.turn, str(data.item["call_id"])) in outputs:
                yield f"{data.item['call_id']} has two outputs"
            outputs[event.turn, str(data.item["call_id"])] = dict(data.item)
    for (turn, call_id), intent in intents.items():
        name = f"{ref.tenant}/{ref.id}/{turn_id(ref.id, turn)}/{call_id}"
        output = outputs.get((turn, call_id))
        if turn in completed and output is None:
            yield f"{intent.name} {call_id} of a completed turn has no output"
        yield from _effect(name, intent, output, watch, ledger)


def _effect(name: str, intent: ToolIntent, output: dict[str, object] | None, watch: Watch, ledger: Ledger) -> Iterator[str]:
    applied, tries = ledger.applied[name], ledger.attempts.get(name, [])
    said = output is not None and str(output["output"]).startswith(("did ", '{"read"', "dal segno"))
    copied = intent.dedupe is not None
    if intent.effect == "transactional":
        stored = watch.database.scratch.get(name)
        applied = 0 if stored is None else int(msgspec.msgpack.decode(stored))
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
    if len({attempt.key for attempt in tries} | {intent.key}) > 1:
        yield f"{intent.name} {name} ran under several keys"
