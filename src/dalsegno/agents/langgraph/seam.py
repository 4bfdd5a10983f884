"""The seam: where LangChain calls models and tools, a turn's journal answers while one is run; or else nothing changes.

LangChain offers no hook that every model and every tool call of an unmodified graph passes and that may answer it: a
cache is not asked by `stream`, callbacks only watch, middleware is for agents that were made with it. So six methods of
its two base classes are wrapped, once a process, when the first graph is served (see the decision on LangGraph).
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import BaseTool

from dalsegno.agents.langgraph.journal import Journal
from dalsegno.agents.langgraph.request import Request

_CURRENT: ContextVar[Journal | None] = ContextVar("dalsegno_langgraph", default=None)
T = TypeVar("T")
MARK = "__dalsegno__"


def current() -> Journal | None:
    """The journal of the turn that this code is run by, in whatever thread."""
    return _CURRENT.get()


@contextmanager
def journaled(journal: Journal) -> Iterator[None]:
    """Inside, the calls of models and tools are that journal's."""
    _CURRENT.set(journal)
    try:
        yield
    finally:
        _CURRENT.set(None)
        journal.close()


async def step(name: str, run: Callable[[], Awaitable[T]]) -> T:
    """Inside a node: run a function once and record what it returned (JSON), for what no seam sees, as a node's own
    HTTP request. After a crash its result comes from the record; a crash while it runs means that it may run again.
    Where no turn runs the graph it is only called.
    """
    journal = current()
    return await (run() if journal is None else journal.step(name, run))


def install() -> None:
    """Put the seam in, if it is not there yet."""
    if getattr(BaseChatModel._agenerate_with_cache, MARK, False):
        return
    for kind, name, wrap in (
        (BaseChatModel, "_agenerate_with_cache", _agenerate),
        (BaseChatModel, "_generate_with_cache", _generate),
        (BaseChatModel, "astream", _astream),
        (BaseChatModel, "stream", _stream),
        (BaseTool, "arun", _arun),
        (BaseTool, "run", _run),
    ):
        original = getattr(kind, name)
        wrapped = functools.wraps(original)(wrap(original))
        setattr(wrapped, MARK, True)
        setattr(kind, name, wrapped)


def _agenerate(original: Any) -> Any:
    async def wrapped(self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        journal = current()
        if journal is None:
            return await original(self, messages, stop, run_manager, **kwargs)
        return await journal.model(Request(self, messages, stop, kwargs), _asking(original), run_manager)

    return wrapped


def _generate(original: Any) -> Any:
    def wrapped(self: Any, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        journal = current()
        if journal is None:
            return original(self, messages, stop, run_manager, **kwargs)
        request = Request(self, messages, stop, kwargs)
        if not _is_async(self):
            ask = _asking(original)
            return journal.wait(
                lambda lend: journal.model(
                    request, lambda what, manager: lend(functools.partial(ask, what, None)), None
                )
            )
        # the answer is asked for on the loop; the thread's own callbacks see its beginning and its end
        asking = _asking(BaseChatModel._agenerate_with_cache.__wrapped__)  # type: ignore[attr-defined]
        return journal.wait(lambda lend: journal.model(request, asking, None))

    return wrapped


def _asking(original: Any) -> Any:
    """LangChain's own method, given a request."""

    def ask(request: Request, manager: Any) -> Any:
        return original(request.model, request.messages, request.stop, manager, **request.options)

    return ask


def _astream(original: Any) -> Any:
    async def wrapped(self: Any, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        if current() is None:
            async for chunk in original(self, input, config, **kwargs):
                yield chunk
        else:
            yield _whole(await self.ainvoke(input, config, **kwargs))

    return wrapped


def _stream(original: Any) -> Any:
    def wrapped(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        if current() is None:
            yield from original(self, input, config, **kwargs)
        else:
            yield _whole(self.invoke(input, config, **kwargs))

    return wrapped


def _arun(original: Any) -> Any:
    async def wrapped(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        journal = current()
        if journal is None:
            return await original(self, tool_input, *args, **kwargs)
        call_id = kwargs.get("tool_call_id")
        return await journal.tool(self, tool_input, call_id, lambda: original(self, tool_input, *args, **kwargs))

    return wrapped


def _run(original: Any) -> Any:
    def wrapped(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        journal = current()
        if journal is None:
            return original(self, tool_input, *args, **kwargs)
        run = functools.partial(original, self, tool_input, *args, **kwargs)
        call_id = kwargs.get("tool_call_id")
        return journal.wait(lambda lend: journal.tool(self, tool_input, call_id, lambda: lend(run)))

    return wrapped


def _is_async(model: BaseChatModel) -> bool:
    """Whether the model can be asked without a thread."""
    kind = type(model)
    return kind._agenerate is not BaseChatModel._agenerate or kind._astream is not BaseChatModel._astream


def _whole(message: AIMessage) -> AIMessageChunk:
    """An answer as a stream's only piece."""
    fields = {name: value for name, value in message if name not in ("type", "tool_call_chunks")}
    return AIMessageChunk(**fields, chunk_position="last")
