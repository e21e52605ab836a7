"""Who is measured: each engine with the environment it is installed in and the file of each precision that it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from sys import executable

from tests.bench.common.packages import ROOT
from tests.bench.models.shapes import PRECISIONS, Shape

OURS = "tidemill"
STOCK = "tidemill stock"  # the same with ONNX Runtime's own kernels
SAME_FILE = (STOCK, "onnxruntime-genai")  # compared with ours on the same file only


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine and what it can be asked to run."""

    name: str
    module: str
    environment: str  # "": ours
    needs: str  # what must be installed there
    files: dict[str, str] = field(default_factory=dict)  # precision → file or folder beside the model's packages
    slowness: float = 1.0  # how many times an ordinary engine's time it takes, about; for the estimate
    arguments: tuple[str, ...] = ()  # of its own
    keeps: bool = False  # whether it can keep something that makes its next start faster

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ROOT / self.environment / "bin" / "python" if self.environment else Path(executable)

    def model(self, shape: Shape, precision: str) -> Path:
        """The file of one precision."""
        return shape.folder / self.files[precision].format(name=shape.name)

    def why_absent(self, shape: Shape, precision: str) -> str:
        """Why it cannot be measured here; "" when it can."""
        if self.environment and not any(ROOT.glob(f"{self.environment}/lib/python*/site-packages/{self.needs}")):
            return f"{self.needs} is not installed in {self.environment}"
        if not self.model(shape, precision).exists():
            return f"{self.model(shape, precision).name} was not made"
        return ""


FAMILIES = {  # what is measured in the same turns
    "fp32": ("fp32",),
    "int8": ("int8-b32", "int8-row", "int8-b128", "q8_0", "int8"),
    "int4": ("int4-b32", "q4_0", "int4"),
}
FAMILY_OF = {precision: family for family, precisions in FAMILIES.items() for precision in precisions}
_PACKAGES = {precision: f"{{name}}-{precision}" for precision in PRECISIONS}
_BUILDER = {precision: name for precision, name in _PACKAGES.items() if precision != "int8-row"}
_SUBJECTS = "tests.bench.engine.subjects"
ENGINES = (
    Engine(OURS, f"{_SUBJECTS}.ours", "", "", _PACKAGES, keeps=True),
    Engine(STOCK, f"{_SUBJECTS}.ours", "", "", _BUILDER, arguments=("--kernels", "stock"), keeps=True),
    Engine("onnxruntime-genai", f"{_SUBJECTS}.genai", ".venv-peers-genai", "onnxruntime_genai", _BUILDER),
    Engine(
        "transformers",
        f"{_SUBJECTS}.transformers_generate",
        ".venv-peers-transformers",
        "transformers",
        {"fp32": "checkpoint"},
        slowness=3.0,
    ),
    Engine(
        "llama.cpp",
        f"{_SUBJECTS}.llama_cpp",
        ".venv-peers-llama",
        "llama_cpp",
        {"fp32": "fp32.gguf", "q8_0": "q8_0.gguf", "q4_0": "q4_0.gguf"},
    ),
    Engine(
        "OpenVINO GenAI",
        f"{_SUBJECTS}.openvino",
        ".venv-peers-openvino",
        "openvino_genai",
        {"fp32": "openvino-fp32", "int8": "openvino-int8", "int4": "openvino-int4"},
        keeps=True,
    ),
)
