"""`Diff` -> CSV and JSON for other programs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from harness.cleaning import csv_cell, json_text
from harness.judge.sides import SideBySide
from harness.judge.verdict import Diff, JudgedCell, head_variants
from harness.report.ablation import as_data
from harness.report.sides import sides_data

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 1


def render_json(diffs: Sequence[Diff], *, explain: bool = False) -> str:
    """Return one table as an object, several as a list of them; `explain` adds what each crop and head gives."""
    tables = [_table(diff) | ({"explanations": _explanations(diff)} if explain else {}) for diff in diffs]
    return json_text(tables[0] if len(tables) == 1 else tables)


def render_csv(diffs: Sequence[Diff], sides: Sequence[str] = ()) -> str:
    """Return a line for each cell of each table; `sides` are the names of the tables that stand side by side."""
    cleaned = (
        {name: csv_cell(value) for name, value in line.items()} for line in _lines(diffs, sides, as_printed=True)
    )
    text: str = frame_of(cleaned).to_csv(index=False)
    return text


def cells_frame(diffs: Sequence[Diff]) -> "DataFrame":
    """Return a row for each cell of each table, with the columns of the CSV."""
    return frame_of(_lines(diffs))


def frame_of(lines: Iterable[dict[str, Any]]) -> "DataFrame":
    """Return a row for each line; a batch size is a whole number or missing."""
    import pandas as pd  # noqa: PLC0415 -- 0.3 s to import, and only these formats need it

    frame = pd.DataFrame(lines)
    if "batch" in frame:
        frame["batch"] = frame["batch"].astype("Int64")
    return frame


def _lines(diffs: Sequence[Diff], sides: Sequence[str] = (), *, as_printed: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a line for each cell; its published value is a number, or `as_printed` a text with all digits."""
    for diff, side in zip_longest(diffs, sides):
        for judged in diff.judged_cells.values():
            cell = _cell(judged)
            if judged.filled.at_small_scale:
                cell["references"] = []
            references = cell.pop("references")
            first = judged.filled.cell.references[0] if references else None
            batch = judged.filled.result.facts.get("batch") if judged.filled.result else None
            yield {
                "table": diff.spec.name,
                "edition": diff.spec.edition,
                **({"side": side} if sides else {}),
                **cell,
                "published": None if first is None else first.published.text if as_printed else first.published.value,
                "source": first.source.cite if first else None,
                "references": json.dumps(references, ensure_ascii=False) if references else None,
                "batch": batch if judged.filled.cell.kind in ("throughput", "train-speed") else None,
            }


def render_sides_json(tables: Sequence[SideBySide]) -> str:
    """Return for each table its sides, each a table as `render_json` has it with its name, and how they compare."""
    data = [
        {
            "schema": SCHEMA,
            "table": table.spec.name,
            **sides_data(table),
            "sides": [{"side": side.name, **_table(side.diff)} for side in table.sides],
        }
        for table in tables
    ]
    return json_text(data[0] if len(data) == 1 else data)


def render_sides_csv(tables: Sequence[SideBySide]) -> str:
    """Return a line for each cell of each side of each table."""
    sides = [side for table in tables for side in table.sides]
    return render_csv([side.diff for side in sides], [side.name for side in sides])


def _table(diff: Diff) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "table": diff.spec.name,
        "edition": diff.spec.edition,
        "machine": diff.table.machine.label if diff.table.machine else None,
        "cells": [_cell(judged) for judged in diff.judged_cells.values()],
        "shapes": [
            {
                "column": shape.column.key,
                "rows": shape.rows,
                "kendall": [_finite(v) for v in (shape.kendall.value, shape.kendall.low, shape.kendall.high)],
                "spearman": [_finite(v) for v in (shape.spearman.value, shape.spearman.low, shape.spearman.high)],
                "ratios": [
                    {"row": r.row.key, "to": r.reference.key, "measured": r.measured, "published": r.published}
                    for r in shape.ratios
                ],
                **({"orders": [asdict(one) | {"holds": one.holds} for one in shape.orders]} if shape.orders else {}),
            }
            for shape in diff.shapes
        ],
        "effects": [as_data(column) for column in diff.ablations],
    }


def _explanations(diff: Diff) -> list[dict[str, Any]]:
    return [
        {
            "row": judged.filled.cell.row.key,
            "column": judged.filled.cell.column.key,
            "crop": variant.crop,
            "head": variant.head or None,
            "value": variant.value,
        }
        for judged in diff.judged_cells.values()
        for variant in head_variants(judged.filled)
    ]


def _cell(judged: JudgedCell) -> dict[str, Any]:
    cell, measurement, result = judged.filled.cell, judged.filled.measurement, judged.filled.result
    return {
        "row": cell.row.key,
        "row_label": cell.row.label,
        "column": cell.column.key,
        "column_label": cell.column.label,
        "model": cell.settings.get("model"),
        "machine": next((behind.machine.label for behind in judged.filled.results), None) if measurement else None,
        "unit": cell.unit,
        "measured": measurement.value if measurement else None,
        "low": measurement.low if measurement else None,
        "high": measurement.high if measurement else None,
        "references": [
            {
                "kind": reference.source.kind,
                "value": reference.published.text if cell.text else reference.published.value,
                "source": reference.source.cite,
                **({"url": reference.source.url} if reference.source.url else {}),
            }
            for reference in cell.references
        ],
        "delta": judged.delta,
        "verdict": str(judged.verdict),
        "reason": judged.reason,
        "run": result.id if result else None,
    }


def _finite(value: float) -> float | None:
    return value if value == value else None  # noqa: PLR0124 -- NaN has no JSON
