"""What the framework asks of a model, and how its history is read."""

from collections.abc import Sequence

import msgspec
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from dalsegno.agents.pydantic_ai.history import note_of
from dalsegno.core.json import Json, JsonObject


class Asked(msgspec.Struct):
    """What the framework wants to ask a model."""

    model: Model
    messages: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters


def tail(history: Sequence[ModelMessage]) -> list[ModelRequest]:
    """The requests since the last answer."""
    found: list[ModelRequest] = []
    for message in reversed(history):
        if not isinstance(message, ModelRequest):
            break
        found.insert(0, message)
    return found


def instructions(asked: Asked, history: Sequence[ModelMessage]) -> Json:
    """What the instructions are now, if they are not always the same."""
    parts = asked.parameters.instruction_parts or ()
    last = history[-1] if history else None
    if not any(part.dynamic for part in parts) or not isinstance(last, ModelRequest):
        return None
    return last.instructions


def last_instructions(context: Sequence[JsonObject]) -> Json:
    """What they were when that was last recorded."""
    return next((note["instructions"] for item in reversed(context) if "instructions" in (note := note_of(item))), None)


def streams(model: Model) -> bool:
    """Whether the model can be asked for its answer as it comes."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    return type(model).request_stream is not Model.request_stream
