"""Calls: what the framework is about to do for one is done under its effect class, and what it came to is on record
before it is shown. After a crash it comes from the record, in the framework's own terms.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    SkipToolExecution,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import ToolCallPart, ToolReturn, ToolReturnPart, UserPromptPart
from pydantic_ai.tools import ToolDenied

from dalsegno.agents.current import carrying_out
from dalsegno.agents.pydantic_ai.history import NOTE, Request, content_of, messages, note_of, returned
from dalsegno.agents.pydantic_ai.speech import dump_parts
from dalsegno.agents.turn import Turn
from dalsegno.core.json import JsonObject, clean_text
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Call, Output, Tool

Work = Callable[[], Awaitable[Any]]
Write = Callable[[Any], Output]


class ToolRaised(DalsegnoError):
    """A tool raised in an earlier attempt of the turn, which ends the agent's run as it did then."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unserialisable(DalsegnoError):
    """A tool returned what no model can be shown."""

    code = "unserialisable_result"


class _Deferral(BaseException):
    """The tool itself says that somebody else has to decide or act first: nothing is recorded yet."""

    def __init__(self, signal: CallDeferred | ApprovalRequired) -> None:
        super().__init__()
        self.signal = signal


class Calls:
    """The calls of one turn: `known` are their items on record."""

    def __init__(self, turn: Turn) -> None:
        self.known: dict[str, JsonObject] = {}
        self._turn = turn

    def recorded(self, call_id: str) -> JsonObject | None:
        """The output on record, as models are shown it: of a large one only the beginning."""
        return self._turn.answered(call_id) if call_id in self.known else None

    async def carry_out(self, part: ToolCallPart, tool: Tool, work: Work, *, write: Write | None = None) -> Any:
        """What `work` comes to: done once, or as `tool` allows, and recorded as `write` says."""
        item = self.known.get(part.tool_call_id)
        if item is None:
            return await work()
        live = _Live(work, write or partial(written, part.tool_name))
        try:
            await self._turn.perform([item], tools=[msgspec.structs.replace(tool, run=live.run)])
        except _Deferral as deferral:
            raise deferral.signal from None
        answered = self.recorded(part.tool_call_id)
        assert answered is not None
        return live.result(answered)

    async def note(self, part: ToolReturnPart, *, marks: JsonObject) -> None:
        """Record what the framework answers a call by itself: nothing was carried out. The part is made to say what the
        record says. `marks` are kept with it.
        """
        item = self.known.get(part.tool_call_id)
        if item is None or self._turn.answered(part.tool_call_id) is not None:
            return
        output = _output(part)
        note: JsonObject = {**note_of({"details": output.details}), "unrun": True, **marks}
        output = msgspec.structs.replace(output, details={NOTE: note})
        await self._turn.answer(item, output)
        answered = self.recorded(part.tool_call_id)
        if answered is not None and not _same(answered, output):
            restored = tool_return(answered, part.tool_name)
            part.content, part.outcome = restored.content, restored.outcome


def tool_return(item: JsonObject, name: str) -> ToolReturnPart:
    """The output on record as the framework's part."""
    part, _ = returned(item, name)
    (message,) = messages([Request([], [part])])
    found = message.parts[0]
    assert isinstance(found, ToolReturnPart)
    return found


def settled(item: JsonObject) -> Any:
    """What a call came to, from its record: returned or raised as the tool did."""
    note, text = note_of(item), str(item["output"])
    part, _ = returned(item, "")
    match note.get("outcome", part["outcome"]):
        case "raised":
            raise ToolRaised(str(note.get("code")), str(note.get("message")))
        case "retried":
            raise ModelRetry(text)
        case "denied":
            return ToolDenied(text)
        case "success":
            return _value(item, note)
        case _:
            raise ToolFailed(text)


class _Live:
    """The work of one call in this process: what it came to, beside what is recorded of it."""

    def __init__(self, work: Work, write: Write) -> None:
        self._work = work
        self._write = write
        self._output: Output | None = None
        self._value: Any = None
        self._error: Exception | None = None

    async def run(self, call: Call) -> Output:
        """Do it; what it came to, for the record."""
        self._value, self._error = None, None
        with carrying_out(call):
            self._output = await self._outcome()
        return self._output

    def result(self, answered: JsonObject) -> Any:
        """What the framework is given: what happened here, if that is what the record says."""
        if self._output is None or not _same(answered, self._output):
            return settled(answered)
        if self._error is not None:
            raise self._error
        return self._value

    async def _outcome(self) -> Output:
        try:
            self._value = await self._work()
            return self._write(self._value)
        except SkipToolExecution as skipped:
            self._value = skipped.result
            return self._write(self._value)
        except (CallDeferred, ApprovalRequired) as signal:
            raise _Deferral(signal) from None
        except ToolRetryError as error:
            self._error = error
            assert isinstance(error.tool_retry, ToolReturnPart)
            return _output(error.tool_retry)
        except ToolFailedError as error:
            self._error = error
            return _output(error.tool_failed)
        except (ModelRetry, ToolFailed, ValidationError) as error:
            self._error = error
            outcome = "failed" if isinstance(error, ToolFailed) else "retried"
            return Output(str(getattr(error, "message", error)), {NOTE: {"outcome": outcome}}, "incomplete")
        except Exception as error:  # ends the run, as it does without us; on record for whoever goes on
            self._error = error
            code = getattr(error, "code", None)
            note: JsonObject = {
                "outcome": "raised",
                "code": code if isinstance(code, str) else type(error).__name__,
                "message": str(error),
            }
            return Output(f"Error: {type(error).__name__}: {error}", {NOTE: note}, "incomplete")


def written(name: str, value: Any) -> Output:
    """What a tool returned, as it goes on record."""
    if isinstance(value, ToolDenied):
        return Output(value.message, {NOTE: {"outcome": "denied"}}, "incomplete")
    whole = value if isinstance(value, ToolReturn) else ToolReturn(return_value=value)
    try:
        output = _output(ToolReturnPart(tool_name=name, content=whole.return_value))
        note = note_of({"details": output.details})
        if whole.content:
            note["user"] = dump_parts([UserPromptPart(content=whole.content)])[0]["content"]
        if whole.tools:
            note["tools"] = list(whole.tools)
    except (ValueError, TypeError) as error:
        raise Unserialisable(f"tool {name} returned what cannot be made JSON: {error}") from error
    return Output(output.text, {NOTE: note})


def _output(part: ToolReturnPart) -> Output:
    """The part as it goes on record: the text that a model is shown, and what that does not say."""
    text = part.model_response_str(wrap_if_error=False)
    note: JsonObject = {"outcome": part.outcome}
    content = dump_parts([part])[0].get("content")
    if content != text:
        note["json"] = True
        if content_of({"output": text, "details": {NOTE: note}}) != content:
            note = {"outcome": part.outcome, "content": content}
    return Output(text, {NOTE: note}, "completed" if part.outcome == "success" else "incomplete")


def _value(item: JsonObject, note: JsonObject) -> Any:
    if "result" in note:
        return note["result"]
    part, user = returned(item, "")
    name = str(part["tool_name"])
    found = tool_return(item, name).content
    if user is None and not note.get("tools"):
        return found
    content: Any = None
    if user is not None:
        (message,) = messages([Request([], [{"part_kind": "user-prompt", "content": user}])])
        content = message.parts[0].content  # type: ignore[union-attr]
    listed = note.get("tools")
    tools = [str(tool) for tool in listed] if isinstance(listed, list) else None
    return ToolReturn(return_value=found, content=content, tools=tools)


def _same(answered: JsonObject, output: Output) -> bool:
    return answered["output"] == clean_text(output.text) and note_of(answered) == note_of({"details": output.details})
