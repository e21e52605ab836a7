"""The asyncio side of a replica: the port, its callers, and the wall to the engine's thread. Protobuf stays in here."""

from tidemill_serving.server.replica import Replica

__all__ = ["Replica"]
