"""The real server between tenants: nobody reads, changes or learns of another's; no secret is ever written down."""

import json
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from dalsegno.client import TERMINAL, Client
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import seconds

pytestmark = [pytest.mark.timeout(seconds(60))]

ALICE, MALLORY = "CANARY-key-of-alice-8f3a1c", "CANARY-key-of-mallory-77b0e2"
KEYS = f"{ALICE}:alice,{MALLORY}:mallory"
PRIVATE = "CANARY-metadata-5d9e"
SAID = "CANARY-said-in-private-31c7"
NOBODY = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"


async def test_another_tenant_learns_nothing(serving: Serving):
    """P11: "No request of one tenant can read, change or learn the existence of anything of another's." Whatever
    Mallory asks about Alice's session is answered, byte for byte, as for a session that never was.
    """
    async with serving(replicas=1, DALSEGNO_API_KEYS=KEYS) as fleet, Client(fleet.urls, api_key=ALICE) as client:
        session = await client.sessions.create(metadata={"note": PRIVATE})
        receipt = await session.send(SAID, key="k1")
        assert (await session.turn(receipt.turn, wait=timedelta(seconds=10)))["status"] == "completed"
        before = await session.export()
        async with httpx2.AsyncClient(
            base_url=fleet.urls[0], headers={"authorization": f"Bearer {MALLORY}"}
        ) as mallory:
            for method, path, options in probes():
                theirs = await mallory.request(method, path.format(s=session.id, t=receipt.turn), **options)
                nobody = await mallory.request(method, path.format(s=NOBODY, t=receipt.turn), **options)
                assert theirs.status_code == nobody.status_code == 404, (method, path, theirs.text, nobody.text)
                assert (theirs.content, _plain(theirs)) == (nobody.content, _plain(nobody)), (method, path)
            listed = await mallory.get("/v1/sessions", params={"limit": "1000"})
            assert listed.json() == {"data": [], "next": None}
            assert (await mallory.get("/v1/sessions", params={"after": session.id})).json()["data"] == []
            # The same id and the same key are free for Mallory, and stay hers.
            made = await mallory.post("/v1/sessions", json={"id": session.id})
            assert made.status_code == 201 and made.json()["metadata"] == {}
            own = await mallory.post(
                f"/v1/sessions/{session.id}/inputs",
                json={"type": "message", "content": "mine"},
                headers={"idempotency-key": "k1"},
            )
            assert own.status_code == 202 and own.json()["replayed"] is False
            assert (await mallory.delete(f"/v1/sessions/{session.id}")).status_code == 204
        assert await session.export() == before
        assert await session.ask("still mine?") == "still mine?"


def probes() -> list[tuple[str, str, dict[str, Any]]]:
    """Every private route that names a session, with every way to name something of it."""
    message = {"json": {"type": "message", "content": "hello"}}
    stream = {"headers": {"accept": "text/event-stream", "last-event-id": "1"}}
    return [
        ("GET", "/v1/sessions/{s}", {}),
        ("PATCH", "/v1/sessions/{s}", {"json": {"metadata": {}}}),
        ("PATCH", "/v1/sessions/{s}", {"json": {"metadata": {}}, "headers": {"if-match": '"1"'}}),
        ("DELETE", "/v1/sessions/{s}", {}),
        ("POST", "/v1/sessions/{s}/fork", {"json": {"at": 1}}),
        ("GET", "/v1/sessions/{s}/items", {}),
        ("GET", "/v1/sessions/{s}/items?after=2", {}),
        ("POST", "/v1/sessions/{s}/inputs", message),
        ("POST", "/v1/sessions/{s}/inputs", {**message, "headers": {"idempotency-key": "k1"}}),
        ("POST", "/v1/sessions/{s}/inputs", {"json": {"type": "cancel"}}),
        ("POST", "/v1/sessions/{s}/inputs", {"json": {"type": "approval", "call_id": "c", "decision": "approve"}}),
        ("GET", "/v1/sessions/{s}/events", {}),
        ("GET", "/v1/sessions/{s}/events?after=0", stream),
        ("GET", "/v1/sessions/{s}/events?turn={t}", stream),
        ("GET", "/v1/sessions/{s}/events", {"headers": {"accept": "application/x-ndjson"}}),
        ("GET", "/v1/sessions/{s}/turns/{t}", {}),
        ("GET", "/v1/sessions/{s}/turns/{t}?wait=1", {}),
        ("GET", "/v1/artifacts/{s}:0", {}),
    ]


def _plain(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}


async def test_no_secret_is_written_down(serving: Serving):
    """Planted canaries (API keys, metadata, what was said) are in no log, metric, health page or error body."""
    pages = list[str]()
    async with serving(replicas=1, options=("--log-level", "debug"), DALSEGNO_API_KEYS=KEYS) as fleet:
        url = fleet.urls[0]
        async with Client(url, api_key=ALICE, retry=STUBBORN) as client:
            session = await client.sessions.create(metadata={"note": PRIVATE, PRIVATE: "x"})
            failing = {"id": "x", "do": ["spill", "keyed"], "words": 3}  # a tool's own error is logged in its own words
            for text in (SAID, json.dumps({"id": SAID, "do": ["keyed"], "words": 3}), json.dumps(failing)):
                async with aclosing(session.run(text)) as events:
                    ends = [event.type async for event in events if event.type in TERMINAL]
                assert ends == ["turn.completed"]
        async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {ALICE}"}) as raw:
            wrong = {"type": SAID, "content": PRIVATE, "metadata": {"a": PRIVATE}}
            answers = [
                await raw.post(f"/v1/sessions/{session.id}/inputs", json=wrong),
                await raw.post(f"/v1/sessions/{session.id}/inputs", content=f'{{"{SAID}"'.encode()),
                await raw.post("/v1/sessions", json={"metadata": PRIVATE}),
                await raw.get("/v1/sessions", params={"after": ALICE}),
                await raw.get("/v1/sessions", headers={"x-api-key": MALLORY}),
                await raw.get("/v1/sessions", headers={"authorization": f"Basic {ALICE}"}),
                await raw.get("/v1/sessions", headers={"authorization": f"Bearer {ALICE}x"}),
            ]
            assert all(400 <= answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
            # A client's own text may come back to it in an error; a key never does.
            assert not any(ALICE in answer.text or MALLORY in answer.text for answer in answers)
            pages += [
                (await raw.get(path)).text for path in ("/metrics", "/health", "/livez", "/readyz", "/openapi.json")
            ]
        assert await fleet["r1"].leave() == 0
        logged = fleet.text()
    assert len(logged) > 100, "debug logging says something"
    for page in (*pages, logged):
        assert "CANARY" not in page, [line for line in page.splitlines() if "CANARY" in line][:3]
