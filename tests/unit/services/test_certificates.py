"""Pairs of certificate and key: what is refused, and how the self-signed one is kept."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import LOCAL, Authority, Files
from tidemill_services.settings import Settings
from tidemill_services.tls.pair import CertificateError, PairFiles, read_valid_pair
from tidemill_services.tls.replica_tls import REPLICA_NAME, open_replica_tls
from tidemill_services.tls.self_signed import LIFETIME, names_of_server, self_signed_files, self_signed_pair


def _files(folder: Path, *names: str, days: float = 30, days_old: float = 1) -> PairFiles:
    written = Authority().write(folder, *(names or LOCAL), days=days, days_old=days_old)
    return PairFiles(written.certificate, written.key, "TIDEMILL_TLS")


def test_a_pair_says_its_names_and_its_end(tmp_path: Path) -> None:
    pair = read_valid_pair(_files(tmp_path, "mill.example.org", "::1", days=3))
    assert pair.names == {"mill.example.org", "::1"}
    assert timedelta(days=2.9) < pair.not_after - datetime.now(UTC) < timedelta(days=3.1)
    assert "PRIVATE" not in repr(pair)


def test_what_cannot_be_used_is_named_by_its_variable_and_file(tmp_path: Path) -> None:
    good = _files(tmp_path / "good")
    encrypted = tmp_path / "encrypted.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nmill\n-----END CERTIFICATE-----\n")
    for pair, sentence in (
        (PairFiles(tmp_path / "none", good.key, "X"), "X_CERTIFICATE is .*none, which cannot be read"),
        (PairFiles(garbage, good.key, "X"), "X_CERTIFICATE is .*garbage.pem, which holds no certificate"),
        (PairFiles(good.key, good.key, "X"), "X_CERTIFICATE is .*key.pem, which holds no certificate"),
        (PairFiles(good.certificate, garbage, "X"), "X_KEY is .*garbage.pem, which holds no private key"),
        (PairFiles(good.certificate, encrypted, "X"), "X_KEY is .*encrypted.pem, which is encrypted"),
        (PairFiles(good.certificate, _files(tmp_path / "other").key, "X"), "X_KEY is .*, which is not the key of"),
        (_files(tmp_path / "old", days=-0.1), "TIDEMILL_TLS_CERTIFICATE is .*, which expired at 20.* UTC: renew it"),
        (_files(tmp_path / "young", days_old=-1), "TIDEMILL_TLS_CERTIFICATE is .*, which is not valid before"),
    ):
        with pytest.raises(CertificateError, match=sentence):
            read_valid_pair(pair)


def test_a_self_signed_pair_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    names = names_of_server(["127.0.0.1", "0.0.0.0", "0:0:0:0:0:0:0:1", "10.1.2.3"])
    assert names >= {"localhost", "127.0.0.1", "::1", "10.1.2.3"}
    assert not names & {"0.0.0.0", "0:0:0:0:0:0:0:1"}
    first = self_signed_pair(tmp_path, names)
    assert first.names == names
    files = self_signed_files(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (files.key, files.certificate)] == [0o600, 0o600]
    assert self_signed_pair(tmp_path, names) == first


def test_a_self_signed_pair_is_made_again_in_time_for_other_names_and_when_it_is_damaged(tmp_path: Path) -> None:
    names = frozenset(LOCAL)
    pairs = [self_signed_pair(tmp_path, names, datetime.now(UTC) - LIFETIME + timedelta(days=29))]
    pairs.append(self_signed_pair(tmp_path, names))
    pairs.append(self_signed_pair(tmp_path, names | {"mill.local"}))
    self_signed_files(tmp_path).key.write_bytes(b"")
    pairs.append(self_signed_pair(tmp_path, names | {"mill.local"}))
    os.truncate(self_signed_files(tmp_path).certificate, 100)
    pairs.append(self_signed_pair(tmp_path, names | {"mill.local"}))
    assert len({pair.certificate_pem for pair in pairs}) == len(pairs)
    assert read_valid_pair(self_signed_files(tmp_path)) == pairs[-1]


def _for_replicas(files: Files, ca: Path | None = None) -> Settings:
    return Settings.read(
        {},
        replica_tls_ca=ca or files.ca,
        replica_tls_certificate=files.certificate,
        replica_tls_key=files.key,
    )


def test_the_pair_for_replicas_is_one_that_both_sides_take(tmp_path: Path) -> None:
    authority, both = Authority(), [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert open_replica_tls(Settings.read({})) is None
    assert open_replica_tls(_for_replicas(authority.write(tmp_path / "any", REPLICA_NAME))) is not None
    assert open_replica_tls(_for_replicas(authority.write(tmp_path / "both", REPLICA_NAME, usage=both))) is not None
    middle, middle_pem = authority.signed()
    chained = middle.write(tmp_path / "chained", REPLICA_NAME)
    chained.ca.write_bytes(authority.certificate_pem)
    with pytest.raises(CertificateError, match="has signed"):
        open_replica_tls(_for_replicas(chained))
    chained.certificate.write_bytes(chained.certificate.read_bytes() + middle_pem)
    assert open_replica_tls(_for_replicas(chained)) is not None


def test_a_pair_for_replicas_that_one_side_would_not_take_is_refused_at_the_start(tmp_path: Path) -> None:
    authority = Authority()
    good, other = authority.write(tmp_path / "good", REPLICA_NAME), authority.write(tmp_path / "other", "mill")
    strangers = Authority().write(tmp_path / "strangers", REPLICA_NAME)
    one_side = authority.write(tmp_path / "one", REPLICA_NAME, usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    old = Authority(days=-0.5).write(tmp_path / "old", REPLICA_NAME)
    for settings, sentence in (
        (_for_replicas(other), r"TIDEMILL_REPLICA_TLS_CERTIFICATE is .* not for the name tidemill-rep"),
        (_for_replicas(strangers, good.ca), r"TIDEMILL_REPLICA_TLS_CERTIFICATE is .*strangers.* has signed: give that"),
        (_for_replicas(one_side), r"TIDEMILL_REPLICA_TLS_CERTIFICATE is .* has to allow serverAuth and clientAuth"),
        (_for_replicas(good, good.key), r"TIDEMILL_REPLICA_TLS_CA is .* holds no certificate in PEM"),
        (_for_replicas(old), r"TIDEMILL_REPLICA_TLS_CA is .* holds no certificate that is valid today"),
    ):
        with pytest.raises(CertificateError, match=sentence):
            open_replica_tls(settings)
