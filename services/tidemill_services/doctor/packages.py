"""Python and the packages, against what the installed Tidemill's own metadata asks for."""

import platform
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

_OURSELVES = "tidemill"


def find_distribution(name: str, path: Sequence[str] | None = None) -> Distribution | None:
    """What is installed under this name, on `sys.path` or on the given one; the first found wins, as in imports."""
    found = distributions(name=name) if path is None else distributions(name=name, path=list(path))
    # A distribution that was half removed may have no metadata left.
    return next((each for each in found if each.metadata and each.metadata["Version"]), None)


def check_python(path: Sequence[str] | None = None, running: str = platform.python_version()) -> Finding:
    """The running Python against Requires-Python."""
    ourselves = find_distribution(_OURSELVES, path)
    needed = ourselves.metadata["Requires-Python"] if ourselves else None
    if needed and not SpecifierSet(needed).contains(running, prereleases=True):
        return wrong(
            "Python", f"This is Python {running}, and Tidemill needs {needed}: make a new environment with one."
        )
    return ok("Python", f"{running}.")


def check_packages(*, postgres: bool, path: Sequence[str] | None = None) -> list[Finding]:
    """Each package that a server needs here: those of `server`, of the onnxruntime that is installed, of Postgres."""
    ourselves = find_distribution(_OURSELVES, path)
    if ourselves is None:
        return [warning("packages", "Tidemill runs from a folder and is not installed, so nothing says what it needs.")]
    extras = _extras(postgres=postgres, path=path)
    needed = list(_requirements(ourselves.requires or [], extras))
    problems = [found for requirement in needed if (found := _problem(requirement, extras, path)) is not None]
    if problems:
        return problems
    num_packages = len({canonicalize_name(requirement.name) for requirement in needed})
    return [ok("packages", f"Tidemill {ourselves.version} has the {num_packages} packages that it needs.")]


def _extras(*, postgres: bool, path: Sequence[str] | None) -> list[str]:
    engines = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
    wanted = [extra for extra, name in engines.items() if find_distribution(name, path) is not None]
    return ["server", *wanted, *(["postgres"] if postgres else [])]


def _requirements(lines: Collection[str], extras: Collection[str]) -> Iterator[Requirement]:
    """What applies with these extras; an extra that names others of ours is followed into them."""
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if canonicalize_name(requirement.name) != _OURSELVES:
            yield requirement
        elif more := requirement.extras - set(extras):
            yield from _requirements(lines, [*extras, *more])


def _problem(requirement: Requirement, extras: Collection[str], path: Sequence[str] | None) -> Finding | None:
    try:
        installed = find_distribution(requirement.name, path)
        version = installed.version if installed else None
    except PackageNotFoundError:
        version = None
    extra = next((name for name in ("gpu", "cpu") if name in extras), "cpu")
    wanted = f"tidemill[{extra},postgres]" if "postgres" in extras else f"tidemill[{extra}]"
    if version is None:
        return wrong("packages", f"{requirement.name} is not installed: run `pip install '{wanted}'`.")
    if not requirement.specifier.contains(version, prereleases=True):
        return wrong(
            "packages",
            f"{requirement.name} is {version}, and Tidemill needs {requirement.specifier}: "
            f"run `pip install '{requirement.name}{requirement.specifier}'`.",
        )
    return None
