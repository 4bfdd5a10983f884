"""Laws of claim checks: a text that was moved is given back as it was, in its own session and in a fork."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.event import Event, ItemDone, TurnCreated, TurnInput
from dalsegno.core.input import Message
from dalsegno.core.item import MESSAGE, call, message, output, reasoning, text_of, user_message
from dalsegno.core.json import JsonObject
from dalsegno.core.lifecycle import artifact_of, missing_text, moved_event, with_text
from dalsegno.core.refs import Ref
from dalsegno.core.session import replace
from dalsegno.core.tier import PREVIEW_CHARS, Artifact, spill_item, spill_message

SESSION = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
FORK = Ref("t", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2c")
LIMIT = 2200
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=400).map(lambda text: text + "y" * PREVIEW_CHARS)


def done(item: JsonObject) -> Event:
    return Event(7, "item.done", 2, 0, codec.encode(ItemDone(item, step="model#1", streamed=True, through=6)))


@given(texts, st.sampled_from([message, reasoning]), st.integers(0, 2**40))
def test_an_item_is_given_back_as_it_was(text: str, kind, epoch: int):
    """What readers get is, byte for byte, what the log would have held; also from a fork."""
    item = kind(text, item_id="msg_1")
    spill = spill_item(SESSION, epoch, item, inline_max=LIMIT)
    assert (spill is None) == (len(text.encode()) <= LIMIT)
    if spill is None:
        return
    kept = done(spill.kept)
    assert artifact_of(kept) == missing_text(kept) == spill.artifact
    assert with_text(kept, spill.payload.decode()) == done(item)
    moved = moved_event(kept, FORK, None)
    artifact = artifact_of(moved)
    assert artifact is not None
    assert (artifact.session, artifact.epoch, artifact.sha256) == (FORK.id, epoch, spill.artifact.sha256)
    assert with_text(moved, text) == done(item)
    data = codec.decode(moved)
    assert isinstance(data, ItemDone) and text_of(data.item).startswith(text[:PREVIEW_CHARS])
    if SESSION not in text[:PREVIEW_CHARS]:
        assert SESSION.encode() not in moved.data


@given(texts, st.sampled_from([TurnCreated, TurnInput]), st.integers(0, 2**40))
def test_a_message_is_given_back_as_it_was(text: str, kind, epoch: int):
    """The same of what a client said, whatever else it said with it."""
    said = Message(text, on_busy="steer")
    spill = spill_message(SESSION, epoch, said, inline_max=LIMIT)
    assert (spill is None) == (len(text.encode()) <= LIMIT)
    if spill is None:
        return

    def event(held: Message) -> Event:
        return Event(7, codec.type_of(kind(held)), 2, 0, codec.encode(kind(held, key="k")))

    kept = event(spill.kept)
    assert artifact_of(kept) == missing_text(kept) == spill.artifact
    assert with_text(kept, spill.payload.decode()) == event(said)
    assert with_text(moved_event(kept, FORK, None), text) == event(said)


@given(st.lists(texts, min_size=1, max_size=3), st.booleans(), st.integers(0, 2**40))
def test_items_of_a_client_are_given_back_as_they_were(said: list[str], parts: bool, epoch: int):
    """Every field of every item; what the log holds is their beginnings."""
    items: list[JsonObject] = [
        {"role": "user", "content": [{"type": "input_text", "text": text, "n": 0.5}, {"type": "x"}] if parts else text}
        for text in said
    ]
    items += [call("c", "f", "{}", item_id="fc_1"), {**output("c", said[0] * 4, item_id="fco_1"), "extra": [1, None]}]
    whole = Message(items=items)
    spill = spill_message(SESSION, epoch, whole, inline_max=8 * LIMIT)
    if spill is None:
        return
    assert spill.kept.items is not None and len(spill.payload) > 8 * LIMIT
    assert [sorted(item) for item in spill.kept.items] == [sorted(item) for item in items]
    kept = Event(7, "turn.created", 7, 0, codec.encode(TurnCreated(spill.kept)))
    assert with_text(kept, spill.payload.decode()) == replace(kept, data=codec.encode(TurnCreated(whole)))
    moved = moved_event(kept, FORK, None)
    assert artifact_of(moved) == Artifact(FORK.id, epoch, spill.artifact.sha256)
    assert with_text(moved, spill.payload.decode()) == with_text(kept, spill.payload.decode())


def test_items_that_are_large_without_a_large_text_stay():
    """A picture in base64 has no beginning that would be worth anything."""
    picture: JsonObject = {"role": "user", "content": [{"type": "input_image", "image_url": "data:" + "A" * 100_000}]}
    assert spill_message(SESSION, 1, Message(items=[picture])) is None
    many: list[JsonObject] = [{"role": "user", "content": "a little"} for _ in range(2000)]
    assert spill_message(SESSION, 1, Message(items=many)) is None


LONG = "x" * 100


@pytest.mark.parametrize(
    "item",
    [
        call("c", "f", LONG, item_id="fc_1"),
        message(LONG, item_id="msg_1", status="incomplete"),
        {**user_message(LONG, item_id="msg_1"), "role": "developer"},
        {"type": "dalsegno:event", "id": "it_1", "name": "n", "data": LONG},
    ],
    ids=["a call", "incomplete", "not a model's", "an event"],
)
def test_what_stays_in_the_log(item: JsonObject):
    """Arguments are carried out, incomplete items are what was shown, and the rest is not a model's text."""
    assert spill_item(SESSION, 1, item, inline_max=60) is None


def test_a_tools_output_is_not_given_in_full():
    """Readers get its beginning and its artifact, as the model does."""
    spill = spill_item(SESSION, 1, output("c", LONG, item_id="fco_1"), inline_max=60)
    assert spill is not None
    assert artifact_of(done(spill.kept)) == spill.artifact
    assert missing_text(done(spill.kept)) is None


@pytest.mark.parametrize("pointer", [None, "x", {"id": 7}, {"id": f"{SESSION}.1.x"}, {}, []])
def test_what_only_looks_like_a_pointer_is_none(pointer):
    """Items that others made may hold anything under that name."""
    item: JsonObject = {"type": MESSAGE, "id": "m", "role": "assistant", "content": [], "artifact": pointer}
    assert artifact_of(done(item)) is missing_text(done(item)) is None
    assert moved_event(done(item), FORK, None) == done(item)
