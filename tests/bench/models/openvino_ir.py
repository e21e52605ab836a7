"""The checkpoint as OpenVINO's own format, by optimum-intel. Runs in OpenVINO's environment:

.venv-peers-openvino/bin/python -m tests.bench.models.openvino_ir 125m
"""

import shutil
import subprocess
import sys

from tests.bench.models.shapes import SHAPES, Shape

FORMATS = {
    "fp32": ("--weight-format", "fp32"),
    "int8": ("--weight-format", "int8"),
    "int4": ("--weight-format", "int4", "--group-size", "32", "--ratio", "1.0", "--sym"),
}


def convert(shape: Shape) -> None:
    """Convert what is not there yet; the name comes last, so that half of one is none."""
    tool = (sys.executable, "-m", "optimum.commands.optimum_cli")
    for name, arguments in FORMATS.items():
        folder = shape.folder / f"openvino-{name}"
        if folder.exists():
            continue
        half = folder.with_name(f"{folder.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        given = ("--model", str(shape.folder / "checkpoint"), "--task", "text-generation-with-past", *arguments)
        subprocess.run([*tool, "export", "openvino", *given, str(half)], check=True)
        half.rename(folder)
        print(f"made {folder}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SHAPES:
        convert(SHAPES[wanted])
