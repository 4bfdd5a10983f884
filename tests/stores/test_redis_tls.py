"""The hot tier behind TLS. The servers out of wheels speak none, so something that does stands before one, as in many
networks.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dalsegno.core.stream import Piece
from dalsegno.errors import Unavailable
from dalsegno.ports import Hint
from dalsegno.stores.redis import RedisHot
from dalsegno.testing.conformance.acts import publish, session
from dalsegno.testing.listener import Listener
from dalsegno.testing.servers import redis as servers
from tests.support import wait_until

PIECE = Piece(3, 0, 2, "msg", field="text", delta="hello")


def certify(folder: Path, address: str) -> tuple[Path, Path]:
    """A certificate for that address, signed by itself, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, kept = folder / f"{address}.crt", folder / f"{address}.key"
    shown.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    kept.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return shown, kept


@asynccontextmanager
async def terminated(server: servers.Redis, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """The port of something that speaks TLS and passes on what it hears."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(*server.address)
        with closing(behind[1]):
            await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer))

    async with Listener(serve, tls=context) as listening:
        yield listening.port


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Redis]:
    with servers.running() as server:
        yield server


async def test_a_hot_tier_behind_tls(server: servers.Redis, tmp_path: Path):
    """`rediss://…?ssl_ca_certs=…`: pieces, and hints, which come over connections of their own."""
    certificate = certify(tmp_path, "127.0.0.1")
    async with terminated(server, certificate) as port:
        hot = await RedisHot.open(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate[0]}")
        heard: list[Hint] = []

        async def answers() -> bool:
            with suppress(Unavailable):
                return await hot.read(session()) is None
            return False

        async def hears() -> bool:
            await hot.tell([Hint("acme", "s")])
            return bool(heard)

        async with hot.listen(heard.append):
            await wait_until(answers, description="they have shaken hands")
            await publish(hot, session(), 1, [PIECE])
            shown = await hot.read(session())
            assert shown is not None and list(shown.pieces) == [PIECE]
            await wait_until(hears, description="the hint is heard")
        await hot.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
async def test_a_stranger_is_told_nothing(server: servers.Redis, tmp_path: Path, address: str):
    """A certificate that nobody we trust has signed, or one for another address: nothing is sent, nothing is kept."""
    (tmp_path / "ours").mkdir()
    theirs = certify(tmp_path, address)
    ours = certify(tmp_path / "ours", address)[0] if address == "127.0.0.1" else theirs[0]
    async with terminated(server, theirs) as port:
        before = server.do("DBSIZE")
        hot = await RedisHot.open(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ours}")
        with pytest.raises(Unavailable):
            await publish(hot, session(7), 1, [PIECE])
        await hot.close()
        assert server.do("DBSIZE") == before
