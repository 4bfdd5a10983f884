"""`python -m dalsegno.testing.model SCRIPT --port 0`: the server as a process of its own, until it is ended."""

import asyncio
from typing import Literal

import click

from dalsegno.testing.model.scripts import find
from dalsegno.testing.model.server import ModelServer


@click.command()
@click.argument("script", default="echo")
@click.option("--port", type=int, default=0, help="0: any that is free.")
@click.option("--ids", type=click.Choice(["derived", "fresh"]), default="derived", help="Of items and calls.")
def main(script: str, port: int, ids: Literal["derived", "fresh"]) -> None:
    """Serve SCRIPT (`module:name`, `file.py:name` or `echo`) as a model; prints `ready URL`."""
    asyncio.run(_serve(script, port, ids))


async def _serve(script: str, port: int, ids: Literal["derived", "fresh"]) -> None:
    async with ModelServer(find(script), port=port, ids=ids) as server:
        click.echo(f"ready {server.url}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
