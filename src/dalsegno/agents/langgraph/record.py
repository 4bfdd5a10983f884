"""Records: what LangGraph asks its checkpointer to keep, as the log holds it. Knows no LangGraph and no store.

A checkpoint is stored as its difference from its parent: the channels that changed, and of a list only what follows its
common beginning. Records are packed behind each other, each compressed with what was packed before it at hand, so that
what is said a second time (a message as a task's write, then as part of the state; names, ids, versions) costs a few
bytes. So they are read in the order they were written in, from one that needs nothing before it (`since`).
"""

import base64
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from dalsegno.core.item import EVENT
from dalsegno.core.json import JsonObject
from dalsegno.errors import DalsegnoError, Unreadable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHECKPOINT: Final = "langgraph.checkpoint"
"""The name of the events that hold records."""

WINDOW_BYTES = 16 * 1024
PLAIN_BYTES_MAX = 64 * 1024 * 1024
LEVEL = 3
VERSION = 1

COMMON: Final = b"".join(
    (
        b"langchain_core.messages.humanHumanMessage\xa7content\xb1additional_kwargs\x80\xb1response_metadata\x80",
        b"\xa4type\xa5human\xa4name\xc0\xa2id\xb3model_validate_json\xb6langchain_core.messages.tool\xabToolMessage",
        b"\xactool_call_id\xa8artifact\xc0\xa6status\xa7success\xa4type\xa4tool\xb4langchain_core.messages.ai",
        b"\xa9AIMessage\xaatool_calls\x91\x84\xa4name\xa4args\xa2id\xa4type\xa9tool_call\xb2invalid_tool_calls\x90",
        b"\xaeusage_metadata\x83\xacinput_tokens\xadoutput_tokens\xactotal_tokens\xadfinish_reason\xaamodel_name",
        b"\xaemodel_provider\xa6source\xa5input\xa4loop\xa4step\xa7parents\x80\xb1langgraph_version",
        b"msgpacknullempty__start____input____interrupt____pregel_tasks__error____resume__",
        b"branch:to:model\xc0branch:to:agent\xc0branch:to:tools\xc0messages",
    )
)
"""What the first record is compressed with at hand. Never to be changed: records on disk depend on it."""

Version: TypeAlias = int | float | str


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """A value as LangGraph's serialiser made it."""

    type: str
    data: bytes


class Whole(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """A channel's value, all of it."""

    blob: Blob


class Longer(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """A channel's list: the first `keep` elements that it had in the parent (0: of a new one), and then these."""

    keep: int
    added: tuple[Blob, ...]


Change: TypeAlias = Whole | Longer


def blobs_of(change: Change) -> tuple[Blob, ...]:
    """The values in a change."""
    return (change.blob,) if isinstance(change, Whole) else change.added


class Put(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """A checkpoint, as it differs from `parent`; from nothing, if `whole`. `by` is empty where it is only repeated.

    `rest` is the checkpoint without what has a place here. `versions` and `seen` hold what changed, `gone` the channels
    that no longer have a value, `unversioned` those that have no version any more, `unseen` the nodes of which nothing
    in the parent's `seen` holds.
    """

    ns: str
    id: str
    parent: str | None
    by: str
    whole: bool
    metadata: Blob
    rest: Blob
    versions: dict[str, Version]
    seen: dict[str, dict[str, Version]]
    values: dict[str, Change]
    gone: tuple[str, ...] = ()
    unversioned: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """One write of a task: LangGraph's number for it, its channel, its value."""

    index: int
    channel: str
    blob: Blob


class Writes(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """What a task wrote on top of a checkpoint."""

    ns: str
    checkpoint: str
    by: str
    task: str
    path: str
    slots: tuple[Slot, ...]


class Drop(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Checkpoints that are gone, and their writes; those of children stay whole."""

    ids: tuple[tuple[str, str], ...]


class Mark(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """Who wrote last, at which event, and until which event anybody else did."""

    by: str
    at: int
    others_until: int


Record: TypeAlias = Put | Writes | Drop | Mark

_records = msgspec.msgpack.Decoder(list[Record]).decode
_encode = msgspec.msgpack.Encoder().encode


class Page(msgspec.Struct, frozen=True):
    """Some records as one item of the log. `since` is the event from which on all pages are needed to read this one;
    `first` says that this one needs none before it. Such a page repeats what is still wanted of all before it.
    """

    since: int
    first: bool
    packed: bytes


class Packer:
    """Packs and unpacks pages in the order of the log."""

    def __init__(self) -> None:
        self._said = b""
        self.size = 0
        """The records, as bytes, since the last page that needs none before it."""

    def copy(self) -> "Packer":
        """The same, whatever this one packs from now on."""
        copied = Packer()
        copied._said, copied.size = self._said, self.size
        return copied

    def begin(self, records: Sequence[Record], *, since: int) -> Page:
        """A page that needs none before it."""
        self._forget()
        return self._packed(records, Page(since, True, b""))

    def pack(self, records: Sequence[Record], *, since: int) -> Page:
        """The next page."""
        return self._packed(records, Page(since, False, b""))

    def unpack(self, page: Page) -> list[Record]:
        """The records of the next page. Raises `Unreadable`."""
        if page.first:
            self._forget()
        try:
            reader = zstd.ZstdDecompressor(zstd_dict=self._window())
            plain = reader.decompress(page.packed, max_length=PLAIN_BYTES_MAX)
            if not reader.eof:
                raise Unreadable("a page of checkpoints is cut short, or larger than any that was written")
            records = _records(plain)
        except (zstd.ZstdError, msgspec.MsgspecError) as error:
            raise Unreadable(f"a page of checkpoints cannot be read: {error}") from error
        self._keep(plain)
        return records

    def _packed(self, records: Sequence[Record], page: Page) -> Page:
        plain = _encode(list(records))
        if len(plain) > PLAIN_BYTES_MAX:
            raise DalsegnoError(f"a checkpoint of {len(plain)} bytes cannot be stored: at most {PLAIN_BYTES_MAX}")
        packed = zstd.compress(plain, LEVEL, zstd_dict=self._window())
        self._keep(plain)
        return msgspec.structs.replace(page, packed=packed)

    def _forget(self) -> None:
        self._said, self.size = b"", 0

    def _keep(self, plain: bytes) -> None:
        self._said = (self._said + plain)[-WINDOW_BYTES:]
        self.size += len(plain)

    def _window(self) -> "tuple[zstd.ZstdDict, int]":
        return zstd.ZstdDict(COMMON + self._said, is_raw=True).as_prefix


def page_item(page: Page) -> JsonObject:
    """The item that holds a page; whoever writes it gives it an id."""
    packed = base64.b64encode(page.packed).decode()
    data: JsonObject = {"v": VERSION, "since": page.since, "first": page.first, "packed": packed}
    return {"type": EVENT, "name": CHECKPOINT, "data": data}


def is_page(item: JsonObject) -> bool:
    """Whether the item holds a page."""
    return item["type"] == EVENT and item.get("name") == CHECKPOINT


def page_of(item: JsonObject) -> Page:
    """The page in an item. Raises `Unreadable`."""
    data = item.get("data")
    fields = data if isinstance(data, dict) else {}
    since, packed = fields.get("since"), fields.get("packed")
    if fields.get("v") != VERSION or not isinstance(since, int) or not isinstance(packed, str):
        raise Unreadable(f"a page of checkpoints of version {fields.get('v')!r} cannot be read here")
    try:
        return Page(since, fields.get("first") is True, base64.b64decode(packed, validate=True))
    except ValueError as error:
        raise Unreadable(f"a page of checkpoints is damaged: {error}") from error


def difference(new: Mapping[str, Version], old: Mapping[str, Version]) -> dict[str, Version]:
    """What is in `new` and not, or otherwise, in `old`."""
    return {name: value for name, value in new.items() if old.get(name) != value}
