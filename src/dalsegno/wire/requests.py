"""The native protocol, inwards: bodies, query parameters and header values as typed values, or refusals that help.

Whatever is not in the contract is refused by name: a typo that is ignored is a promise that is not kept.
"""

import re
from typing import Literal, TypeVar, assert_never
from urllib.parse import parse_qsl

import msgspec

from dalsegno.core import cursor
from dalsegno.core.check import check_items
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import SessionCreated
from dalsegno.core.ids import parse_session_id
from dalsegno.core.input import Approval, Cancel, Input, Message, ToolResult
from dalsegno.core.json import Json, JsonObject, dumps
from dalsegno.errors import Refused
from dalsegno.wire import shapes

METADATA_BYTES_MAX = 16 * 1024
LIMIT_MAX = 1000
LIMIT = 100
WAIT_SECONDS_MAX = 60
KEY_MAX = 255
PARAMETERS_MAX = 64

_TAG = r'(W/)?"[^",]*"'
ETAGS = rf"^(\*|{_TAG}([ \t]*,[ \t]*{_TAG})*)$"
"""What an `If-Match` may be: `*`, or entity tags; none of ours has a comma in it."""
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_DIGITS = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,30})?(e-[0-9]{1,3})?")
_INPUTS = ("message", "approval", "tool_result", "cancel")

T = TypeVar("T")


def _convert(value: Json, shape: type[T]) -> T:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise Refused("invalid_request", str(error)) from None


def _convert_input(value: Json) -> shapes.Input:
    try:
        said: shapes.Input = msgspec.convert(value, shapes.Input)
    except msgspec.ValidationError as error:
        raise Refused("invalid_request", str(error)) from None
    return said


def parse_input(value: Json) -> Input:
    """What a client says to a session. `Cancel.hide` is not a client's to say."""
    if not isinstance(value, dict):
        raise Refused("invalid_request", "an input is a JSON object")
    if value.get("type") not in _INPUTS:
        raise Refused("invalid_request", f"`type` is one of {', '.join(_INPUTS)}")
    said = _convert_input(value)
    match said:
        case shapes.Message():
            return _message(said)
        case shapes.Approval():
            return Approval(said.call_id, said.decision, said.reason)
        case shapes.ToolResult():
            if (said.output is None) == (said.error is None):
                raise Refused("invalid_request", "a tool_result has exactly one of `output` and `error`")
            return ToolResult(said.call_id, said.output, said.error)
        case shapes.Cancel():
            return Cancel(said.turn)
        case _:
            assert_never(said)


def _message(said: shapes.Message) -> Message:
    content = None if said.content is msgspec.UNSET else said.content
    items = None if said.items is msgspec.UNSET else said.items
    if (content is None) == (items is None):
        raise Refused("invalid_request", "a message has exactly one of `content` and `items`")
    if items is not None:
        check_items(items)
    return Message(content, items, said.on_busy)


def parse_keyed_input(value: Json) -> tuple[str | None, Input]:
    """A WebSocket client's frame: an input and, beside its fields, its idempotency key."""
    if not isinstance(value, dict):
        raise Refused("invalid_request", "a frame is a JSON object: an input and its `key`")
    rest = dict(value)
    key = rest.pop("key", None)
    if key is not None and not isinstance(key, str):
        raise Refused("invalid_request", "`key` is a string")
    return parse_key(key), parse_input(rest)


def parse_key(text: str | None) -> str | None:
    """An idempotency key. It is compared as it is, so what cannot be told apart by eye is refused."""
    if text is not None and not _KEY.fullmatch(text):
        raise Refused("invalid_request", f"an idempotency key has 1 to {KEY_MAX} printable ASCII characters")
    return text


def parse_new_session(value: Json) -> tuple[str | None, SessionCreated]:
    """The id that the client chose, if any, and the session's first event."""
    new = _convert(value, shapes.NewSession)
    chosen = None if new.id is None else parse_session_id(new.id)
    return chosen, SessionCreated(agent=new.agent, user=new.user, metadata=_small(new.metadata))


def check_session(*, metadata: JsonObject, agent: str = "default", user: str | None = None) -> None:
    """What a log says about its session is what a client may say."""
    _convert({"agent": agent, "user": user, "metadata": _small(metadata)}, shapes.NewSession)


def parse_patch(value: Json) -> JsonObject | None:
    """The new metadata; None when there is nothing to change."""
    patch = _convert(value, shapes.Patch)
    return None if patch.metadata is msgspec.UNSET else _small(patch.metadata)


def parse_fork(value: Json) -> int | None:
    """The last event that the fork shares; None is the head. `5.0` is an integer too (JSON Schema)."""
    if isinstance(value, dict) and isinstance(at := value.get("at"), float) and at.is_integer():
        value = {**value, "at": int(at)}
    return _convert(value, shapes.Fork).at


def _small(metadata: JsonObject) -> JsonObject:
    if len(dumps(metadata)) > METADATA_BYTES_MAX:
        raise Refused("invalid_request", f"`metadata` is larger than {METADATA_BYTES_MAX} bytes")
    return metadata


def parse_etags(text: str | None) -> tuple[int, ...] | None:
    """The heads that an `If-Match` accepts; None is any. A tag that we never made accepts nothing."""
    if text is None or text == "*":
        return None
    if not re.fullmatch(ETAGS, text):
        raise Refused("invalid_request", 'If-Match holds the ETag of a session, such as "42"')
    tags = [tag.strip()[1:-1] for tag in text.split(",")]
    return tuple(int(tag) for tag in tags if _DIGITS.fullmatch(tag))


class Parameters:
    """A request's query parameters: each is taken once, and `done` refuses what nobody took."""

    def __init__(self, query: bytes) -> None:
        try:
            pairs = parse_qsl(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX
            )
        except UnicodeDecodeError:
            raise Refused("invalid_unicode", "the query is not percent-encoded UTF-8") from None
        except ValueError:
            raise Refused("invalid_request", f"more than {PARAMETERS_MAX} query parameters") from None
        self._left = dict(pairs)
        if len(self._left) != len(pairs):
            raise Refused("invalid_request", "a query parameter is given twice")

    def text(self, name: str) -> str | None:
        """The parameter as it is."""
        return self._left.pop(name, None)

    def prefixed(self, prefix: str) -> JsonObject:
        """Every parameter whose name begins so, under the rest of its name."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def limit(self) -> int:
        """The page's size."""
        text = self.text("limit")
        if text is None:
            return LIMIT
        if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
            raise Refused("invalid_request", f"`limit` is a number from 1 to {LIMIT_MAX}")
        return int(text)

    def status(self) -> Literal["", "idle", "running", "waiting"]:
        """What sessions are asked to be doing; empty for anything."""
        text = self.text("status")
        match text:
            case None:
                return ""
            case "idle" | "running" | "waiting":
                return text
            case _:
                raise Refused("invalid_request", "`status` is one of idle, running, waiting")

    def wait(self) -> float:
        """How many seconds to wait for a turn's end."""
        text = self.text("wait")
        if text is None:
            return 0.0
        if not _SECONDS.fullmatch(text) or float(text) > WAIT_SECONDS_MAX:
            raise Refused("invalid_request", f"`wait` is a number of seconds up to {WAIT_SECONDS_MAX}")
        return float(text)

    def cursor(self, *, last_event_id: str | None = None) -> Cursor | None:
        """Where to go on: `Last-Event-ID` wins, since a reconnecting browser repeats its first `after`."""
        after = self.text("after")
        text = after if last_event_id is None else last_event_id
        return None if text is None else cursor.parse(text)

    def session(self) -> str:
        """The session id after which a page of sessions begins; empty for the first page."""
        text = self.text("after")
        try:
            return "" if text is None else parse_session_id(text)
        except Refused as error:
            raise Refused("invalid_cursor", error.detail) from None

    def done(self) -> None:
        """Refuse what is left."""
        if self._left:
            names = ", ".join(f"`{name[:64]}`" for name in sorted(self._left)[:5])
            raise Refused("invalid_request", f"unknown query parameters: {names}")
