"""A model package on disk: opened cheaply by `load_package`, checked wholly by `check_package` in check.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill_models.errors import ModelPackageError
from tidemill_models.manifest import Manifest
from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package_specs import DecoderSpec

_MAX_MANIFEST_BYTES = 1 << 20
_MAX_TEMPLATE_BYTES = 64 << 10


@dataclass(frozen=True)
class ModelPackage:
    """An opened package: every file that its manifest names is there, inside the folder, with the right size."""

    manifest: Manifest
    folder: Path  # resolved
    paths: Mapping[str, Path]  # by the name in [files], resolved

    @property
    def digest(self) -> str:
        """The model digest, 64 hex digits."""
        return self.manifest.digest

    @property
    def decoder(self) -> DecoderSpec:
        """The [decoder] table. Raises ModelPackageError where the engine is another one."""
        if self.manifest.decoder is None:
            sentence = f"the package's engine is {self.manifest.engine}, not decoder"
            raise ModelPackageError(sentence, path=str(self.folder / MANIFEST_NAME), key="engine")
        return self.manifest.decoder

    @property
    def graph_path(self) -> Path:
        """Where the decoder's ONNX file lies."""
        return self.paths[self.decoder.graph]

    @property
    def tokenizer_path(self) -> Path:
        """Where the tokenizer.json lies."""
        return self.paths[self.decoder.tokenizer]

    def chat_templates(self) -> dict[str, str]:
        """The source of each chat template by its name; empty for a model without a chat."""
        if self.manifest.chat is None:
            return {}
        files = self.manifest.chat.templates
        return {name: read_text(self.paths[file], _MAX_TEMPLATE_BYTES) for name, file in files.items()}


def load_package(folder: Path) -> ModelPackage:
    """Open a package without reading its large files.

    Checks the manifest, and that each named file is there, lies inside the folder and has its size; digests and
    content are `check_package`'s. Raises ModelPackageError.
    """
    manifest_path = folder / MANIFEST_NAME
    if not manifest_path.is_file():
        raise ModelPackageError("is missing", path=str(manifest_path))
    manifest = Manifest.from_toml(read_text(manifest_path, _MAX_MANIFEST_BYTES), path=str(manifest_path))
    resolved = folder.resolve()
    return ModelPackage(manifest, resolved, {name: _resolve(resolved, name, manifest) for name in manifest.files})


def bundled_packages() -> list[Path]:
    """The folders of the packages that are shipped with Tidemill itself, by name."""
    bundled = Path(__file__).parent / "bundled"
    return sorted(manifest.parent for manifest in bundled.glob(f"*/{MANIFEST_NAME}"))


def read_text(path: Path, limit_bytes: int) -> str:
    """The UTF-8 text of a small file of a package. Raises ModelPackageError."""
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise ModelPackageError(f"has more than {limit_bytes} bytes", path=str(path))
        return content.decode()
    except UnicodeDecodeError as error:
        raise ModelPackageError("is not UTF-8", path=str(path)) from error
    except OSError as error:
        raise ModelPackageError(f"cannot be read: {error.strerror}", path=str(path)) from error


def _resolve(folder: Path, name: str, manifest: Manifest) -> Path:
    path = folder / name
    try:
        resolved = path.resolve(strict=True)
        size = resolved.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise ModelPackageError("is named in [files] and missing", path=str(path)) from error
    if not resolved.is_relative_to(folder):
        raise ModelPackageError(f"leads outside the folder, to {resolved}", path=str(path))
    if not resolved.is_file():
        raise ModelPackageError("is not a regular file", path=str(path))
    expected = manifest.files[name].bytes
    if size != expected:
        raise ModelPackageError(f"has {size} bytes, and [files] says {expected}", path=str(path))
    return resolved
