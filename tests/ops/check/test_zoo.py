"""Every habit of keeping something in a process is caught and named; harmless ones are not. Real processes."""

import textwrap
from pathlib import Path

import pytest

from dalsegno.ops.check.conduct import Plan, conduct
from dalsegno.ops.check.report import Report, report
from dalsegno.ops.check.script import from_words
from tests.docs.pages import ROOT
from tests.ops.check.zoo import CLEAN, HIDDEN, LEFT, PATHS
from tests.ops.processes import FORKING, workers

TWO = ("hello", "there")


async def checked(folder: Path, agent: str, *said: str, **more) -> Report:
    """The report on an agent of that text, after a conversation."""
    (folder / "agent.py").write_text(textwrap.dedent(agent))
    return await checked_target("agent.py:answer", folder, *said, **more)


async def checked_target(target: str, folder: Path, *said: str, **more) -> Report:
    return report(await conduct(Plan(target, folder, from_words(said), **more), lambda words: None))


@pytest.mark.parametrize("what", HIDDEN)
async def test_what_a_process_keeps_is_caught_and_named(tmp_path: Path, what: str):
    """The turn that another process would play differently, and the name of what it would not have."""
    name, agent = HIDDEN[what]
    found = await checked(tmp_path, agent, *TWO[: 1 if "step" in what or "database" in what else 2])
    assert not found.clean and found.troubles[0].diff
    assert any(name in held.name for held in found.held), found


@pytest.mark.parametrize("what", PATHS)
async def test_a_path_that_a_replay_does_not_find_again_is_caught(tmp_path: Path, what: str):
    """With the steps that are on record and were not asked for again; also if that never ends."""
    name, agent = PATHS[what]
    found = await checked(tmp_path, agent, "hello")
    assert not found.clean and found.troubles[0].kind == "path"
    assert name in found.troubles[0].words + "".join(found.troubles[0].diff)


@pytest.mark.parametrize("kind", LEFT)
async def test_what_is_left_running_is_caught_and_named(tmp_path: Path, kind: str):
    """With the line of the function that runs."""
    name, agent = LEFT[kind]
    found = await checked(tmp_path, agent, "hello", stop="turn")
    assert [trouble.kind for trouble in found.troubles] == [kind]
    assert name in found.troubles[0].name and "agent.py:" in found.troubles[0].words


@pytest.mark.parametrize("what", CLEAN)
async def test_a_clean_agent_passes(tmp_path: Path, what: str):
    """Counters, caches, log files, clients that are made late, chance in a step, waiting for a human: no fault."""
    found = await checked(tmp_path, CLEAN[what], "hello")
    assert found.clean, found
    assert found.compared.outputs >= 2 and found.compared.processes >= 3 + 2


async def test_a_play_ends_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also if a worker that the agent forked holds open what the process was listened to by."""
    with workers(tmp_path / "workers") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        (folder := tmp_path / "agent").mkdir()
        found = await checked(folder, FORKING, "hello", stop="turn")
    assert found.compared.outputs == 1


async def test_what_changed_without_consequence_is_a_note(tmp_path: Path):
    """Each thing by name, and that nothing depended on it."""
    found = await checked(tmp_path, CLEAN["a loop that counts, logs and caches"], *TWO, stop="turn")
    notes = "\n".join(found.notes)
    assert found.clean
    for name in ("agent.asked changed (0 → 4)", "agent.client", "agent.compiled", "asked.log was written"):
        assert name in notes
    assert "agent.weather" not in notes and "agent.log " not in notes


async def test_the_examples_are_clean():
    """What we show keeps nothing."""
    found = await checked_target("hello.py:hello", ROOT / "examples", *TWO)
    assert found.clean and found.compared.outputs == 2


async def test_the_folder_is_not_touched(tmp_path: Path):
    """Plays take place on a copy: a file that the agent writes or removes is as it was."""
    (tmp_path / "kept.txt").write_text("as it was")
    agent = """
        from pathlib import Path

        async def answer(turn):
            known = Path("kept.txt").read_text()
            Path("kept.txt").unlink()
            Path("made.txt").write_text("new")
            Path(__file__).with_name("beside.txt").write_text("new")
            await turn.say(known)
    """
    await checked(tmp_path, agent, "hello", stop="turn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.py", "kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "as it was"


async def test_effects_are_not_done_twice(tmp_path: Path):
    """A tool that changes the world runs in the first play only; with `effects="run"` in every play."""
    outside = tmp_path / "world"
    outside.mkdir()
    (tmp_path / "project").mkdir()
    agent = f"""
        import os
        from pathlib import Path
        from dalsegno import tool

        @tool("once")
        async def mail(to: str) -> str:
            Path({str(outside)!r}, os.urandom(8).hex()).touch()
            return "sent"

        async def answer(turn):
            await turn.say(await turn.call(mail, to="ada"))
    """
    found = await checked(tmp_path / "project", agent, "hello")
    assert found.clean and any("mail" in note for note in found.notes)
    assert len(list(outside.iterdir())) == 1
    await checked(tmp_path / "project", agent, "hello", stop="turn", effects="run")
    assert len(list(outside.iterdir())) == 1 + 4


async def test_a_turn_that_ends_otherwise_does_not_pass(tmp_path: Path):
    """Whatever the reason: after the first play nothing of that turn was compared."""
    outside = tmp_path / "world"
    (tmp_path / "project").mkdir()
    agent = f"""
        from pathlib import Path

        async def answer(turn):
            Path({str(outside)!r}).mkdir()
            await turn.say("made")
    """
    found = await checked(tmp_path / "project", agent, "hello", stop="turn")
    assert not found.clean and found.troubles[0].kind == "end"
    assert "FileExistsError" in "".join(found.troubles[0].diff)
