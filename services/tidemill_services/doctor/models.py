"""The model packages that a start would register."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

MAX_READ_BYTES = 256 << 20  # of all packages together; more would take longer than anyone waits for the doctor
_MANIFEST = "model.toml"


def package_folders(folders: Iterable[Path]) -> list[Path]:
    """The bundled packages, then those in each folder, or the folder itself, in the order of a start."""
    from tidemill_models.package import bundled_packages  # noqa: PLC0415 - see check_models

    found = bundled_packages()
    for folder in folders:
        found += sorted(manifest.parent for manifest in (*folder.glob(_MANIFEST), *folder.glob(f"*/{_MANIFEST}")))
    return found


def check_models(folders: Sequence[Path], *, max_read_bytes: int = MAX_READ_BYTES) -> list[Finding]:
    """Each package, wholly until their bytes together reach the limit; the rest without their large files."""
    try:
        # What checks packages is in the extras, and the packages check says what is missing.
        from tidemill_models.check import check_package  # noqa: PLC0415
        from tidemill_models.errors import ModelPackageError  # noqa: PLC0415
        from tidemill_models.package import load_package  # noqa: PLC0415
    except ImportError as error:
        return [warning("models", f"Packages cannot be checked without {error.name}: install it.")]
    found, names = [], dict[str, Path]()
    for folder in package_folders(folders):
        try:
            opened = load_package(folder)
            num_bytes = sum(file.bytes for file in opened.manifest.files.values())
            deep = num_bytes <= max_read_bytes
            check_package(folder, deep=deep)
        except ModelPackageError as error:
            found.append(wrong("models", f"{error}. Repair the package, or remove it."))
            continue
        name = opened.manifest.name
        if deep:
            max_read_bytes -= num_bytes
        found.append(_judge(name, folder, names.get(name), deep=deep))
        names[name] = folder
    return found or [warning("models", f"There is no model package: put some into {folders[0]}.")]


def _judge(name: str, folder: Path, earlier: Path | None, *, deep: bool) -> Finding:
    if earlier is not None:
        return warning("models", f"{name} is in {earlier} and in {folder}, which is served: remove one of them.")
    if not deep:
        return ok("models", f"{name} in {folder} is complete; its files are large, and a replica checks their content.")
    return ok("models", f"{name} in {folder} is whole.")
