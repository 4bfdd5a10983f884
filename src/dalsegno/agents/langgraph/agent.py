"""A compiled graph as an agent: each turn is a run of the graph on the session's thread.

1. A new turn gives the graph its message, and whatever the conversation holds that the graph has not seen: turns of
   another agent, and the results of calls that a turn which failed had begun.
2. Each superstep's checkpoint is recorded through the turn, model and tool calls are steps of it (`seam`, `journal`).
   After a crash the graph goes on from the last checkpoint on record.
3. `interrupt()` parks the turn; what somebody answers resumes the graph.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from dalsegno.agents.langgraph.conversation import joined, messages_of, missing, unsaid
from dalsegno.agents.langgraph.interrupts import answers, approved, is_stopped
from dalsegno.agents.langgraph.journal import Journal
from dalsegno.agents.langgraph.messages import messages
from dalsegno.agents.langgraph.prefill import Prefill
from dalsegno.agents.langgraph.readings import Readings
from dalsegno.agents.langgraph.rollback import roll_back
from dalsegno.agents.langgraph.saver import Checkpointer
from dalsegno.agents.langgraph.seam import install, journaled
from dalsegno.agents.langgraph.serde import serde_of
from dalsegno.agents.langgraph.tools import declared, tools_in
from dalsegno.agents.turn import Turn
from dalsegno.core.json import JsonObject
from dalsegno.errors import ConfigError

TURN = "dalsegno_turn"
TURN_ID = "dalsegno_turn_id"
HEARD = "dalsegno_heard"
"""In a checkpoint's metadata: the first event of the turn that made it, the turn's id, and how many of the messages
that joined it the graph was given.
"""
MESSAGES = "messages"
CONTEXT = "context"

Graph = Pregel[Any, Any, Any, Any]
Input = Callable[[list[BaseMessage]], Any]
"""What the graph is given for messages that it has not seen; the turn's own is the last."""
Output = Callable[[Any], str | None]
"""What the graph's state says to the user, if no model said it."""


class LangGraphAgent:
    """Serves a compiled graph, the result of `create_agent`, or an `@entrypoint`."""

    def __init__(
        self,
        graph: Graph,
        *,
        input: Input | None = None,
        output: Output | None = None,
        config: Mapping[str, Any] | Callable[[Turn], Mapping[str, Any]] | None = None,
        tools: Sequence[BaseTool] = (),
        prefill: Prefill | None = None,
    ) -> None:
        """`input` maps messages to what the graph takes, for a state without `messages`; `output` maps the state at the
        end to what is said. `config` is merged into each run's (`recursion_limit`, `configurable`, `callbacks`, and
        `context` for graphs with a context schema), or makes it of the turn, in the same way for each attempt.
        `tools` names those that cannot be found in the graph's nodes.

        `prefill`: when a replica dies in the middle of an answer, give the model the beginning that readers were shown
        and let it go on from there, with these options besides (`{}` = none), or those that a function says of the
        model (None = it cannot). Only for models that can: the answer is otherwise given again, and its repetition kept
        from readers. Raises `ConfigError`.
        """
        self._graph = graph
        self._name = "default"
        self._input = input or _default_input(graph)
        self._output = output
        self._config = config or {}
        self._tools = {**tools_in(graph), **{tool.name: declared(tool) for tool in tools}}
        self._serde = serde_of(graph)
        self._prefill = prefill
        self._readings = Readings()
        install()

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._name

    def named(self, name: str) -> "LangGraphAgent":
        """The same agent under another name."""
        made = LangGraphAgent.__new__(LangGraphAgent)
        vars(made).update(vars(self), _name=name)
        return made

    async def run(self, turn: Turn) -> None:
        """Run the graph until it has nothing left to do."""
        turn.notes.go_ahead()
        turn.offer(tuple(self._tools.values()))
        # this run may be the turn's second in this process, and all that a run knows is in the log
        await turn.notes.settle()
        await turn.perform((), tools=tuple(self._tools.values()))
        saver, serde = Checkpointer(await self._readings.open(turn), serde=self._serde), self._serde
        graph = self._graph.copy({"checkpointer": saver})
        journal, opening = Journal(turn, self._tools, serde, prefill=self._prefill), turn.opening.items
        with journaled(journal):
            await roll_back(saver, turn, key=TURN)
            state = await graph.aget_state(self._configured(turn, 0))
            about: dict[str, Any] = {**(state.metadata or {})}
            if about.get(TURN) == turn.past + 1:
                known = int(about.get(HEARD, 0))
            else:
                known = 0
                state = await self._drive(graph, self._begin(opening, state, serde), self._configured(turn, known))
            while True:
                await journal.settle(messages_of(state.values))
                new = joined(turn.context.items, opening)[known:]
                given: Any = None
                if state.interrupts:
                    given = Command(resume=await answers(turn, state, answered=await saver.resumed(turn.session)))
                elif state.next and is_stopped(graph, state) and not await approved(turn, state):
                    break
                elif new and not state.next:
                    given, known = self._input(messages(new, serde)), known + len(new)
                elif not state.next:
                    break
                state = await self._drive(graph, given, self._configured(turn, known))
            # what was said last may not be on record yet: the journal knows it
            made = [*messages(turn.context.items[len(opening) :], serde), *journal.said]
            values = state.values if self._output is None else self._output(state.values) or []
            for text in unsaid(made, opening, values):
                await turn.say(text)

    def _begin(self, opening: Sequence[JsonObject], state: StateSnapshot, serde: SerializerProtocol) -> Any:
        last = str((state.metadata or {}).get(TURN_ID, ""))
        known = messages_of(state.values)
        return self._input(missing(opening, known, last, serde, seen="part" if state.next else "all"))

    async def _drive(self, graph: Graph, given: Any, config: RunnableConfig) -> StateSnapshot:
        # sync: what a task does is never on record before the checkpoint that its name comes from
        plain = cast(RunnableConfig, {name: value for name, value in config.items() if name != CONTEXT})
        context = cast(Any, config).get(CONTEXT)
        stream: Any = graph.astream(given, plain, stream_mode="updates", durability="sync", context=context)
        async with aclosing(stream):
            async for _ in stream:
                pass
        return await graph.aget_state(plain)

    def _configured(self, turn: Turn, known: int) -> RunnableConfig:
        config = dict(self._config(turn) if callable(self._config) else self._config)
        own = {**config.get("configurable", {}), "thread_id": turn.session}
        metadata = {**config.get("metadata", {}), TURN: turn.past + 1, TURN_ID: turn.id, HEARD: known}
        return cast(RunnableConfig, {**config, "configurable": own, "metadata": metadata})


def adapt(found: Any, *, name: str) -> LangGraphAgent:
    """The agent for what TARGET names. Raises `TypeError` for what is no graph yet."""
    if isinstance(found, LangGraphAgent):
        return found.named(name)
    if isinstance(found, Pregel):
        return LangGraphAgent(found).named(name)
    if hasattr(found, "compile"):
        raise TypeError("a graph is served compiled: graph = builder.compile()")
    raise TypeError(f"a {type(found).__name__} is no compiled graph")


def _default_input(graph: Graph) -> Input:
    if MESSAGES in graph.channels:
        return lambda new: {MESSAGES: new}
    if hasattr(graph, "builder"):
        raise ConfigError(
            "the graph's state has no `messages`: LangGraphAgent(graph, input=lambda new: ...) says what it is given"
        )
    return lambda new: new
