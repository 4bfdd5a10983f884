"""Frozen transcripts: gone on with, they show what a fold of the whole log shows (law 13); nothing else is thawed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import frozen
from dalsegno.core.context import Transcript, context
from dalsegno.core.event import Event
from dalsegno.core.frozen import WORTH_EVENTS, freeze, seal, thaw, unseal, worth
from tests.core.laws import folded, further
from tests.core.walk import SESSION, TENANT, Program, played, programs

GOLDEN: Program = [
    *(("say", 1), ("model", 1), ("calls", 2), ("steer", 0), ("result", 0), ("partial", 0), ("end", 0)),
    *(("say", 1), ("summarize", 0), ("calls", 0), ("stop", 1), ("end", 0), ("claim", 0), ("calls", 1), ("crash", 0)),
    *(("bring", 8), ("say", 1), ("end", 0), ("bring", 8), ("pop", 0), ("bring", 0), ("bring", 2)),
]


@given(programs, st.data())
def test_a_frozen_transcript_goes_on_as_if_it_never_was(program: Program, data: st.DataObject):
    """Wherever the log is cut: thawed and given the rest, it shows the same and gives way at the same event."""
    events = played(program).events
    cut, limit = data.draw(st.integers(0, len(events))), data.draw(st.integers(1, 4000))
    whole, begun = folded(events, SESSION), folded(events[:cut], SESSION)
    thawed = thaw(freeze(begun, tenant=TENANT), tenant=TENANT, session=SESSION)
    assert thawed is not None
    assert (thawed.head, thawed.last) == (cut, events[cut - 1] if cut else None)
    assert thawed.context() == context(events[:cut], session=SESSION)
    thawed = further(thawed, events)
    assert thawed == whole
    assert (thawed.context(), thawed.excess(limit)) == (whole.context(), whole.excess(limit))


@given(st.binary(min_size=1, max_size=300), st.integers(0, 7), st.data())
def test_nothing_else_is_thawed(noise: bytes, bit: int, data: st.DataObject):
    """Noise, a beginning, a flipped bit, another tenant's or session's: nothing, and no error."""
    whole = freeze(folded(played(GOLDEN).events, SESSION), tenant=TENANT)
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    for content in (noise, whole[:place], flipped, noise + whole, whole + b"\0"):
        assert thaw(content, tenant=TENANT, session=SESSION) is None
    assert thaw(whole, tenant=TENANT + "x", session=SESSION) is None
    assert thaw(whole, tenant=TENANT, session=SESSION[:-1]) is None
    assert thaw(seal(noise, "context", TENANT, SESSION), tenant=TENANT, session=SESSION) is None


def test_another_format_is_nothing(monkeypatch: pytest.MonkeyPatch):
    """Releases that fold differently share a hot tier, and do not mistake each other's."""
    older = freeze(folded(played(GOLDEN).events, SESSION), tenant=TENANT)
    monkeypatch.setattr(frozen, "FORMAT", frozen.FORMAT + 1)
    assert thaw(older, tenant=TENANT, session=SESSION) is None


def test_the_format_is_counted():
    """If this fails, a log is folded or written differently from the last release: raise `FORMAT`, then write down what
    it is now. A replica that does not must not go on with what one that does has folded.
    """
    found = hashlib.sha256(freeze(folded(played(GOLDEN).events, SESSION), tenant=TENANT)).hexdigest()
    assert (frozen.FORMAT, found[:16]) == (3, "9a5449144ab5e789")


def test_names_have_borders():
    """What was sealed under other names is nothing."""
    sealed = seal(b"x", "a", "bc")
    assert unseal(sealed, "a", "bc") == b"x"
    assert unseal(sealed, "ab", "c") is None
    assert unseal(seal(b"", "a"), "a") == b""


@pytest.mark.parametrize("length", [WORTH_EVENTS - 1, WORTH_EVENTS, 1000, 20_000])
def test_freezing_follows_growth(length: int):
    """Short ones are not frozen; of long ones each event is, five times on average at most; and a reader who comes at
    any time finds three quarters.
    """
    transcript, near, written = Transcript(SESSION, last=Event(1, "turn.created", 1, 0, b"")), 0, 0
    for head in range(1, length + 1):
        transcript.head = head
        if worth(transcript, near=near):
            near = head
            written += head
        assert head < WORTH_EVENTS or (head - near) * 4 <= head
    assert written <= 5 * length
    assert (near > 0) == (length >= WORTH_EVENTS)


def test_what_is_too_large_is_not_frozen():
    """Nor what was not folded here."""
    event = Event(1, "turn.created", 1, 0, b"")
    assert worth(Transcript(SESSION, head=500, last=event), near=0)
    assert not worth(Transcript(SESSION, head=500, last=event, weight=5 * 2**20), near=0)
    assert not worth(Transcript(SESSION, head=500), near=0)
    assert not worth(Transcript(SESSION, head=500, last=event, through=400), near=0)
