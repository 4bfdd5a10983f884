"""What LangGraph's configs say, and what is said back. Pure."""

from typing import Any

from langchain_core.runnables import RunnableConfig

from dalsegno.agents.langgraph.thread import Checkpoint


class Where:
    """What a config points at."""

    def __init__(self, config: RunnableConfig) -> None:
        self.configurable = config["configurable"]
        self.thread = str(self.configurable["thread_id"])
        self.ns = str(self.configurable.get("checkpoint_ns") or "")
        self.checkpoint: str | None = self.configurable.get("checkpoint_id") or None


def config_of(thread: str, ns: str, checkpoint: str | None) -> RunnableConfig:
    """A config that points at a checkpoint, or at the newest of its namespace."""
    conf: dict[str, Any] = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": conf if checkpoint is None else {**conf, "checkpoint_id": checkpoint}}


def matches(kept: Checkpoint, config: RunnableConfig | None, before: str | None) -> bool:
    """Whether the checkpoint is one of those that a listing asks for."""
    conf = {} if config is None else config["configurable"]
    ns, checkpoint = conf.get("checkpoint_ns"), conf.get("checkpoint_id")
    if ns is not None and ns != kept.ns:
        return False
    if checkpoint and checkpoint != kept.id:
        return False
    return before is None or kept.id < before
