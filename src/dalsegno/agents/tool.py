"""`@tool`: a function becomes a tool, with its class of effect, its schema and its arguments' types.

The schema that a model is shown and the validation of what the model writes come from the same annotations. A tool can
still be called like its function, and looks like one, so that the decorators of frameworks take it, too.
"""

import asyncio
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Literal

import msgspec

from dalsegno.agents.current import carrying_out, current_call
from dalsegno.core.effect import UnknownPolicy
from dalsegno.core.event import EffectClass
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import BadArguments, ConfigError
from dalsegno.ports import Call, Finding, Tool, ToolFunction, Undo

Function = Callable[..., Any]


class Crash(msgspec.Struct, frozen=True):
    """What happens to a `once` call whose outcome is unknown after a crash.

    `probe` asks a function whether it happened, `ask` a human, `tell` tells the model that nobody knows.
    """

    policy: UnknownPolicy = "tell"
    probe: Callable[[Call], Awaitable[Finding]] | None = None


class Gate(msgspec.Struct, frozen=True):
    """A human is asked before each call; what nobody decides within that time is denied."""

    answer_within: timedelta | None = None


TELL = Crash()


@dataclass(frozen=True)
class tool:
    """Makes a tool of a function: `@tool("keyed")`. One that is not async runs in a thread.

    effect: `read` (may run again), `keyed` (forwards `call.key`, may be sent again), `transactional` (writes through
    `call.transaction`, in the log's database), `once` (never run again by itself; the default, since it is always
    safe). A parameter annotated `Call` is given the call; all others are the model's, and their annotations are its
    schema.
    gate: `approval`, or a `Gate` with a time: a human is asked before each call.
    dedupe: an identical call in the turn, or in the session, is answered with the output on record.
    cache: of a `read` tool, whose answer is the same for every session of a tenant: for so long an identical call, in
    whichever of them, may be answered with what the first came to.
    compensate: a function that undoes a call, given an `Undo`; it is run when the turn fails or is cancelled, and tried
    again while it raises, for `undo_within`. It may be run twice, with the same key, and for a call that has not
    happened.
    """

    effect: EffectClass = "once"
    _: KW_ONLY
    crash: Crash = TELL
    gate: Literal["none", "approval"] | Gate = "none"
    dedupe: Literal["never", "turn", "session"] = "never"
    cache: timedelta | None = None
    timeout: timedelta = timedelta(minutes=5)
    compensate: Callable[[Undo], Any] | None = None
    undo_within: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a policy without what it needs."""
        if (self.crash.policy == "probe") != (self.crash.probe is not None):
            raise ConfigError("Crash(policy='probe') needs a probe function, and only that policy takes one")

    def __call__(self, function: Function) -> ToolFunction:
        """The tool; it can still be called like the function."""
        within = self.gate.answer_within if isinstance(self.gate, Gate) else None
        call_name, shape = _parameters(function)
        coroutine = inspect.iscoroutinefunction(function)

        async def run(call: Call) -> Json:
            try:
                arguments = msgspec.convert(call.arguments, shape)
            except msgspec.ValidationError as error:
                raise BadArguments(str(error)) from error
            values = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
            if call_name is not None:
                values[call_name] = call
            with carrying_out(call):
                result: Json = await (function(**values) if coroutine else asyncio.to_thread(function, **values))
            return result

        made = Tool(
            name=function.__name__,
            run=run,
            description=inspect.getdoc(function) or "",
            parameters=_schema(shape),
            effect=self.effect,
            unknown=self.crash.policy,
            probe=None if self.crash.probe is None else probing(self.crash.probe),
            gate="approval" if isinstance(self.gate, Gate) else self.gate,
            dedupe=self.dedupe,
            timeout_seconds=self.timeout.total_seconds(),
            answer_within_seconds=None if within is None else within.total_seconds(),
            cache_seconds=None if self.cache is None else self.cache.total_seconds(),
            compensate=None if self.compensate is None else compensation(self.compensate),
            compensate_within_seconds=self.undo_within.total_seconds(),
        )
        return _function(function, call_name, made)


def outside(
    name: str, *, description: str = "", parameters: JsonObject | None = None, answer_within: timedelta | None = None
) -> Tool:
    """A tool that somebody else carries out: a call of it parks the turn until a `tool_result` comes in."""
    return Tool(
        name=name,
        run=_nobody,
        description=description,
        parameters=parameters or {"type": "object", "properties": {}},
        gate="outside",
        answer_within_seconds=None if answer_within is None else answer_within.total_seconds(),
    )


def probing(function: Callable[[Call], Awaitable[Finding]]) -> Callable[[Call], Awaitable[Finding]]:
    """What finds out whether a call happened; the current call is that call."""

    async def run(call: Call) -> Finding:
        with carrying_out(call):
            return await function(call)

    return run


def compensation(function: Callable[[Undo], Any]) -> Callable[[Undo], Awaitable[Json]]:
    """What undoes a call; the current call is that call then, under the compensation's key."""
    coroutine = inspect.iscoroutinefunction(function)

    async def run(undo: Undo) -> Json:
        with carrying_out(msgspec.structs.replace(undo.call, key=undo.key)):
            result: Json = await (function(undo) if coroutine else asyncio.to_thread(function, undo))
        return result

    return run


async def _nobody(call: Call) -> Json:
    raise ConfigError(f"tool {call.name} is carried out outside")


def _parameters(function: Function) -> tuple[str | None, type[msgspec.Struct]]:
    hints = typing.get_type_hints(function)
    call_name: str | None = None
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(f"tool {function.__name__}: parameter {name!r} needs a name of its own and a type")
        if hints.get(name) is Call:
            call_name = name
        elif parameter.default is parameter.empty:
            fields.append((name, hints.get(name, Any)))
        else:
            fields.append((name, hints.get(name, Any), parameter.default))
    shape = msgspec.defstruct(function.__name__, fields, kw_only=True, forbid_unknown_fields=True)
    return call_name, shape


def _function(function: Function, call_name: str | None, made: Tool) -> ToolFunction:
    """The function itself, as it is to be called by hand and by frameworks: the `Call` it wants is the current one, and
    no model and no framework is asked to fill it.
    """

    def given(named: dict[str, Any]) -> dict[str, Any]:
        return named if call_name is None or call_name in named else {**named, call_name: current_call()}

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def face(*positional: Any, **named: Any) -> Any:
            return await function(*positional, **given(named))

    else:

        @functools.wraps(function)
        def face(*positional: Any, **named: Any) -> Any:
            return function(*positional, **given(named))

    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop(call_name or "", None)
    signature = inspect.signature(function)
    shown = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != call_name
    ]
    result = hints.get("return", signature.return_annotation)
    vars(face).update(
        tool=made, spec=made.spec, __signature__=signature.replace(parameters=shown, return_annotation=result)
    )
    face.__annotations__ = hints
    return typing.cast(ToolFunction, face)


def _schema(shape: type[msgspec.Struct]) -> JsonObject:
    """The JSON schema of the parameters, with every definition inlined at its top."""
    (schema,), components = msgspec.json.schema_components([shape], ref_template="#/$defs/{name}")
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: JsonObject = dict(components.pop(name)) if name else dict(schema)
    found.pop("title", None)
    if components:
        found["$defs"] = dict(components)
    return found
