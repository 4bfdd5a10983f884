"""From a provider's events to the log and back: nothing that the provider wants back is lost. Pure."""

from typing import Any

import pytest
from agents import ModelResponse, Usage
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseOutputItem
from pydantic import TypeAdapter

from dalsegno.agents.openai_agents.items import response, to_input
from dalsegno.agents.openai_agents.speech import Speech
from dalsegno.core.item import call, detailed, message, reasoning
from dalsegno.core.part import Arguments, Detail, Part, Thought, ToolCall

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ADAPTER: TypeAdapter[Any] = TypeAdapter(ResponseOutputItem)


def spoken(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A provider's item with some fields that have nothing to do with us."""
    return st.fixed_dictionaries(
        {name: value if hasattr(value, "example") else st.just(value) for name, value in more.items()}
    )


TEXT_PARTS = spoken(type="output_text", text=TEXT, annotations=st.just([]))
PARTS = st.lists(st.one_of(TEXT_PARTS, spoken(type="refusal", refusal=TEXT)), max_size=3)
ITEM = st.one_of(
    spoken(type="message", id="msg_1", role="assistant", status="completed", content=PARTS),
    spoken(type="message", id="msg_2", role="assistant", status="completed", content=PARTS, phase="commentary"),
    spoken(
        type="reasoning",
        id="rs_1",
        summary=st.lists(spoken(type="summary_text", text=TEXT), max_size=2),
        encrypted_content=st.one_of(st.none(), TEXT),
    ),
    spoken(
        type="reasoning",
        id="rs_2",
        summary=st.just([]),
        content=st.lists(spoken(type="reasoning_text", text=TEXT), max_size=2),
    ),
    spoken(type="function_call", id="fc_1", call_id="call_1", name="f", arguments=TEXT, status="completed"),
    spoken(type="web_search_call", id="ws_1", status="completed", action=st.just({"type": "search", "query": "q"})),
    spoken(type="mcp_call", id="mcp_1", server_label="s", name="f", arguments="{}", output=TEXT),
)


def deltas(item: dict[str, Any]) -> list[tuple[str, str]]:
    """The item's texts as the events that bring them, a character each."""
    found = [("response.reasoning_summary_text.delta", part["text"]) for part in item.get("summary", ())]
    for part in item.get("content", ()):
        kind = part["type"]
        name = {"output_text": "output_text", "refusal": "refusal", "reasoning_text": "reasoning_text"}[kind]
        found.append((f"response.{name}.delta", part.get("text", part.get("refusal"))))
    found.append(("response.function_call_arguments.delta", item.get("arguments", "")))
    return [(kind, char) for kind, text in found for char in text]


def recorded(parts: list[Part]) -> list[Any]:
    """The items that a turn makes of these parts."""
    made: list[Any] = []
    last: str = ""
    for part in parts:
        match part:
            case Detail(data=data):
                made[-1] = detailed(made[-1], {**made[-1].get("details", {}), **data})
                last = ""
            case ToolCall():
                made.append(call(part.id, part.name, str(part.arguments), item_id=f"i{len(made)}"))
                last = "call"
            case Arguments(text=text):
                assert last == "call"
                made[-1]["arguments"] += text
            case Thought() | str():
                kind, text = ("thought", part.text) if isinstance(part, Thought) else ("text", part)
                if kind != last:
                    made.append((reasoning if kind == "thought" else message)("", item_id=f"i{len(made)}"))
                    last = kind
                before = made[-1]["content"][0]["text"] if made[-1]["content"] else ""
                again = (reasoning if kind == "thought" else message)(before + text, item_id=made[-1]["id"])
                made[-1] = again
    return made


def heard(items: list[dict[str, Any]], *, order: list[int], streamed: bool) -> list[Part]:
    """All parts of an answer whose items are done in that order, with or without deltas before."""
    speech, parts = Speech(), list[Part]()
    for place in order:
        if streamed:
            parts += speech.added(place, items[place])
            for kind, char in deltas(items[place]):
                parts += speech.hear(kind, place, char)
        parts += speech.done(place, items[place])
    return [*parts, *speech.end(items, {"agent": "A"})]


@given(items=st.lists(ITEM, max_size=5), chance=st.randoms(use_true_random=False), streamed=st.booleans())
def test_what_a_provider_said_comes_back(items: list[dict[str, Any]], chance: Any, streamed: bool):
    """Whatever it said, in whatever order its events came: the SDK is given the same items, and so is the provider."""
    order = list(range(len(items)))
    chance.shuffle(order)
    said = recorded(heard(items, order=order, streamed=streamed))
    theirs = ModelResponse(output=[ADAPTER.validate_python(item) for item in items], usage=Usage(), response_id=None)
    assert to_input(said) == theirs.to_input_items()
    assert response(said).to_input_items() == theirs.to_input_items()


@given(items=st.lists(ITEM, max_size=4))
def test_texts_are_kept_once(items: list[dict[str, Any]]):
    """What is in the log's own item is not a second time in its details."""
    for item in recorded(heard(items, order=list(range(len(items))), streamed=True)):
        kept = item["details"]["openai_agents"].get("item") or {}
        parts = [*kept.get("content", ()), *kept.get("summary", ())]
        assert all(isinstance(part.get("text", part.get("refusal")), int) for part in parts)


@pytest.mark.parametrize("streamed", [True, False])
def test_text_goes_on_as_it_arrives(streamed: bool):
    """Each delta is a part of its own; without deltas the text comes with its item."""
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "abc", "annotations": []}],
    }
    said = [part for part in heard([item], order=[0], streamed=streamed) if isinstance(part, str)]
    assert said == (["a", "b", "c"] if streamed else ["abc"])


def test_a_text_that_was_cut_off_is_shown_as_it_is():
    """Of a very large text the context has only the beginning: it is shown, and reasoning in pieces is not."""
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "a long text", "annotations": []}],
    }
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm hm"}]}
    kept = recorded(heard([thought, item], order=[0, 1], streamed=True))
    kept[0]["content"][0]["text"], kept[1]["content"][0]["text"] = "hm", "a lo [7 more]"
    (shown,) = to_input(kept)
    assert shown["content"][0]["text"] == "a lo [7 more]"  # type: ignore[index, typeddict-item]
