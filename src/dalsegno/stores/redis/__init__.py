"""The log and the hot tier on Redis and Valkey. Start reading at `log` and at `hot`."""

from dalsegno.stores.redis.hot import RedisHot as RedisHot
from dalsegno.stores.redis.log import RedisLog as RedisLog
