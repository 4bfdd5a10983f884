"""What clients may say, and the refusals that help those who said something else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.json import loads_strict
from dalsegno.errors import Refused
from dalsegno.wire import requests

ITEM = {"type": "message", "role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "x"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"type": "message", "content": "hi"}, Message("hi")),
        ({"type": "message", "content": "\0", "on_busy": "steer"}, Message("\0", on_busy="steer")),
        ({"type": "message", "items": [ITEM]}, Message(items=[ITEM])),  # type: ignore[list-item]
        ({"type": "approval", "call_id": "c", "decision": "deny"}, Approval("c", "deny")),
        ({"type": "approval", "call_id": "c", "decision": "approve", "reason": "r"}, Approval("c", "approve", "r")),
        ({"type": "approval", "call_id": "c", "decision": "approve", "reason": None}, Approval("c", "approve")),
        ({"type": "tool_result", "call_id": "c", "output": ""}, ToolResult("c", "")),
        ({"type": "tool_result", "call_id": "c", "error": "e", "output": None}, ToolResult("c", error="e")),
        ({"type": "cancel"}, Cancel()),
        ({"type": "cancel", "turn": "t"}, Cancel("t")),
    ],
)
def test_every_input_of_the_contract(value: Any, said: object):
    """One union, one route."""
    assert requests.parse_input(value) == said


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "JSON object"),
        ("hi", "JSON object"),
        ({}, "`type` is one of"),
        ({"type": 5}, "`type` is one of"),
        ({"type": "Message"}, "`type` is one of"),
        ({"type": "message"}, "exactly one of"),
        ({"type": "message", "content": "a", "items": [ITEM]}, "exactly one of"),
        ({"type": "message", "content": ""}, "content"),
        ({"type": "message", "content": None}, "content"),
        ({"type": "message", "content": 5}, "content"),
        ({"type": "message", "items": []}, "items"),
        ({"type": "message", "items": ["x"]}, "items"),
        ({"type": "message", "content": "a", "on_busy": "wait"}, "on_busy"),
        ({"type": "message", "content": "a", "mode": "x"}, "mode"),
        ({"type": "approval", "call_id": "c"}, "decision"),
        ({"type": "approval", "call_id": "c", "decision": "maybe"}, "decision"),
        ({"type": "approval", "call_id": "", "decision": "deny"}, "call_id"),
        ({"type": "tool_result", "call_id": "c"}, "exactly one of"),
        ({"type": "tool_result", "call_id": "c", "output": "a", "error": "b"}, "exactly one of"),
        ({"type": "tool_result", "call_id": "c", "output": {"a": 1}}, "output"),
        ({"type": "cancel", "hide": True}, "hide"),
        ({"type": "cancel", "turn": 5}, "turn"),
    ],
)
def test_a_refusal_names_what_is_wrong(value: Any, says: str):
    """Nothing unknown is passed over, and `Cancel.hide` is not a client's."""
    with pytest.raises(Refused, match=says) as refused:
        requests.parse_input(value)
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    "items",
    [
        [ITEM],
        [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": "x"},
            {"role": "user", "content": "y"},
        ],
        [{**ITEM, "role": "assistant"}],
        [{**ITEM, "id": "msg_1", "custom": {"kept": True}}],
        [{**ITEM, "content": [{"type": "input_text", "text": ""}, {"type": "input_image", "image_url": "data:,"}]}],
        [CALL, OUTPUT],
        [CALL, {**CALL, "call_id": "d"}, {**OUTPUT, "call_id": "d"}, OUTPUT, ITEM],
        [CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "x"}]}],
        [{"type": "reasoning", "summary": []}],
        [{"type": "computer_call_output", "anything": 1}],
    ],
)
def test_items_that_a_transcript_can_hold(items: Any):
    """Open Responses input items, as they are."""
    said = requests.parse_input({"type": "message", "items": items})
    assert isinstance(said, Message) and said.items == items


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([{}], "role"),
        ([{"role": "assistant", "content": "x"}], "role"),
        ([{**ITEM, "role": "tool"}], "role"),
        ([{**ITEM, "content": None}], "content"),
        ([{**ITEM, "content": ""}], "content"),
        ([{**ITEM, "content": []}], "content"),
        ([{**ITEM, "content": ["x"]}], r"content\[0\]"),
        ([{**ITEM, "content": [{"type": "input_text"}]}], "text"),
        ([{**ITEM, "id": None}], "id"),
        ([{**ITEM, "id": "x" * 300}], "id"),
        ([{"type": 5}], "type"),
        ([{"type": "dalsegno:step", "name": "x"}], "prefix"),
        ([CALL], "without its function_call_output"),
        ([OUTPUT], "answers no call"),
        ([CALL, ITEM, OUTPUT], "between"),
        ([CALL, CALL, OUTPUT], "repeats"),
        ([CALL, OUTPUT, OUTPUT], "answers no call"),
        ([{**CALL, "arguments": {}}, OUTPUT], "arguments"),
        ([{**CALL, "name": ""}, OUTPUT], "name"),
        ([CALL, {**OUTPUT, "output": None}], "output"),
    ],
)
def test_items_that_would_spoil_a_transcript(items: Any, says: str):
    """A session is never bricked by what was put into it: every later model call would fail."""
    with pytest.raises(Refused, match=says):
        requests.parse_input({"type": "message", "items": items})


FIELDS = [
    "type",
    "content",
    "items",
    "call_id",
    "decision",
    "output",
    "error",
    "turn",
    "role",
    "id",
    "text",
    "key",
    "hide",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
TYPES = st.sampled_from(["message", "approval", "tool_result", "cancel", "function_call", "function_call_output"])


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | TYPES, max_size=5), TYPES)
def test_anything_is_an_input_or_a_refusal(value: dict, kind: str):
    """No body makes the parser fail in any other way."""
    try:
        requests.parse_keyed_input({**value, "type": kind})
    except Refused as refused:
        assert refused.code == "invalid_request"


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes):
    """Raw bytes included."""
    try:
        asked = requests.Parameters(query)
        asked.limit(), asked.wait(), asked.cursor(), asked.status(), asked.prefixed("metadata.")
        asked.done()
    except Refused as refused:
        assert refused.code in ("invalid_request", "invalid_unicode", "invalid_cursor")


def test_parameters_are_percent_decoded():
    """Plus is a space, `%2B` is a plus, names may be encoded too."""
    asked = requests.Parameters(b"user=a+b%2B%C3%A9&metadata.k%3D=v")
    assert asked.text("user") == "a b+é"
    assert asked.prefixed("metadata.") == {"k=": "v"}
    asked.done()


@pytest.mark.parametrize("written", [b"5", b"5.0", b"50e-1"])
def test_an_integer_may_be_written_as_any_number(written: bytes):
    """5.0 is an integer where JSON is described (JSON Schema); 5.5 is none."""
    assert requests.parse_fork(loads_strict(b'{"at":' + written + b"}")) == 5
    with pytest.raises(Refused):
        requests.parse_fork({"at": 5.5})


@pytest.mark.parametrize(
    ("text", "heads"),
    [(None, None), ("*", None), ('"42"', (42,)), ('"1", "2"', (1, 2)), ('W/"42"', ()), ('"x"', ()), ('""', ())],
)
def test_etags(text: str | None, heads: tuple[int, ...] | None):
    """Ours are heads; foreign and weak ones match nothing."""
    assert requests.parse_etags(text) == heads


@pytest.mark.parametrize("text", ["42", "", '"42', '"1" "2"', "*, *", '"1",', '"1,2"'])
def test_what_is_no_etag(text: str):
    """A condition that cannot be read is not ignored."""
    with pytest.raises(Refused):
        requests.parse_etags(text)
