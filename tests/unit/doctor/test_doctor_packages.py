"""Distributions written into a folder, as an installer writes them."""

from pathlib import Path

import pytest

from tidemill_services.doctor.engine import Runtime, check_gpu, check_runtime, nvidia_driver
from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.packages import check_packages, check_python

LOADED = Runtime("1.31.1", ("CPUExecutionProvider",))
UNLOADABLE = Runtime(error="ModuleNotFoundError: No module named 'onnxruntime'")


def install(folder: Path, name: str, version: str, *lines: str, files: tuple[str, ...] = ()) -> None:
    made = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    made.mkdir(parents=True)
    text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines])
    (made / "METADATA").write_text(text + "\n")
    (made / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def install_tidemill(folder: Path) -> None:
    install(
        folder,
        "tidemill",
        "0.1.0",
        "Requires-Python: >=3.11",
        "Requires-Dist: grpcio<2,>=1.81.1",
        'Requires-Dist: sqlalchemy[asyncio]<2.2,>=2.0.40; extra == "server"',
        'Requires-Dist: tidemill[server]; extra == "cpu"',
        'Requires-Dist: onnxruntime<1.32,>=1.31.1; extra == "cpu"',
        'Requires-Dist: psycopg[binary]<4,>=3.2; extra == "postgres"',
        'Requires-Dist: tensors; sys_platform == "plan9"',
    )


def sentences(path: Path, *, postgres: bool = False) -> list[str]:
    return [
        found.sentence for found in check_packages(postgres=postgres, path=[str(path)]) if found.level is Level.WRONG
    ]


def test_what_is_installed_as_needed_is_one_line(tmp_path: Path) -> None:
    install_tidemill(tmp_path)
    for name, version in (("grpcio", "1.82.0"), ("SQLAlchemy", "2.0.50"), ("onnxruntime", "1.31.1")):
        install(tmp_path, name, version)
    (found,) = check_packages(postgres=False, path=[str(tmp_path)])
    assert found.level is Level.OK
    assert "3 packages" in found.sentence


def test_missing_and_unfit_packages_are_named_with_what_to_run(tmp_path: Path) -> None:
    install_tidemill(tmp_path)
    install(tmp_path, "grpcio", "1.60.0")
    unfit, missing = sentences(tmp_path)
    assert "grpcio is 1.60.0" in unfit
    assert ">=1.81.1" in unfit
    assert missing == "sqlalchemy is not installed: run `pip install 'tidemill[cpu]'`."


def test_extras_count_where_they_are_used(tmp_path: Path) -> None:
    install_tidemill(tmp_path)
    for name, version in (("grpcio", "1.82.0"), ("sqlalchemy", "2.0.50"), ("onnxruntime", "1.20.0")):
        install(tmp_path, name, version)
    assert ["onnxruntime is 1.20.0" in line for line in sentences(tmp_path)] == [True]
    assert "psycopg is not installed" in sentences(tmp_path, postgres=True)[1]


def test_a_package_whose_metadata_is_gone_is_not_installed(tmp_path: Path) -> None:
    install_tidemill(tmp_path)
    install(tmp_path, "sqlalchemy", "2.0.50")
    (tmp_path / "grpcio-1.82.0.dist-info").mkdir()
    assert sentences(tmp_path) == ["grpcio is not installed: run `pip install 'tidemill[cpu]'`."]


def test_a_folder_that_is_not_installed_is_a_warning(tmp_path: Path) -> None:
    (found,) = check_packages(postgres=False, path=[str(tmp_path)])
    assert found.level is Level.WARNING


def test_an_old_python_is_named_with_what_is_needed(tmp_path: Path) -> None:
    install_tidemill(tmp_path)
    assert check_python([str(tmp_path)], running="3.11.2").level is Level.OK
    found = check_python([str(tmp_path)], running="3.10.9")
    assert found.level is Level.WRONG
    assert "3.10.9" in found.sentence
    assert ">=3.11" in found.sentence


def test_both_runtimes_at_once_are_wrong_even_if_one_loads(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1")
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = check_runtime(LOADED, needed=True, path=[str(tmp_path)])
    assert found.level is Level.WRONG
    assert "both installed" in found.sentence
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.sentence


@pytest.mark.parametrize(
    ("runtime", "files", "said"),
    [
        (
            LOADED,
            ("onnxruntime/__init__.py",),
            "half removed: 1 of its files are gone, such as onnxruntime/__init",
        ),
        (Runtime(error="ImportError: broken"), (), "cannot be loaded (ImportError: broken)"),
        (Runtime("1.22.0", ()), (), "1.31.1 is installed, and what loads is 1.22.0"),
    ],
)
def test_a_runtime_that_is_not_what_it_says_is_wrong(
    tmp_path: Path, runtime: Runtime, files: tuple[str, ...], said: str
) -> None:
    install(tmp_path, "onnxruntime", "1.31.1", files=files)
    found = check_runtime(runtime, needed=True, path=[str(tmp_path)])
    assert found.level is Level.WRONG
    assert said in found.sentence


def test_no_runtime_is_wrong_unless_replicas_are_fake(tmp_path: Path) -> None:
    assert check_runtime(UNLOADABLE, needed=True, path=[str(tmp_path)]).level is Level.WRONG
    assert check_runtime(UNLOADABLE, needed=False, path=[str(tmp_path)]).level is Level.OK


def test_a_runtime_that_loads_without_its_package_is_left_over(tmp_path: Path) -> None:
    found = check_runtime(LOADED, needed=True, path=[str(tmp_path)])
    assert found.level is Level.WRONG
    assert "no package of it is installed" in found.sentence


@pytest.mark.parametrize(
    ("package", "driver", "providers", "level"),
    [
        ("onnxruntime", None, ("CPUExecutionProvider",), Level.OK),
        ("onnxruntime", "driver 580.1", ("CPUExecutionProvider",), Level.WARNING),
        ("onnxruntime-gpu", None, ("CUDAExecutionProvider",), Level.WARNING),
        ("onnxruntime-gpu", "driver 580.1", ("CUDAExecutionProvider",), Level.OK),
        ("onnxruntime-gpu", "driver 580.1", ("CPUExecutionProvider",), Level.WARNING),
    ],
)
def test_the_gpu_and_the_package_must_fit_and_neither_is_wrong_unless_replicas_need_it(
    tmp_path: Path, package: str, driver: str | None, providers: tuple[str, ...], level: Level
) -> None:
    install(tmp_path, package, "1.31.1")
    runtime = Runtime("1.31.1", providers)
    assert check_gpu(runtime, driver=driver, needed=False, path=[str(tmp_path)]).level is level
    is_usable = package == "onnxruntime-gpu" and driver is not None and "CUDAExecutionProvider" in providers
    needed = check_gpu(runtime, driver=driver, needed=True, path=[str(tmp_path)])
    assert needed.level is (Level.OK if is_usable else Level.WRONG)


def test_a_gpu_whose_libraries_are_missing_is_told_with_what_brings_them(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    runtime = Runtime("1.31.1", ("CUDAExecutionProvider",), cuda_error="libcublasLt.so.13: cannot open")
    found = check_gpu(runtime, driver="driver 580.1", needed=True, path=[str(tmp_path)])
    assert found.level is Level.WRONG
    assert "libcublasLt.so.13" in found.sentence
    assert "pip install 'tidemill[gpu]'" in found.sentence


def test_the_driver_is_read_from_the_files_that_it_makes(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert nvidia_driver(tmp_path) is None
    (tmp_path / "dev" / "nvidia0").touch()
    assert nvidia_driver(tmp_path) == "driver of unknown version"
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 12:00:00 UTC 2025\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(line)
    assert nvidia_driver(tmp_path) == "driver 580.82.07"
