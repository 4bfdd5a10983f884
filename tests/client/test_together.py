"""The client behind the fault proxy: what one breaks the other mends."""

from datetime import timedelta

from dalsegno.client import Client
from dalsegno.testing.proxy import Cut, Delay, DropReplies, Fault, FaultProxy, Refuse, Throttle
from tests.client.scripted import QUICK, RECEIPT, Replica, answer
from tests.client.test_streams import IDS, RAW, collect, continued, text

TICK = timedelta(milliseconds=1)


async def test_a_stream_survives_every_fault_on_its_way():
    """Two replicas behind one address: cut, reset, refused, late and slow connections, and still each event once."""
    faults: list[Fault] = [Cut(after=7), Cut(after=300, how="finish"), Refuse(), Cut(after=500), Delay(latency=TICK)]
    a, b, proxy = Replica(respond=continued), Replica(respond=continued), FaultProxy()
    async with a, b, proxy, Client(proxy.url, retry=QUICK) as client:
        proxy.targets = [("127.0.0.1", a.port), ("127.0.0.1", b.port)]
        await proxy.switch(Throttle(bytes_per_second=10 * len(RAW)))
        proxy.plan(*faults)
        events = await collect(client.session("s").stream(after=0, turn="t"))
    assert [event.id for event in events] == IDS and text(events) == "hé\n€!"
    assert proxy.counts.cut == 3 and proxy.counts.accepted >= 5
    assert a.requests and b.requests


async def test_an_input_whose_reply_was_dropped_is_said_once():
    """The server has the first attempt; what it gets next is the same input under the same key."""
    replica, proxy, short = Replica(respond=lambda _: answer(202, RECEIPT)), FaultProxy(), timedelta(milliseconds=400)
    async with replica, proxy, Client(proxy.url, timeout=short, retry=QUICK) as client:
        proxy.targets = [("127.0.0.1", replica.port)]
        proxy.plan(DropReplies())
        receipt = await client.session("s").send("hi")
    assert proxy.counts.dropped_bytes > 0 and len(replica.requests) == 2
    assert {request.headers["idempotency-key"] for request in replica.requests} == {receipt.key}
