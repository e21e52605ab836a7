"""Our own kernels, a library which makes quantised models fast on a processor with AVX2 and without VNNI."""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning

_PACKAGE, _LIBRARY = "tidemill_serving.native", "libtidemill_kernels.so"
_NEEDED = frozenset({"avx2", "fma"})
_FAST_ALREADY = frozenset({"avx512_vnni", "avx_vnni"})
_FAST_IN_FLOAT = "avx512f"


def check_kernels(flags: Collection[str], *, is_built: bool) -> Finding:
    """Whether the library is there, where this processor has a use for it. `flags` as `processor_flags` reads them."""
    if not set(flags) >= _NEEDED or _FAST_ALREADY & set(flags):
        return ok("kernels", "ONNX Runtime's own kernels suit this processor.")
    if is_built:
        products = "Quantised products" if _FAST_IN_FLOAT in flags else "Products"
        return ok("kernels", f"{products} and attention are computed by Tidemill's own kernels.")
    return warning(
        "kernels",
        "Tidemill's own kernels were not built, so int8 and int4 models run at about half of their speed: "
        "install a C compiler (`cc`), then Tidemill again.",
    )


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
