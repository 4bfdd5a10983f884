"""Guardrails of agents: each judges once, and its judgement is on record."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from agents import GuardrailFunctionOutput, InputGuardrail, OutputGuardrail
from pydantic_core import to_jsonable_python

from dalsegno.agents.openai_agents.run import current_run, running
from dalsegno.core.json import Json

G = TypeVar("G", InputGuardrail[Any], OutputGuardrail[Any])


class Judgement(msgspec.Struct, frozen=True):
    """What a guardrail found. `info` is what it wants known about it, as far as JSON can say it."""

    tripped: bool
    info: Json = None


class Judge:
    """Stands in the place of a guardrail's function. What it asks other agents is a part of its step."""

    def __init__(self, judge: Callable[..., Any], name: str) -> None:
        self._judge = judge
        self._name = name

    async def __call__(self, context: Any, agent: Any, shown: Any) -> GuardrailFunctionOutput:
        """The judgement, now or the first time."""
        run = current_run()

        async def once() -> Json:
            with running(None):
                found: Any = self._judge(context, agent, shown)
                if inspect.isawaitable(found):
                    found = await found
            return {"tripped": bool(found.tripwire_triggered), "info": _jsonable(found.output_info)}

        judged = msgspec.convert(await run.turn.step(f"guardrail:{self._name}{run.place}", once), Judgement)
        return GuardrailFunctionOutput(output_info=judged.info, tripwire_triggered=judged.tripped)


def served_guardrail(guardrail: G) -> G:
    """The guardrail as it is served."""
    judge, name = guardrail.guardrail_function, guardrail.get_name()
    return (
        guardrail if isinstance(judge, Judge) else replace(guardrail, guardrail_function=Judge(judge, name), name=name)
    )


def _jsonable(value: Any) -> Json:
    found: Json = to_jsonable_python(value, serialize_unknown=True)
    return found
