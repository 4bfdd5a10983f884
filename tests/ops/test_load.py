"""TARGET: found, recognised, or refused with what to do."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalsegno.errors import ConfigError
from dalsegno.ops.load import ADAPTERS, Adapter, load

SOURCE = """
import functools

from dalsegno import tool

@tool()
async def refund(order: str): ...
async def answer(turn): ...
async def _hidden(turn): ...
def plain(turn): ...
async def stream(turn):
    yield 1
async def none(): ...
async def two(turn, more): ...
async def optional(turn, more=1): ...
given = functools.partial(two, more=1)
class Agent:
    async def __call__(self, turn): ...
    async def method(self, turn): ...
thing = Agent()
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an agent in a file; what is imported in a test is forgotten after it."""
    (tmp_path / "agent_under_test.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("place", ["agent_under_test", "agent_under_test.py", "./agent_under_test.py"])
@pytest.mark.parametrize("attribute", ["answer", "thing", "thing.method", "given", "optional"])
async def test_an_async_function_is_an_agent(folder: Path, place: str, attribute: str):
    """By module or by file; objects that are called like one count, too."""
    agent = load(f"{place}:{attribute}", name="mine", folder=folder)
    assert agent.name == "mine"
    await agent.run(object())


def test_a_file_may_import_its_neighbours(folder: Path):
    """As a script may."""
    (folder / "sub").mkdir()
    (folder / "sub" / "neighbour.py").write_text("async def there(turn): ...")
    (folder / "sub" / "main.py").write_text("from neighbour import there")
    load("sub/main.py:there", folder=folder)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("agent_under_test.py", r"names no function.*perhaps agent_under_test.py:answer"),
        ("", "module:attr"),
        ("agent_under_test.py:", "names no function"),
        ("agent_under_tset.py:answer", "did you mean .*agent_under_test.py"),
        ("nowhere.py:answer", "there is no file nowhere.py"),
        ("agent_under_tst:answer", "did you mean 'agent_under_test'"),
        (".agent_under_test:answer", "is no module's name"),
        ("agent_under_test.py:anwser", "did you mean 'answer'"),
        ("agent_under_test.py:zzz", "there is answer, none, optional"),
        ("agent_under_test.py:plain", "not async: write `async def plain.*if it makes an agent, name what it makes"),
        ("agent_under_test.py:refund", "is a tool: name the agent that has it"),
        ("agent_under_test.py:stream", "yields"),
        ("agent_under_test.py:none", "called with the turn and nothing else"),
        ("agent_under_test.py:two", "called with the turn and nothing else"),
        ("agent_under_test.py:number", "a int value and no agent: an agent is a plain"),
        ("agent_under_test.py:Agent", "the class Agent and no agent"),
    ],
)
def test_what_is_no_agent_is_refused_with_what_to_do(folder: Path, target: str, says: str):
    """One line that names what was looked for and what there is."""
    with pytest.raises(ConfigError, match=says) as refused:
        load(target, folder=folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.package)
def test_a_framework_without_its_extra_is_named(folder: Path, adapter: Adapter, monkeypatch: pytest.MonkeyPatch):
    """An agent is known by where its class comes from, also one derived from it; what is missing is said."""
    monkeypatch.setitem(sys.modules, adapter.module, None)
    (folder / "bot.py").write_text(
        f"Theirs = type('Agent', (), {{'__module__': '{adapter.package}.inside'}})\n"
        "class Mine(Theirs): ...\n"
        "theirs, mine = Theirs(), Mine()\n"
    )
    for attribute in ("theirs", "mine"):
        with pytest.raises(ConfigError, match=f"{adapter.what}.*pip install 'dalsegno.{adapter.extra}.'"):
            load(f"bot.py:{attribute}", folder=folder)


def test_a_framework_s_object_that_cannot_be_served_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The adapter's own sentence, with the target in front of it."""

    def adapt(found: object, *, name: str) -> None:
        raise TypeError("a graph has to be compiled first")

    module = types.ModuleType(ADAPTERS[0].module)
    vars(module).update(adapt=adapt)
    monkeypatch.setitem(sys.modules, ADAPTERS[0].module, module)
    (folder / "bot.py").write_text(f"bot = type('Agent', (), {{'__module__': '{ADAPTERS[0].package}'}})()")
    with pytest.raises(ConfigError, match=r"bot.py:bot: a graph has to be compiled first"):
        load("bot.py:bot", folder=folder)


def test_a_package_of_one_s_own_may_have_an_sdk_s_name(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """`agents` is a usual name for where agents are."""
    for name in [name for name in sys.modules if f"{name}.".startswith("agents.")]:
        monkeypatch.delitem(sys.modules, name)
    (folder / "agents").mkdir()
    (folder / "agents" / "__init__.py").write_text("")
    (folder / "agents" / "support.py").write_text(
        "class Agent:\n    async def __call__(self, turn): ...\nbot = Agent()"
    )
    assert load("agents.support:bot", name="mine", folder=folder).name == "mine"


def test_agents_of_the_sdks_are_suggested(folder: Path):
    """And what else of them is in a module is not, and no tool of ours."""
    (folder / "theirs.py").write_text(
        "from agents import Agent, ModelSettings, Runner, function_tool\n"
        "from langgraph.graph import START, MessagesState, StateGraph\n"
        "import pydantic_ai\n"
        "from dalsegno import tool\n"
        "@tool()\n"
        "async def refund(order: str): ...\n"
        "settings, refunding = ModelSettings(), function_tool(refund)\n"
        "triage, shop = Agent('Triage'), pydantic_ai.Agent()\n"
        "graph = StateGraph(MessagesState).add_node('a', lambda state: {}).add_edge(START, 'a').compile()\n"
    )
    with pytest.raises(ConfigError, match=r"has no 'zzz'; there is graph, shop, triage$"):
        load("theirs.py:zzz", folder=folder)


def test_a_broken_file_is_told_from_a_missing_one(folder: Path):
    """A syntax error names its line; a missing import names the import, not the file."""
    (folder / "broken.py").write_text("x = = 1")
    with pytest.raises(ConfigError, match=r"broken.py:1: invalid syntax"):
        load("broken.py:x", folder=folder)
    (folder / "lacking.py").write_text("import not_installed_anywhere")
    for target in ("lacking.py:x", "lacking:x"):
        with pytest.raises(ConfigError, match="imports 'not_installed_anywhere', which is not installed"):
            load(target, folder=folder)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import sys\nsys.exit(3)", "ends the process while it is imported: put that under `if __name__"),
        ("from agent_under_test import nothing", "cannot import name 'nothing' from 'agent_under_test'"),
        ("x = '\0'", "null bytes"),
    ],
)
def test_what_an_operator_can_mend_is_said_in_a_line(folder: Path, source: str, says: str):
    """By the name that was given."""
    (folder / "unfit.py").write_text(source)
    for target in ("unfit.py:x", "unfit:x"):
        with pytest.raises(ConfigError, match=says) as refused:
            load(target, folder=folder)
        assert "None" not in str(refused.value)


def test_what_the_module_raises_is_its_author_s(folder: Path):
    """Its own error and traceback come through."""
    (folder / "raising.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load("raising.py:x", folder=folder)
