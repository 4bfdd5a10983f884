"""The scripted model server as a process of its own, steered by HTTP: for tests whose replicas are killed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import openai
import pytest

from tests.ops.processes import environment

SCRIPT = """
from dalsegno.testing.model import ToolCall, by_round, by_words

script = by_words({"count": "one two three four five"})
"""
MODULE = ("-m", "dalsegno.testing.model")


@asynccontextmanager
async def process(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, *MODULE, *arguments),
        cwd=folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.communicate()


async def test_a_server_in_another_process_is_steered_by_http(tmp_path: Path) -> None:
    """Holds, releases, faults and the log are there for whoever can reach its port."""
    (tmp_path / "scripts.py").write_text(SCRIPT)
    async with process(tmp_path, "scripts.py:script", "--port", "0") as running:
        assert running.stdout is not None
        url = (await asyncio.wait_for(running.stdout.readline(), 20)).decode().removeprefix("ready ").strip()
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0)
        async with client, httpx2.AsyncClient(base_url=url) as control:
            created = await control.post("/hold", json={"at": 2, "to": {"said": "count"}})
            hold = created.json()["hold"]
            assert (await control.get(f"/hold/{hold}")).json() == {"hold": hold, "reached": False, "released": False}
            asking = asyncio.create_task(client.responses.create(model="m", input="count", stream=True))
            assert (await control.get(f"/hold/{hold}?wait=10")).json()["reached"]
            await control.post("/release", json={"hold": hold})
            events = [event async for event in await asking]
            assert events[-1].type == "response.completed"

            fault = {"faults": [{"kind": "fail", "status": 503, "retry_after": 1}], "to": {"said": "hello"}}
            assert (await control.post("/faults", json=fault)).status_code == 200
            with pytest.raises(openai.InternalServerError):
                await client.responses.create(model="m", input="hello")
            assert (await client.responses.create(model="m", input="hello")).output_text == "You said: hello"

            first, *later = (await control.get("/log")).json()["data"]
            assert (first["sent"], first["deltas"], first["ended"], first["protocol"]) == (5, 5, "done", "responses")
            assert first["shown"]["messages"][0]["text"] == "count"
            assert first["request"]["input"] == "count"
            assert first["headers"]["authorization"] == "…"
            assert [entry["status"] for entry in later] == [503, 200]
            assert (await control.get("/log?after=2")).json()["data"] == later[1:]


async def test_what_makes_no_sense_is_said_so(tmp_path: Path, model_server: object) -> None:
    """A wrong body or an unknown hold are 400 and 404; a script that is not there ends the process with a word."""
    url = getattr(model_server, "url")  # noqa: B009
    async with httpx2.AsyncClient(base_url=url) as control:
        assert (await control.post("/faults", json={"faults": [{"kind": "flood"}]})).status_code == 400
        assert (await control.post("/hold", json={"where": 2})).status_code == 400
        assert (await control.post("/release", json={"hold": "no"})).status_code == 400
        assert (await control.get("/hold/no")).status_code == 404
        assert (await control.post("/release")).status_code == 200
        answer = await control.post("/v1/chat/completions", content=b"{")
        assert answer.status_code == 400
        assert "could not parse the JSON body" in answer.json()["error"]["message"]
    async with process(tmp_path, "nothing") as running:
        _, err = await running.communicate()
    assert running.returncode == 1
    assert b"write `module:name`, `file.py:name` or `echo`" in err
