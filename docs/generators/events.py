"""The reference of events: every struct in `core.event`, with its docstring, its fields and a real line of the wire."""

import json
from itertools import count

from dalsegno.core import codec, item
from dalsegno.core import event as log
from dalsegno.core import input as inputs
from dalsegno.core.cursor import Cursor
from dalsegno.core.stream import Dropped, Frame, Piece
from dalsegno.wire import native
from generators.markdown import paragraph, struct_section

SESSION = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
AT = 1_763_683_200_000
CALL_ID = "call_7Qd"
_MESSAGE = item.message("It is mailed.", item_id="msg_2f8e11aa2_1.1")

SAMPLES: dict[str, log.Data] = {
    "session.created": log.SessionCreated(user="ada", metadata={"channel": "web"}),
    "session.updated": log.SessionUpdated({"channel": "app"}),
    "session.deleted": log.SessionDeleted(),
    "session.moved": log.SessionMoved("postgresql-5d41402a"),
    "session.settled": log.SessionSettled("sqlite-7b52009b"),
    "turn.created": log.TurnCreated(inputs.Message("Mail the report."), key="k-1"),
    "turn.input": log.TurnInput(inputs.Approval(CALL_ID, "approve")),
    "turn.started": log.TurnStarted(attempt=1, epoch=1, carried=0),
    "item.done": log.ItemDone(_MESSAGE, step="model#2", streamed=True, through=9, usage={"output_tokens": 4}),
    "tool.intent": log.ToolIntent(CALL_ID, "mail", "once", "vPc5xX1mBq0gS7u2H0yE2w"),
    "turn.waiting": log.TurnWaiting((log.Action("approval", CALL_ID, "mail", '{"to":"ada"}'),)),
    "turn.completed": log.TurnCompleted({"output_tokens": 4}),
    "turn.failed": log.TurnFailed(log.TurnError("poisoned", "3 attempts ended in the death of their replica")),
    "turn.cancelled": log.TurnCancelled("client"),
    "turn.undoing": log.TurnUndoing(log.TurnError("ValueError", "the card was refused")),
    "tool.undone": log.ToolUndone(CALL_ID, "pay", "0Zq3nX1mBq0gS7u2H0yE2w", output="refunded"),
    "items.removed": log.ItemsRemoved(17),
    "context.summarized": log.ContextSummarized(40, item.user_message("Ada asked for the report.", item_id="msg_x")),
}

OUTSIDE = """\
What is streamed between durable events while a step is open. These have the same envelope without `seq`,
are not in the log and may be lost; the `item.done` that follows is authoritative.
Cursors: [streams and cursors](../explain/streams.md).
"""


def page() -> str:
    """The whole page."""
    parts = ["# Events\n", paragraph(log.Event.__doc__), _envelope(), "## Durable events\n"]
    numbers = count(1)
    for name, (number, struct) in log.TYPES.items():
        parts.append(struct_section(struct, name=name))
        parts.append(f"Stored as type {number}.\n\n```json\n{_durable(name, next(numbers))}\n```\n")
    parts += ["## Between them\n", OUTSIDE, *_passing(), "## Values inside\n"]
    parts += [struct_section(struct) for struct in (log.Action, log.TurnError, log.Origin)]
    parts += ["## Inputs in events\n", "`turn.created` and `turn.input` hold what was said, with its `type`.\n"]
    parts += [struct_section(struct) for struct in (inputs.Message, inputs.Approval, inputs.ToolResult, inputs.Cancel)]
    return "\n".join(parts)


def _envelope() -> str:
    return (
        "On the wire `turn` is the turn's id and `at` is RFC 3339; a field of `data` with its default is left out.\n"
        "Over SSE, `id` is the cursor, `event` the type and `data` the event;\n"
        "over a WebSocket the cursor is the field `id`.\n"
    )


def _durable(name: str, seq: int) -> str:
    data = SAMPLES[name]
    turn = None if name.startswith("session.") or name == "items.removed" else 4
    event = log.Event(seq, name, turn, AT, codec.encode(data))
    return _pretty(native.event_bytes(SESSION, event).decode())


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False)


def _passing() -> list[str]:
    name = str(_MESSAGE["id"])
    frames = {
        "item.added": ("An item begins; it is empty.", 1, Piece(9, 0, 4, name, item=item.opened(_MESSAGE))),
        "item.delta": (
            "More of the item's `field`; `at` counts its code points before this piece.",
            4,
            Piece(9, 1, 4, name, field="text", offset=0, delta="It "),
        ),
        "item.dropped": ("Nobody will finish this item; forget it.", 4, Dropped(4, name, "lost")),
    }
    found = []
    for kind, (says, offset, what) in frames.items():
        body = native.sse_frame(SESSION, Frame(Cursor(9, offset), what), now=AT).decode().strip()
        found.append(f"### {kind}\n\n{says}\n\n```text\n{body}\n```\n")
    return found
