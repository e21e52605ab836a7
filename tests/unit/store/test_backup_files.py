"""A file that is not as it was written, or not ours, is refused with its kind of error before a database is touched."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill_services.domain.errors import BackupDamagedError, BackupUnknownError, CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.backups.dump import backed_up_tables
from tidemill_services.store.backups.format import BackupReader, BackupWriter, Header, Row
from tidemill_services.store.backups.restore import check_backup, restore
from tidemill_services.store.sqlite import SqliteBackend

HEAD = migrations.newest_revision()
COLUMNS = {table.name: tuple(table.columns.keys()) for table in backed_up_tables(HEAD)}
NUM_ROWS = 200


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup of some accounts."""
    path = tmp_path / "backup"
    with path.open("wb") as opened:
        writer = BackupWriter(opened, Header(HEAD, 1_800_000_000_000, COLUMNS))
        for number in range(NUM_ROWS):
            row = {"account_id": f"a{number}", "display_name": "Ada ✓", "create_ms": 2**62 + number, "use_cache": True}
            writer.write_row("accounts", [row.get(column) for column in COLUMNS["accounts"]])
        writer.end()
    return path


def lines_of(path: Path) -> list[dict | list]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def write_lines(path: Path, lines: list[dict | list]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()))


def test_a_whole_file_is_found_whole(file: Path) -> None:
    found = check_backup(file)
    assert found.header == Header(HEAD, 1_800_000_000_000, COLUMNS)
    assert found.totals.num_rows == NUM_ROWS
    with file.open("rb") as opened:
        rows = list(BackupReader(opened).rows())
    assert [row.values[0] for row in rows] == [f"a{number}" for number in range(NUM_ROWS)]
    assert 2**62 + 7 in rows[7].values


def test_bytes_and_exact_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    values = (bytes(range(256)), b"", 2**63 - 1, -(2**63), 0.1, 1e300, True, None, '\x00 \n " \\ é \U0001f30a', "")
    with (tmp_path / "file").open("w+b") as opened:
        writer = BackupWriter(opened, Header("1", 1, {"t": tuple("abcdefghij")}))
        writer.write_row("t", values)
        writer.end()
        opened.seek(0)
        (row,) = BackupReader(opened).rows()
    assert row == Row("t", values, row.num_bytes)
    assert [type(value) for value in row.values] == [type(value) for value in values]


def test_a_file_that_is_cut_anywhere_is_damaged(file: Path) -> None:
    whole = file.read_bytes()
    for length in {11, 60, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(BackupDamagedError):
            check_backup(file)


def test_a_file_of_which_a_byte_changed_anywhere_is_damaged(file: Path) -> None:
    whole = file.read_bytes()
    seeded = random.Random(4)
    for _ in range(200):
        place = seeded.randrange(10, len(whole))  # before that stands what gzip says of itself
        changed = bytearray(whole)
        changed[place] ^= 1 << seeded.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(BackupDamagedError):
            check_backup(file)


def drop_a_row(lines: list) -> None:
    del lines[5]


def swap_two_rows(lines: list) -> None:
    lines[5], lines[6] = lines[6], lines[5]


def change_a_row(lines: list) -> None:
    lines[5][2] = "Eve"


def repeat_a_row(lines: list) -> None:
    lines.insert(5, lines[5])


def cut_the_tail(lines: list) -> None:
    del lines[100:]


def cut_all_but_the_header(lines: list) -> None:
    del lines[1:]


def change_the_time(lines: list) -> None:
    lines[0]["time_ms"] += 1


def add_a_line(lines: list) -> None:
    lines.append(["accounts", "late"])


def change_a_sum(lines: list) -> None:
    lines[-1]["sha256"] = "0" * 64


def break_the_last_line(lines: list) -> None:
    del lines[-1]["rows"]


@pytest.mark.parametrize(
    "damage",
    [
        drop_a_row,
        swap_two_rows,
        change_a_row,
        repeat_a_row,
        cut_the_tail,
        cut_all_but_the_header,
        change_the_time,
        add_a_line,
        change_a_sum,
        break_the_last_line,
    ],
)
def test_lines_that_were_changed_and_packed_again_are_damaged(file: Path, damage: Callable[[list], None]) -> None:
    lines = lines_of(file)
    write_lines(file, lines)
    check_backup(file)
    damage(lines)
    write_lines(file, lines)
    with pytest.raises(BackupDamagedError):
        check_backup(file)


def test_a_number_of_rows_that_is_another_one_is_damaged(file: Path) -> None:
    lines = lines_of(file)
    lines[-1]["rows"]["accounts"] += 1
    write_lines(file, lines)
    with file.open("rb") as opened, pytest.raises(BackupDamagedError, match="other rows"):
        list(BackupReader(opened).rows())


@pytest.mark.parametrize(
    "content",
    [b"", b"a poem", b"\x1f\x8b", gzip.compress(b"a poem\n"), gzip.compress(b'{"format": "other"}\n[]\n')],
    ids=["empty", "text", "the begin of a gzip", "a gzip of text", "another format"],
)
def test_a_file_of_another_kind_is_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises((BackupUnknownError, BackupDamagedError)) as refusal:
        check_backup(tmp_path / "file")
    assert isinstance(refusal.value, BackupUnknownError) or len(content) == 2


def written(path: Path, header: Header) -> Path:
    with path.open("wb") as opened:
        BackupWriter(opened, header).end()
    return path


def test_what_a_newer_version_wrote_is_unknown(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupUnknownError, match=r"schema 9999, .*knows it up to"):
        check_backup(written(tmp_path / "newer", Header("9999", 1, COLUMNS)))
    with pytest.raises(BackupUnknownError, match="other tables than the schema"):
        check_backup(written(tmp_path / "tables", Header(HEAD, 1, {**COLUMNS, "more": ("a",)})))
    lines = lines_of(file)
    lines[0]["version"] = 2  # type: ignore[call-overload]
    write_lines(file, lines)
    with pytest.raises(BackupUnknownError, match="version 2 of the format"):
        check_backup(file)


def test_a_refused_file_leaves_no_database_behind(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])
    backend = SqliteBackend(tmp_path / "data" / "tidemill.db")
    with pytest.raises(BackupDamagedError):
        restore(backend, file)
    backend.dispose()
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotStartError, match="cannot be read: No such file"):
        check_backup(tmp_path / "none")
    with pytest.raises(CannotStartError, match="cannot be read: Is a directory"):
        check_backup(tmp_path)
