"""Scripts kept as files: `lua/<product>/<name>.lua`, each behind the functions that all of a product share.

They are called by the hash of their text (EVALSHA), so that an old and a new replica each run their own version, and
are sent again when a server does not know them: it was restarted, or another one was promoted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from dalsegno.stores.redis.line import Word
from dalsegno.stores.redis.route import Route

SHARED = ("step", "session")


class Script(msgspec.Struct, frozen=True):
    """A script and the name that a server knows it by."""

    text: bytes
    sha: bytes


@cache
def scripts(product: str) -> Mapping[str, Script]:
    """Every script of a product by its file's name. The first line (`#!lua flags=…`) stays the first."""
    folder = resources.files("dalsegno.stores").joinpath("lua", product)
    texts = {
        entry.name.removesuffix(".lua"): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }
    shared = "\n".join(texts.pop(name) for name in SHARED if name in texts)
    return {name: _script(shared, text) for name, text in texts.items()}


async def run(route: Route, script: Script, keys: Sequence[bytes], words: Sequence[Word]) -> Any:
    """The reply, or the error that the server answers with. The first key says which server is asked."""
    reply = await route.ask(keys[0], "EVALSHA", script.sha, len(keys), *keys, *words)
    if isinstance(reply, NoScriptError):
        reply = await route.ask(keys[0], "EVAL", script.text, len(keys), *keys, *words)
    return reply


def _script(shared: str, text: str) -> Script:
    shebang, _, body = text.partition("\n")
    whole = f"{shebang}\n{shared}\n{body}".encode()
    return Script(whole, hashlib.sha1(whole, usedforsecurity=False).hexdigest().encode())
