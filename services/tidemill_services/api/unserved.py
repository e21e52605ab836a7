"""The services that are in the contract and not served yet.

The generated bases answer UNIMPLEMENTED; the interceptor lets only a valid key hear even that.
"""

from tidemill.v1 import job_pb2_grpc


class JobService(job_pb2_grpc.JobServiceServicer):
    """A draft; see job.proto."""
