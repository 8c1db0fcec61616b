"""`Diff` -> the points of its interactive figure, as data that the page's own script draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.diff import Diff, Finding
from harness.report import words
from harness.report.html.addresses import Addresses, cell_id
from harness.spec import Column, Row


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: its title, its families (key and label), its data, and a remark on what is not ours in it."""

    title: str
    families: Sequence[tuple[str, str]]
    data: dict[str, Any]
    remark: str


def chart_of(diff: Diff, addresses: Addresses, root: str) -> Chart | None:
    """Give the figure of a table that names two axes; None for others, or where nothing was published or measured.

    `root` leads from the page to the root of the site.
    """
    if diff.spec.axes is None:
        return None
    columns = {column.key: column for column in diff.spec.columns}
    if not all(key in columns for key in diff.spec.axes):
        return None  # --columns left an axis out
    x, y = (columns[key] for key in diff.spec.axes)
    page = f"{root}{addresses.of_table(diff)}"
    points = [
        point
        for number, row in enumerate(diff.spec.rows, start=1)
        for point in _points(diff, row, (x, y), f"{page}#{cell_id(number, diff.spec.columns.index(x) + 1)}")
    ]
    if not points:
        return None
    shown = {point["family"] for point in points}
    families = [(key, family.label) for key, family in diff.spec.families.items() if key in shown]
    families += [("", "others")] if "" in shown else []
    data = {
        "x": _axis(diff, x),
        "y": _axis(diff, y),
        "families": [{"key": key, "label": label} for key, label in families],
        "published": f"published ({x.machine})" if x.machine else "published",
        "measured": f"measured ({diff.table.machine.label})" if diff.table.machine else "measured",
        "points": points,
    }
    title = f"{y.label} against {x.label}"
    return Chart(title=title[:1].upper() + title[1:], families=families, data=data, remark=_remark(points, y))


def _axis(diff: Diff, column: Column) -> dict[str, str]:
    better = {diff.findings[row.key, column.key].filled.cell.better for row in diff.spec.rows}
    return {
        "label": words.heading(column.label, column.unit),
        "better": (better.pop() or "") if len(better) == 1 else "",
    }


def _points(diff: Diff, row: Row, axes: tuple[Column, Column], link: str) -> list[dict[str, Any]]:
    """Give the published and the measured point of a row, as far as there are such."""
    across, up = (diff.findings[row.key, axis.key] for axis in axes)
    shared = {"row": row.label, "family": row.family if row.family in diff.spec.families else "", "link": link}
    found: list[dict[str, Any]] = []
    x, y = _printed(across), _printed(up)
    if x is not None and y is not None:
        text = [row.label, "published", _line(axes[0], _print(across)), _line(axes[1], _print(up))]
        found.append({**shared, "kind": "published", "x": x, "y": y, "text": text})
    x, ours = _measured(across), _measured(up) if up.filled.of_all_images else None
    height = ours if ours is not None else y
    if x is not None and height is not None:
        beside = [words.written(one).measured for one in (across, up)]
        text = [
            row.label,
            "measured",
            f"{_line(axes[0], beside[0])}; published {_print(across) or 'nothing'}",
            f"{_line(axes[1], beside[1])}; published {_print(up) or 'nothing'}"
            if ours is not None
            else f"{_line(axes[1], _print(up))}, the published value: not measured",
        ]
        found.append({**shared, "kind": "measured", "x": x, "y": height, "borrowed": ours is None, "text": text})
    return found


def _line(axis: Column, text: str) -> str:
    return f"{axis.label}: {text} {axis.unit}".rstrip()


def _printed(finding: Finding) -> float | None:
    return finding.filled.cell.printed.value if finding.filled.cell.printed else None


def _print(finding: Finding) -> str:
    return finding.filled.cell.printed.text if finding.filled.cell.printed else ""


def _measured(finding: Finding) -> float | None:
    measurement = finding.filled.measurement
    return None if measurement is None or isinstance(measurement.value, str) else measurement.value


def _remark(points: Sequence[dict[str, Any]], y: Column) -> str:
    ours = [point for point in points if point["kind"] == "measured"]
    borrowed = sum(point["borrowed"] for point in ours)
    if not ours:
        return "Nothing of ours is in the figure yet: only published points are drawn."
    if not borrowed:
        return ""
    whose = "all our points" if borrowed == len(ours) else f"{borrowed} of our {len(ours)} points"
    return f"The {y.label} of {whose} is the published one: it was not measured."
