"""`dalsegno check` as a command: what is asked of the model, what is printed, exit codes, conversations."""

import json
import textwrap
from pathlib import Path

import pytest

from dalsegno.testing.model import ModelServer, ToolCall, by_round
from tests.ops.processes import run

PROVIDER = """
    import os

    import httpx2

    client, asked = httpx2.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"]), []

    async def ask(messages):
        answer = await client.post("/chat/completions", json={"model": "gpt-test", "messages": messages})
        return answer.json()["choices"][0]["message"]["content"]

    async def dirty(turn):
        async def model(context):
            asked.append({"role": "user", "content": turn.text})
            yield await ask(asked)
        await turn.generate(model)

    async def clean(turn):
        async def model(context):
            yield await ask([{"role": "user", "content": turn.text}])
        await turn.generate(model)
"""
PYDANTIC = """
    from dataclasses import dataclass, field

    from pydantic_ai import Agent, RunContext

    @dataclass
    class Deps:
        cities: list = field(default_factory=list)

    deps = Deps()
    agent = Agent("openai-chat:gpt-test")

    @agent.instructions
    def known() -> str:
        return f"The user asked about {len(deps.cities)} cities."

    @agent.tool_plain
    def weather(city: str) -> str:
        deps.cities.append(city)
        return "dry"
"""
ECHO = """
    async def answer(turn):
        await turn.say(f"You said {turn.text}")

    async def ask(turn):
        await turn.say(await turn.ask("Which one?"))

    async def fails(turn):
        raise ValueError("no key")

    async def silent(turn): ...
"""


def write(folder: Path, agent: str) -> None:
    (folder / "agent.py").write_text(textwrap.dedent(agent))


async def test_the_model_is_asked_in_the_first_play_only(tmp_path: Path):
    """What the provider is sent is compared byte by byte; it answers from the record after that."""
    write(tmp_path, PROVIDER)
    async with ModelServer() as model:
        talk = ("--say", "hello", "--say", "there")
        clean = await run("check", "agent.py:clean", *talk, cwd=tmp_path, variables=model.environment)
        assert clean.code == 0 and "clean" in clean.out and "2 requests" in clean.out, clean
        assert len(model.log.entries) == 2
        dirty = await run("check", "agent.py:dirty", *talk, cwd=tmp_path, variables=model.environment)
        assert dirty.code == 1 and "a provider was sent another request" in dirty.out
        assert "agent.asked" in dirty.out and "-      }," in dirty.out
        assert len(model.log.entries) == 2 + 2


async def test_state_behind_a_framework_is_found(tmp_path: Path):
    """An agent of Pydantic AI whose instructions depend on what a tool left in an object of its own."""
    write(tmp_path, PYDANTIC)
    script = by_round(ToolCall("weather", {"city": "Bern"}), "It is dry.")
    async with ModelServer(script) as model:
        done = await run(
            *("check", "agent.py:agent", "--say", "Bern?", "--say", "Rome?", "--turns-only", "--json"),
            cwd=tmp_path,
            variables=model.environment,
        )
    found = json.loads(done.out)
    assert done.code == 1, done
    assert {trouble["kind"] for trouble in found["troubles"]} == {"request"}
    assert found["held"][0]["name"] == "agent.deps"


async def test_conversations_come_from_words_files_and_sessions(tmp_path: Path):
    """A decision needs no call id; an export is played by what was said in it."""
    write(tmp_path, ECHO)
    (tmp_path / "talk.txt").write_text('# a comment\n\nhello\n{"type": "tool_result", "output": "the blue one"}\n')
    done = await run("check", "agent.py:ask", "--script", "talk.txt", "--json", cwd=tmp_path)
    assert done.code == 0 and json.loads(done.out)["compared"]["outputs"] == 1 and "refused" not in done.out
    said = {"input": {"type": "message", "content": "hi"}}
    event = {"seq": 2, "type": "turn.created", "turn": "x", "at": "x", "data": said}
    (tmp_path / "real.ndjson").write_text(f"{json.dumps(event)}\n")
    done = await run("check", "agent.py:answer", "--session", "real.ndjson", cwd=tmp_path)
    assert done.code == 0 and "1 turn in one process" in done.out


@pytest.mark.parametrize(("name", "words"), [("fails", "ValueError: no key"), ("silent", "said nothing")])
async def test_a_check_that_compared_nothing_does_not_pass(tmp_path: Path, name: str, words: str):
    """It says why."""
    write(tmp_path, ECHO)
    done = await run("check", f"agent.py:{name}", "--say", "hello", cwd=tmp_path)
    assert done.code == 1 and "nothing could be compared" in done.out and words in done.out


@pytest.mark.parametrize(
    "words",
    [
        ["agent.py:nobody"],
        ["agent.py:answer", "--say", "a", "--script", "agent.py"],
        ["agent.py:answer", "--session", "agent.py"],
        ["agent.py:answer", "--script", "missing.txt"],
    ],
)
async def test_asking_wrongly_is_exit_code_2(tmp_path: Path, words: list[str]):
    """A target that is not there, two conversations, or none."""
    write(tmp_path, ECHO)
    done = await run("check", *words, cwd=tmp_path)
    assert done.code == 2 and done.err and not done.out
