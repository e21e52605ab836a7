"""What `import tidemill` gives, and what it does not load."""

import subprocess
import sys
from importlib.metadata import version

import tidemill
from tidemill import methods
from tidemill.methods import Method
from tidemill.v1 import account_pb2, inference_pb2, model_pb2, session_pb2

CLASSES = {
    "Account", "Accounts", "ApiKey", "AsyncAccounts", "AuditChange", "AuditEvent", "NewSecret", "UsageLimits",
    "AsyncClient", "AsyncOpenSession", "AsyncStream", "AsyncTextStream", "Bill", "Candidate", "Client", "Completion",
    "Limits", "TokenLogprob",
    "Meter", "Model", "ModelPrices", "MoreOptions", "OneLine", "OpenSession", "PrintedAnswer", "Progress", "Session",
    "SessionOptions", "SessionWarning", "Stream", "TextStream", "Usage", "__version__", "LedgerBlock", "LedgerEntry",
    "Price", "Receipt", "ReceiptEntry", "UsageReport", "UsageRow", "Verification", "read_receipt", "verify_receipt",
    "write_receipt",
}  # fmt: skip
ERRORS = {
    "AccountExistsError", "InsufficientCreditsError", "RefundExceedsChargeError", "ReceiptNotReadyError",
    "LedgerBlockNotFoundError", "ReceiptUnreadableError",
    "AccountNotFoundError", "ApiKeyNotFoundError", "ApiKeyRevokedError", "LastAdminKeyError",
    "LimitReachedError", "ScopeRequiredError",
    "AlreadyExistsError", "ApiKeyInvalidError", "ApiKeyMissingError", "BatchError", "CallCancelledError",
    "ChatTemplateRefusedError", "ChatUnsupportedError", "ConfigError", "ConnectionFullError", "ContextExceededError",
    "DeadlineExceededError", "DrainingError", "FailedPreconditionError", "FieldInvalidError", "GenerationEndedError",
    "GenerationLostError", "InternalError",
    "InvalidArgumentError", "ModelColdError", "ModelFailedError", "ModelInUseError", "ModelNotFoundError",
    "ModelRequiredError", "NoSessionError", "NotFoundError", "PermissionDeniedError", "PromptEmptyError",
    "ProtocolError", "QueueFullError", "ReaderTooSlowError", "ReplicaLostError", "RequestIdReusedError",
    "ResourceExhaustedError", "RoleRequiredError", "RoleUnknownError", "SessionDiffersError", "SessionEndedError",
    "SessionNotFoundError", "StoreUnavailableError", "TidemillError", "TlsError", "UnauthenticatedError",
    "UnavailableError", "UnimplementedError", "UnreachableError",
}  # fmt: skip


def test_the_exported_names_are_these() -> None:
    assert set(tidemill.__all__) == CLASSES | ERRORS
    assert all(hasattr(tidemill, name) for name in tidemill.__all__)


def test_looking_into_it_shows_the_public_names_alone() -> None:
    assert dir(tidemill) == sorted(tidemill.__all__)


def test_the_version_is_that_of_the_installation() -> None:
    assert tidemill.__version__ == version("tidemill")


def test_importing_it_loads_neither_the_cli_nor_the_server() -> None:
    script = "import sys, tidemill; tidemill.Client; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "grpc" in loaded
    assert not loaded & {"typer", "rich", "click", "tidemill_services", "tidemill_serving", "tidemill_models", "numpy"}


def test_a_replica_that_wants_the_messages_does_not_load_the_client() -> None:
    script = "import sys, tidemill.engine.v1.engine_pb2_grpc; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "grpc" in loaded
    assert not loaded & {"tidemill.public_names", "tidemill.client", "tidemill.errors"}


def test_a_name_that_is_not_there_is_said_to_be_missing() -> None:
    assert not hasattr(tidemill, "no_such_name")
    assert not hasattr(tidemill, "__no_such_name__")


def test_every_method_is_in_the_contract_with_its_messages() -> None:
    files = (session_pb2.DESCRIPTOR, model_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR, account_pb2.DESCRIPTOR)
    served = {
        f"/{service.full_name}/{method.name}": (method.input_type, method.output_type, method.server_streaming)
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    called = [found for found in vars(methods).values() if isinstance(found, Method)]
    assert len(called) == 36
    for found in called:
        assert served[found.path] == (found.request.DESCRIPTOR, found.reply.DESCRIPTOR, found.streams)
