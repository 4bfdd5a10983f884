"""The comparison's own machinery, without the network: drivers as processes, verdicts, the page."""

import sys
from pathlib import Path

import pytest

from bench.peers.harness import Driver, DriverError, driver, stores
from bench.peers.measure import QUICK, Comparison, compare
from bench.peers.report import load, page, picture, save
from bench.peers.roster import OURS, RAW, ROSTER
from bench.peers.verdict import judge, unmixed

WHOLE = [("u", "x0"), ("c", "x0"), ("r", "x0"), ("a", "x0")]


def test_a_turn_that_was_reported_as_done_and_is_not_there_is_lost() -> None:
    """Not refused, since nobody was told; and a turn that is there twice is not whole."""
    found = judge(WHOLE, {"x0": "", "x1": ""})
    assert (found.whole, found.refused, found.lost) == (1, 0, 1)
    assert judge([*WHOLE, *WHOLE], {"x0": ""}).lost == 1


def test_an_error_refuses_a_turn_only_if_nothing_of_it_is_left() -> None:
    """Else it is half of one; and one that is there in spite of its error is whole."""
    history = [*WHOLE, ("u", "x1")]
    found = judge(history, {"x0": "Stale: no", "x1": "Stale: no", "x2": "Stale: no"})
    assert (found.whole, found.half, found.refused, found.lost) == (1, 1, 1, 0)
    assert found.errors == ("Stale",)


def test_turns_are_mixed_when_their_steps_are() -> None:
    """Messages may wait in front of somebody else's turn; calls, results and answers may not lie between each other."""
    other = [(kind, "x1") for kind, _ in WHOLE]
    queued = [WHOLE[0], other[0], *WHOLE[1:], *other[1:]]
    assert unmixed(queued, "x0") and unmixed(queued, "x1")
    mixed = [*WHOLE[:2], *other[:2], *WHOLE[2:], *other[2:]]
    assert not unmixed(mixed, "x0")
    assert judge(mixed, {"x0": "", "x1": ""}).unmixed == 0


pytestmark = pytest.mark.xdist_group("peers")
"""One process measures; the others have enough to do."""


@pytest.fixture(scope="module")
async def comparison() -> Comparison:
    """A run that is too short for its times to say anything."""
    return await compare((OURS, RAW), QUICK)


async def test_the_harness_measures_whom_it_is_given(comparison: Comparison) -> None:
    """Every cell of a row is there, and the limit is the limit."""
    ours, raw = comparison.rows
    for row in (ours, raw):
        assert set(row.ms) == {1, *QUICK.turns} and all(row.ms.values())
        assert set(row.rates) == set(QUICK.sessions) and all(row.rates.values())
    assert ours.versions.keys() == {"dalsegno"} and raw.versions.keys() == {"psycopg"}


async def test_two_writers_are_two_processes(comparison: Comparison) -> None:
    """Ours keeps every message (P1, P3); a primary key refuses what is late, and loses nothing in silence."""
    ours, raw = (row.writers for row in comparison.rows)
    assert (ours.whole, ours.unmixed) == (QUICK.writers, QUICK.writers)
    assert raw.whole < QUICK.writers and raw.lost == 0


async def test_the_crash_is_between_the_effect_and_its_record(comparison: Comparison) -> None:
    """Another process goes on by itself and does not repeat a `once` tool (P5, P7); by hand it happens twice."""
    ours, raw = (row.crash for row in comparison.rows)
    assert ours.by == "another process, by itself"
    assert (ours.turn, ours.effects, ours.next_turn) == ("ucra", 1, True)
    assert raw.by.startswith("by hand") and raw.seen == "uc"
    assert (raw.effects, raw.calls) == (2, 2)


async def test_a_driver_that_dies_is_an_error_that_says_what_it_printed(tmp_path: Path) -> None:
    """Never a figure."""
    with stores(cache=False) as found:
        url = found.fresh("postgres")
        async with driver(RAW, url, book=f"{tmp_path}/book", dies="t1") as dying:
            assert isinstance(dying, Driver)
            with pytest.raises(DriverError, match="has died"):
                await dying.ask("turns", session="s", first=1, count=1)
            await dying.died()
        with pytest.raises(DriverError, match="OperationalError"):
            async with driver(RAW, url.replace("test", "missing")):
                pass


async def test_the_page_follows_from_the_record(comparison: Comparison, tmp_path: Path) -> None:
    """Saved and read again, it is the same run, and says the same."""
    save(comparison, tmp_path)
    assert load(tmp_path) == comparison
    assert (tmp_path / "peers.md").read_text() == page(comparison)
    assert (tmp_path / "peers.svg").read_text() == picture(comparison)


def test_every_entry_has_its_driver_and_its_pinned_requirements() -> None:
    """What is installed is what is named, in one version."""
    folder = Path(sys.modules["bench.peers.roster"].__file__ or "").parent
    for entry in ROSTER:
        assert (folder / "drivers" / f"{entry.driver}.py").exists()
        if entry.requirements is not None:
            lines = (folder / "requirements" / f"{entry.requirements}.txt").read_text().splitlines()
            assert lines and all("==" in line for line in lines)
