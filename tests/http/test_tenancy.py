"""P11: no request of one tenant can read, change or learn the existence of anything of another's."""

import hashlib

import pytest

from dalsegno.core.ids import turn_id
from dalsegno.errors import ConfigError
from dalsegno.http.app import App, build_app
from dalsegno.http.auth import Keys
from dalsegno.ports import Ref
from tests.http.asgi import Exchange, ask
from tests.http.conftest import S
from tests.http.fake import FakeService

ANN = {"authorization": "Bearer key-of-ann"}
BOB = {"x-api-key": "key-of-bob"}
NOWHERE = "0198f0c2-7d1e-7c3a-9b52-000000000000"
HI = {"type": "message", "content": "hi"}


@pytest.fixture
async def app(service: FakeService) -> App:
    """Two tenants; Ann has a session with a finished turn, and an artifact."""
    digest = hashlib.sha256(b"key-of-bob").hexdigest()
    ref = Ref("ann", S)
    await service.say(ref, "secret")
    service.answer(ref, "answer")
    service.artifacts["ann", "a1"] = b"secret"
    return build_app(service, keys=Keys([("key-of-ann", "ann"), (f"sha256:{digest}", "bob")]))


MATRIX: list[tuple[str, str, object, dict[str, str]]] = [
    ("GET", "", None, {}),
    ("PATCH", "", {"metadata": {}}, {}),
    ("PATCH", "", {}, {"if-match": '"5"'}),
    ("DELETE", "", None, {}),
    ("POST", "/fork", {}, {}),
    ("POST", "/fork", {"at": 2}, {}),
    ("GET", "/items", None, {}),
    ("POST", "/inputs", HI, {}),
    ("POST", "/inputs", HI, {"idempotency-key": "k"}),
    ("POST", "/inputs", HI, {"accept": "text/event-stream"}),
    ("POST", "/inputs", {"type": "cancel", "turn": turn_id(S, 2)}, {}),
    ("GET", "/events", None, {}),
    ("GET", "/events", None, {"accept": "text/event-stream"}),
    ("GET", "/events?after=0", None, {"accept": "application/x-ndjson"}),
    ("GET", "/events?after=99", None, {"accept": "text/event-stream"}),
    ("GET", "/events", None, {"accept": "text/event-stream", "last-event-id": "3.7"}),
    ("GET", f"/events?turn={turn_id(S, 2)}", None, {"accept": "text/event-stream"}),
    ("GET", f"/turns/{turn_id(S, 2)}", None, {}),
    ("GET", f"/turns/{turn_id(S, 2)}?wait=5", None, {}),
]


@pytest.mark.parametrize(("method", "path", "body", "headers"), MATRIX)
async def test_anothers_session_looks_like_none(app: App, service: FakeService, method: str, path: str, body, headers):
    """The answer is byte for byte the one for an id that nobody ever had, and nothing changes."""
    before = service.logs[Ref("ann", S)][:]
    foreign = await ask(app, method, f"/v1/sessions/{S}{path}", body=body, headers={**headers, **BOB})
    nothing = await ask(app, method, f"/v1/sessions/{NOWHERE}{path}", body=body, headers={**headers, **BOB})
    assert foreign.status == nothing.status == 404
    assert foreign.body == nothing.body
    assert foreign.headers == nothing.headers
    assert service.logs[Ref("ann", S)] == before


async def test_anothers_artifact_looks_like_none(app: App):
    """Also by its exact name."""
    foreign = await ask(app, "GET", "/v1/artifacts/a1", headers=BOB)
    nothing = await ask(app, "GET", "/v1/artifacts/a2", headers=BOB)
    assert foreign.status == 404
    assert (foreign.body, foreign.headers) == (nothing.body, nothing.headers)
    assert (await ask(app, "GET", "/v1/artifacts/a1", headers=ANN)).body == b"secret"


async def test_lists_hold_only_ones_own(app: App):
    """Whatever the filter and whatever the cursor."""
    for query in ("", "?status=idle", f"?after={NOWHERE}", "?user=x"):
        assert (await ask(app, "GET", f"/v1/sessions{query}", headers=BOB)).json["data"] == []
    assert len((await ask(app, "GET", "/v1/sessions", headers=ANN)).json["data"]) == 1


async def test_the_same_id_and_key_are_two_sessions(app: App):
    """Ids and idempotency keys are a tenant's own: no receipt of another's is ever replayed."""
    headers = {"idempotency-key": "k", "if-none-match": "*"}
    await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=HI, headers={**headers, **ANN})
    other = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=HI, headers={**headers, **BOB})
    assert other.json["replayed"] is False
    items = await ask(app, "GET", f"/v1/sessions/{S}/items", headers=BOB)
    assert b"secret" not in items.body
    stream = await ask(
        app, "GET", f"/v1/sessions/{S}/events?after=0", headers={**BOB, "accept": "application/x-ndjson"}
    )
    assert b"secret" not in stream.body


async def test_streams_of_the_same_id_do_not_share_frames(app: App, service: FakeService):
    """Two tenants, one session id, the same cursors: each reads its own text, also through the shared frames."""
    bob = Ref("bob", S)
    await service.say(bob, "mine")
    service.answer(bob, "other")
    target = f"/v1/sessions/{S}/events?after=0&turn={turn_id(S, 2)}"
    accept = {"accept": "text/event-stream"}
    for who, text, others in ((ANN, b"secret", b"mine"), (BOB, b"mine", b"secret"), (ANN, b"secret", b"mine")):
        body = (await ask(app, "GET", target, headers={**accept, **who})).body
        assert text in body and others not in body


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic key-of-ann"},
        {"authorization": "key-of-ann"},
        {"x-api-key": ""},
        {"x-api-key": "wrong"},
        {"x-api-key": "key-of-anna"},
        {"x-api-key": "k\xe9y"},
        {"x-tenant": "ann"},
        {**ANN, **BOB},
        {"x-api-key": "sha256:" + hashlib.sha256(b"key-of-bob").hexdigest()},
    ],
)
async def test_without_a_key_nobody_gets_in(app: App, headers: dict):
    """401 before anything else is looked at; a digest is no key."""
    reply = await ask(app, "GET", f"/v1/sessions/{S}?nonsense=%ff", headers=headers)
    assert (reply.status, reply.json["code"]) == (401, "unauthorized")
    assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_two_authorizations_are_none(app: App):
    """A proxy may have looked at the other one."""
    exchange = Exchange(app, "GET", "/v1/sessions", headers=ANN)
    exchange.scope["headers"].append((b"authorization", b"Bearer key-of-ann"))
    assert (await (await exchange.start()).done()).status == 400


async def test_bearer_in_any_case(app: App):
    """The scheme is not case-sensitive, the key is."""
    assert (await ask(app, "GET", "/v1/sessions", headers={"authorization": "bearer key-of-ann"})).status == 200
    assert (await ask(app, "GET", "/v1/sessions", headers={"authorization": "bearer KEY-OF-ANN"})).status == 401


async def test_probes_need_no_key(app: App):
    """A balancer has none."""
    for path in ("/livez", "/readyz", "/health", "/metrics", "/openapi.json"):
        assert (await ask(app, "GET", path)).status == 200


def test_keys_are_not_kept():
    """Only digests stay in memory."""
    keys = Keys([("key-of-ann", "ann")])
    assert "key-of-ann" not in repr(vars(keys))
    assert keys and not Keys()


@pytest.mark.parametrize("pair", [("", "a"), ("k", ""), ("sha256:12", "a")])
def test_a_broken_key_list_stops_the_start(pair: tuple[str, str]):
    """Better no server than an open one."""
    with pytest.raises(ConfigError):
        Keys([pair])
