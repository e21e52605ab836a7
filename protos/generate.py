"""Generates the Python stubs of the contract into clients/tidemill (git-ignored, shipped in the wheel).

Run by `make protos`, which rebuilds only when a proto changed, and by the wheel's build hook.
"""

import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Generate messages, their type stubs and the gRPC stubs with theirs; return protoc's exit status."""
    output = ROOT / "clients"
    with tempfile.TemporaryDirectory(prefix=".stubs-", dir=output) as made:
        status = _generate(Path(made))
        if status == 0:
            _take_over(Path(made), output)
    if status == 0:
        for folder in ("v1", "engine", "engine/v1"):
            (output / "tidemill" / folder / "__init__.py").touch()
    return status


def _generate(output: Path) -> int:
    protos = sorted((ROOT / "protos" / "tidemill").rglob("*.proto"))
    # The plugin lies beside the interpreter; in an isolated build, on the PATH.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    arguments = [
        "protoc",
        f"--plugin=protoc-gen-mypy_grpc={shutil.which('protoc-gen-mypy_grpc', path=places)}",
        f"-I{ROOT / 'protos'}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_grpc_out={output}",
        *(str(proto) for proto in protos),
    ]
    return int(protoc.main(arguments))


def _take_over(made: Path, output: Path) -> None:
    """Put what changed in its place, each file at once: a process may start just now, which must not read a half."""
    for stub in sorted(path for path in made.rglob("*") if path.is_file()):
        place = output / stub.relative_to(made)
        if not place.is_file() or place.read_bytes() != stub.read_bytes():
            place.parent.mkdir(parents=True, exist_ok=True)
            stub.replace(place)


if __name__ == "__main__":
    sys.exit(main())
