"""What must be true of whole sessions in the end: copies are what they were made of, nothing is left of the deleted,
and the cold tier holds nothing that no log points to.
"""

from collections.abc import Iterator, Sequence

from dalsegno.core import codec
from dalsegno.core.archive import parse_shelf
from dalsegno.core.event import Event, Origin, SessionCreated
from dalsegno.core.lifecycle import artifact_of, half
from dalsegno.core.session import fold
from dalsegno.core.tier import folder
from dalsegno.ports import Ref
from dalsegno.stores.memory import MemoryCache
from dalsegno.testing.world.people import Town
from dalsegno.testing.world.watch import Watch


def copied(ref: Ref, town: Town, log: Sequence[Event]) -> int:
    """How many events of a session's log are another's."""
    if ref in town.imported:
        return min(len(log), len(town.imported[ref]))
    origin = _origin(log)
    return 0 if origin is None else min(len(log), origin.seq)


def copy_problems(ref: Ref, town: Town, watch: Watch) -> Iterator[str]:
    """A fork is the beginning of its parent, an import what was exported; turns that are open there are cancelled."""
    log, origin = watch.log(ref), _origin(watch.log(ref))
    if ref in town.imported:
        made, begun = town.imported[ref], log[: len(town.imported[ref])]
    elif origin is not None:
        parent = watch.log(Ref(ref.tenant, origin.session))
        made, begun = [_moved(event, origin, ref) for event in parent[: origin.seq]], log[: origin.seq]
        made[0] = log[0]
    else:
        return
    if len(log) == 2 and log[1].type == "session.deleted":
        return  # half a fork that nobody went on with
    if list(begun) != list(made):
        yield f"it is not what it was made of, {origin or 'an import'}"
    ends = [event.turn for event in log[len(begun) :] if event.type == "turn.cancelled"]
    opened = [turn.first for turn in fold(ref.id, ref.tenant, begun).open]
    if ends[: len(opened)] != opened:
        yield f"turns {opened} were open in what it was made of, and {ends} ended"


def gone_problems(ref: Ref, watch: Watch, cache: MemoryCache) -> Iterator[str]:
    """Of a deleted session nothing is left but that it was there."""
    row, happened = watch.database.rows[ref], watch.weather.happened
    if list(row.events) != [row.head] or row.known or row.shelf or not row.erased:
        yield f"it is deleted, and has events {list(row.events)}, {len(row.known)} keys, a shelf: {bool(row.shelf)}"
    if found := [name for name in watch.database.objects if name.startswith(folder(ref.tenant, ref.id))]:
        yield f"it is deleted, and the cold tier has {found}"
    step = cache.find(ref)
    if step is not None and step.pieces and not any(happened[kind] for kind in ("hot down", "hot slow", "hot flushed")):
        yield "it is deleted, and its open step is still shown"


def left_over(watch: Watch) -> Iterator[str]:
    """Objects that no log and no shelf points to; segments that came back are collected under the next epoch."""
    wanted: set[str] = set()
    for ref, row in watch.database.rows.items():
        if not row.deleted:
            pointers = [artifact for event in watch.log(ref) if (artifact := artifact_of(event)) is not None]
            wanted.update(artifact.name(ref.tenant) for artifact in pointers if artifact.session == ref.id)
            brought_back = f"{folder(ref.tenant, ref.id)}log/{row.epoch}-"
            wanted.update(name for name in watch.database.objects if name.startswith(brought_back))
            wanted.update(segment.name for segment in (parse_shelf(ref, row.shelf) if row.shelf else ()))
    yield from (name for name in watch.database.objects if name not in wanted)
    for ref, row in watch.database.rows.items():
        if half(watch.database.session(ref, row)):
            yield f"half of the fork {ref.id}"


def _origin(log: Sequence[Event]) -> Origin | None:
    data = codec.decode(log[0]) if log else None
    return data.parent if isinstance(data, SessionCreated) else None


def _moved(event: Event, origin: Origin, fork: Ref) -> Event:
    """An event of the parent as it must stand in its fork: artifacts are named after the session that owns them."""
    data = event.data.replace(f"{origin.session}.".encode(), f"{fork.id}.".encode())
    return Event(event.seq, event.type, event.turn, event.at, data)
