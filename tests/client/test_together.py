"""The client behind the fault proxy: what one breaks the other mends."""

from datetime import timedelta

from dalsegno.client import Client
from dalsegno.testing.proxy import Cut, Delay, DropReplies, FaultProxy, Pass, Refuse, Throttle
from tests.client.scripted import QUICK, RECEIPT, Replica, answer
from tests.client.test_streams import IDS, RAW, collect, continued, text
from tests.support import wait_until

TICK = timedelta(milliseconds=1)


async def test_a_stream_survives_every_fault_on_its_way():
    """Two replicas behind one address: cut, reset, refused, late and slow connections, and still each event once."""
    faults = [Cut(after=7), Cut(after=300, how="finish"), Refuse(), Cut(after=500), Delay(latency=TICK)]
    async with Replica(respond=continued) as a, Replica(respond=continued) as b:
        async with FaultProxy(("127.0.0.1", a.port), ("127.0.0.1", b.port)) as proxy:
            await proxy.switch(Throttle(bytes_per_second=10 * len(RAW)))
            proxy.plan(*faults)
            async with Client(proxy.url, retry=QUICK) as client:
                events = await collect(client.session("s").stream(after=0, turn="t"))
    assert [event.id for event in events] == IDS and text(events) == "hé\n€!"
    assert proxy.counts.cut == 3 and proxy.counts.accepted >= 5
    assert a.requests and b.requests


async def test_an_input_whose_reply_was_dropped_is_said_once():
    """The server has the first attempt; what it gets next is the same input under the same key."""
    async with Replica(respond=lambda _: answer(202, RECEIPT)) as replica:
        async with FaultProxy(("127.0.0.1", replica.port)) as proxy:
            proxy.plan(DropReplies())
            async with Client(proxy.url, timeout=timedelta(milliseconds=100), retry=QUICK) as client:
                receipt = await client.session("s").send("hi")
            await proxy.switch(Pass())
            await wait_until(lambda: len(replica.requests) == 2, description="both attempts have arrived")
    assert proxy.counts.dropped_bytes > 0
    assert {request.headers["idempotency-key"] for request in replica.requests} == {receipt.key}
