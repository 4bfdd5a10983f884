"""Hearing what a chat model says while it says it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackHandler, AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from dalsegno.core.part import Part, Thought

PACE_SECONDS = 0.002
"""Between two batches of what a model says: each costs some rounds of the loop, however much it is."""


class Listener(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    """Hears what a model says as it says it. Its presence makes a model stream that can."""

    run_inline = True

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._due = asyncio.Event()
        self._over = False
        self._next = 0.0

    def end(self, _: object = None) -> None:
        """Nothing more comes."""
        self._over = True
        self._due.set()

    async def batches(self) -> AsyncGenerator[list[Part], None]:
        """What was said since, again and again until the end."""
        while not self._over or self._parts:
            await self._due.wait()
            self._due.clear()
            said, self._parts = self._parts, []
            self._next = asyncio.get_running_loop().time() + PACE_SECONDS
            yield said

    async def on_llm_new_token(
        self, token: Any, *, chunk: GenerationChunk | ChatGenerationChunk | None = None, **kwargs: Any
    ) -> None:
        """One more piece of the answer."""
        message = getattr(chunk, "message", None)
        for part in parts_of(message) if isinstance(message, AIMessageChunk) else ():
            if not self._parts:
                loop = asyncio.get_running_loop()
                loop.call_at(max(self._next, loop.time()), self._due.set)
            if self._parts and isinstance(part, str) and isinstance(self._parts[-1], str):
                self._parts[-1] += part
            else:
                self._parts.append(part)

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        """As it comes."""
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        """As it comes."""
        return output


def parts_of(message: AIMessage) -> list[Part]:
    """Text and reasoning of a message, or of a piece of one, in order."""
    if isinstance(message.content, str) and not message.additional_kwargs:
        return [message.content] if message.content else []
    parts: list[Part] = []
    for block in cast("list[dict[str, Any]]", message.content_blocks):
        if block.get("type") == "text" and block.get("text"):
            parts.append(str(block["text"]))
        elif block.get("type") == "reasoning" and block.get("reasoning"):
            parts.append(Thought(str(block["reasoning"])))
    return parts


def listened(manager: AsyncCallbackManagerForLLMRun | None, heard: Listener) -> AsyncCallbackManagerForLLMRun:
    if manager is None:
        manager = AsyncCallbackManagerForLLMRun.get_noop_manager()
    return AsyncCallbackManagerForLLMRun(
        run_id=manager.run_id,
        handlers=[*manager.handlers, heard],
        inheritable_handlers=manager.inheritable_handlers,
        parent_run_id=manager.parent_run_id,
        tags=manager.tags,
        inheritable_tags=manager.inheritable_tags,
        metadata=manager.metadata,
        inheritable_metadata=manager.inheritable_metadata,
    )
