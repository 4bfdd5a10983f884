"""The other commands as processes: help, completion, doctor, migrate."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import psycopg
import pytest

from dalsegno.ops.cli import main
from dalsegno.ops.config import Config, settings
from dalsegno.ops.version import VERSION
from dalsegno.testing.servers.objects import BUCKET, objects
from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.process import free_port
from tests.ops.processes import SOURCE, environment, run

ROOT = Path(__file__).resolve().parent.parent.parent


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that name it."""
    for name, found in group.commands.items():
        yield " ".join((*path, name)), found
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)


EVERY = dict(commands(main))


@pytest.mark.parametrize("name", EVERY)
def test_every_command_teaches(name: str):
    """A one-line summary that fits, a longer text, and an example that begins with `dalsegno`."""
    command = EVERY[name]
    assert len(command.get_short_help_str(limit=1000)) <= 60
    assert command.help is not None and ("dalsegno " + name.split()[0]) in command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


async def test_help_lists_every_setting_with_its_variable(tmp_path: Path):
    """`serve --help` and `Config` cannot disagree."""
    done = await run("serve", "--help", cwd=tmp_path)
    words = done.out.split()
    for setting in settings(Config):
        assert setting.flag in words and any(setting.variable in word for word in words)


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["serve", "--help"], ["sessions", "list", "--help"], ["--version"]]
)
async def test_asking_for_help_is_no_failure(tmp_path: Path, words: list[str]):
    """Exit code 0, on stdout."""
    done = await run(*words, cwd=tmp_path)
    assert done.code == 0 and done.out and not done.err


@pytest.mark.parametrize("words", [["--help"], ["sessions", "--help"]])
async def test_a_list_of_commands_fits_the_screen(tmp_path: Path, words: list[str]):
    """Nothing is cut off on eighty columns."""
    done = await run(*words, cwd=tmp_path, variables={"COLUMNS": "80"})
    assert "..." not in done.out.partition("Commands:")[2]


async def test_help_loads_no_server(tmp_path: Path):
    """So that it answers at once."""
    code = "import sys; from dalsegno.ops.cli import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    for heavy in ("uvicorn", "starlette", "prometheus_client", "rich", "httpx2"):
        assert f"'{heavy}'" not in done.stdout, heavy


@pytest.mark.parametrize("words", [["nonsense"], ["serve"], ["completion", "cmd"], ["migrate", "--phase", "mid"]])
async def test_asking_wrongly_is_exit_code_2(tmp_path: Path, words: list[str]):
    """With what would have been right."""
    done = await run(*words, cwd=tmp_path)
    assert done.code == 2 and done.err and not done.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_a_script(tmp_path: Path, shell: str):
    """For each shell; it asks the command itself."""
    done = await run("completion", shell, cwd=tmp_path)
    assert done.code == 0 and "_DALSEGNO_COMPLETE" in done.out


async def test_doctor_finds_an_embedded_store_healthy(tmp_path: Path):
    """Each tier, versions, clock and conditional writes; exit code 0."""
    done = await run("doctor", "--json", cwd=tmp_path)
    findings = {line["what"]: line for line in map(json.loads, done.out.splitlines())}
    assert done.code == 0 and {finding["state"] for finding in findings.values()} == {"ok"}
    for what in ("versions", "API keys", "warm", "create if absent", "conditional writes", "clock", "hot", "cold"):
        assert what in findings
    assert "1 of 8" in findings["create if absent"]["detail"]
    assert "SQLite" in findings["warm"]["detail"]
    table = await run("doctor", cwd=tmp_path)
    assert table.code == 0 and "create if absent" in table.out
    assert (
        "doctor" not in (await run("sessions", "list", "--warm", "sqlite:///.dalsegno/sessions.db", cwd=tmp_path)).out
    )


@pytest.mark.parametrize(("given", "worst"), [([], "ok"), (["--warm", "sqlite:///sesions/x.db"], "degraded")])
async def test_doctor_makes_nothing(tmp_path: Path, given: list[str], worst: str):
    """A path that is mistyped is told, and leaves nothing on the disk; and what can be examined there is."""
    done = await run("doctor", "--json", *given, cwd=tmp_path)
    findings = [json.loads(line) for line in done.out.splitlines()]
    told = {finding["state"] for finding in findings if "is not there yet" in finding["detail"]}
    assert (done.code, min(told), list(tmp_path.iterdir())) == (0, worst, [])
    assert "create if absent" in {finding["what"] for finding in findings} and "doctor-" not in done.out


@pytest.mark.parametrize(
    ("arguments", "what", "state", "code"),
    [
        (["--warm", "nosql://me:secret@x"], "warm", "wrong", 1),
        (["--hot", "nosql://me:secret@x"], "hot", "degraded", 0),
        (["--cold", "file:///proc/nowhere"], "cold", "wrong", 1),
        (["--host", "0.0.0.0"], "API keys", "wrong", 1),
        (["--host", "0.0.0.0", "--insecure"], "API keys", "degraded", 0),
    ],
)
async def test_doctor_names_what_is_wrong(tmp_path: Path, arguments: list[str], what: str, state: str, code: int):
    """A lost hot tier is degraded: nothing is lost by it. Anything else that fails is wrong, and exit code 1."""
    done = await run("doctor", "--json", *arguments, cwd=tmp_path)
    findings = {line["what"]: line["state"] for line in map(json.loads, done.out.splitlines())}
    assert (findings[what], done.code) == (state, code)
    assert "secret" not in done.out + done.err


async def test_doctor_asks_object_storage_whether_it_means_its_conditions(tmp_path: Path):
    """Servers that call themselves S3 say yes to two creations of one object. (This one, an emulator, does not.)"""
    folder = tmp_path / "server"
    folder.mkdir()
    with objects(folder) as server:
        done = await run("doctor", "--json", "--cold", f"s3://{BUCKET}/x", cwd=tmp_path, variables=server.environment)
    findings = {line["what"]: line["state"] for line in map(json.loads, done.out.splitlines())}
    assert (findings["cold"], findings["cold conditions"], done.code) == ("ok", "ok", 0)


@pytest.mark.parametrize("phase", [[], ["--phase", "pre"], ["--phase", "post"]])
async def test_migrate_may_be_run_at_any_time(tmp_path: Path, phase: list[str]):
    """Again and again, on a store that is there or not yet."""
    for _ in range(2):
        done = await run("migrate", *phase, cwd=tmp_path)
        assert done.code == 0 and "sessions.db" in done.out


async def test_migrate_prepares_a_database(tmp_path: Path, database: str):
    """The second phase has nothing to do yet; the first makes the schema; both together change nothing more."""
    made: list[bool] = []
    with psycopg.connect(database, autocommit=True) as raw:
        for phase in (["--phase", "post"], ["--phase", "pre"], ["--phase", "post"], []):
            done = await run("migrate", *phase, "--warm", database, cwd=tmp_path)
            assert done.code == 0 and done.out.count("\n") == 1 and not done.err
            found = raw.execute("SELECT FROM pg_class WHERE relname = 'dalsegno_session'").fetchall()
            made.append(bool(found))
    assert made == [False, True, True, True]


@pytest.mark.parametrize("phase", ["pre", "post"])
async def test_migrate_says_in_a_line_what_it_cannot_reach(tmp_path: Path, server: Postgres, phase: str):
    """Nobody there, or no such database; without the password."""
    for there, told in ((f"127.0.0.1:{free_port()}/x", "cannot be reached"), (f"127.0.0.1:{server.port}/x", "exist")):
        url = f"postgresql://postgres:open-sesame@{there}"
        done = await run("migrate", "--phase", phase, "--warm", url, cwd=tmp_path)
        assert done.code == 1 and told in done.err and done.err.count("\n") == 1
        assert "open-sesame" not in done.out + done.err


def test_the_version_is_the_package_s():
    """One number for the package, the command and the project."""
    import dalsegno

    assert dalsegno.__version__ == VERSION
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_the_front_door_opens_quickly():
    """`import dalsegno` brings every public name, nothing that serves, and no framework."""
    code = (
        "import sys, dalsegno\n"
        "assert all(hasattr(dalsegno, name) for name in dalsegno.__all__)\n"
        "heavy = {'uvicorn', 'starlette', 'prometheus_client', 'rich', 'click', 'httpx2', 'sqlite3', 'httptools'}\n"
        "heavy |= {'pydantic', 'pydantic_ai', 'openai', 'anthropic', 'agents', 'langchain_core', 'langgraph', 'mcp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    env = {**environment(), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
