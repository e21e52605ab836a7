"""Our own library: it makes models fast on a processor with AVX2 and without VNNI, and chooses tokens on any x86-64."""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning

_PACKAGE, _LIBRARY = "tidemill_serving.native", "libtidemill_kernels.so"
_X86_64 = "lm"
_NEEDED = frozenset({"avx2", "fma"})
_FAST_ALREADY = frozenset({"avx512_vnni", "avx_vnni"})
_FAST_IN_FLOAT = "avx512f"
_CURE = "install a C compiler (`cc`), then Tidemill again."


def check_kernels(flags: Collection[str], *, is_built: bool, are_wanted: bool = True) -> Finding:
    """Whether the library is there, where this processor has a use for it. `flags` as `processor_flags` reads them.

    `are_wanted` says whether our kernels may compute; tokens are chosen by the library whoever computes.
    """
    computes = are_wanted and set(flags) >= _NEEDED and not _FAST_ALREADY & set(flags)
    if is_built and computes:
        products = "Quantised products" if _FAST_IN_FLOAT in flags else "Products"
        return ok("kernels", f"{products} and attention are computed by Tidemill's own kernels.")
    if is_built or _X86_64 not in flags:
        return ok("kernels", "ONNX Runtime's own kernels compute.")
    cost = "sampled answers take some milliseconds a token more"
    if computes:
        cost = f"int8 and int4 models run at about half of their speed, and {cost}"
    return warning("kernels", f"Tidemill's own library was not built, so {cost}: {_CURE}")


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the first processor can, as Linux tells it; nothing where it does not."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def library_is_built() -> bool:
    """Whether the installation has made it."""
    found = find_spec(_PACKAGE)
    return found is not None and any(
        (Path(folder) / _LIBRARY).is_file() for folder in found.submodule_search_locations or ()
    )
