"""What running a tool comes to: a text for the model, whatever the tool raises. Signals of the platform pass."""

import asyncio
import logging

import msgspec

from dalsegno.core import json
from dalsegno.core.json import Json
from dalsegno.errors import BadArguments
from dalsegno.ports import Call, Tool
from dalsegno.runtime.blame import blame

log = logging.getLogger("dalsegno.tools")


class Outcome(msgspec.Struct, frozen=True):
    """What a call came to: the text that the model is shown, and whether the tool says so or we do."""

    text: str
    status: str = "completed"


async def outcome_of(tool: Tool, call: Call) -> Outcome:
    """Run the tool; whatever it raises is text for the model. Signals of the platform pass through."""
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            return Outcome(as_text(await tool.run(call)))
    except TimeoutError:
        left = "Its effect is unknown." if call.transaction is None else "What it did was undone."
        return Outcome(f"The tool did not finish within {tool.timeout_seconds:g} s. {left}", "incomplete")
    except BadArguments as error:
        return failed(f"The arguments do not fit: {error}")
    except Exception as error:  # whatever a user's tool raises is an answer to the model
        log.info("tool %s raised %s", tool.name, blame(error))
        log.debug("what tool %s raised", tool.name, exc_info=error)
        return failed(f"{type(error).__name__}: {error}")


def failed(error: str | None) -> Outcome:
    """An error that the model is told."""
    return Outcome(f"Error: {error or 'unknown'}", "incomplete")


def as_text(result: Json) -> str:
    """What a tool returned, as the model reads it."""
    return result if isinstance(result, str) else json.dumps(msgspec.to_builtins(result)).decode()
