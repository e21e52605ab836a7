"""What a gRPC server really serves: asked from its reflection, so that a new rpc is in every walk by itself."""

from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc."""

    path: str  # /package.Service/Method
    request: Descriptor
    streams_requests: bool
    streams_responses: bool


def reflected_methods(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> list[Method]:
    """All methods of all services that the server lists."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    pool = descriptor_pool.DescriptorPool()

    def ask(**what: str) -> reflection_pb2.ServerReflectionResponse:
        (answer,) = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(**what)]), metadata=metadata, timeout=60
        )
        return answer

    def add(**what: str) -> None:
        for content in ask(**what).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            try:
                pool.FindFileByName(file.name)
                continue
            except KeyError:
                pass
            for needed in file.dependency:
                add(file_by_filename=needed)
            pool.Add(file)

    services = [service.name for service in ask(list_services="").list_services_response.service]
    found = []
    for name in services:
        add(file_containing_symbol=name)
        found += methods_of(pool.FindServiceByName(name))
    return found


def methods_of(service: ServiceDescriptor) -> list[Method]:
    """The methods of one service."""
    return [
        Method(
            f"/{service.full_name}/{method.name}",
            method.input_type,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    ]
