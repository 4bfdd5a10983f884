"""`@tool`: an async function becomes a tool, with its class of effect, its schema and its arguments' types.

The schema that a model is shown and the validation of what the model writes come from the same annotations.
"""

import inspect
import typing
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

import msgspec

from dalsegno.core.effect import UnknownPolicy
from dalsegno.core.event import EffectClass
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import BadArguments, ConfigError
from dalsegno.ports import Call, Finding, Tool

Function = Callable[..., Awaitable[Any]]


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


def tool(
    effect: EffectClass = "once",
    *,
    crash: Crash = TELL,
    gate: Literal["none", "approval"] | Gate = "none",
    dedupe: Literal["never", "turn", "session"] = "never",
    cache: timedelta | None = None,
    timeout: timedelta = timedelta(minutes=5),
) -> Callable[[Function], Tool]:
    """Make a tool of an async function.

    effect: `read` (may run again), `keyed` (forwards `call.key`, may be sent again), `transactional` (writes through
    `call.transaction`, in the log's database), `once` (never run again by itself; the default, since it is always
    safe). A parameter annotated `Call` is given the call; all others are the model's, and their annotations are its
    schema.
    gate: `approval`, or a `Gate` with a time: a human is asked before each call.
    dedupe: an identical call in the turn, or in the session, is answered with the output on record.
    cache: of a `read` tool, whose answer is the same for every session of a tenant: for so long an identical call, in
    whichever of them, may be answered with what the first came to.
    """
    within = gate.answer_within if isinstance(gate, Gate) else None
    if (crash.policy == "probe") != (crash.probe is not None):
        raise ConfigError("Crash(policy='probe') needs a probe function, and only that policy takes one")

    def make(function: Function) -> Tool:
        call_name, shape = _parameters(function)

        async def run(call: Call) -> Json:
            try:
                arguments = msgspec.convert(call.arguments, shape)
            except msgspec.ValidationError as error:
                raise BadArguments(str(error)) from error
            values = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
            if call_name is not None:
                values[call_name] = call
            result: Json = await function(**values)
            return result

        return Tool(
            name=function.__name__,
            run=run,
            description=inspect.getdoc(function) or "",
            parameters=_schema(shape),
            effect=effect,
            unknown=crash.policy,
            probe=crash.probe,
            gate="approval" if isinstance(gate, Gate) else gate,
            dedupe=dedupe,
            timeout_seconds=timeout.total_seconds(),
            answer_within_seconds=None if within is None else within.total_seconds(),
            cache_seconds=None if cache is None else cache.total_seconds(),
        )

    return make


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


def _schema(shape: type[msgspec.Struct]) -> JsonObject:
    """The JSON schema of the parameters, with every definition inlined at its top."""
    (schema,), components = msgspec.json.schema_components([shape], ref_template="#/$defs/{name}")
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: JsonObject = dict(components.pop(name)) if name else dict(schema)
    found.pop("title", None)
    if components:
        found["$defs"] = dict(components)
    return found
