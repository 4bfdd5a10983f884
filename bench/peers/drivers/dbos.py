"""DBOS: a turn is a workflow of steps: model, tool, model, and a transaction that puts the four messages in our table.

DBOS knows no sessions: the table is the user's, the workflow's record keeps what is not in it yet. When others write to
the session, too, the turn goes through a queue with one partition a session and one workflow at a time in each.
"""

import json
import uuid
from importlib.metadata import version

import sqlalchemy as sa
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig, SetEnqueueOptions

from bench.content import mark_of
from bench.peers.serve import Shop, answer, message, order, serve

TABLE = "CREATE TABLE IF NOT EXISTS message (session text, seq int, kind text, body text, PRIMARY KEY (session, seq))"
READ = "SELECT kind, body FROM message WHERE session = :session ORDER BY seq"
WRITE = "INSERT INTO message (session, seq, kind, body) VALUES (:session, :seq, :kind, :body)"
QUEUE = "turns"
LOOK_SECONDS = 0.1


class Dbos:
    """A `Peer`."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Table, datasource, workflow; then launch, which goes on with what this executor had left."""
        psycopg = url.replace("postgresql://", "postgresql+psycopg://")
        config: DBOSConfig = {"name": "bench", "system_database_url": psycopg, "executor_id": name}
        DBOS(config={**config, "log_level": "ERROR", "application_version": "1"})
        self._source = source = await AsyncSQLAlchemyDatasource.create(psycopg)
        async with source.engine.begin() as connection:
            await connection.execute(sa.text(TABLE))

        @DBOS.step()
        async def model(session: str, mark: str, said: list[tuple[str, str]]) -> list[str]:
            """What the model says after what is in the table and what this turn said; and how much there was."""
            before = await self._read(session)
            if said[-1][0] == "r":
                return ["a", answer(mark), str(len(before))]
            return ["c", json.dumps({"id": f"call_{uuid.uuid4().hex[:24]}", "order": order(mark)}), str(len(before))]

        @DBOS.step()
        async def look_up(call: str) -> str:
            """What a shop knows of an order."""
            asked = json.loads(call)
            return shop.look_up(asked["order"], asked["id"])

        @source.transaction()
        async def keep(session: str, before: int, said: list[tuple[str, str]]) -> None:
            """The turn's messages."""
            rows = [
                {"session": session, "seq": before + place, "kind": kind, "body": body}
                for place, (kind, body) in enumerate(said, start=1)
            ]
            await source.sql_session().execute(sa.text(WRITE), rows)

        @DBOS.workflow()
        async def turn(session: str, mark: str, text: str) -> str:
            """One turn."""
            said = [("u", text)]
            kind, call, before = await model(session, mark, said)
            said += [(kind, call), ("r", await look_up(call))]
            kind, final, _ = await model(session, mark, said)
            await keep(session, int(before), [*said, (kind, final)])
            return final

        self._turn = turn
        DBOS.launch()
        await DBOS.register_queue_async(QUEUE, partition_concurrency=1, polling_interval_sec=LOOK_SECONDS)
        return {name: version(name) for name in ("dbos", "SQLAlchemy", "psycopg")}

    async def turn(self, session: str, mark: str) -> str:
        """The workflow, called."""
        return await self._turn(session, mark, message(mark))

    async def burst(self, session: str, mark: str) -> str:
        """The workflow, enqueued in the session's partition."""
        with SetEnqueueOptions(queue_partition_key=session):
            handle = await DBOS.enqueue_workflow_async(QUEUE, self._turn, session, mark, message(mark))
        return await handle.get_result()

    async def history(self, session: str) -> list[tuple[str, str]]:
        """The table."""
        rows = await self._read(session)
        return [(kind, mark_of(json.loads(body)["order"] if kind == "c" else body)) for kind, body in rows]

    async def go_on(self, session: str, mark: str) -> str:
        """A process of the same executor goes on by itself; for another one, the message again."""
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """End the runtime."""
        DBOS.destroy()
        await self._source.engine.dispose()

    async def _read(self, session: str) -> list[tuple[str, str]]:
        async with self._source.engine.connect() as connection:
            found = await connection.execute(sa.text(READ), {"session": session})
            return [(kind, body) for kind, body in found]


if __name__ == "__main__":
    serve(Dbos)
