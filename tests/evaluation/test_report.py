"""Tables of a bench's rows."""

import io

from rich.console import Console

from wys.evaluation.report import markdown_table, rich_table, rows_by_kind, tables_of

ROWS = [
    {"method": "wys", "kind": "all", "iou": 0.5, "psnr_inside": 21.26, "max_outside": 0},
    {"method": "noop", "kind": "floor", "iou": None, "psnr_inside": None, "max_outside": 12},
]


def test_markdown_has_a_line_for_each_row_and_a_dash_for_undefined() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| method | edit | mask IoU | PSNR inside (dB) | largest change outside |",
        "| --- | --- | ---: | ---: | ---: |",
        "| wys | all | 0.50 | 21.3 | 0 |",
        "| noop | floor | – | – | 12 |",
    ]


def test_columns_can_be_chosen() -> None:
    assert markdown_table(ROWS, keys=["method", "max_outside"]).splitlines()[2] == "| wys | 0 |"


def test_a_figure_is_turned_into_a_row_for_each_kind() -> None:
    rows = [
        {"method": "noop", "kind": "all", "scene": "all", "iou": None},
        {"method": "wys", "kind": "all", "scene": "all", "iou": 0.5, "iou_low": 0.4, "iou_high": 1},
        {"method": "wys", "kind": "add", "scene": "all", "iou": 0.25},
        {"method": "wys", "kind": "add", "scene": 0, "iou": 0.125},
    ]
    assert markdown_table(rows_by_kind(rows, "iou", intervals=True)).splitlines() == [
        "| edit | noop | wys |",
        "| --- | ---: | ---: |",
        "| all | – | 0.50 [0.40, 1] |",
        "| add | – | 0.25 |",
    ]


def test_every_value_of_a_sweep_keeps_its_column() -> None:
    rows = [
        {"method": "wys", "kind": "all", "sweep": "threshold", "value": value, "iou": value / 2}
        for value in (0.2, 0.6)
    ]
    assert markdown_table(rows_by_kind(rows, "iou")).splitlines()[::2] == [
        "| edit | wys, threshold 0.2 | wys, threshold 0.6 |",
        "| all | 0.10 | 0.30 |",
    ]


def test_speed_rows_have_their_own_columns() -> None:
    rows = [{"name": "edit", "seconds": 1.5, "ratio_to_diffusers": 0.8, "peak_mb": 900.0}]
    assert markdown_table(rows).splitlines()[-1] == "| edit | 1.50 | 0.80 | 900 |"


def test_rich_table_shows_every_row() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(rich_table(ROWS, "a title"))
    text = console.export_text()
    assert "a title" in text and "21.3" in text and "floor" in text


def test_every_study_has_a_table_of_its_own() -> None:
    rows = [
        {"study": "map", "variant": "head", "iou": 0.5, "predictions": 1},
        {"study": "verdict", "variant": "own limits", "false_edit": 0.25},
        {"study": "map", "variant": "both", "iou": None, "predictions": 2},
    ]
    tables = tables_of(rows)
    assert list(tables) == ["map", "verdict"] and tables["map"] == [rows[0], rows[2]]
    assert markdown_table(tables["map"]).splitlines() == [
        "| variant | iou | predictions |",
        "| --- | ---: | ---: |",
        "| head | 0.50 | 1 |",
        "| both | – | 2 |",
    ]
    assert "false edit" in markdown_table(tables["verdict"])
    assert tables_of(ROWS) == {None: ROWS}
