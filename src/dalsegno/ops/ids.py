"""Where names that are not derived come from: UUIDv7 for sessions, never-repeated names for starts of a process."""

import os
import secrets
import time
import uuid


class RandomIds:
    """The port `Ids` on the system's clock and randomness."""

    def session(self) -> str:
        """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random ones."""
        stamp = time.time_ns() // 1_000_000 & (1 << 48) - 1
        chance = int.from_bytes(os.urandom(10), "big")
        high, low = chance >> 68, chance & (1 << 62) - 1
        return str(uuid.UUID(int=stamp << 80 | 7 << 76 | high << 64 | 2 << 62 | low))

    def incarnation(self) -> str:
        """When the process started, for people, and 64 random bits, for truth."""
        return f"{time.time_ns() // 1_000_000_000:x}-{secrets.token_hex(8)}"
