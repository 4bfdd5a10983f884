"""The port `Blobs` in object storage: `s3://`, `gs://` and `az://`, through obstore. Knows nothing of sessions.

An object is created with one conditional request, so two replicas that put the same bytes at once do so once. Nothing
is ever changed, no lock or lease is kept here, and a store that ignores the condition (`conditional` finds out) does no
worse than write the same bytes twice.
"""

import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from dalsegno.errors import ConfigError, Unavailable
from dalsegno.stores.hashed import check, check_name, verified

CLIENT: Mapping[str, Any] = {"connect_timeout": "5s", "timeout": "30s", "allow_http": True}
"""Plain HTTP is spoken only where the endpoint says so, as a server inside one's own network may."""
RETRIES: Mapping[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
LISTED_AT_ONCE = 1000
_NO_BUCKET = re.compile("NoSuchBucket|bucket does not exist|ContainerNotFound")
PROBES = ".dalsegno-probes/"


class ObjectBlobs:
    """Objects below a bucket's prefix. Endpoint and credentials come by the cloud's own environment variables."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    async def open(cls, url: str) -> "ObjectBlobs":
        """The bucket and prefix of the URL; nothing is sent yet. Raises `ConfigError`."""
        if not urlsplit(url).netloc:
            raise ConfigError(f"{url!r} names no bucket: write s3://bucket/prefix")
        try:
            return cls(from_url(url, client_options=dict(CLIENT), retry_config=dict(RETRIES)))  # type: ignore[call-overload]
        except (exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"the cold tier cannot be kept at {url}: {_brief(error)}") from error

    async def put(self, name: str, content: bytes) -> None:
        """See port `Blobs`. Raises `Refused` for a name that does not end in the content's SHA-256."""
        check_name(name)
        check(name, content)
        with _translating(), contextlib.suppress(exceptions.AlreadyExistsError):
            await obstore.put_async(self._store, _spelled(name), content, mode="create")

    async def get(self, name: str) -> bytes | None:
        """See port `Blobs`."""
        check_name(name)
        try:
            with _translating():
                found = await obstore.get_async(self._store, _spelled(name))
                return verified(name, bytes(await found.bytes_async()))
        except FileNotFoundError:
            return None

    async def delete(self, prefix: str) -> None:
        """See port `Blobs`."""
        with _translating():
            async for paths in self._below(prefix):
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, paths)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """See port `Blobs`. In order of the names as the store spells them."""
        found: list[str] = []
        with _translating():
            async for paths in self._below(prefix, after=after, chunk=min(limit, LISTED_AT_ONCE)):
                found += map(unquote, paths)
                if len(found) >= limit:
                    break
        return found[:limit]

    async def conditional(self) -> bool:
        """Whether the store honours "create only if it is not there". Writes one small object, and removes it."""
        path = f"{PROBES}{secrets.token_hex(16)}"
        with _translating():
            await obstore.put_async(self._store, path, b"first", mode="create")
            try:
                await obstore.put_async(self._store, path, b"second", mode="create")
            except exceptions.AlreadyExistsError:
                return True
            finally:
                await obstore.delete_async(self._store, path)
        return False

    async def _below(
        self, prefix: str, *, after: str = "", chunk: int = LISTED_AT_ONCE
    ) -> AsyncIterator[Sequence[str]]:
        # A store lists by whole parts of a path; the last part may be the beginning of a name.
        folder, offset = _spelled(prefix.rpartition("/")[0]), _spelled(after)
        async for page in obstore.list(self._store, prefix=folder or None, offset=offset or None, chunk_size=chunk):
            paths = [entry["path"] for entry in page if unquote(entry["path"]).startswith(prefix)]
            if paths:
                yield paths


def _spelled(name: str) -> str:
    """The name with everything escaped that a URL or a path could take for something else; `..` leads nowhere."""
    parts = (quote(part, safe="") for part in name.split("/"))
    return "/".join(part.replace(".", "%2E") if not part.strip(".") else part for part in parts)


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    """What the store or the network says in errors of ours; a retry never does harm to what is named by its hash."""
    try:
        yield
    except exceptions.AlreadyExistsError:
        raise
    except FileNotFoundError as error:
        if _NO_BUCKET.search(str(error)):
            raise Unavailable("the cold tier's bucket is not there", outcome="not_applied") from error
        raise
    except (exceptions.BaseError, OSError) as error:
        raise Unavailable(f"the cold tier does not answer: {_brief(error)}", outcome="not_applied") from error


def _brief(error: Exception) -> str:
    """Its first line; the rest is the driver's own view of itself."""
    return str(error).partition("\n")[0]
