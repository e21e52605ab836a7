"""The connection to one replica: plaintext on loopback, or TLS with certificates on both sides."""

import asyncio

import grpc.aio

from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.tls.replica_tls import REPLICA_NAME, ReplicaTls

_MAX_MESSAGE_BYTES = 32 << 20  # the replica's side has the same limit
_PLAIN_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a client never shares the connection of an earlier one
)
# Replicas come and go with their addresses, so that all are known by one name.
_TLS_OPTIONS = (*_PLAIN_OPTIONS, ("grpc.ssl_target_name_override", REPLICA_NAME))


async def open_channel(address: str, tls: ReplicaTls | None) -> grpc.aio.Channel:
    """A channel to host:port, or to https://host:port, for which `tls` is needed. Raises ReplicaLostError."""
    scheme, _, place = address.rpartition("://")
    if not scheme:
        return grpc.aio.insecure_channel(place, options=_PLAIN_OPTIONS)
    if tls is None:
        raise ReplicaLostError(lost_sentence(address, "it speaks TLS, and TIDEMILL_REPLICA_TLS_CA is not set here"))
    try:
        credentials = await asyncio.to_thread(tls.read_credentials)
    except OSError as error:
        cause = f"our certificate for it cannot be read: {error}"
        raise ReplicaLostError(lost_sentence(address, cause)) from error
    return grpc.aio.secure_channel(place, credentials, options=_TLS_OPTIONS)


def lost_sentence(address: str, cause: str) -> str:
    """Say for the log what became of a replica; callers are not shown its address."""
    return f"The replica at {address} was lost: {cause}. Try again."
