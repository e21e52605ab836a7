"""Whether the doctor speaks of our own kernels where there is a use for it, and only there."""

from pathlib import Path

import pytest

from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.kernels import check_kernels, processor_flags


@pytest.mark.parametrize("flags", [{"avx2", "fma", "avx512_vnni"}, {"avx2", "fma", "avx_vnni"}, {"sse4_2"}, set()])
def test_a_processor_that_has_no_use_for_the_library_needs_none(flags: set[str]) -> None:
    assert check_kernels(flags, is_built=False).level is Level.OK


def test_a_library_that_was_not_built_is_a_warning_that_says_what_to_do() -> None:
    found = check_kernels({"avx2", "fma"}, is_built=False)
    assert found.level is Level.WARNING
    assert "C compiler" in found.sentence
    assert check_kernels({"avx2", "fma"}, is_built=True).level is Level.OK
    assert check_kernels({"avx2", "fma"}, is_built=True).sentence.startswith("Products")
    assert check_kernels({"avx2", "fma", "avx512f"}, is_built=True).sentence.startswith("Quantised products")


def test_the_processors_flags_are_read_from_what_linux_tells(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: some\nflags\t\t: fpu avx2 fma\n\nflags\t\t: fpu\n")
    assert processor_flags(cpuinfo) == {"fpu", "avx2", "fma"}
    assert processor_flags(tmp_path / "none") == frozenset()
