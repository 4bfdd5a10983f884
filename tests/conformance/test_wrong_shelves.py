"""The suite can fail: tiers that shelve or list wrongly on purpose, each with the case that catches it."""

from typing import Any

import pytest

from dalsegno.errors import DalsegnoError, Shelved, Unreadable
from dalsegno.stores.memory import MemoryBlobs, MemoryDatabase
from dalsegno.testing.conformance import BlobsCases, ShelfCases
from dalsegno.testing.conformance.memory import MemoryBlobsWorld, MemoryWorld

CAUGHT = (AssertionError, pytest.fail.Exception, DalsegnoError)


class ForgetsWhereTheyAre(MemoryDatabase):
    """Removes the events, and says that there are none."""

    def events(self, ref, row, *, after, limit):
        try:
            return super().events(ref, row, after=after, limit=limit)
        except Shelved:
            return []


class CallsThemLost(MemoryDatabase):
    """Removes the events, and says that they are damaged."""

    def events(self, ref, row, *, after, limit):
        try:
            return super().events(ref, row, after=after, limit=limit)
        except Shelved as error:
            raise Unreadable(str(error)) from error


class ShelvesWhatRuns(MemoryDatabase):
    """Does not look what the session is doing."""

    def shelve(self, ref, shelf, *, head, epoch):
        row = self.rows.get(ref)
        if row is None or (row.head, row.epoch) != (head, epoch) or row.shelf is not None:
            return False
        row.shelf, row.events = shelf, {}
        return True


class ShelvesUnderAnyEpoch(MemoryDatabase):
    """Does not look who has fenced it off."""

    def shelve(self, ref, shelf, *, head, epoch):
        row = self.rows.get(ref)
        return row is not None and super().shelve(ref, shelf, head=head, epoch=row.epoch)


class ShelvesAtAnyHead(MemoryDatabase):
    """Does not look what was written since."""

    def shelve(self, ref, shelf, *, head, epoch):
        row = self.rows.get(ref)
        return row is not None and super().shelve(ref, shelf, head=row.head, epoch=epoch)


class ReplacesTheShelf(MemoryDatabase):
    """The second one wins, and what the first one has is lost."""

    def shelve(self, ref, shelf, *, head, epoch):
        row = self.rows.get(ref)
        if row is not None and row.shelf is not None:
            row.shelf = shelf
            return True
        return super().shelve(ref, shelf, head=head, epoch=epoch)


class TakesAnyShelfBack(MemoryDatabase):
    """Does not look whether it is that shelf."""

    def unshelve(self, ref, shelf, events):
        row = self.rows.get(ref)
        if row is not None:
            super().unshelve(ref, row.shelf or b"", events)


class KeepsTheShelf(MemoryDatabase):
    """Puts the events back and goes on saying that they are elsewhere."""

    def unshelve(self, ref, shelf, events):
        super().unshelve(ref, shelf, events)
        if ref in self.rows and not self.rows[ref].deleted:
            self.rows[ref].shelf = shelf


class LosesTheShelfWithAWrite(MemoryDatabase):
    """A later commit writes the row without it."""

    def _write(self, ref, row, write, now):
        super()._write(ref, row, write, now)
        self.rows[ref].shelf = None


class AsksForTheDeleted(MemoryDatabase):
    """Wants a deleted session's archive."""

    def events(self, ref, row, *, after, limit):
        if row.shelf is not None and after == 0:
            raise Shelved(ref.tenant, ref.id, row.shelf)
        return super().events(ref, row, after=after, limit=limit)


class GivesUpWhatIsElsewhere(MemoryDatabase):
    """A claim that comes past an archive stops."""

    def claim(self, owner, *, limit, chances=1):
        for ref, row in self.rows.items():
            if row.shelf is not None:
                self.session(ref, row)
        return super().claim(owner, limit=limit, chances=chances)


class TellsNobody(MemoryDatabase):
    """A walk does not say what is archived."""

    def walk(self, after, limit):
        return [self.session(ref, self.rows[ref]) for ref in self.rows][:limit]


WRONG: dict[type[MemoryDatabase], Any] = {
    ForgetsWhereTheyAre: ShelfCases.test_what_is_shelved_is_asked_for_and_never_missed,
    CallsThemLost: ShelfCases.test_what_is_shelved_is_asked_for_and_never_missed,
    ShelvesWhatRuns: ShelfCases.test_only_an_idle_session_that_stands_there_is_shelved,
    ShelvesUnderAnyEpoch: ShelfCases.test_only_an_idle_session_that_stands_there_is_shelved,
    ShelvesAtAnyHead: ShelfCases.test_only_an_idle_session_that_stands_there_is_shelved,
    ReplacesTheShelf: ShelfCases.test_only_an_idle_session_that_stands_there_is_shelved,
    TakesAnyShelfBack: ShelfCases.test_a_shelf_is_brought_back_once,
    KeepsTheShelf: ShelfCases.test_what_is_lost_is_not_called_shelved,
    LosesTheShelfWithAWrite: ShelfCases.test_the_session_is_served_without_its_events,
    AsksForTheDeleted: ShelfCases.test_deleting_what_is_shelved_leaves_a_tombstone,
    GivesUpWhatIsElsewhere: ShelfCases.test_what_can_be_brought_back_is_not_given_up,
    TellsNobody: ShelfCases.test_a_walk_tells_which_are_shelved,
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_the_suite_catches(wrong: type[MemoryDatabase]):
    """Whoever breaks a promise fails the case that quotes it."""
    world = MemoryWorld(database=wrong)
    try:
        with pytest.raises(CAUGHT):
            await WRONG[wrong](None, world=world)
    finally:
        await world.close()


class ListsTheFirstPage(MemoryBlobs):
    """Does not go on behind a name."""

    async def list(self, prefix, *, after="", limit=1000):
        return await super().list(prefix, limit=limit)


class ListsByFolder(MemoryBlobs):
    """Lists whatever begins like it, up to its last word."""

    async def list(self, prefix, *, after="", limit=1000):
        return await super().list(prefix.rstrip("/"), after=after, limit=limit)


class ListsEverything(MemoryBlobs):
    """Knows no limit."""

    async def list(self, prefix, *, after="", limit=1000):
        return await super().list(prefix, after=after)


@pytest.mark.parametrize("wrong", [ListsTheFirstPage, ListsByFolder, ListsEverything])
async def test_the_suite_catches_a_wrong_list(wrong: type[MemoryBlobs]):
    """`list`: names that begin with `prefix`; those behind `after`; up to `limit`."""
    with pytest.raises(CAUGHT):
        await BlobsCases().test_what_is_below_a_prefix_is_listed(MemoryBlobsWorld(handle=wrong))
