"""The stubs are made anew while processes start that import them: building a wheel does so, beside all other tests."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_stub_is_replaced_at_once_and_only_where_it_changed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    stubs = tmp_path / "clients" / "tidemill" / "v1"
    stubs.mkdir(parents=True)

    def generate() -> dict[str, tuple[int, int]]:
        subprocess.run([sys.executable, tmp_path / "protos" / "generate.py"], check=True, timeout=300)
        assert [path.name for path in (tmp_path / "clients").iterdir()] == ["tidemill"]
        found = {path.name: path.stat() for path in stubs.iterdir() if path.name != "__init__.py"}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}

    first = generate()
    assert {"session_pb2.py", "session_pb2.pyi", "session_pb2_grpc.py", "session_pb2_grpc.pyi"} <= first.keys()
    with (stubs / "session_pb2.py").open() as read_by_another:
        (stubs / "session_pb2.py").chmod(0o600)
        before = read_by_another.read()
        read_by_another.seek(0)
        with (stubs / "session_pb2.py").open("a") as changed:
            changed.write("# as an older contract had it\n")
        second = generate()
        assert read_by_another.read() == before + "# as an older contract had it\n"
    assert {name for name in first if first[name] != second[name]} == {"session_pb2.py"}
    assert (stubs / "session_pb2.py").read_text() == before
