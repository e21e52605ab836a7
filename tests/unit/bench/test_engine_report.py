"""What the engine's bench makes of its rows: tables, files, and one report of several pieces."""

from pathlib import Path

import pytest

from tests.bench.common.figures import Target
from tests.bench.engine.plan import FULL, METRICS, pieces
from tests.bench.engine.report import Report, as_markdown, merged, read
from tests.bench.engine.rows import Row
from tests.bench.engine.tables import figures_of

MACHINE = {"processor": "P", "processors": "2", "instructions": "avx2", "threads of each engine": "2"}


def row(metric: str, value: float, *, engine: str = "tidemill", batch: int = 1, peer: str = "") -> Row:
    precision = "fp32" if engine == "tidemill" else "q8_0"
    return Row("125m", engine, precision, metric, batch, value, "ratio" if peer else "ms", peer=peer)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    target = Target(0.2, is_floor=False)
    rows = [Row("125m", "tidemill", "fp32", "tick less its runs", 8, 0.3, "ms", target=target)]
    written = Report(MACHINE, ["llama.cpp q8_0 of 125m: q8_0.gguf was not made"], rows)
    written.write(tmp_path / "here" / "piece.json")
    assert read(tmp_path / "here" / "piece.json") == written


def test_the_later_piece_s_figure_replaces_the_same_figure_of_the_earlier_one() -> None:
    one = Report({**MACHINE, "load at the end": "1.0"}, ["a"], [row("decode", 1.0), row("decode", 2.0, batch=8)])
    other = Report({**MACHINE, "load at the end": "2.0"}, ["a", "b"], [row("decode", 3.0), row("prefill", 4.0)])
    found = merged([one, other])
    assert [(each.metric, each.batch, each.value) for each in found.rows] == [
        ("decode", 1, 3.0),
        ("decode", 8, 2.0),
        ("prefill", 1, 4.0),
    ]
    assert found.absent == ["a", "b"]
    assert found.facts == {**MACHINE, "load at the end": "1.0 / 2.0"}


def test_a_figure_and_the_ratio_to_each_peer_are_different_figures() -> None:
    rows = [
        row("decode", 1.0),
        row("decode by A fp32", 2.0, peer="A fp32"),
        row("decode by B fp32", 3.0, peer="B fp32"),
    ]
    assert len(merged([Report(MACHINE, [], rows)]).rows) == 3


@pytest.mark.parametrize("name", MACHINE)
def test_pieces_of_different_machines_are_not_merged(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        merged([Report(MACHINE, [], []), Report({**MACHINE, name: "another"}, [], [])])


def test_a_table_has_a_line_for_each_engine_and_a_column_for_each_batch_or_part() -> None:
    rows = [row("decode", 1.0, batch=8), row("decode", 2.0, batch=1), row("cold start: load", 3.0)]
    decode, cold = figures_of(rows)
    assert decode.columns == ("batch 1", "batch 8")
    assert decode.lines == (("tidemill fp32", ("2.00", "1.00")),)
    assert cold.columns == ("load",)


def test_tables_stand_by_model_and_family_in_whatever_order_their_pieces_came() -> None:
    small = Row("16m", "tidemill", "fp32", "decode", 1, 1.0, "ms")
    quantized = Row("125m", "tidemill", "int8-b32", "decode", 1, 1.0, "ms")
    titles = [figures.title for figures in figures_of([small, quantized, row("decode", 1.0)])]
    assert titles == ["decode, 125m, fp32: ms", "decode, 125m, int8: ms", "decode, 16m, fp32: ms"]


def test_comparisons_stand_behind_their_medians_with_the_worst_first() -> None:
    rows = [
        row("decode", 1.0),
        row("decode by A fp32", 2.0, peer="A fp32"),
        row("decode by B fp32", 0.5, peer="B fp32"),
    ]
    medians, ratios = figures_of(rows)
    assert medians.title == "decode, 125m, fp32: ms"
    assert [line for line, _ in ratios.lines] == ["tidemill fp32 by B fp32", "tidemill fp32 by A fp32"]


def test_the_page_names_who_is_absent_and_what_is_lost_before_the_tables() -> None:
    rows = [row("decode", 1.0), row("decode by A fp32", 0.5, peer="A fp32")]
    page = as_markdown(Report(MACHINE, ["A is not here"], rows))
    assert page.index("absent: A is not here") < page.index("| lost |") < page.index("## decode, 125m")


def test_the_plan_tells_the_minutes_of_every_metric_of_every_model() -> None:
    counts = {(shape, family): 4 for shape in FULL.shapes for family in FULL.families}
    found = list(pieces(FULL, counts))
    assert {(shape, family, metric) for shape, family, metric, _ in found} == {
        (*key, metric) for key in counts for metric in METRICS
    }
    assert all(seconds > 0 for *_, seconds in found)
