"""Which tiers a configuration means."""

from pathlib import Path

import pytest

from dalsegno.ops.config import Config
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import opened, places


def test_nothing_given_is_a_file_and_a_folder_here(tmp_path: Path):
    """Embedded: `.dalsegno/` of the current directory, and the operator is told."""
    where = places(Config(), folder=tmp_path)
    assert where.warm == f"sqlite:///{tmp_path}/.dalsegno/sessions.db" == where.hot
    assert where.cold == f"file://{tmp_path}/.dalsegno/sessions.db-cold"
    assert str(tmp_path) in where.notes[0]


@pytest.mark.parametrize(
    ("warm", "hot", "cold", "wanted"),
    [
        ("memory:", "", "", ("memory:", "memory:", "memory:")),
        ("sqlite:////a/b.db", "", "", ("sqlite:////a/b.db", "sqlite:////a/b.db", "file:///a/b.db-cold")),
        ("sqlite:////a/b.db", "memory:", "memory:", ("sqlite:////a/b.db", "memory:", "memory:")),
    ],
)
def test_what_is_not_given_stays_with_the_sessions(warm: str, hot: str, cold: str, wanted: tuple[str, str, str]):
    """The hot tier is the warm one's own, the cold one is beside it; nothing is said about what was chosen."""
    where = places(Config(warm=warm, cold=cold), hot=hot)
    assert (where.warm, where.hot, where.cold) == wanted and not where.notes


def test_a_cold_tier_on_one_machine_is_mentioned(tmp_path: Path):
    """With a database that several machines share, a folder of this one is a trap."""
    assert "needs --cold" in places(Config(warm="postgresql://db/x"), folder=tmp_path).notes[0]


async def test_folders_with_strange_names_work(tmp_path: Path):
    """Spaces, percent signs and letters of any script."""
    folder = tmp_path / "a b%20c 𝄋?#"
    folder.mkdir()
    async with opened(places(Config(), folder=folder)) as tiers:
        assert not await tiers.warm.members()
    assert (folder / ".dalsegno" / "sessions.db").is_file()


def test_ids_are_uuid7_and_never_repeat():
    """Version 7, variant RFC 9562, in the order of time."""
    ids = RandomIds()
    made = [ids.session() for _ in range(1000)]
    assert len(set(made)) == 1000 and len({ids.incarnation() for _ in range(1000)}) == 1000
    assert all(name[14] == "7" and name[19] in "89ab" for name in made)
    assert [name[:13] for name in made] == sorted(name[:13] for name in made)
