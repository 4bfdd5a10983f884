"""Inputs: anything a client says to a session, as typed values. Parsing them from JSON is `wire`'s."""

from typing import Literal, TypeAlias

import msgspec

from dalsegno.core import json
from dalsegno.core.ids import hash16
from dalsegno.core.json import JsonObject

OnBusy = Literal["queue", "reject", "interrupt", "rollback", "steer"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag="message"):
    """Something to answer: starts a turn, or joins the running one (`steer`). Exactly one of content and items.

    `artifact` is never a client's: it points to the whole text where the log holds its beginning (`core.tier`).
    """

    content: str | None = None
    items: list[JsonObject] | None = None
    on_busy: OnBusy = "queue"
    artifact: JsonObject | None = None


class Approval(msgspec.Struct, frozen=True, omit_defaults=True, tag="approval"):
    """A human's decision about a call that waits for one."""

    call_id: str
    decision: Literal["approve", "deny"]
    reason: str | None = None


class ToolResult(msgspec.Struct, frozen=True, omit_defaults=True, tag="tool_result"):
    """The outcome of a call that somebody outside carried out. Exactly one of output and error."""

    call_id: str
    output: str | None = None
    error: str | None = None


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True, tag="cancel"):
    """Stop a turn: the named one, or the oldest open one. `hide` keeps it out of the context (rollback)."""

    turn: str | None = None
    hide: bool = False


Input: TypeAlias = Message | Approval | ToolResult | Cancel


class Key(msgspec.Struct, frozen=True):
    """A client's idempotency key for one input, with the fingerprint of what it was first used for."""

    text: str
    digest: bytes
    fingerprint: bytes


def key_for(text: str, said: Input) -> Key:
    """The key as the log keeps it: 16 bytes to find it, 16 bytes to recognise the body."""
    return Key(text, hash16("key", text), hash16("body", json.dumps_sorted(said)))
