"""The services that are in the contract and not served yet.

The generated bases answer UNIMPLEMENTED; the interceptor lets only a valid key hear even that.
"""

from tidemill.v1 import account_pb2_grpc, job_pb2_grpc


class AccountService(account_pb2_grpc.AccountServiceServicer):
    """A draft; see account.proto."""


class JobService(job_pb2_grpc.JobServiceServicer):
    """A draft; see job.proto."""
