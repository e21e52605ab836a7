"""Certificates on both sides between a control process and a replica, over real sockets, beside the token."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Files
from tests.integration.api.conftest import wire_to
from tests.integration.replica.replica_process import read_all, replica_process, until_ready
from tests.integration.replica.served_engine import ServedEngine, served_engine
from tests.processes import children_of, command_of
from tests.server_process import server_process
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client import EngineRequest, ReplicaClient
from tidemill_services.tls.pair import PairFiles
from tidemill_services.tls.replica_tls import REPLICA_NAME, ReplicaTls
from tidemill_serving.tls import TlsFiles


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    """The replica's."""
    return authority.write(tmp_path / "replica", REPLICA_NAME)


@pytest.fixture
def ours(authority: Authority, tmp_path: Path) -> ReplicaTls:
    """The control process's; what a caller's certificate is for does not matter."""
    return _tls(authority.write(tmp_path / "ours", "control-plane"))


def _tls(files: Files) -> ReplicaTls:
    return ReplicaTls(files.ca, PairFiles(files.certificate, files.key, "X"))


@asynccontextmanager
async def served(files: Files) -> AsyncIterator[ServedEngine]:
    async with served_engine(tls=TlsFiles(files.certificate, files.key, files.ca)) as replica:
        assert replica.address.startswith("https://127.0.0.1:")
        yield replica


async def _open(replica: ServedEngine, tls: ReplicaTls | None, token: str = "") -> None:
    client = ReplicaClient(replica.address, token or replica.token, tls=tls)
    try:
        await client.open()
    finally:
        await client.close()


async def test_with_the_right_certificate_and_token_it_serves(files: Files, ours: ReplicaTls) -> None:
    options = ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    async with replica_process(tick_ms=0, options=[*options, "--tls-client-ca", str(files.ca)]) as replica:
        assert replica.address.startswith("https://127.0.0.1:")
        client = ReplicaClient(replica.address, replica.token, tls=ours)
        await client.open()
        await until_ready(client)
        _, token_ids, _ = await read_all(client.generate(EngineRequest([40], 10)))
        assert len(token_ids) == 10
        await client.close()


async def test_without_a_certificate_of_its_ca_nobody_gets_in(files: Files, ours: ReplicaTls, tmp_path: Path) -> None:
    stranger = Authority().write(tmp_path / "stranger", REPLICA_NAME)
    trusting = replace(_tls(stranger), ca=files.ca)
    async with served(files) as replica:
        with pytest.raises(ReplicaLostError, match="was lost"):
            await _open(replica, trusting)
        with pytest.raises(ReplicaLostError, match="TIDEMILL_REPLICA_TLS_CA is not set here"):
            await _open(replica, None)
        replica.address = replica.address.removeprefix("https://")
        with pytest.raises(ReplicaLostError, match="was lost"):
            await _open(replica, None)
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        options = [("grpc.ssl_target_name_override", REPLICA_NAME)]
        async with grpc.aio.secure_channel(replica.address, credentials, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        replica.address = f"https://{replica.address}"
        await _open(replica, ours)


async def test_a_replica_that_another_ca_signed_or_of_another_name_is_not_spoken_to(
    authority: Authority, ours: ReplicaTls, tmp_path: Path
) -> None:
    for number, (signer, name) in enumerate([(Authority(), REPLICA_NAME), (authority, "localhost")]):
        written = signer.write(tmp_path / str(number), name)
        files = replace(written, ca=ours.ca)
        async with served(files) as replica:
            with pytest.raises(ReplicaLostError, match=r"CERTIFICATE_VERIFY_FAILED|Hostname Verification"):
                await _open(replica, ours)


async def test_the_token_is_asked_for_too_and_renewed_files_are_taken_up_by_new_connections(
    files: Files, ours: ReplicaTls, tmp_path: Path
) -> None:
    renewed = Authority().write(tmp_path / "renewed", REPLICA_NAME)
    async with served(files) as replica:
        await _open(replica, ours)
        with pytest.raises(ReplicaLostError, match="does not accept our token"):
            await _open(replica, ours, "0" * 64)
        shutil.copy(renewed.certificate, files.certificate)  # half of it: the old one is kept
        await _open(replica, ours)
        shutil.copy(renewed.key, files.key)
        shutil.copy(renewed.ca, files.ca)
        with pytest.raises(ReplicaLostError):
            await _open(replica, ours)
        for new, old in ((renewed.ca, ours.ca), (renewed.certificate, ours.files.certificate)):
            shutil.copy(new, old)
        shutil.copy(renewed.key, ours.files.key)
        await _open(replica, ours)


async def test_our_files_that_are_gone_are_told_as_a_lost_replica(ours: ReplicaTls) -> None:
    ours.files.key.unlink()
    client = ReplicaClient("https://127.0.0.1:1", "0" * 64, tls=ours)
    with pytest.raises(ReplicaLostError, match=r"cannot be read: .*key\.pem"):
        await client.open()


def test_the_server_hands_its_pair_to_its_replicas_and_speaks_tls_with_them(
    authority: Authority, files: Files, tmp_path: Path
) -> None:
    options = ["--replica-tls-certificate", str(files.certificate), "--replica-tls-key", str(files.key)]
    options += ["--replica-tls-ca", str(files.ca), "--replica-device", "fake"]
    with server_process(tmp_path / "data", *options) as server, wire_to(server) as wire:
        wire.start()
        *_, last = wire.generate(max_tokens=5)
        assert last.end.usage.completion_tokens == 5
        lines = [command_of(pid) for pid in children_of(server.process.pid)]
        assert any(f"--tls-client-ca\0{files.ca}\0".encode() in line for line in lines)
