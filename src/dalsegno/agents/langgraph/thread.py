"""A thread: checkpoints and writes, folded from records. Pure: it decides what is to be recorded, others write it.

What it is given and gives is serialised already; what a checkpoint looks like to LangGraph is the saver's business.
"""

from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from dalsegno.agents.langgraph.record import (
    Blob,
    Change,
    Drop,
    Longer,
    Mark,
    Put,
    Record,
    Slot,
    Version,
    Whole,
    Writes,
    difference,
)
from dalsegno.errors import Unreadable

Name = tuple[str, str]
"""A checkpoint's namespace and id."""


class Row(msgspec.Struct, frozen=True):
    """A list: the first `keep` elements of another, and `added`."""

    before: "Row | None"
    keep: int
    added: tuple[Blob, ...]

    def __len__(self) -> int:
        return self.keep + len(self.added)

    def elements(self) -> list[Blob]:
        """All of them, in order."""
        parts: list[tuple[Blob, ...]] = []
        row: Row | None = self
        wanted = len(self)
        while row is not None and wanted:
            if wanted > row.keep:
                parts.append(row.added[: wanted - row.keep])
                wanted = row.keep
            row = row.before
        return [element for part in reversed(parts) for element in part]


Value = Blob | Row


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as LangGraph gives it and gets it, serialised. A list's elements are serialised one by one."""

    ns: str
    id: str
    parent: str | None
    metadata: Blob
    rest: Blob
    versions: dict[str, Version]
    seen: dict[str, dict[str, Version]]
    values: dict[str, Value]

    @property
    def name(self) -> Name:
        """What it is found by."""
        return self.ns, self.id


class Given(msgspec.Struct):
    """A checkpoint that is to be recorded. A list is given as the list of its elements."""

    ns: str
    id: str
    parent: str | None
    metadata: Blob
    rest: Blob
    versions: dict[str, Version]
    seen: dict[str, dict[str, Version]]
    values: dict[str, Blob | list[Blob]]


class Thread:
    """The checkpoints of one thread, as far as they were read."""

    def __init__(self) -> None:
        self._checkpoints: dict[Name, Checkpoint] = {}
        self._newest: dict[str, str] = {}
        self._writes: dict[Name, dict[tuple[str, int], tuple[str, Slot]]] = {}
        self._mark = Mark("", 0, 0)
        self._past: set[Name] = set()
        """Checkpoints that a reader of the newest pages does not see."""

    def copy(self) -> "Thread":
        """The same, whatever is applied to this one from now on."""
        copied = Thread()
        copied._checkpoints, copied._newest = dict(self._checkpoints), dict(self._newest)
        copied._writes = {name: dict(writes) for name, writes in self._writes.items()}
        copied._mark, copied._past = self._mark, set(self._past)
        return copied

    def apply(self, record: Record, *, at: int) -> None:
        """Take one more record into account; it stands at event `at`. Raises `Unreadable` for one that cannot stand
        here.
        """
        match record:
            case Put():
                self._put(record)
                self._wrote(record.by, at)
            case Writes():
                # a task's writes may be on record before the checkpoint is that they belong to
                known = self._writes.setdefault((record.ns, record.checkpoint), {})
                known.update({(record.task, slot.index): (record.path, slot) for slot in record.slots})
                self._wrote(record.by, at)
            case Drop():
                self._drop(record.ids)
            case Mark():
                self._mark = record
                self._past = set(self._checkpoints)  # a repetition begins
            case _:
                assert_never(record)

    def __len__(self) -> int:
        return len(self._checkpoints)

    def foreign(self, by: str) -> int:
        """The last event that holds a record of anybody else's."""
        return self._mark.others_until if by == self._mark.by else self._mark.at

    def find(self, ns: str, checkpoint: str | None = None) -> Checkpoint | None:
        """A checkpoint; the newest of the namespace, if none is named."""
        wanted = self._newest.get(ns) if checkpoint is None else checkpoint
        return None if wanted is None else self._checkpoints.get((ns, wanted))

    def all(self) -> list[Checkpoint]:
        """Every checkpoint, the newest first."""
        return sorted(self._checkpoints.values(), key=lambda found: found.id, reverse=True)

    def newest(self) -> list[Checkpoint]:
        """The newest checkpoint of each namespace."""
        return [self._checkpoints[name] for name in self._newest.items()]

    def pending(self, ns: str, checkpoint: str) -> list[tuple[str, Slot]]:
        """What tasks wrote on top of a checkpoint, in the order in which LangGraph applies it: (task, write)."""
        writes = self._writes.get((ns, checkpoint), {})
        ordered = sorted((path, task, index) for (task, index), (path, _) in writes.items())
        return [(task, writes[task, index][1]) for _, task, index in ordered]

    def put(self, given: Given, *, by: str) -> Put:
        """The record of a checkpoint: what differs from its parent, if that is known to readers of the newest pages."""
        name = (given.ns, given.parent or "")
        parent = None if name in self._past else self._checkpoints.get(name)
        before = parent or Checkpoint(given.ns, "", None, given.metadata, given.rest, {}, {}, {})
        unseen = tuple(
            node
            for node, known in before.seen.items()
            if node not in given.seen or known.keys() - given.seen[node].keys()
        )
        seen = {
            node: difference(known, {} if node in unseen else before.seen.get(node, {}))
            for node, known in given.seen.items()
        }
        changes = {name: _change(value, before.values.get(name)) for name, value in given.values.items()}
        return Put(
            ns=given.ns,
            id=given.id,
            parent=given.parent,
            by=by,
            whole=parent is None,
            metadata=given.metadata,
            rest=given.rest,
            versions=difference(given.versions, before.versions),
            seen={node: fresh for node, fresh in seen.items() if fresh or node in unseen or node not in before.seen},
            values={name: change for name, change in changes.items() if change is not None},
            gone=tuple(name for name in before.values if name not in given.values),
            unversioned=tuple(name for name in before.versions if name not in given.versions),
            unseen=unseen,
        )

    def news(self, given: Writes) -> Writes | None:
        """What is not on record of a task's writes; None if all of it is.

        As LangGraph has it: an ordinary write stays what it was first, one of the special ones (negative numbers) is
        replaced.
        """
        known = self._writes.get((given.ns, given.checkpoint), {})
        fresh = tuple(
            slot
            for slot in given.slots
            if (given.task, slot.index) not in known or (slot.index < 0 and known[given.task, slot.index][1] != slot)
        )
        return msgspec.structs.replace(given, slots=fresh) if fresh else None

    def repeat(self, names: Iterable[Name]) -> list[Record]:
        """Records from which these checkpoints can be read with nothing before them."""
        records: list[Record] = [self._mark]
        for ns, checkpoint in names:
            found = self._checkpoints[ns, checkpoint]
            values: dict[str, Change] = {
                channel: Whole(value) if isinstance(value, Blob) else Longer(0, tuple(value.elements()))
                for channel, value in found.values.items()
            }
            records.append(
                Put(
                    ns,
                    checkpoint,
                    found.parent,
                    "",
                    True,
                    found.metadata,
                    found.rest,
                    found.versions,
                    found.seen,
                    values,
                )
            )
            records += self.written(ns, checkpoint)
        return records

    def size(self, names: Iterable[Name]) -> int:
        """How many bytes the values of these checkpoints have."""
        values = [value for name in names for value in self._checkpoints[name].values.values()]
        blobs = [[value] if isinstance(value, Blob) else value.elements() for value in values]
        return sum(len(blob.data) for some in blobs for blob in some)

    def written(self, ns: str, checkpoint: str) -> list[Writes]:
        """Records of what tasks wrote on top of a checkpoint."""
        writes = self._writes.get((ns, checkpoint), {})
        return [Writes(ns, checkpoint, "", task, path, (slot,)) for (task, _), (path, slot) in writes.items()]

    def lasting(self) -> list[Name]:
        """The checkpoints that a run may go on from: the newest of each namespace that outlives a step, and of those
        with a task's id in their names (subgraphs) if they are of the step that is under way.
        """
        under_way = self._newest.get("", "")
        return [(ns, newest) for ns, newest in self._newest.items() if ":" not in ns or newest > under_way]

    def _put(self, record: Put) -> None:
        parent = None if record.whole or record.parent is None else self._checkpoints.get((record.ns, record.parent))
        if parent is None and not record.whole:
            raise Unreadable(f"checkpoint {record.id} differs from {record.parent}, which is not on record")
        versions = {} if parent is None else parent.versions
        seen = {} if parent is None else parent.seen
        values: Mapping[str, Value] = {} if parent is None else parent.values
        kept = {name: value for name, value in values.items() if name not in record.gone}
        known = {node: versions for node, versions in seen.items() if node not in record.unseen}
        self._past.discard((record.ns, record.id))
        self._checkpoints[record.ns, record.id] = Checkpoint(
            record.ns,
            record.id,
            record.parent,
            record.metadata,
            record.rest,
            {name: version for name, version in versions.items() if name not in record.unversioned} | record.versions,
            known | {node: {**known.get(node, {}), **fresh} for node, fresh in record.seen.items()},
            kept | {name: _changed(change, kept.get(name)) for name, change in record.values.items()},
        )
        self._newest[record.ns] = max(self._newest.get(record.ns, ""), record.id)

    def _drop(self, names: Iterable[Name]) -> None:
        for name in names:
            self._checkpoints.pop(name, None)
            self._writes.pop(name, None)
        self._newest = {}
        for ns, checkpoint in self._checkpoints:
            self._newest[ns] = max(self._newest.get(ns, ""), checkpoint)

    def _wrote(self, by: str, at: int) -> None:
        if by:
            others_until = self._mark.others_until if by == self._mark.by else self._mark.at
            self._mark = Mark(by, at, others_until)


def _change(value: Blob | list[Blob], known: Value | None) -> Change | None:
    """How a channel's value differs from what it was; None if it does not."""
    if isinstance(value, Blob):
        return None if value == known else Whole(value)
    before = known.elements() if isinstance(known, Row) else []
    keep = 0
    for old, new in zip(before, value, strict=False):
        if old != new:
            break
        keep += 1
    if isinstance(known, Row) and keep == len(before) == len(value):
        return None
    return Longer(keep, tuple(value[keep:]))


def _changed(change: Change, known: Value | None) -> Value:
    if isinstance(change, Whole):
        return change.blob
    before = known if isinstance(known, Row) else None
    if change.keep > (0 if before is None else len(before)):
        raise Unreadable(f"a list is to keep {change.keep} elements, and has fewer")
    return Row(before if change.keep else None, change.keep, change.added)
