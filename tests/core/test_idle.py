"""What is due for a session that nobody touches, and what of it may be removed from the cold tier."""

from datetime import timedelta
from typing import Any

import pytest

from dalsegno.core.append import Keep, Write
from dalsegno.core.event import Origin
from dalsegno.core.idle import Policy, comes_back, due, erase_once_more, fence, swept, unwanted
from dalsegno.core.lifecycle import erase_again
from dalsegno.core.session import Session, replace
from dalsegno.core.turn import OpenTurn

DAY_MS = 86_400_000
BOTH = Policy(timedelta(days=30), timedelta(days=1))
IDLE = Session("s", "t", head=9, epoch=4, updated_at=0)
HALF = Session("f", "t", head=1, parent=Origin("s", 7))


@pytest.mark.parametrize(
    ("session", "days", "expected"),
    [
        (IDLE, 0.99, None),
        (IDLE, 1, "sweep"),
        (replace(IDLE, swept=4), 1, None),
        (replace(IDLE, swept=3), 29, "sweep"),
        (IDLE, 30, "archive"),
        (replace(IDLE, swept=4), 30, "archive"),
        (replace(IDLE, shelved=True, swept=4), 99, None),
        (replace(IDLE, shelved=True, swept=3), 99, "archive"),
        (replace(IDLE, shelved=True, swept=3), 29, None),
        (replace(IDLE, owner="a"), 99, None),
        (replace(IDLE, open=(OpenTurn(first=9),)), 99, None),
        (replace(IDLE, moved="elsewhere"), 99, None),
        (HALF, 99, "sweep"),
        (HALF, 0.9, None),
        (replace(HALF, head=7), 99, "archive"),
        (replace(IDLE, deleted=True), 99, "sweep"),
        (replace(IDLE, deleted=True, swept=4), 99, None),
    ],
)
def test_what_is_due(session: Session, days: float, expected: str | None):
    """Archived after 30 days, swept after one, each once until somebody ran the session again."""
    assert due(session, int(days * DAY_MS), BOTH) == expected


def test_never_is_never():
    """Without a policy nothing is due."""
    assert due(IDLE, 10**15, Policy(None, None)) is None
    assert due(IDLE, 10**15, Policy(None)) == "sweep"


def test_a_fence_is_raised_where_the_session_was_seen():
    """One epoch more and no event, or nothing at all when anything is not as it was."""
    decision = fence(IDLE, None, 0, seen=IDLE)
    assert isinstance(decision, Write)
    assert (decision.events, decision.session) == ((), replace(IDLE, epoch=5, swept=0))
    for now in (
        None,
        replace(IDLE, head=10),
        replace(IDLE, epoch=5),
        replace(IDLE, owner="a"),
        replace(IDLE, open=(OpenTurn(first=9),)),
        replace(IDLE, deleted=True),
        replace(IDLE, moved="elsewhere"),
    ):
        assert fence(now, None, 0, seen=IDLE) == Keep(None)


def test_a_sweep_counts_for_the_epoch_it_was_made_under():
    """Whoever has had the session meanwhile may have left something."""
    decision = swept(IDLE, None, 0, seen=IDLE)
    assert isinstance(decision, Write) and decision.session == replace(IDLE, swept=4)
    for now in (replace(IDLE, epoch=5), replace(IDLE, deleted=True), None):
        assert swept(now, None, 0, seen=IDLE) == Keep(None)


@pytest.mark.parametrize("told", [comes_back, erase_again])
@pytest.mark.parametrize("before", [IDLE, replace(IDLE, swept=4), replace(IDLE, swept=-1)])
def test_a_sweep_that_is_under_way_may_come_too_early(told: Any, before: Session):
    """Events come back, or a turn is fenced off, in the middle of a sweep: it does not count, and another is due."""
    fenced = fence(before, None, 0, seen=before)
    assert isinstance(fenced, Write)
    meanwhile = told(fenced.session, None, 0)
    assert isinstance(meanwhile, Write)
    assert swept(meanwhile.session, None, 0, seen=fenced.session) == Keep(None)
    assert due(meanwhile.session, DAY_MS, BOTH) == "sweep"
    assert told(meanwhile.session, None, 0) == Keep(None)


def test_a_deleted_session_is_erased_once_more():
    """Under a new epoch, so that it is named as unerased again; and then it counts as swept."""
    gone = replace(IDLE, deleted=True)
    decision = erase_once_more(gone, None, 0)
    assert isinstance(decision, Write)
    assert (decision.session.epoch, decision.session.swept) == (5, 5)
    assert due(decision.session, 10**15, BOTH) is None
    assert erase_once_more(IDLE, None, 0) == Keep(None)


def test_only_older_and_unwanted_objects_go():
    """An object of the sweep's own epoch or a later one stays, and so does what the log points to or nobody knows."""
    hashed = "a" * 64
    names = [f"t/s/{place}{epoch}-{hashed}" for place in ("", "log/") for epoch in (0, 3, 4, 12)]
    foreign = [f"t/s/{hashed}", "t/s/notes.txt", f"t/s/x-{hashed}", f"t/s/03-{hashed}"]
    wanted = {f"t/s/3-{hashed}"}
    assert list(unwanted([*names, *foreign], epoch=4, wanted=wanted)) == [
        f"t/s/0-{hashed}",
        f"t/s/log/0-{hashed}",
        f"t/s/log/3-{hashed}",
    ]
