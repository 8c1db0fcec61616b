"""`Diff` -> CSV and JSON for other programs."""

import json
from typing import Any

from harness.diff import Diff, Finding, readings
from harness.report.effects import as_data

SCHEMA = 1


def render_json(diffs: list[Diff], *, explain: bool = False) -> str:
    """Write one table as an object, several as a list of them; `explain` adds what each crop and head gives."""
    tables = [_table(diff) | ({"explanations": _explanations(diff)} if explain else {}) for diff in diffs]
    return json.dumps(tables[0] if len(tables) == 1 else tables, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_csv(diffs: list[Diff]) -> str:
    """Write a line for each cell of each table."""
    import pandas as pd  # noqa: PLC0415 -- 0.3 s to import, and only this format needs it

    lines = []
    for diff in diffs:
        for finding in diff.findings.values():
            cell = _cell(finding)
            references = cell.pop("references")
            shown = references if not finding.filled.stands_in else []
            first = shown[0] if shown else {"value": None, "source": None}
            batch = finding.filled.result.facts.get("batch") if finding.filled.result else None
            lines.append(
                {
                    "table": diff.spec.name,
                    "edition": diff.spec.edition,
                    **cell,
                    "published": first["value"],
                    "source": first["source"],
                    "batch": batch if finding.filled.cell.kind == "throughput" else None,
                }
            )
    frame = pd.DataFrame(lines)
    if "batch" in frame:
        frame["batch"] = frame["batch"].astype("Int64")
    text: str = frame.to_csv(index=False)
    return text


def _table(diff: Diff) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "table": diff.spec.name,
        "edition": diff.spec.edition,
        "machine": diff.table.machine.label if diff.table.machine else None,
        "cells": [_cell(finding) for finding in diff.findings.values()],
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
            }
            for shape in diff.shapes
        ],
        "effects": [as_data(effects) for effects in diff.effects],
    }


def _explanations(diff: Diff) -> list[dict[str, Any]]:
    return [
        {
            "row": finding.filled.cell.row.key,
            "column": finding.filled.cell.column.key,
            "crop": one.crop,
            "head": one.head or None,
            "value": one.value,
        }
        for finding in diff.findings.values()
        for one in readings(finding.filled)
    ]


def _cell(finding: Finding) -> dict[str, Any]:
    cell, measurement, result = finding.filled.cell, finding.filled.measurement, finding.filled.result
    return {
        "row": cell.row.key,
        "column": cell.column.key,
        "unit": cell.unit,
        "measured": measurement.value if measurement else None,
        "low": measurement.low if measurement else None,
        "high": measurement.high if measurement else None,
        "references": [
            {
                "kind": reference.source.kind,
                "value": reference.printed.text if cell.text else reference.printed.value,
                "source": reference.source.cite,
            }
            for reference in cell.references
        ],
        "delta": finding.delta,
        "verdict": str(finding.verdict),
        "reason": finding.reason,
        "run": result.id if result else None,
    }


def _finite(value: float) -> float | None:
    return value if value == value else None  # noqa: PLR0124 -- NaN has no JSON
