"""A model whose answers last as long as a test needs: on the fake device no answer ends by itself."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server_process import ServerProcess, server_process

TINY_LLAMA = Path(__file__).parents[1] / "models" / "tiny-llama"
LONG_LLAMA = "long-llama"
CONTEXT_LENGTH = 100_000  # 8 minutes of the fake device's 5 ms a token


def long_package(folder: Path, *, slots: int = 8) -> Path:
    """Make the package `long-llama` in `folder`, for `serve --models`."""
    package = folder / LONG_LLAMA
    shutil.copytree(TINY_LLAMA, package)
    graph = package / "model.onnx"
    before = _digest(graph)
    # Its table of angles ends at 1,024 positions, and a package is refused for that. The fake device reads no table: so
    # this one loses its name.
    graph.write_bytes(graph.read_bytes().replace(b"cos_cacheJ", b"no_tablesJ"))
    manifest = package / "model.toml"
    text = manifest.read_text()
    changes = {
        'name = "tiny-llama"': f'name = "{LONG_LLAMA}"',
        before: _digest(graph),
        "context_length = 1024": f"context_length = {CONTEXT_LENGTH}",
        "[prices]": f"[scaling]\nslots = {slots}\ntarget_generations_per_replica = {slots}\n\n[prices]",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    manifest.write_text(text)
    return package


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def long_server_process(
    folder: Path, *arguments: str, slots: int = 8, program: str = "tidemill_services", **environment: str
) -> Iterator[ServerProcess]:
    """A server with `long-llama` on the fake device, 5 ms a token; its data stay in `folder` for a next life."""
    if not (folder / "models").exists():
        long_package(folder / "models", slots=slots)
    options = ("--replica-device", "fake", "--models", str(folder / "models"))
    with server_process(folder / "data", *options, *arguments, program=program, **environment) as server:
        yield server
