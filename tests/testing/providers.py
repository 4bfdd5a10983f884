"""The real clients of two providers, three ways to speak, behind one form: what was asked, and what came back."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import anthropic
import openai

from dalsegno.testing.model import Asked, Message, ModelServer

CLAUDE = "claude-haiku-4-5"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@dataclass
class Got:
    """One answer as a client understood it. `pieces` are the deltas of its text."""

    text: str = ""
    thought: str = ""
    seal: str | None = None
    calls: list[Asked] = field(default_factory=list)
    finish: str | None = None
    usage: tuple[int, int] = (0, 0)
    id: str = ""
    pieces: list[str] = field(default_factory=list)


Seen: TypeAlias = Callable[[Got], object]


class Provider(Protocol):
    """A client. Streams tell `seen` after each piece of text."""

    async def ask(self, messages: Sequence[Message], **more: Any) -> Got: ...
    async def stream(self, messages: Sequence[Message], *, seen: Seen = ..., **more: Any) -> Got: ...
    async def raw(self, messages: Any, **more: Any) -> Any: ...


def _nothing(_: Got) -> None:
    return None


class Chat:
    """OpenAI Chat Completions."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._create: Any = client.chat.completions.create

    async def raw(self, messages: Any, **more: Any) -> Any:
        return await self._create(model="gpt-5", messages=messages, **more)

    async def ask(self, messages: Sequence[Message], **more: Any) -> Got:
        answer = await self.raw(self._messages(messages), tools=self._tools(), **more)
        said = answer.choices[0].message
        calls = [Asked(call.id, call.function.name, call.function.arguments) for call in said.tool_calls or ()]
        usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        thought = getattr(said, "reasoning_content", "")
        return Got(said.content or "", thought, None, calls, answer.choices[0].finish_reason, usage, answer.id)

    async def stream(self, messages: Sequence[Message], *, seen: Seen = _nothing, **more: Any) -> Got:
        got = Got()
        options = {"stream_options": {"include_usage": True}, "tools": self._tools(), **more}
        async for chunk in await self.raw(self._messages(messages), stream=True, **options):
            got.id = chunk.id
            if chunk.usage:
                got.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                got.finish = choice.finish_reason or got.finish
                got.thought += getattr(choice.delta, "reasoning_content", None) or ""
                for call in choice.delta.tool_calls or ():
                    if call.id:
                        got.calls.append(Asked(call.id, call.function.name, ""))
                    before = got.calls[call.index]
                    got.calls[call.index] = Asked(before.id, before.name, before.arguments + call.function.arguments)
                if choice.delta.content:
                    _piece(got, choice.delta.content, seen)
        return got

    def _messages(self, messages: Sequence[Message]) -> list[Any]:
        return [self._message(message) for message in messages]

    def _message(self, message: Message) -> Any:
        if message.role == "tool":
            return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
        said: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.calls:
            functions = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in message.calls]
            said["tool_calls"] = [{"id": name, "type": "function", "function": it} for name, it in functions]
        return said

    def _tools(self) -> Any:
        function = {"name": "weather", "description": "The weather.", "parameters": PARAMETERS}
        return [{"type": "function", "function": function}]


class Responses:
    """OpenAI Responses."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._create: Any = client.responses.create

    async def raw(self, messages: Any, **more: Any) -> Any:
        return await self._create(model="gpt-5", input=messages, **more)

    async def ask(self, messages: Sequence[Message], **more: Any) -> Got:
        return self._got(await self.raw(self._items(messages), tools=self._tools(), **self._asking(more)))

    async def stream(self, messages: Sequence[Message], *, seen: Seen = _nothing, **more: Any) -> Got:
        got, done = Got(), None
        settings = {"tools": self._tools(), **self._asking(more)}
        async for event in await self.raw(self._items(messages), stream=True, **settings):
            if event.type == "response.output_text.delta":
                _piece(got, event.delta, seen)
            elif event.type in ("response.completed", "response.incomplete"):
                done = self._got(event.response)
            elif event.type == "response.failed":
                raise RuntimeError(event.response.error.message)
        assert done is not None, "the stream ended without its last event"
        done.pieces = got.pieces
        return done

    def _asking(self, more: dict[str, Any]) -> dict[str, Any]:
        return {"reasoning": {"summary": "auto"}, **more}

    def _got(self, response: Any) -> Got:
        got = Got(finish=response.status, usage=(response.usage.input_tokens, response.usage.output_tokens))
        got.id, got.text = response.id, response.output_text
        for item in response.output:
            if item.type == "reasoning":
                got.thought, got.seal = "".join(part.text for part in item.summary), item.encrypted_content
            elif item.type == "function_call":
                got.calls.append(Asked(item.call_id, item.name, item.arguments))
        return got

    def _items(self, messages: Sequence[Message]) -> list[Any]:
        return [item for message in messages for item in self._item(message)]

    def _item(self, message: Message) -> list[Any]:
        if message.role == "tool":
            return [{"type": "function_call_output", "call_id": message.call_id, "output": message.text}]
        kind = "output_text" if message.role == "assistant" else "input_text"
        said = [{"role": message.role, "content": [{"type": kind, "text": message.text}]}] if message.text else []
        calls = [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in message.calls
        ]
        return [*said, *calls]

    def _tools(self) -> Any:
        return [{"type": "function", "name": "weather", "description": "The weather.", "parameters": PARAMETERS}]


class Messages:
    """Anthropic Messages."""

    def __init__(self, client: anthropic.AsyncAnthropic) -> None:
        self._client: Any = client

    async def raw(self, messages: Any, **more: Any) -> Any:
        return await self._client.messages.create(**{"model": CLAUDE, "max_tokens": 500, "messages": messages, **more})

    async def ask(self, messages: Sequence[Message], **more: Any) -> Got:
        return self._got(await self.raw(**self._asking(messages), **more))

    async def stream(self, messages: Sequence[Message], *, seen: Seen = _nothing, **more: Any) -> Got:
        got = Got()
        asking = {"model": CLAUDE, "max_tokens": 500, **self._asking(messages), **more}
        async with self._client.messages.stream(**asking) as events:
            async for event in events:
                if event.type == "text":
                    _piece(got, event.text, seen)
            done = self._got(await events.get_final_message())
        done.pieces = got.pieces
        return done

    def _asking(self, messages: Sequence[Message]) -> dict[str, Any]:
        system = "\n\n".join(message.text for message in messages if message.role == "system")
        said = [self._message(message) for message in messages if message.role != "system"]
        tool = {"name": "weather", "description": "The weather.", "input_schema": PARAMETERS}
        return {"messages": said, "tools": [tool], **({"system": system} if system else {})}

    def _got(self, message: Any) -> Got:
        got = Got(finish=message.stop_reason, usage=(message.usage.input_tokens, message.usage.output_tokens))
        got.id = message.id
        for block in message.content:
            if block.type == "text":
                got.text += block.text
            elif block.type == "thinking":
                got.thought, got.seal = got.thought + block.thinking, block.signature
            elif block.type == "tool_use":
                got.calls.append(Asked(block.id, block.name, json.dumps(block.input, separators=(",", ":"))))
        return got

    def _message(self, message: Message) -> Any:
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.call_id, "content": message.text}
            return {"role": "user", "content": [result]}
        text = [{"type": "text", "text": message.text}] if message.text else []
        calls = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
            for call in message.calls
        ]
        return {"role": message.role, "content": [*text, *calls]}


def _piece(got: Got, text: str, seen: Seen) -> None:
    got.text += text
    got.pieces.append(text)
    seen(got)


@asynccontextmanager
async def providers(server: ModelServer, *, retries: int = 0) -> AsyncIterator[dict[str, Provider]]:
    """The three of them, pointed at the server."""
    async with (
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=retries) as one,
        anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=retries) as other,
    ):
        yield {"chat": Chat(one), "responses": Responses(one), "messages": Messages(other)}
