"""The methods of the contract that the client calls, each with what it takes and what it answers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from tidemill.v1 import inference_pb2, model_pb2, session_pb2

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One rpc."""

    path: str
    request: type[Request]
    reply: type[Reply]
    streams: bool = False
    """Whether it answers with a stream."""


_SESSION = "/tidemill.v1.SessionService/"
START_SESSION = Method(_SESSION + "StartSession", session_pb2.StartSessionRequest, session_pb2.StartSessionResponse)
STOP_SESSION = Method(_SESSION + "StopSession", session_pb2.StopSessionRequest, session_pb2.StopSessionResponse)
GET_SESSION = Method(_SESSION + "GetSession", session_pb2.GetSessionRequest, session_pb2.Session)
LIST_SESSIONS = Method(_SESSION + "ListSessions", session_pb2.ListSessionsRequest, session_pb2.ListSessionsResponse)
UPDATE_SESSION = Method(_SESSION + "UpdateSession", session_pb2.UpdateSessionRequest, session_pb2.Session)
WATCH_SESSION = Method(
    _SESSION + "WatchSession", session_pb2.WatchSessionRequest, session_pb2.SessionMeter, streams=True
)
HEARTBEAT_SESSION = Method(
    _SESSION + "HeartbeatSession", session_pb2.HeartbeatSessionRequest, session_pb2.HeartbeatSessionResponse
)

_MODEL = "/tidemill.v1.ModelService/"
LIST_MODELS = Method(_MODEL + "ListModels", model_pb2.ListModelsRequest, model_pb2.ListModelsResponse)
GET_MODEL = Method(_MODEL + "GetModel", model_pb2.GetModelRequest, model_pb2.Model)
START_MODEL = Method(_MODEL + "StartModel", model_pb2.StartModelRequest, model_pb2.Model)
STOP_MODEL = Method(_MODEL + "StopModel", model_pb2.StopModelRequest, model_pb2.Model)
WATCH_MODEL = Method(_MODEL + "WatchModel", model_pb2.WatchModelRequest, model_pb2.WatchModelResponse, streams=True)

_INFERENCE = "/tidemill.v1.InferenceService/"
GENERATE = Method(_INFERENCE + "Generate", inference_pb2.GenerateRequest, inference_pb2.GenerateResponse, streams=True)
GENERATE_BATCH = Method(
    _INFERENCE + "GenerateBatch", inference_pb2.GenerateBatchRequest, inference_pb2.GenerateBatchResponse, streams=True
)
