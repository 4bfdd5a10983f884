"""What stays in the log and what goes to cold storage: a large payload is replaced by its pointer (claim check)."""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import msgspec

from dalsegno.core.event import ItemDone
from dalsegno.core.input import Message
from dalsegno.core.item import MESSAGE, OUTPUT, REASONING, text_of
from dalsegno.core.json import Json, JsonObject, dumps

T = TypeVar("T")
replace = msgspec.structs.replace
TOLD = frozenset({MESSAGE, REASONING})
"""Items whose text is streamed: readers are given all of it, wherever it is kept (P8)."""

INLINE_MAX = 32 * 1024
"""Bytes of a text that stay in the log."""
PREVIEW_CHARS = 2_000

_ARTIFACT = re.compile(r"([0-9a-f-]{36})\.(0|[1-9][0-9]{0,18})\.([0-9a-f]{64})")
_EPOCH = re.compile(r"(?:.*/)?(0|[1-9][0-9]{0,18})-[0-9a-f]{64}", re.DOTALL)


class Artifact(msgspec.Struct, frozen=True):
    """A pointer: which session owns the payload, the epoch under which it was put, and the SHA-256 that its bytes must
    have.

    The epoch is what makes it safe to collect what nothing points to: whoever could still commit a pointer to an object
    of an older epoch is fenced off, however long it was paused.
    """

    session: str
    epoch: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.session}.{self.epoch}.{self.sha256}"

    def name(self, tenant: str) -> str:
        """The object that holds it."""
        return f"{folder(tenant, self.session)}{self.epoch}-{self.sha256}"


class Spill(msgspec.Struct, Generic[T], frozen=True):
    """A decision to keep `payload` in cold storage, and what the log holds instead: with a pointer and a preview."""

    artifact: Artifact
    payload: bytes
    kept: T


def parse_artifact(text: str) -> Artifact | None:
    """The pointer of that name, or None if nothing can have it."""
    found = _ARTIFACT.fullmatch(text)
    return Artifact(found[1], int(found[2]), found[3]) if found else None


def folder(tenant: str, session: str) -> str:
    """Where everything is that the cold tier holds of a session."""
    return f"{tenant}/{session}/"


def epoch_of(name: str) -> int | None:
    """The epoch under which an object was put; None for a name that is none of ours."""
    found = _EPOCH.fullmatch(name)
    return int(found[1]) if found else None


def spill_item(session: str, epoch: int, item: JsonObject, *, inline_max: int = INLINE_MAX) -> Spill[JsonObject] | None:
    """Where the text of a tool's output, a message or a reasoning goes: None = it stays in the item. `epoch` is the
    writer's.
    """
    if item["type"] == OUTPUT:
        claim = _claim(session, epoch, str(item.get("output", "")), inline_max)
    elif item["type"] in TOLD and item.get("status") == "completed":
        claim = _claim(session, epoch, text_of(item), inline_max)
    else:
        return None
    if claim is None:
        return None
    return Spill(claim.artifact, claim.payload, {**shown(item, claim.kept), "artifact": _pointer(claim)})


def spill_message(session: str, epoch: int, said: Message, *, inline_max: int = INLINE_MAX) -> Spill[Message] | None:
    """The same for what a client says: in one text, or in items, whose payload is their JSON. Items that are large
    without a large text stay.
    """
    if said.items is None:
        claim = _claim(session, epoch, said.content or "", inline_max)
        return None if claim is None else _held(claim, replace(said, content=claim.kept, artifact=_pointer(claim)))
    claim = _claim(session, epoch, dumps(said.items).decode(), inline_max)
    if claim is None:
        return None
    begun = [_with_texts(item, partial(_begun, artifact=claim.artifact)) for item in said.items]
    if len(dumps(begun)) > inline_max:
        return None
    return _held(claim, replace(said, items=begun, artifact=_pointer(claim)))


def spill_brought(session: str, epoch: int, data: ItemDone, *, inline_max: int = INLINE_MAX) -> Spill[ItemDone] | None:
    """The same for an item that somebody outside brought in: the payload is its JSON, as it was given."""
    claim = _claim(session, epoch, dumps(data.item).decode(), inline_max)
    if claim is None:
        return None
    begun = _with_texts(data.item, partial(_begun, artifact=claim.artifact))
    if len(dumps(begun)) > inline_max:
        return None
    return Spill(claim.artifact, claim.payload, replace(data, item=begun, artifact=_pointer(claim)))


def brought_back(data: ItemDone, text: str) -> ItemDone:
    """What somebody outside brought in, from the whole payload; its id was given when it was recorded."""
    item = {**msgspec.json.decode(text, type=JsonObject), "id": data.item["id"]}
    return replace(data, item=item, artifact=None)


def restored(said: Message, text: str) -> Message:
    """What the client said, from the whole payload."""
    if said.items is None:
        return replace(said, content=text, artifact=None)
    return replace(said, items=msgspec.json.decode(text, type=list[JsonObject]), artifact=None)


def pointer_of(holder: JsonObject | Message | ItemDone) -> Artifact | None:
    """The artifact that the text of an item or a message was moved to, or all of an item that was brought in."""
    if isinstance(holder, Message | ItemDone):
        return _parse(holder.artifact)
    return _parse(holder.get("artifact")) if holder["type"] == OUTPUT or holder["type"] in TOLD else None


def shown(item: JsonObject, text: str) -> JsonObject:
    """The item with another text in the place of its own, and without a pointer."""
    bare = {name: value for name, value in item.items() if name != "artifact"}
    match item["type"]:
        case "function_call_output":
            return {**bare, "output": text}
        case "reasoning":
            return {**bare, "content": [{"type": "reasoning_text", "text": text}]}
        case _:
            return {**bare, "content": [{"type": "output_text", "text": text}]}


def moved(item: JsonObject, target: str) -> JsonObject:
    """The item as it stands in a fork, whose artifacts are its own; an item without a pointer as it is."""
    artifact, pointer = pointer_of(item), item.get("artifact")
    if artifact is None or not isinstance(pointer, dict):
        return item
    own = Artifact(target, artifact.epoch, artifact.sha256)
    text = str(item["output"]) if item["type"] == OUTPUT else text_of(item)
    return {**shown(item, _renamed(text, artifact=artifact, own=own)), "artifact": {**pointer, "id": str(own)}}


def moved_brought(data: ItemDone, target: str) -> ItemDone:
    """The same of an item that was brought in."""
    artifact = pointer_of(data)
    if artifact is None or data.artifact is None:
        return data
    own = Artifact(target, artifact.epoch, artifact.sha256)
    item = _with_texts(data.item, partial(_renamed, artifact=artifact, own=own))
    return replace(data, item=item, artifact={**data.artifact, "id": str(own)})


def moved_message(said: Message, target: str) -> Message:
    """The same of a message."""
    artifact = pointer_of(said)
    if artifact is None or said.artifact is None:
        return said
    own = Artifact(target, artifact.epoch, artifact.sha256)
    rename, pointer = partial(_renamed, artifact=artifact, own=own), {**said.artifact, "id": str(own)}
    if said.items is None:
        return replace(said, content=rename(said.content or ""), artifact=pointer)
    return replace(said, items=[_with_texts(item, rename) for item in said.items], artifact=pointer)


def _claim(session: str, epoch: int, text: str, inline_max: int) -> Spill[str] | None:
    if len(text) <= inline_max // 4:
        return None
    payload = text.encode("utf-8")
    if len(payload) <= inline_max:
        return None
    artifact = Artifact(session, epoch, hashlib.sha256(payload).hexdigest())
    return Spill(artifact, payload, _begun(text, artifact=artifact))


def _held(claim: Spill[str], said: Message) -> Spill[Message]:
    return Spill(claim.artifact, claim.payload, said)


def _begun(text: str, *, artifact: Artifact) -> str:
    more = len(text) - PREVIEW_CHARS
    return f"{text[:PREVIEW_CHARS]}\n[{more} more characters in artifact {artifact}]" if more > 0 else text


def _with_texts(item: JsonObject, change: Callable[[str], str]) -> JsonObject:
    """A client's item with another text in the place of each that it has: whole, or in parts."""
    changed = dict(item)
    for name in ("content", "output"):
        value = item.get(name)
        if isinstance(value, str):
            changed[name] = change(value)
        elif isinstance(value, list):
            changed[name] = [_with_part(part, change) for part in value]
    return changed


def _with_part(part: Json, change: Callable[[str], str]) -> Json:
    text = part.get("text") if isinstance(part, dict) else None
    return {**part, "text": change(text)} if isinstance(part, dict) and isinstance(text, str) else part


def _pointer(claim: Spill[str]) -> JsonObject:
    characters = len(claim.payload.decode())
    return {"id": str(claim.artifact), "bytes": len(claim.payload), "characters": characters}


def _parse(pointer: object) -> Artifact | None:
    return parse_artifact(str(pointer.get("id"))) if isinstance(pointer, dict) else None


def _renamed(preview: str, *, artifact: Artifact, own: Artifact) -> str:
    return preview[:PREVIEW_CHARS] + preview[PREVIEW_CHARS:].replace(str(artifact), str(own))
