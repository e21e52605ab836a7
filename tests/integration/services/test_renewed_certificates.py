"""A renewed certificate is taken up by open ports: gRPC's and HTTP's, over real sockets."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from tests.certificates import LOCAL, Authority, Files
from tidemill_services.gateway.http_server import HttpServer, HttpSettings
from tidemill_services.tls.pair import PairFiles, read_valid_pair
from tidemill_services.tls.server_tls import ServerTls


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Authority().write(tmp_path / "now", *LOCAL)


@pytest.fixture
def tls(files: Files) -> ServerTls:
    return ServerTls(partial(read_valid_pair, PairFiles(files.certificate, files.key, "TIDEMILL_TLS")))


@pytest.fixture
async def grpc_port(tls: ServerTls) -> AsyncIterator[int]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", tls.grpc_credentials())
    await server.start()
    yield port
    await server.stop(0)


@pytest.fixture
async def http_port(tls: ServerTls) -> AsyncIterator[int]:
    server = HttpServer(_page, "127.0.0.1", 0, HttpSettings(10, tls.http_context))
    await server.start()
    yield int(server.address.rpartition(":")[2])
    await server.stop()


async def _page(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def _grpc_takes(port: int, ca: bytes) -> bool:
    """Whether a client that trusts `ca` gets through on a new connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{port}", grpc.ssl_channel_credentials(ca), options=options
    ) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        taken, details = await call.code() is grpc.StatusCode.OK, await call.details()
    assert taken or "CERTIFICATE_VERIFY_FAILED" in details
    return taken


async def _http_takes(port: int, ca: bytes) -> bool:
    context = ssl.create_default_context(cadata=ca.decode())
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except ssl.SSLCertVerificationError:
        return False
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b" 204 " in await reader.readline()
    writer.close()
    return True


async def test_new_connections_see_the_renewed_certificate_and_open_ones_go_on(
    files: Files, tls: ServerTls, grpc_port: int, http_port: int, tmp_path: Path
) -> None:
    ca = files.ca.read_bytes()
    assert await _grpc_takes(grpc_port, ca)
    assert await _http_takes(http_port, ca)
    async with grpc.aio.secure_channel(f"127.0.0.1:{grpc_port}", grpc.ssl_channel_credentials(ca)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
        renewed = Authority().write(tmp_path / "renewed", *LOCAL)
        shutil.copy(renewed.certificate, files.certificate)
        shutil.copy(renewed.key, files.key)
        await tls.look()
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
    new_ca = renewed.ca.read_bytes()
    assert [await _grpc_takes(grpc_port, each) for each in (ca, new_ca, new_ca)] == [False, True, True]
    assert [await _http_takes(http_port, each) for each in (ca, new_ca, new_ca)] == [False, True, True]


async def test_what_cannot_be_used_is_not_taken_up(
    files: Files, tls: ServerTls, grpc_port: int, http_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = files.ca.read_bytes()
    half_renewed = Authority().write(tmp_path / "other", *LOCAL)
    expired = Authority().write(tmp_path / "expired", *LOCAL, days=-0.5)
    for certificate, key, sentence in (
        (half_renewed.certificate, None, "which is not the key of"),
        (expired.certificate, expired.key, "which expired at"),
    ):
        shutil.copy(certificate, files.certificate)
        if key is not None:
            shutil.copy(key, files.key)
        for _ in range(2):
            await tls.look()
        assert sum(sentence in record.message for record in caplog.records) == 1
        assert await _grpc_takes(grpc_port, ca)
        assert await _http_takes(http_port, ca)
