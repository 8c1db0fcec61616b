"""`Diff` -> the points of its interactive figure, as data that the page's own script draws."""

from collections.abc import Iterator
from typing import Any

from harness.judge.verdict import Diff
from harness.report import formatting
from harness.report.html.links import PageLinks, cell_ids
from harness.specs import Column, Row


def interactive_chart(diff: Diff, links: PageLinks, root: str) -> dict[str, Any] | None:
    """Return title, data and a remark of the figure of a table with two axes; None for others and without a point.

    `root` leads from the page to the root of the site.
    """
    columns = {column.key: column for column in diff.spec.columns}
    if diff.spec.axes is None or not columns.keys() >= set(diff.spec.axes):
        return None  # --columns may have left an axis out
    x, y = (columns[key] for key in diff.spec.axes)
    ids = cell_ids(diff)
    points = [
        {"row": row.label, "family": row.family if row.family in diff.spec.families else "", "link": link, **point}
        for row in diff.spec.rows
        for link in (f"{root}{links.table(diff, ids[row.key, x.key])}",)
        for point in _points(diff, row, x, y)
    ]
    if not points:
        return None
    shown = {point["family"] for point in points}
    labels = {**{key: family.label for key, family in diff.spec.families.items()}, "": "others"}
    data = {
        "x": _axis(diff, x),
        "y": _axis(diff, y),
        "families": [{"key": key, "label": label} for key, label in labels.items() if key in shown],
        "published": f"published ({x.machine})" if x.machine else "published",
        "measured": f"measured ({diff.table.machine.label})" if diff.table.machine else "measured",
        "points": points,
    }
    title = f"{y.label} against {x.label}"
    remark = "Nothing of ours is in the figure yet: only published points are drawn."
    measured = [point for point in points if point["kind"] == "measured"]
    if measured:
        remark = formatting.borrowed_remark(y.label, [point["borrowed"] for point in measured])
    return {"title": title[:1].upper() + title[1:], "data": data, "remark": remark}


def _axis(diff: Diff, column: Column) -> dict[str, str]:
    better = {diff.judged_cells[row.key, column.key].filled.cell.better for row in diff.spec.rows}
    return {
        "label": formatting.heading(column.label, column.unit),
        "better": (better.pop() or "") if len(better) == 1 else "",
    }


def _points(diff: Diff, row: Row, *axes: Column) -> Iterator[dict[str, Any]]:
    """Yield the published and the measured point of a row, as far as there are such."""
    cells = [diff.judged_cells[row.key, axis.key] for axis in axes]
    across, up = (judged.filled for judged in cells)
    published = [filled.cell.published.text if filled.cell.published else "" for filled in (across, up)]
    measured = [formatting.cell_text(judged).measured for judged in cells]

    def line(number: int, text: str) -> str:
        return f"{axes[number].label}: {text} {axes[number].unit}".rstrip()

    x, y = across.published_number, up.published_number
    if x is not None and y is not None:
        text = [row.label, "published", line(0, published[0]), line(1, published[1])]
        yield {"kind": "published", "x": x, "y": y, "text": text}
    point = formatting.measured_point(across, up)
    if point:
        x, y, borrowed = point
        texts = [f"{line(axis, measured[axis])}; published {published[axis] or 'nothing'}" for axis in (0, 1)]
        if borrowed:
            texts[1] = f"{line(1, published[1])}, the published value: not measured"
        text = [row.label, "measured", *texts]
        yield {"kind": "measured", "x": x, "y": y, "borrowed": borrowed, "text": text}
