"""JSON at the door: what is accepted comes back code point for code point, the rest is refused before it is
acknowledged (P12).
"""

import json as stdlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import json
from dalsegno.errors import Refused

numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


def code_of(body: bytes) -> str:
    with pytest.raises(Refused) as refused:
        json.loads_strict(body)
    return refused.value.code


@given(values)
def test_what_is_accepted_comes_back(value):
    """Parsed, stored and parsed again it is the same value."""
    parsed = json.loads_strict(stdlib.dumps(value).encode())
    assert same(parsed, value)
    assert same(json.loads_strict(json.dumps(parsed)), value)


@given(values)
def test_spelling_does_not_matter(value):
    """Escaped or not, spread over lines or not, it is the same value."""
    spread = stdlib.dumps(value, ensure_ascii=False, indent=3).encode("utf-8")
    assert same(json.loads_strict(spread), value)


def same(one: object, other: object) -> bool:
    """Equal, and of the same kind: 1 is not true; 1 and 1.0 are the same number."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and one == 0 and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other)
    return one == other


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b" ", "invalid_json"),
        (b"{", "invalid_json"),
        (b"{}{}", "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":1,}', "invalid_json"),
        (b"[1 2]", "invalid_json"),
        (b"NaN", "invalid_json"),
        (b"[Infinity]", "invalid_json"),
        (b"[-Infinity]", "invalid_json"),
        (b"1e400", "invalid_json"),
        (b"-1e400", "invalid_json"),
        (b"9007199254740993", "invalid_json"),
        (b"1" * 400, "invalid_json"),
        (b"1" * 140_000, "invalid_json"),
        (b"1" + b"0" * 309, "invalid_json"),
        (b'{"a":1,"a":1}', "invalid_json"),
        (b'{"a":1,"\\u0061":2}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'"\n"', "invalid_json"),
        (b'"\\x41"', "invalid_json"),
        (b"\xff", "invalid_unicode"),
        (b'"\xed\xa0\x80"', "invalid_unicode"),
        (b'"\xc0\x80"', "invalid_unicode"),
        (b'"\\ud800"', "invalid_unicode"),
        (b'"\\udc00\\ud800"', "invalid_unicode"),
        (b'{"\\ud800":1}', "invalid_unicode"),
        (b'[["ok",{"a":["\\udfff"]}]]', "invalid_unicode"),
        (b"[" * 65 + b"]" * 65, "too_deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        ("{}".encode("utf-16"), "invalid_unicode"),
    ],
)
def test_hostile_bodies_are_refused(body: bytes, code: str):
    """Each with the documented code, and without altering or executing anything."""
    assert code_of(body) == code


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"[" * 64 + b"]" * 64, None),
        (b"1" + b"0" * 22, 10**22),
        (b"-0.0", -0.0),
        (b"-0", 0),
        (b'"\\u0000"', "\0"),
        (b'"\\ud834\\udd0b"', "𝄋"),
        ('"𝄋"'.encode(), "𝄋"),
        (b'{"":{"":""}}', {"": {"": ""}}),
        (b"1E-400", 0.0),
        (b'{"__proto__":1}', {"__proto__": 1}),
    ],
)
def test_odd_bodies_are_accepted(body: bytes, value):
    """What JSON allows and a double can hold is kept as it is."""
    found = json.loads_strict(body)
    if value is not None:
        assert same(found, value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes):
    """No bytes bring anything but a value or a documented refusal."""
    value_or_refusal(body)


def value_or_refusal(body: bytes) -> None:
    try:
        value = json.loads_strict(body)
    except Refused as refused:
        assert refused.code in ("invalid_json", "invalid_unicode", "too_deep")
        assert refused.outcome == "not_applied"
    else:
        assert same(json.loads_strict(json.dumps(value)), value)


@given(st.text('[]{}:,"0123456789eE.-\\u ntf', max_size=40))
def test_any_text_like_json_is_a_value_or_a_refusal(text: str):
    """The same for text that looks more like JSON."""
    value_or_refusal(text.encode())


@given(st.text(st.characters()))
def test_clean_text_keeps_what_is_text(text: str):
    """Text is not touched; a lone surrogate becomes U+FFFD, so that the session can be stored."""
    cleaned = json.clean_text(text)
    cleaned.encode("utf-8")
    assert json.clean_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("\ud834\udd0b", "𝄋"), ("𝄋", "𝄋"), ("\0", "\0"), ("", "")],
)
def test_clean_text(dirty: str, clean: str):
    """A pair of surrogates is the character that it spells."""
    assert json.clean_text(dirty) == clean


def test_canonical_is_rfc_8785():
    """Fingerprints that other languages can reproduce: sorted by UTF-16, numbers as ECMAScript writes them."""
    assert json.canonical({"b": 1.0, "a": [1e21, True], "\ue000": 1, "𝄋": 2}) == (
        '{"a":[1e+21,true],"b":1,"𝄋":2,"\ue000":1}'.encode()
    )


@given(st.dictionaries(st.text(), st.integers(), min_size=1))
def test_sorted_bytes_do_not_depend_on_order(value: dict[str, int]):
    """Two spellings of one object have one fingerprint."""
    assert json.dumps_sorted(value) == json.dumps_sorted(dict(reversed(value.items())))
