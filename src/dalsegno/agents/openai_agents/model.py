"""A model of the SDK whose every call is a step of the turn: asked once, streamed as it comes, answered from the record
ever after.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from agents import Model, ModelBehaviorError, ModelProvider, ModelResponse, ModelSettings, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import Response, ResponseCompletedEvent, ResponseUsage

from dalsegno.agents.openai_agents.items import Shown, plain
from dalsegno.agents.openai_agents.run import current_run
from dalsegno.agents.openai_agents.speech import DELTAS, Speech
from dalsegno.core import part
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Continue, Part

ENDED = ("response.completed", "response.incomplete")
BROKEN = ("response.failed", "response.error", "error")


class RecordedModel(Model):
    """Stands in front of a model. What it is asked for beside the input is the provider's, and passes through."""

    def __init__(self, inner: Model) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | Shown,
        model_settings: ModelSettings,
        *others: Any,
        **named: Any,
    ) -> ModelResponse:
        """The answer on record; or the model is asked, readers see it answer, and that is recorded."""
        run = current_run()
        asked: Shown = [{"role": "user", "content": input}] if isinstance(input, str) else input
        names = ("tools", "output_schema", "handoffs", "tracing")
        given = dict(zip(names, others, strict=False)) | named
        settings = model_settings
        if settings.include_usage is None:
            settings = replace(settings, include_usage=True)  # otherwise a stream of Chat Completions tells no usage

        def answer(shown: Shown, prefix: str) -> AsyncGenerator[Part]:
            request = (system_instructions, shown, settings)
            if prefix:
                begun: Shown = [*shown, {"role": "assistant", "content": prefix}]
                request = (system_instructions, begun, _continuing(settings))
            return _heard(self._inner, request, given, prefix)

        return await run.ask(answer, asked, tools=given["tools"], handoffs=given["handoffs"])

    async def stream_response(self, *positional: Any, **named: Any) -> AsyncIterator[TResponseStreamEvent]:
        """The same in one event: nested runs that an `on_stream` watches."""
        answer = await self.get_response(*positional, **named)
        usage = answer.usage
        yield ResponseCompletedEvent.construct(
            type="response.completed",
            sequence_number=0,
            response=Response.construct(
                id=answer.response_id or "",
                output=answer.output,
                usage=None if usage.requests == 0 else _as_response_usage(usage),
            ),
        )

    def get_retry_advice(self, request: Any) -> Any:
        """As the model behind it."""
        return self._inner.get_retry_advice(request)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """The model behind it lives as long as the process."""


class RecordedProvider(ModelProvider):
    """Finds models where the user's provider does, and stands in front of each."""

    def __init__(self, inner: ModelProvider) -> None:
        self._inner = inner

    def get_model(self, model_name: str | None) -> Model:
        """That model, recorded."""
        return recorded(self._inner.get_model(model_name))


def recorded(model: Model) -> RecordedModel:
    """The model, recorded; once."""
    return model if isinstance(model, RecordedModel) else RecordedModel(model)


async def _heard(
    inner: Model, asked: tuple[str | None, Shown, ModelSettings], given: dict[str, Any], prefix: str
) -> AsyncGenerator[Part]:
    """Everything the model says, live, behind the beginning that it was given. Who cannot stream says it at once."""
    instructions, shown, settings = asked
    speech = Speech(prefix=prefix)
    response: Any = None
    if prefix:
        yield Continue()
    try:
        async with _closing(inner.stream_response(instructions, shown, settings, **given)) as events:
            async for event in events:
                kind = event.type
                piece = kind in DELTAS
                for said in speech.hear(kind, event.output_index, event.delta) if piece else _said(event, speech):
                    yield said
                if kind in ENDED:
                    response = event.response
    except NotImplementedError:
        whole = await inner.get_response(instructions, shown, settings, **given)
        for said in _end(speech, whole.output, whole.usage, whole.response_id):
            yield said
        return
    if response is None:
        raise ModelBehaviorError("the model's answer broke off before its end")
    for said in _end(speech, response.output, _usage(response.usage), response.id):
        yield said


@asynccontextmanager
async def _closing(stream: Any) -> AsyncIterator[Any]:
    """The stream; it is closed when nobody wants more of it."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def _said(event: Any, speech: Speech) -> Iterable[Part]:
    """What follows of an event that brings no piece of an item."""
    if event.type == "response.output_item.added":
        return speech.added(event.output_index, event.item)
    if event.type == "response.output_item.done":
        return speech.done(event.output_index, event.item)
    if event.type in BROKEN:
        raise ModelBehaviorError(f"the model's answer broke off: {_why(event)}")
    return ()


def _continuing(settings: ModelSettings) -> ModelSettings:
    """Have the last message gone on with, in the words of vLLM and those that follow it."""
    body = settings.extra_body if isinstance(settings.extra_body, dict) else {}
    return replace(settings, extra_body={**body, "continue_final_message": True, "add_generation_prompt": False})


def _end(speech: Speech, output: list[Any], usage: Usage, response_id: str | None) -> list[Part]:
    counts: JsonObject = {name: value for name, value in _counts(usage).items() if value}
    more: JsonObject = {"usage": counts, "response": response_id} if response_id else {"usage": counts}
    return [*speech.end(output, {**more, "agent": current_run().speaking}), part.Usage(_flat(counts))]


def _usage(counts: Any) -> Usage:
    if counts is None:
        return Usage(requests=1)
    return Usage(
        requests=1,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        total_tokens=counts.total_tokens,
        input_tokens_details=counts.input_tokens_details,
        output_tokens_details=counts.output_tokens_details,
    )


def _counts(usage: Usage) -> JsonObject:
    return {
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "input_tokens_details": plain(usage.input_tokens_details),
        "output_tokens_details": plain(usage.output_tokens_details),
    }


def _flat(counts: JsonObject) -> JsonObject:
    """Numbers that can be added up, under the provider's names."""
    details = [value for value in counts.values() if isinstance(value, dict)]
    return {
        name: value for found in (counts, *details) for name, value in found.items() if isinstance(value, int) and value
    }


def _as_response_usage(usage: Usage) -> Any:
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )


def _why(event: Any) -> str:
    error = getattr(getattr(event, "response", None), "error", None) or event
    return str(getattr(error, "message", None) or getattr(error, "code", None) or event.type)
