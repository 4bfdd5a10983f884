"""What a chat model is asked. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage


class Request(msgspec.Struct, frozen=True):
    """As LangChain asks its models: messages, where to stop, and what the caller or `bind` says besides."""

    model: BaseChatModel
    messages: Sequence[BaseMessage]
    stop: Any
    options: Mapping[str, Any]

    @property
    def words(self) -> list[Any]:
        """What is asked, without the ids that messages are given on the way."""
        said = [[one.type, one.content, getattr(one, "tool_calls", None)] for one in self.messages]
        return [*said, self.stop]

    def begun(self, text: str, more: Mapping[str, Any]) -> "Request":
        """The same, with the beginning of the answer as its last message, and these options besides. Of an option that
        is an object, as `extra_body`, what the request or the model says of it stays.
        """
        before = {name: self.options.get(name, getattr(self.model, name, None)) for name in more}
        added = {name: _merged(before[name], value) for name, value in more.items()}
        return msgspec.structs.replace(
            self, messages=[*self.messages, AIMessage(text)], options={**self.options, **added}
        )


def _merged(before: Any, value: Any) -> Any:
    return {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
