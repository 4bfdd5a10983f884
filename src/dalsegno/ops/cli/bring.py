"""`dalsegno sessions import --from …`: conversations that other frameworks keep become sessions."""

import asyncio
import importlib
import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dalsegno.ops.config import Reach
    from dalsegno.ops.importing import Told

SOURCES = {
    ("langgraph", "sqlite"): ("langgraph_sqlite", "langgraph langgraph-checkpoint-sqlite"),
    ("langgraph", "postgresql"): ("langgraph_postgres", "langgraph langgraph-checkpoint-postgres psycopg[binary]"),
    ("openai-agents", "sqlite"): ("openai_agents", "openai-agents"),
    ("openai-agents", "postgresql"): ("openai_agents_postgres", "openai-agents psycopg[binary]"),
}
"""Framework and scheme → the module that reads it, and what it needs."""
FRAMEWORKS = sorted({framework for framework, _ in SOURCES})


def bring(framework: str, url: str, reach: "Reach", *, lines: str) -> int:
    """Import everything that is there; the exit code. `lines`: `json`, or a text for people."""
    tally = asyncio.run(_bring(framework, url, reach))
    for one in tally:
        if lines == "json":
            click.echo(json.dumps({name: getattr(one, name) for name in one.__struct_fields__}, ensure_ascii=False))
    if lines != "json":
        click.echo(_summary(tally))
    return 1 if any(one.wrong or one.what == "failed" for one in tally) else 0


async def _bring(framework: str, url: str, reach: "Reach") -> list["Told"]:
    from dalsegno.errors import ConfigError
    from dalsegno.ops.importing import bring_over
    from dalsegno.ops.store import open_store

    if not reach.warm:
        raise ConfigError("say which store the sessions are to live in: --warm URL")
    tally: list[Told] = []

    def told(one: "Told") -> None:
        tally.append(one)
        for line in one.wrong:
            click.echo(f"{one.name}: {line}", err=True)
        if sys.stderr.isatty():
            click.echo(f"\r{len(tally)} conversations, {sum(one.added for one in tally)} items", nl=False, err=True)

    with ExitStack() as stack:
        source = stack.enter_context(_reader(framework, url).opened(url))
        async with open_store(reach.warm, tenant=reach.tenant, cold=reach.cold) as store:
            await bring_over(source, store, told=told)
    if sys.stderr.isatty():
        click.echo(err=True)
    return tally


def _reader(framework: str, url: str) -> Any:
    from dalsegno.errors import ConfigError

    scheme = url.partition(":")[0].lower()
    scheme = "postgresql" if scheme == "postgres" else scheme
    if (framework, scheme) not in SOURCES:
        raise ConfigError(f"what {framework} keeps is read from sqlite:///file.db or postgresql://…, not {scheme!r}")
    module, needs = SOURCES[framework, scheme]
    try:
        return importlib.import_module(f"dalsegno.ops.foreign.{module}")
    except ImportError as error:
        raise ConfigError(f"to read it: pip install {needs} ({error.name} is missing)") from error


def _summary(tally: list["Told"]) -> str:
    count = {what: sum(one.what == what for one in tally) for what in ("imported", "there", "failed")}
    wrong = sum(len(one.wrong) for one in tally if one.what != "failed")
    text = (
        f"sessions: {count['imported']} imported ({sum(one.added for one in tally)} items), "
        f"{count['there']} here already, {count['failed']} failed"
    )
    return f"{text}; not understood: {wrong}, see the lines above" if wrong else text
