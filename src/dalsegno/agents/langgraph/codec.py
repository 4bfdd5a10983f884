"""LangGraph's checkpoints and ours: its serialiser stands between them, so that any state works that it can hold."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from dalsegno.agents.langgraph.configs import Where, config_of
from dalsegno.agents.langgraph.record import Blob
from dalsegno.agents.langgraph.serde import Strict
from dalsegno.agents.langgraph.thread import Checkpoint as Kept
from dalsegno.agents.langgraph.thread import Given, Row, Thread
from dalsegno.errors import DalsegnoError, Unreadable

OWN_FIELDS = frozenset({"id", "channel_values", "channel_versions", "versions_seen"})


class Codec:
    """Values, checkpoints and metadata, there and back."""

    def __init__(self, serde: SerializerProtocol, readable: set[Blob]) -> None:
        self._serde = serde
        self._readable = readable
        """What was found to be readable: a message is a task's write first, and then part of the state."""

    def dump(self, value: Any, what: str = "the checkpoint") -> Blob:
        """A value, serialised. Raises `DalsegnoError` that says `what` cannot be."""
        try:
            return Blob(*self._serde.dumps_typed(value))
        except Exception as error:  # whatever a value's own methods raise while it is taken apart
            raise DalsegnoError(f"{what} cannot be stored: {error}") from error

    def check(self, blobs: Iterable[Blob], what: str) -> None:
        """Raises `DalsegnoError` if one of them could not be read again."""
        if isinstance(self._serde, Strict):
            for blob in blobs:
                if blob not in self._readable:
                    try:
                        self.load(blob)
                    except Unreadable as error:
                        raise DalsegnoError(f"{what} cannot be stored: {error}") from error
                    self._readable.add(blob)

    def load(self, blob: Blob) -> Any:
        """The value."""
        return self._serde.loads_typed((blob.type, blob.data))

    def given(self, where: Where, checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> Given:
        """A checkpoint that is to be recorded on top of the one that `where` points at."""
        whole = dict(cast(Mapping[str, Any], checkpoint))
        return Given(
            where.ns,
            checkpoint["id"],
            where.checkpoint,
            self.dump(dict(metadata), "the run's metadata"),
            self.dump({name: value for name, value in whole.items() if name not in OWN_FIELDS}),
            dict(checkpoint["channel_versions"]),
            {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
            {name: self._value(name, value) for name, value in checkpoint["channel_values"].items()},
        )

    def found(self, name: str, thread: Thread, kept: Kept) -> CheckpointTuple:
        """A checkpoint on record, as LangGraph asks for it."""
        values = {
            channel: [self.load(element) for element in value.elements()]
            if isinstance(value, Row)
            else self.load(value)
            for channel, value in kept.values.items()
        }
        checkpoint = {
            **self.load(kept.rest),
            "id": kept.id,
            "channel_values": values,
            "channel_versions": dict(kept.versions),
            "versions_seen": {node: dict(seen) for node, seen in kept.seen.items()},
        }
        return CheckpointTuple(
            config_of(name, kept.ns, kept.id),
            cast(Checkpoint, checkpoint),
            self.load(kept.metadata),
            None if kept.parent is None else config_of(name, kept.ns, kept.parent),
            [(task, slot.channel, self.load(slot.blob)) for task, slot in thread.pending(kept.ns, kept.id)],
        )

    def _value(self, channel: str, value: Any) -> Blob | list[Blob]:
        what = f"the state's {channel!r}"
        return [self.dump(element, what) for element in value] if type(value) is list else self.dump(value, what)
