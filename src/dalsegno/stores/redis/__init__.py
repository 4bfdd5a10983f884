"""The hot tier on Redis and Valkey. Start reading at `hot`."""

from dalsegno.stores.redis.hot import RedisHot as RedisHot
