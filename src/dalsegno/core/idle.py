"""What becomes of sessions that nobody touches: archived, and the cold tier swept of what their logs do not point to.

A sweep needs no grace period. It begins by raising the session's epoch, while nobody owns it: from then on nobody can
commit a pointer to an object of an older epoch, however long they were paused, and whatever is put later bears a newer
one. So what the log does not point to, and bears an older epoch than the sweep, is wanted by nobody.

    fence (epoch + 1) ──► read the log ──► put the archive, shelve ──► remove what is older and not pointed to ──► swept
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from typing import Literal

import msgspec

from dalsegno.core.append import Decision, Keep, Known, Write
from dalsegno.core.lifecycle import half, unsweep
from dalsegno.core.session import Session, replace
from dalsegno.core.tier import epoch_of

Due = Literal["archive", "sweep"]


class Policy(msgspec.Struct, frozen=True):
    """After how long without an event something is done; None = never."""

    archive_after: timedelta | None = None
    sweep_after: timedelta | None = timedelta(days=1)


def due(session: Session, now: int, policy: Policy) -> Due | None:
    """What is to be done with a session that a walk came past. A deleted one is swept once more, for whoever was paused
    while it was erased; one that lives in another store is that one's. Half a fork is no session to archive.
    """
    if session.moved or session.open or session.owner is not None:
        return None
    ran_since = session.epoch > session.swept
    idle = timedelta(milliseconds=now - session.updated_at)
    if half(session):
        return "sweep" if policy.sweep_after is not None and idle >= policy.sweep_after else None
    if policy.archive_after is not None and idle >= policy.archive_after and not session.deleted:
        # What is shelved is shelved anew, as a whole, if turns have run since.
        if ran_since or not session.shelved:
            return "archive"
        return None
    if policy.sweep_after is not None and idle >= policy.sweep_after and ran_since and not session.shelved:
        return "sweep"
    return None


def fence(session: Session | None, known: Known | None, now: int, *, seen: Session) -> Decision[Session | None]:
    """Raise the epoch of a session that still stands where it was seen, idle; None if it does not."""
    if session is None or session.deleted or session.moved or session.open or session.owner is not None:
        return Keep(None)
    if (session.head, session.epoch) != (seen.head, seen.epoch):
        return Keep(None)
    fenced = replace(session, epoch=session.epoch + 1, swept=0)
    return Write(fenced, (), fenced)


def swept(session: Session | None, known: Known | None, now: int, *, seen: Session) -> Decision[None]:
    """The cold tier was swept, as of when the session was seen so. If somebody has had it since, it is swept again."""
    if session is None or session.deleted or (session.epoch, session.swept) != (seen.epoch, seen.swept):
        return Keep(None)
    return Write(replace(session, swept=session.epoch), (), None)


def comes_back(session: Session | None, known: Known | None, now: int) -> Decision[None]:
    """The events will be in the log again: nothing points to the archive then, and a sweep has something to find."""
    return Keep(None) if session is None or session.deleted else unsweep(session)


def erase_once_more(session: Session | None, known: Known | None, now: int) -> Decision[None]:
    """Have a deleted session erased again, and count that as its sweep."""
    if session is None or not session.deleted:
        return Keep(None)
    return Write(replace(session, epoch=session.epoch + 1, swept=session.epoch + 1), (), None)


def unwanted(names: Iterable[str], *, epoch: int, wanted: Collection[str]) -> Iterator[str]:
    """The objects that nobody can point to any more; one whose name is none of ours is left alone."""
    for name in names:
        put = epoch_of(name)
        if put is not None and put < epoch and name not in wanted:
            yield name
