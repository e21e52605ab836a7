"""The control plane."""

import os

# gRPC reads it once, when it is imported; else it writes a line into the log for every handshake that fails.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
