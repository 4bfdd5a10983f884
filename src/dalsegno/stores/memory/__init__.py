"""Memory: the three tiers inside one process, and the model that every other store is compared with.

What handles share (`MemoryDatabase`, `MemoryCache`, a dict of objects) is the server's part; a handle (`MemoryLog`,
`MemoryHot`, `MemoryBlobs`) is what a replica holds, so that several replicas can live in one process. Everything is
kept as bytes, so that nothing is shared by accident, and nothing outlives the process. Time is an argument. Memory has
no thread: beats come from the event loop (port `Fleet`, sentence 2, is not kept here).
"""

from dalsegno.stores.memory.blobs import MemoryBlobs
from dalsegno.stores.memory.database import MemoryDatabase
from dalsegno.stores.memory.hot import MemoryCache, MemoryHot
from dalsegno.stores.memory.log import MemoryLog, beat_on_loop

__all__ = ["MemoryBlobs", "MemoryCache", "MemoryDatabase", "MemoryHot", "MemoryLog", "beat_on_loop"]
