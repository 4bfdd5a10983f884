"""The tutorial is true: its files are written, its commands are typed, and what it shows is what comes."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dalsegno
from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.process import free_port
from tests.docs.pages import DOCS, ROOT, Block, blocks
from tests.docs.shell import Shell, commands

PAGES = [DOCS / "tutorial" / "README.md"]
STEPS = (
    "keep-sessions-outside-your-agent",
    "keep-langgraph-checkpoints-in-dalsegno",
    "make-tools-idempotent",
    "resume-a-long-job",
    "import-from-langgraph-or-openai-agents",
    "undo-effects-when-a-turn-fails",
)
PAGES_OF_FRAMEWORKS = ("serve-a-pydantic-ai-agent", "serve-an-openai-agents-sdk-agent", "serve-a-langgraph-graph")
PORTS = ("8001", "8002")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in an empty folder, where `dalsegno` and `python` are those that run this test."""
    if shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("needs bash and curl")
    commands_folder = tmp_path / ".bin"
    commands_folder.mkdir()
    for name, line in (("python", sys.executable), ("dalsegno", f"{sys.executable} -m dalsegno")):
        script = commands_folder / name
        script.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        script.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DALSEGNO_")}
    environment["PATH"] = f"{commands_folder}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(Path(dalsegno.__file__).parents[1])
    environment["COLUMNS"] = "200"
    shell = Shell(tmp_path, environment)
    yield shell
    shell.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_newcomer_can_follow_the_tutorial_word_for_word(page: Path, shell: Shell, tmp_path: Path) -> None:
    """Every file of the page is saved and every command typed, and each prints what the page says."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    for block in blocks(page):
        if block.marker == "not run":
            continue
        if block.marker.startswith("file: "):
            (tmp_path / block.marker.removeprefix("file: ")).write_text(_moved(block.text, ports), "utf-8")
        elif block.kind == "console":
            _type(block, shell, ports)


def test_a_fleet_moves_to_another_store_as_it_is_written(shell: Shell, tmp_path: Path, server: Postgres) -> None:
    """The same of the how-to, on a PostgreSQL of our own."""
    places = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    places["postgresql://dalsegno@db.internal/agents"] = database = server.database()
    try:
        for block in blocks(DOCS / "how-to" / "move-to-another-store.md"):
            if block.marker.startswith("file: "):
                (tmp_path / block.marker.removeprefix("file: ")).write_text(block.text, "utf-8")
            elif block.kind == "console":
                _type(block, shell, places)
    finally:
        server.drop(database)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_migration_is_as_it_is_written(step: str, shell: Shell, tmp_path: Path) -> None:
    """Each is useful by itself, in an empty folder."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    for block in blocks(DOCS / "how-to" / f"{step}.md"):
        if block.marker.startswith("file: "):
            (tmp_path / block.marker.removeprefix("file: ")).write_text(block.text, "utf-8")
        elif block.kind == "console":
            _type(block, shell, ports)


def test_an_agent_is_tested_as_it_is_written(shell: Shell, tmp_path: Path) -> None:
    """The how-to's agent and its test are saved, and pytest is run on them."""
    for block in blocks(DOCS / "how-to" / "test-your-agent.md"):
        if block.marker.startswith("file: "):
            (tmp_path / block.marker.removeprefix("file: ")).write_text(block.text, "utf-8")
        elif block.marker == "run":
            _type(block, shell, {})


@pytest.mark.parametrize("page", PAGES_OF_FRAMEWORKS)
def test_an_agent_of_a_framework_is_served_as_it_is_written(page: str, shell: Shell, tmp_path: Path) -> None:
    """The how-to's files are saved; its fleet answers through the scripted model, and its store keeps a session."""
    places = dict(zip(("8001", "9000"), _free_ports(2), strict=True))
    for block in blocks(DOCS / "how-to" / f"{page}.md"):
        if block.marker.startswith("file: "):
            (tmp_path / block.marker.removeprefix("file: ")).write_text(block.text, "utf-8")
        elif block.marker == "run":
            _type(block, shell, places)


def test_the_retail_example_is_as_its_page_says(shell: Shell, tmp_path: Path) -> None:
    """The shop, the scripted model and three replicas start; one is killed; the order is changed once."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    places = dict(zip(("8000", "8100", "8200"), _free_ports(3), strict=True))
    shell.run(f"cd examples; export DALSEGNO_URL=http://127.0.0.1:{places['8000']}", [], place="examples")
    for block in blocks(ROOT / "examples" / "retail" / "README.md"):
        if block.kind == "console" and block.marker != "not run":
            _type(block, shell, places)


def _type(block: Block, shell: Shell, ports: dict[str, str]) -> None:
    for command, wanted in commands(_moved(block.text, ports)):
        shell.run(command, wanted, place=block.place)


def _moved(text: str, ports: dict[str, str]) -> str:
    """The same with ports that are free here."""
    return re.sub("|".join(map(re.escape, ports)), lambda port: ports[port[0]], text) if ports else text


def _free_ports(count: int) -> list[str]:
    found = set[int]()
    while len(found) < count:
        found.add(free_port())
    return list(map(str, found))
