"""What the port `Cache` keeps, in the words of the scripts: what they are called with and what they reply. Nothing here
waits.

All entries of a `ref` are one key, a hash, so that it is forgotten, evicted and moved as a whole. Contents travel as
Zstandard frames with a checksum: what was damaged is found out, and is as good as lost.
"""

import sys
from datetime import timedelta
from typing import Any

import msgspec

from dalsegno.ports import Ref
from dalsegno.stores.redis.scripts import scripts
from dalsegno.stores.redis.steps import Asked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENTRY_BYTES_MAX = 512 * 1024
"""Of an entry on the server. A server that is full of them has no room for what is being said."""
CONTENT_BYTES_MAX = 4 * 1024 * 1024
"""More is not even compressed to see."""
NAMES_MAX = 64
FORGOTTEN = timedelta(minutes=10)
"""How long what arrives late is refused after a `forget`."""
FRAME: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}

_Found = tuple[int, bytes]


class Entries:
    """Asks for entries and understands the answers."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._scripts = scripts("redis_hot")

    def key(self, ref: Ref) -> bytes:
        """Where the entries are. The braces keep all that a session has in one slot of a cluster."""
        return f"{self._namespace}:{{{ref.tenant}/{ref.id}}}:cache".encode()

    def put(self, name: str, version: int, content: bytes, keep: timedelta) -> Asked | None:
        """Keep this; None if it is too large."""
        if len(content) > CONTENT_BYTES_MAX:
            return None
        frame = zstd.compress(content, options=FRAME)
        if len(frame) > ENTRY_BYTES_MAX:
            return None
        ttl = max(1, round(keep.total_seconds() * 1000))
        return self._scripts["cache_put"], (name, version, ttl, NAMES_MAX, frame)

    def get(self, name: str) -> Asked:
        """What is kept under that name."""
        return self._scripts["cache_get"], (name,)

    def forget(self) -> Asked:
        """Remove everything."""
        return self._scripts["cache_forget"], (round(FORGOTTEN.total_seconds() * 1000),)

    def found(self, reply: Any) -> _Found | None:
        """What a script has found."""
        if reply is None:
            return None
        try:
            version, frame = msgspec.convert(reply, _Found)
            bounded = zstd.ZstdDecompressor()
            content = bounded.decompress(frame, CONTENT_BYTES_MAX + 1)
            return (version, content) if bounded.eof else None
        except (msgspec.MsgspecError, zstd.ZstdError):
            # Another version's entry, or a damaged one: as good as lost.
            return None
