"""HTTP requests of an agent, where httpx and httpx2 hand them to the network: recorded, or answered from the record.

So a provider's client runs unchanged in every play, and what a model was really shown can be compared. A transport of
another kind is not seen; `audit` tells that it was used.
"""

import importlib.machinery
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any, Protocol, TypeAlias

from dalsegno.core.json import Json, JsonObject
from dalsegno.ops.check.talk import Reply

Answer: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes]
"""Status, headers, body."""
LIBRARIES = ("httpx", "httpx2")
KEY_HEADER = "idempotency-key"
_IN_WIRE: ContextVar[bool] = ContextVar("dalsegno_check_wire", default=False)


class Post(Protocol):
    """Who is told of a request, and says what becomes of it."""

    def sent(self, request: JsonObject) -> tuple[int, Reply | None]:
        """The request's number in its step, and the answer on record, if that is to be given."""
        ...

    def live(self) -> bool:
        """Whether what is not on record may go to the network."""
        ...

    def answered(self, number: int, reply: Answer) -> None:
        """What the network answered."""
        ...


def listen(post: Post) -> None:
    """From now on, in this process, for libraries that are imported later, too."""
    for name in LIBRARIES:
        if name in sys.modules:
            _patch(sys.modules[name], post)
    sys.meta_path.insert(0, _Finder(post))


def audit(connected: Callable[[], None]) -> None:
    """Call `connected` for every connection that the libraries above do not make."""

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect" and not _IN_WIRE.get():
            connected()

    sys.addaudithook(hear)


class _Finder(MetaPathFinder):
    def __init__(self, post: Post) -> None:
        self._post = post

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name not in LIBRARIES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader, self._post)
        return spec


class _Patching(Loader):
    """The library's own loader, and then the patch."""

    def __init__(self, inner: Loader, post: Post) -> None:
        self._inner = inner
        self._post = post

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_module(self, spec: Any) -> Any:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        _patch(module, self._post)


def _patch(library: Any, post: Post) -> None:
    """Both transports of the library, the asynchronous one and the other."""
    send, send_async = library.HTTPTransport.handle_request, library.AsyncHTTPTransport.handle_async_request
    tape = _taped(library)

    def handle_request(self: Any, request: Any) -> Any:
        number, known = _begin(library, post, request)
        if known is not None:
            return known
        with _inside():
            return tape(send(self, request), partial(post.answered, number))

    async def handle_async_request(self: Any, request: Any) -> Any:
        number, known = _begin(library, post, request)
        if known is not None:
            return known
        with _inside():
            return tape(await send_async(self, request), partial(post.answered, number))

    library.HTTPTransport.handle_request = handle_request
    library.AsyncHTTPTransport.handle_async_request = handle_async_request


def _begin(library: Any, post: Post, request: Any) -> tuple[int, Any]:
    """The request's number, and the response to it if it is on record."""
    number, known = post.sent(_plain(library, request))
    if known is not None:
        return number, library.Response(known.status, headers=known.headers, stream=library.ByteStream(known.body))
    if not post.live():
        raise library.ConnectError("dalsegno check: the first play had no answer to such a request", request=request)
    return number, None


def _taped(library: Any) -> Callable[[Any, Callable[[Answer], None]], Any]:
    """What makes a response keep its body as it passes, and tell it when it is closed."""

    class Taped(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, response: Any, tell: Callable[[Answer], None]) -> None:
            self._inner = response.stream
            self._told = (response.status_code, response.headers.multi_items())
            self._tell = tell
            self._body = bytearray()

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._inner:
                self._body += chunk
                yield chunk

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._inner:
                self._body += chunk
                yield chunk

        def close(self) -> None:
            self._tell((*self._told, bytes(self._body)))
            self._inner.close()

        async def aclose(self) -> None:
            self._tell((*self._told, bytes(self._body)))
            await self._inner.aclose()

    def tape(response: Any, tell: Callable[[Answer], None]) -> Any:
        response.stream = Taped(response, tell)
        return response

    return tape


@contextmanager
def _inside() -> Iterator[None]:
    token = _IN_WIRE.set(True)
    try:
        yield
    finally:
        _IN_WIRE.reset(token)


def _plain(library: Any, request: Any) -> JsonObject:
    """What can be compared of a request; nothing of who sends it."""
    try:
        content: bytes = request.content
    except library.RequestNotRead:
        content = b"(a stream)"
    found: JsonObject = {"method": request.method, "url": str(request.url), "body": _body(content)}
    if KEY_HEADER in request.headers:
        found[KEY_HEADER] = request.headers[KEY_HEADER]
    return found


def _body(content: bytes) -> Json:
    try:
        value: Json = json.loads(content) if content else None
    except ValueError:
        value = content.decode("utf-8", "replace")
    return value
