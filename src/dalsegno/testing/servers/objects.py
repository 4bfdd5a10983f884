"""An S3 server for tests: moto, an *emulator*. It keeps buckets in memory, honours conditions, and checks no keys."""

import http.client
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dalsegno.testing.servers.process import Process, free_port

BUCKET = "dalsegno"


class Objects:
    """A running server with one bucket. `environment` is what a client of it needs."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.process = Process(
            [sys.executable, "-c", "import moto.server; moto.server.main()", "-H", "127.0.0.1", "-p", str(self.port)],
            folder=folder,
            ready=self._make_bucket,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables of AWS."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def _make_bucket(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("PUT", f"/{BUCKET}")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def objects(folder: Path) -> Iterator[Objects]:
    """A server in that folder, until the context ends."""
    server = Objects(folder)
    server.process.start()
    try:
        yield server
    finally:
        server.process.stop()
