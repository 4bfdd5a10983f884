"""Whether this replica is alive, ready, and how it is; and its figures for Prometheus. Answered without credentials.

Alive = the loop turns. Ready = the log's store answers and the replica does not drain; a lost hot tier is `degraded`,
not unready, or one outage would take every replica out of the balancer.
"""

import asyncio

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dalsegno.core.json import dumps
from dalsegno.errors import Unavailable
from dalsegno.http.call import Answer, Call, json_answer
from dalsegno.http.desk import Desk
from dalsegno.wire import shapes

PATIENCE_SECONDS = 2.0


async def livez(desk: Desk, call: Call) -> Answer:
    """The process answers."""
    return json_answer(b'{"status":"alive"}')


async def readyz(desk: Desk, call: Call) -> Answer:
    """Whether a balancer should send requests here."""
    found = await _look(desk)
    ready = found.ready and not found.draining
    return json_answer(b'{"status":"ready"}' if ready else b'{"status":"not ready"}', status=200 if ready else 503)


async def health(desk: Desk, call: Call) -> Answer:
    """How the replica is, tier by tier."""
    found = await _look(desk)
    return json_answer(dumps(found), status=200 if found.ready and not found.draining else 503)


async def metrics(desk: Desk, call: Call) -> Answer:
    """Every figure of the process in Prometheus' text format."""
    return Answer(200, generate_latest(desk.metrics.registry), media=CONTENT_TYPE_LATEST.encode())


async def openapi(desk: Desk, call: Call) -> Answer:
    """The contract for machines."""
    return json_answer(desk.about)


async def _look(desk: Desk) -> shapes.Health:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await desk.service.health()
    except (Unavailable, TimeoutError):
        return shapes.Health(False, desk.service.draining, "", {}, ["the log's store does not answer"])
    draining = found.draining or desk.gate.draining
    return shapes.Health(found.ready, draining, found.replica, found.tiers, found.degraded)
