"""`dalsegno sessions …`: what an operator asks about conversations."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import IO, Any, TypeVar

import click

from dalsegno.errors import ConfigError, Refused
from dalsegno.ops.cli.bring import FRAMEWORKS, bring
from dalsegno.ops.cli.copy import copy_sessions
from dalsegno.ops.cli.options import options
from dalsegno.ops.config import Reach

T = TypeVar("T")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


@click.group(no_args_is_help=True)
@options(Reach)
@click.pass_context
def sessions(ctx: click.Context, /, **given: str | None) -> None:
    """List, show, move and delete sessions.

    The sessions are those of a server (--url, by default http://127.0.0.1:8000), or those of a warm tier that is read
    directly (--warm). The options stand before or after the command.

    \b
      dalsegno sessions list
      dalsegno sessions show 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b
      dalsegno sessions --warm sqlite:///.dalsegno/sessions.db list
    """
    ctx.obj = given


@sessions.command("list")
@options(Reach)
@as_json
@click.pass_context
def list_sessions(ctx: click.Context, /, as_json: bool, **given: str | None) -> None:
    """List sessions in order of creation.

    \b
      dalsegno sessions list --json | head
    """
    from dalsegno.ops import screen

    if as_json:
        _do(ctx, given, lambda desk: _print_each(desk.list()))
    else:
        screen.show(screen.session_table(_do(ctx, given, lambda desk: _all(desk.list()))))


@sessions.command()
@click.argument("session")
@options(Reach)
@as_json
@click.pass_context
def show(ctx: click.Context, /, session: str, as_json: bool, **given: str | None) -> None:
    """Draw a session's turns and steps as a tree.

    \b
      dalsegno sessions show 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b
    """
    from dalsegno.ops import screen

    async def both(desk: Any) -> tuple[Any, list[Any]]:
        return await desk.get(session), _events(await desk.export(session))

    found, events = _do(ctx, given, both)
    if as_json:
        _print_json({**found, "events": events})
    else:
        screen.show(screen.session_tree(found, events))


@sessions.command()
@click.argument("session")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="N", help="Only events after this number.")
@options(Reach)
@as_json
@click.pass_context
def events(ctx: click.Context, /, session: str, after: int, as_json: bool, **given: str | None) -> None:
    """List a session's events, one a line.

    \b
      dalsegno sessions events 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b --after 17
    """
    from dalsegno.ops import screen

    log = _events(_do(ctx, given, lambda desk: desk.export(session)))
    if after > len(log):
        raise Refused("cursor_ahead", f"the session's head is {len(log)}")
    found = [event for event in log if event["seq"] > after]
    if as_json:
        for event in found:
            _print_json(event)
    else:
        screen.show(screen.event_table(found))


@sessions.command()
@click.argument("session")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="A file; by default the standard output.")
@options(Reach)
@click.pass_context
def export(ctx: click.Context, /, session: str, output: IO[bytes], **given: str | None) -> None:
    """Write a session's log, as `import` takes it.

    One event's JSON a line.

    \b
      dalsegno sessions export 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b > session.ndjson
    """
    content = _do(ctx, given, lambda desk: desk.export(session))
    output.write(content)  # opened only now: what is there already is not lost to an export that fails


@sessions.command("import")
@click.argument("file", metavar="FILE|URL")
@click.option("--from", "framework", type=click.Choice(FRAMEWORKS), help="Import what this framework keeps at URL.")
@options(Reach)
@as_json
@click.pass_context
def import_session(
    ctx: click.Context, /, file: str, framework: str | None, as_json: bool, **given: str | None
) -> int | None:
    """Make sessions from an export, or of another framework's.

    FILE is an export, or - for the standard input; the new session's id is printed.

    With --from, URL is a store of LangGraph's savers or of the OpenAI Agents SDK's sessions, on SQLite or PostgreSQL,
    and --warm says where the sessions are to live. Each gets the name that it had: `store.load(thread_id)` finds it.
    The other store is only read. Done again, only what is new there is added. Exit code 1 if something could not be
    understood: it is named, and kept where it was and, if it can be, in the session, where no model is shown it.

    \b
      dalsegno sessions import session.ndjson --url http://other:8000
      dalsegno sessions import --from langgraph sqlite:///checkpoints.db --warm sqlite:///sessions.db
    """
    if framework is not None:
        return bring(framework, file, _reach(ctx, given), lines="json" if as_json else "text")
    lines = click.File("rb").convert(file, None, ctx).read()
    click.echo(_do(ctx, given, lambda desk: desk.restore(lines)))
    return None


@sessions.command()
@click.argument("session")
@click.option("--at", type=click.IntRange(min=1), metavar="N", help="The last event to take along; default: all.")
@options(Reach)
@click.pass_context
def fork(ctx: click.Context, /, session: str, at: int | None, **given: str | None) -> None:
    """Make a session that begins as a copy; print its id.

    \b
      dalsegno sessions fork 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b --at 42
    """
    click.echo(_do(ctx, given, lambda desk: desk.fork(session, at=at)))


@sessions.command()
@click.argument("session")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options(Reach)
@click.pass_context
def delete(ctx: click.Context, /, session: str, yes: bool, **given: str | None) -> None:
    """Delete a session for good.

    Its events and its artifacts go with it. Asks first when a person is at the terminal.

    \b
      dalsegno sessions delete 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b --yes
    """
    if not yes and sys.stdin.isatty() and not click.confirm(f"Delete session {session} for good?"):
        raise click.ClickException("nothing was deleted")
    _do(ctx, given, lambda desk: desk.delete(session))
    click.echo(f"deleted {session}")


@sessions.command()
@click.option("--idle", default="30d", show_default=True, metavar="DURATION", help="Only what was idle for so long.")
@options(Reach)
@as_json
@click.pass_context
def archive(ctx: click.Context, /, idle: str, as_json: bool, **given: str | None) -> int:
    """Move idle sessions to the cold tier, now.

    Works on the stores themselves, of every tenant, also while a fleet runs on them. Sessions come back when they are
    used. Objects that no session points to any more are removed.

    \b
      dalsegno sessions archive --warm postgresql://user@host/name --cold s3://bucket/prefix --idle 90d
    """
    from dalsegno.ops.units import parse_duration

    after = parse_duration(idle)

    async def walk(desk: Any) -> Any:
        tally = None
        async with aclosing(desk.archive(idle=after)) as walking:
            async for tally in walking:
                if sys.stderr.isatty():
                    click.echo(f"\r{tally.seen} sessions seen, {tally.archived} archived", nl=False, err=True)
        if sys.stderr.isatty():
            click.echo(err=True)
        return tally

    tally = _do(ctx, given, walk)
    if as_json:
        _print_json({name: getattr(tally, name) for name in tally.__struct_fields__})
    else:
        click.echo(f"archived {tally.archived} of {tally.seen} sessions, removed {tally.removed} objects nobody wanted")
    if tally.failed:
        click.echo(f"{tally.failed} sessions cannot be read: see the lines above", err=True)
    return 1 if tally.failed else 0


sessions.add_command(copy_sessions)


def _do(ctx: click.Context, /, given: dict[str, str | None], verb: Callable[[Any], Awaitable[T]]) -> T:
    """Carry a verb out where the options of the group and of the command, the latter winning, say."""
    from dalsegno.ops.reach import reached

    reach = _reach(ctx, given)

    async def run() -> T:
        async with reached(reach) as desk:
            return await verb(desk)

    return asyncio.run(run())


def _reach(ctx: click.Context, /, given: dict[str, str | None]) -> Reach:
    from dalsegno.ops.config import environment, resolve

    merged = {**ctx.obj, **{name: value for name, value in given.items() if value is not None}}
    if merged.get("warm") and merged.get("url"):
        raise ConfigError("--url and --warm name two places: say one of them")
    if merged.get("warm") is not None and merged.get("url") is None:
        merged["url"] = ""  # a warm tier that was asked for wins over a server that the environment names
    return resolve(Reach, merged, environment())


async def _all(found: AsyncIterator[Any]) -> list[Any]:
    async with aclosing(found) as entries:  # type: ignore[type-var]
        return [entry async for entry in entries]


async def _print_each(found: AsyncIterator[Any]) -> None:
    async with aclosing(found) as entries:  # type: ignore[type-var]
        async for entry in entries:
            _print_json(entry)


def _events(lines: bytes) -> list[Any]:
    return [json.loads(line) for line in lines.splitlines()]


def _print_json(found: Any) -> None:
    click.echo(json.dumps(found, ensure_ascii=False))
