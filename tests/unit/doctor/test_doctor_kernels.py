"""Whether the doctor speaks of our own kernels where there is a use for it, and only there."""

from pathlib import Path

import pytest

from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.kernels import check_kernels, processor_flags


@pytest.mark.parametrize("flags", [{"asimd", "bf16"}, set()])
def test_a_processor_for_which_the_library_is_not_written_needs_none(flags: set[str]) -> None:
    assert check_kernels(flags, is_built=False).level is Level.OK


@pytest.mark.parametrize("flags", [{"lm", "avx2", "fma", "avx512_vnni"}, {"lm", "avx2", "fma", "avx_vnni"}, {"lm"}])
def test_a_processor_that_computes_as_fast_without_the_library_misses_it_for_choosing_tokens(flags: set[str]) -> None:
    found = check_kernels(flags, is_built=False)
    assert found.level is Level.WARNING
    assert "sampled answers" in found.sentence
    assert "half of their speed" not in found.sentence
    assert check_kernels(flags, is_built=True).level is Level.OK


def test_a_library_that_was_not_built_is_a_warning_that_says_what_to_do() -> None:
    found = check_kernels({"lm", "avx2", "fma"}, is_built=False)
    assert found.level is Level.WARNING
    assert "half of their speed" in found.sentence
    assert "C compiler" in found.sentence


def test_whose_kernels_compute_is_said() -> None:
    assert check_kernels({"lm", "avx2", "fma"}, is_built=True).sentence.startswith("Products")
    assert check_kernels({"lm", "avx2", "fma", "avx512f"}, is_built=True).sentence.startswith("Quantised products")
    assert "ONNX Runtime's" in check_kernels({"lm", "avx2", "fma"}, is_built=True, are_wanted=False).sentence


def test_the_processors_flags_are_read_from_what_linux_tells(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: some\nflags\t\t: fpu avx2 fma\n\nflags\t\t: fpu\n")
    assert processor_flags(cpuinfo) == {"fpu", "avx2", "fma"}
    assert processor_flags(tmp_path / "none") == frozenset()
