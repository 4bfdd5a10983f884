"""What stays in the log and what goes to cold storage: a large payload is replaced by its pointer (claim check)."""

import hashlib
import re

import msgspec

from dalsegno.core.item import OUTPUT
from dalsegno.core.json import JsonObject

INLINE_MAX_BYTES = 32 * 1024
PREVIEW_CHARS = 2_000

_ARTIFACT = re.compile(r"([0-9a-f-]{36})\.([0-9a-f]{64})")


class Artifact(msgspec.Struct, frozen=True):
    """A pointer: which session owns the payload, and the SHA-256 that its bytes must have."""

    session: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.session}.{self.sha256}"


class Spill(msgspec.Struct, frozen=True):
    """A decision to keep `payload` in cold storage, and the item that points to it."""

    artifact: Artifact
    payload: bytes
    item: JsonObject


def parse_artifact(text: str) -> Artifact | None:
    """The pointer of that name, or None if nothing can have it."""
    found = _ARTIFACT.fullmatch(text)
    return Artifact(found[1], found[2]) if found else None


def spill_output(session: str, item: JsonObject, *, inline_max: int = INLINE_MAX_BYTES) -> Spill | None:
    """Where a tool's output goes: None = it stays in the item, else the payload and the item with pointer and
    preview.
    """
    text = str(item.get("output", ""))
    if len(text) <= inline_max // 4:
        return None
    payload = text.encode("utf-8")
    if len(payload) <= inline_max:
        return None
    artifact = Artifact(session, hashlib.sha256(payload).hexdigest())
    preview = text[:PREVIEW_CHARS] + f"\n[{len(text) - PREVIEW_CHARS} more characters in artifact {artifact}]"
    pointer: JsonObject = {"id": str(artifact), "bytes": len(payload), "characters": len(text)}
    return Spill(artifact, payload, {**item, "output": preview, "artifact": pointer})


def pointer_of(item: JsonObject) -> Artifact | None:
    """The artifact that an item's output was moved to."""
    pointer = item.get("artifact")
    return parse_artifact(str(pointer.get("id"))) if isinstance(pointer, dict) and item["type"] == OUTPUT else None


def moved(item: JsonObject, target: str) -> JsonObject:
    """The item as it stands in a fork, whose artifacts are its own; an item without a pointer as it is."""
    artifact = pointer_of(item)
    if artifact is None:
        return item
    own, pointer, output = Artifact(target, artifact.sha256), item["artifact"], str(item["output"])
    head, tail = output[:PREVIEW_CHARS], output[PREVIEW_CHARS:].replace(str(artifact), str(own))
    return {
        **item,
        "output": head + tail,
        "artifact": {**pointer, "id": str(own)} if isinstance(pointer, dict) else None,
    }
