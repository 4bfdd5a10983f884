"""Going on with an answer whose beginning readers were shown: what its model is asked, and what the answer is. Pure.

LangChain has no word for it: it is a message of the model's at the end of the request, and what a server wants besides
is its own. So the user says which models can, and how.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage

from dalsegno.agents.langgraph.request import Request
from dalsegno.core.part import Part

Options: TypeAlias = Mapping[str, Any]
Prefill: TypeAlias = Options | Callable[[BaseChatModel], Options | None]
"""What a model is asked with besides; or the function that says it of a model, None of one that cannot go on."""


def continuing(request: Request, prefix: str, prefill: Prefill | None) -> Request | None:
    """The request for the rest of the answer; None = it is asked for from its beginning.

    The Responses API cannot go on, and a format begins anew with what is asked for. Blanks at the end are left out:
    models do not take them well, and Anthropic's not at all.
    """
    text = prefix.rstrip()
    anew = "response_format" in request.options or getattr(request.model, "use_responses_api", False)
    if prefill is None or not text or anew or isinstance(request.messages[-1], AIMessage):
        return None
    more = prefill(request.model) if callable(prefill) else prefill
    return None if more is None else request.begun(text, more)


class Rest:
    """What a model says after the beginning `begun`, empty = there was none. Where that ends with blanks, which the
    model was not given, those that it says are not said twice.
    """

    def __init__(self, begun: str) -> None:
        self._begun = begun
        self._blanks = self._left = begun[len(begun.rstrip()) :]

    def hear(self, part: Part) -> Part:
        """One more piece of it."""
        if not self._left or not isinstance(part, str):
            return part
        told = _common(self._left, part)
        self._left = self._left[told:] if told == len(part) else ""
        return part[told:]

    def whole(self, message: AIMessage) -> AIMessage:
        """The answer with its beginning."""
        if not self._begun:
            return message
        if isinstance(message.content, str):
            return message.model_copy(update={"content": self._joined(message.content)})
        match message.content:
            case [str(text), *others]:
                content: list[Any] = [self._joined(text), *others]
            case [{"type": "text", "text": str(text), **fields}, *others]:
                content = [{"type": "text", **fields, "text": self._joined(text)}, *others]
            case others:
                content = [{"type": "text", "text": self._begun}, *others]
        return message.model_copy(update={"content": content})

    def _joined(self, text: str) -> str:
        return self._begun + text[_common(self._blanks, text) :]


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
