"""What Redis could do at best: each message one RPUSH, which the server has synced to its file when it answers.

What was said is kept in this process's memory; nothing refuses a second writer. There is no agent loop.
"""

import uuid

import redis.asyncio

from bench.content import mark_of
from bench.peers.serve import Shop, answer, message, order, serve


class RawRedis:
    """A `Peer`, by hand."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """The connections."""
        self._shop = shop
        self._redis = redis.asyncio.Redis.from_url(url)
        await self._redis.ping()
        return {"redis-py": redis.__version__}

    async def turn(self, session: str, mark: str) -> str:
        """Four commands."""
        await self._redis.rpush(session, "u" + message(mark))
        await self._redis.rpush(session, "c" + order(mark))
        await self._redis.rpush(session, "r" + self._shop.look_up(order(mark), uuid.uuid4().hex))
        said = answer(mark)
        await self._redis.rpush(session, "a" + said)
        return said

    async def burst(self, session: str, mark: str) -> str:
        """The same."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """The whole list."""
        texts = [entry.decode() for entry in await self._redis.lrange(session, 0, -1)]
        return [(text[0], mark_of(text[1:])) for text in texts]

    async def go_on(self, session: str, mark: str) -> str:
        """Send it again."""
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


if __name__ == "__main__":
    serve(RawRedis)
