"""What running a tool comes to: a text for the model, whatever the tool raises. Signals of the platform pass."""

import asyncio
import logging

import msgspec

from dalsegno.core import json
from dalsegno.core.json import Json, JsonObject, clean_text
from dalsegno.errors import BadArguments
from dalsegno.ports import Call, Finding, Output, Tool
from dalsegno.runtime.blame import blame, words

log = logging.getLogger("dalsegno.tools")


class Outcome(msgspec.Struct, frozen=True):
    """What a call came to: the text that the model is shown, whether the tool says so or we do, and what is kept with
    it. `idle`: no tool was run for it, or none that did anything.
    """

    text: str
    status: str = "completed"
    details: JsonObject = {}
    idle: bool = False


async def outcome_of(tool: Tool, call: Call) -> Outcome:
    """Run the tool; whatever it raises is text for the model. Signals of the platform pass through."""
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            returned = await _contained(tool, call)
            if isinstance(returned, Output):
                json.dumps(returned.details)  # what cannot be recorded is an error of the tool, and not of the turn
                status = "completed" if returned.status == "completed" else "incomplete"
                return Outcome(clean_text(returned.text), status, returned.details, idle=returned.status == "refused")
            return Outcome(as_text(returned))
    except TimeoutError:
        left = "Its effect is unknown." if call.transaction is None else "What it did was undone."
        return Outcome(f"The tool did not finish within {tool.timeout_seconds:g} s. {left}", "incomplete")
    except BadArguments as error:
        return misunderstood(f"The arguments do not fit: {error}")
    except Exception as error:  # whatever a user's tool raises is an answer to the model
        log.info("tool %s raised %s", tool.name, blame(error))
        log.debug("what tool %s raised", tool.name, exc_info=error)
        return failed(f"{type(error).__name__}: {words(error)}")


async def finding_of(tool: Tool, call: Call) -> Finding:
    """What the tool's probe finds. One that raises, or does not finish in the tool's time, cannot tell."""
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            return None if tool.probe is None else await tool.probe(call)
    except Exception as error:  # whatever a user's probe raises, it has not found out
        log.warning("the probe of tool %s raised %s", tool.name, blame(error))
        return None


async def _contained(tool: Tool, call: Call) -> Json | Output:
    """What would take the whole process with it is an error of the tool."""
    try:
        return await tool.run(call)
    except (SystemExit, GeneratorExit) as leaving:
        raise RuntimeError(f"the tool raised {type(leaving).__name__}") from leaving


def failed(error: str | None) -> Outcome:
    """An error that the model is told."""
    return Outcome(f"Error: {error or 'unknown'}", "incomplete")


def misunderstood(error: str) -> Outcome:
    """The same of a call for which nothing was done."""
    return Outcome(f"Error: {error}", "incomplete", idle=True)


def unknown(name: str) -> Outcome:
    """The same of a call of a tool that is not there."""
    return Outcome(f"There is no tool named {name!r}.", "incomplete", idle=True)


def as_text(result: Json) -> str:
    """What a tool returned, as the model reads it."""
    return result if isinstance(result, str) else json.dumps(msgspec.to_builtins(result)).decode()
