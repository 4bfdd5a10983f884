"""What a feed knows of the open step: each reader is given what it lacks of it, and nothing of a step that is over."""

from dalsegno.core.codec import encode, type_of
from dalsegno.core.event import Data, Event, ItemDone, TurnInput, TurnStarted
from dalsegno.core.input import Cancel
from dalsegno.core.item import message
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece
from dalsegno.ports import Hint, Ref
from dalsegno.runtime.feed import Feed
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import session

BASE, EPOCH, TURN = 3, 1, 2
OPENED = Piece(BASE, 0, TURN, "msg_1", message("", item_id="msg_1", status="in_progress"))
ONE = Piece(BASE, 1, TURN, "msg_1", field="text", delta="one ")
TWO = Piece(BASE, 5, TURN, "msg_1", field="text", delta="two ")
MORE = Piece(BASE, 9, TURN, "msg_1", field="text", delta="more")
SAID = ItemDone(message("one two ", item_id="msg_1"), streamed=True)


def shown(*pieces: Piece) -> Feed:
    """A feed of a session whose turn has begun, that was shown these."""
    ref = session()
    feed = Feed(ref, Session(ref.id, ref.tenant, head=BASE, epoch=EPOCH), MemoryLog(MemoryDatabase()), MemoryHot())
    feed.show(pieces, epoch=EPOCH)
    return feed


def written(feed: Feed, data: Data) -> None:
    """The log goes on with this."""
    feed.add([Event(feed.head + 1, type_of(data), TURN, 0, encode(data))])


def hint(ref: Ref, units: int, *, base: int = BASE) -> Hint:
    return Hint(ref.tenant, ref.id, base, units, epoch=EPOCH)


def test_a_reader_is_given_what_it_lacks():
    """Whatever ends behind its place, also in the middle of a piece; nothing when it has all."""
    feed = shown(OPENED, ONE, TWO)
    lacks = {place: list(feed.pieces(place)) for place in range(TWO.end + 2)}
    assert lacks[0] == [OPENED, ONE, TWO]
    assert lacks[1] == lacks[4] == [ONE, TWO]
    assert lacks[5] == lacks[8] == [TWO]
    assert lacks[9] == lacks[10] == []


def test_pieces_are_shown_in_order_and_once():
    """One that comes again is passed over, and so is one behind a gap; a hint is news if it tells of more."""
    feed = shown(OPENED, ONE)
    for piece in (ONE, MORE):
        feed.show([piece], epoch=EPOCH)
        assert list(feed.pieces(0)) == [OPENED, ONE]
    assert [feed.knows(hint(feed.ref, units)) for units in (1, 5, 6)] == [True, True, False]
    feed.show([TWO, MORE], epoch=EPOCH)
    assert list(feed.pieces(5)) == [TWO, MORE]


def test_nothing_is_left_of_a_step_that_is_over():
    """Whoever asks for its words then is referred to the log; and those of the next step are counted from its own
    beginning, by readers and by hints.
    """
    feed = shown(OPENED, ONE, TWO)
    written(feed, SAID)
    assert [list(feed.pieces(place)) for place in (0, 5)] == [[], []]
    assert feed.knows(hint(feed.ref, 9)) and not feed.knows(hint(feed.ref, 1, base=feed.head))
    feed.show([Piece(feed.head, 0, TURN, "msg_2", OPENED.item)], epoch=EPOCH)
    assert len(feed.pieces(0)) == 1 and not feed.pieces(1)
    assert not feed.knows(hint(feed.ref, 2, base=feed.head))


def test_the_next_attempt_goes_on_from_what_it_carries():
    """What the dead one showed beyond that is not the step's any more."""
    feed = shown(OPENED, ONE, TWO, MORE)
    written(feed, TurnStarted(attempt=2, epoch=EPOCH + 1, carried=5))
    assert list(feed.pieces(0)) == [OPENED, ONE] and not feed.pieces(5)
    other = Piece(BASE, 5, TURN, "msg_1", field="text", delta="zwei ")
    feed.show([TWO], epoch=EPOCH)
    feed.show([other], epoch=EPOCH + 1)
    assert list(feed.pieces(5)) == [other]


def test_a_step_that_begins_where_another_was_left_takes_its_place():
    """One that broke off leaves nothing in the log: the next is known by where it began."""
    feed = shown(OPENED, ONE)
    written(feed, TurnInput(Cancel()))
    assert not feed.knows(hint(feed.ref, 1, base=feed.head))
    again = Piece(feed.head, 0, TURN, "msg_2", OPENED.item)
    feed.show([again], epoch=EPOCH)
    assert list(feed.pieces(0)) == [again] and not feed.pieces(1)
