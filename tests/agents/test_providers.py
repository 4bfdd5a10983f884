"""A context in the words of providers: whatever was said, it is taken, and it says the same by each protocol."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.agents.providers import for_anthropic, for_chat, for_responses
from dalsegno.core.json import JsonObject
from dalsegno.testing.model import Shown
from dalsegno.testing.model.chat import CHAT
from dalsegno.testing.model.messages import MESSAGES
from dalsegno.testing.model.responses import RESPONSES

USER: JsonObject = {"type": "message", "id": "msg_1", "role": "user", "content": "weather?"}


def read(items: list[JsonObject]) -> list[Shown]:
    """What the strict readers of the scripted model server make of it."""
    return [
        CHAT.read({"model": "m", "messages": for_chat(items)}),
        RESPONSES.read({"model": "m", "input": for_responses(items)}),
        MESSAGES.read({"model": "m", "max_tokens": 9, "messages": for_anthropic(items)}),
    ]


def said(text: str, role: str = "assistant", **more: Any) -> JsonObject:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "id": "msg_2", "role": role, "content": [{"type": kind, "text": text}], **more}


def call(call_id: str, arguments: str = '{"city":"Rome"}', name: str = "weather") -> JsonObject:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, text: Any = "dry") -> JsonObject:
    return {"type": "function_call_output", "id": "fco_1", "call_id": call_id, "output": text, "status": "completed"}


def test_a_conversation_says_the_same_by_each_protocol() -> None:
    """Ids of ours, details, statuses and thoughts stay at home; text, calls and results arrive."""
    thought: JsonObject = {"type": "reasoning", "id": "rs_1", "summary": [], "content": []}
    items = [
        USER,
        thought,
        said("I look.", details={"x": 1}),
        call("c1"),
        call("c2"),
        output("c1"),
        output("c2", "wet"),
    ]
    chat, *others = read([*items, said("Mixed."), {"role": "user", "content": "thanks"}])
    assert [(message.role, message.text) for message in chat.messages] == [
        ("user", "weather?"),
        ("assistant", "I look."),
        ("tool", "dry"),
        ("tool", "wet"),
        ("assistant", "Mixed."),
        ("user", "thanks"),
    ]
    assert [asked.id for asked in chat.messages[1].calls] == ["c1", "c2"]
    assert [message["role"] for message in for_anthropic(items)] == ["user", "assistant", "user"]
    assert [other.conversation for other in others] == [chat.conversation] * 2


@pytest.mark.parametrize(
    ("items", "shows"),
    [
        pytest.param([said("hi"), USER], "[The conversation begins.]", id="the agent speaks first"),
        pytest.param([said(" \n", "user")], "[blank]", id="a blank message"),
        pytest.param([USER, {"type": "web_search_call", "id": "ws_1"}], "[web_search_call]", id="another type"),
        pytest.param([USER, call("c1", '{"city": '), output("c1")], "city", id="arguments that are no JSON"),
        pytest.param([USER, call("c1", "[1]"), output("c1", "")], "", id="an output that says nothing"),
        pytest.param([USER, call("c:1" * 90), output("c:1" * 90)], "dry", id="a long and strange call id"),
        pytest.param([USER, call("c1", name="sub agent"), output("c1")], "dry", id="a tool of another framework"),
        pytest.param([USER, call("c1"), output("c1"), USER, call("c1"), output("c1")], "dry", id="a call id again"),
        pytest.param([USER, call("c1"), output("c1", [{"type": "input_text", "text": "dry"}])], "dry", id="parts"),
        pytest.param([said("ask", "developer"), USER], "ask", id="a note of the system"),
    ],
)
def test_what_providers_refuse_is_written_so_that_they_take_it(items: list[JsonObject], shows: str) -> None:
    """No client and no earlier agent can make a conversation that no model can be shown."""
    for shown in read(items):
        if not (shows == "[The conversation begins.]" and shown.protocol != "messages"):
            assert shows in json.dumps(shown.conversation)


def test_an_answer_that_says_nothing_is_not_shown() -> None:
    """Nobody waits for it, and some providers refuse it."""
    for shown in read([USER, said(""), said(" "), USER]):
        assert {message.role for message in shown.messages} == {"user"}


def test_images_are_shown_as_each_provider_takes_them() -> None:
    """By address or whole; what has no shape in a protocol is named."""
    url, whole = "https://example.org/a.png", "data:image/png;base64,AAAA"
    content: list[Any] = [{"type": "input_image", "image_url": value} for value in (url, whole)]
    items: list[JsonObject] = [{"role": "user", "content": [*content, {"type": "input_file", "file_id": "f"}]}]
    assert for_responses(items)[0]["content"] == items[0]["content"]
    assert for_chat(items)[0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": {"url": whole}},
        {"type": "text", "text": "[input_file]"},
    ]
    assert for_anthropic(items)[0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": url}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "text", "text": "[input_file]"},
    ]


TEXT = st.text(max_size=4)
NAMES = st.sampled_from(["a", "b", "c", "a b", "x" * 50])
STEPS = st.one_of(
    st.builds(lambda text: [said(text)], TEXT),
    st.builds(lambda text, role: [said(text, role)], TEXT, st.sampled_from(["user", "system", "developer"])),
    st.builds(
        lambda names, text: [*map(call, names), *(output(name, text) for name in reversed(names))],
        st.lists(NAMES, min_size=1, max_size=3, unique=True),
        TEXT,
    ),
)


@given(st.lists(STEPS, max_size=8))
def test_every_conversation_is_taken(steps: list[list[JsonObject]]) -> None:
    """Whatever stands in a context, the readers that refuse what providers refuse do not refuse it."""
    read([USER, *(item for step in steps for item in step), USER])
