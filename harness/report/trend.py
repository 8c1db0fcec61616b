"""`TableTrend` -> text for a terminal, Markdown, JSON: which cells changed, when, and between which versions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from rich.cells import cell_len

from harness.cleaning import json_text, markdown, one_line, visible
from harness.gate.decision import Outcome
from harness.gate.gate import outcome_of
from harness.gate.noise import LEAST_DRIFT
from harness.judge.trend import LevelChange, TableTrend, Trend, TrendPoint
from harness.report.formatting import number
from harness.report.gate import SIGNS, direction_of, value_text
from harness.report.markdown import collapsed, table

SCHEMA = 1

_FAILING = "!"
_COLORS = {"✗": "31", _FAILING: "31", "↑": "32", "✓": "32"}
HEADING = ("", "over time", "now", "noise", "results")

# A bar is a result; a line shows the newest ones, as many as it has room for.
_BARS = "▁▂▃▄▅▆▇█"
_FEWEST, _MOST = 9, 24


def render_trend(trend: TableTrend, *, width: int, color: bool) -> str:
    """Render what changed, newest first, then a line for each series; the answer comes first."""

    def painted(sign: str, line: str) -> str:
        return f"\x1b[{_COLORS[sign]}m{line}\x1b[0m" if color and sign in _COLORS else line

    blocks = [[*wrap(visible(_title(trend)), width), *wrap(visible(f"{headline(trend)}."), width)], []]
    for sign, name, text in remarks(trend):
        sentence = wrap(visible(f"{sign} {name}: {text}"), width, subsequent_indent="  ")
        blocks[-1] += [painted(sign, line) for line in sentence]
    for section, rows in series_by_column(trend).items():
        head, *lines = _aligned([HEADING, *(texts for _, texts in rows)], width)
        shown = [painted(_sign(each), line) for (each, _), line in zip(rows, lines, strict=True)]
        blocks.append([*wrap(visible(section), width), head, *shown])
    blocks += [wrap(note, width) for note in notes_of(trend)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def render_trend_markdown(trends: Sequence[TableTrend]) -> str:
    """Render tables of what changed, for a pull request, with all series collapsed."""
    lines: list[str] = []
    for trend in trends:
        lines += [f"### {markdown(_title(trend))}", "", f"{markdown(headline(trend))}.", ""]
        changed = [[sign, markdown(name), markdown(text)] for sign, name, text in remarks(trend)]
        lines += table(("", "cell", "what changed, and when"), changed, text_columns=range(3)) if changed else []
        for section, rows in series_by_column(trend).items():
            cells = [list(map(markdown, texts)) for _, texts in rows]
            lines += collapsed(section, table(HEADING, cells, text_columns=(0, 1)))
        lines += [line for note in notes_of(trend) for line in (note, "")]
    return "\n".join(lines).rstrip() + "\n"


def render_trend_json(trends: Sequence[TableTrend]) -> str:
    """Render one table as an object, several as a list of them, with every result of every series."""
    tables = [
        {
            "schema": SCHEMA,
            "table": trend.spec.name,
            "edition": trend.spec.edition,
            "retired": trend.retired,
            "series": [_series(each) for each in trend.trends],
        }
        for trend in trends
    ]
    return json_text(tables[0] if len(tables) == 1 else tables)


def _series(trend: Trend) -> dict[str, Any]:
    return {
        "cells": [{"row": planned.cell.row.key, "column": planned.cell.column.key} for planned in trend.cells],
        "unit": trend.cell.unit,
        "machine": trend.machine.label,
        "measured_by": trend.variant,
        "tells": trend.tells,
        "results": [_result(point) for point in trend.points],
        "levels": [
            {
                "runs": [point.result.id for point in level.points],
                "value": level.value,
                "low": level.low,
                "high": level.high,
            }
            for level in trend.levels
        ],
        "changes": [
            {
                "outcome": str(_outcome(trend, change)),
                "last_before": change.last_before.id,
                "first_after": change.first_after.id,
                "before": change.before.value,
                "after": change.after.value,
                "difference": change.difference,
                "versions": change.versions,
                "reference_workload": change.slowdown,
            }
            for change in trend.changes
        ],
    }


def _result(point: TrendPoint) -> dict[str, Any]:
    result, measurement = point.result, point.measurement
    return {
        "run": result.id,
        "started": result.started.isoformat(),
        "value": point.value,
        "low": measurement.low if measurement else None,
        "high": measurement.high if measurement else None,
        "noisy": point.noisy,
        "error": result.error,
        "software": dict(result.software),
    }


# Sentences.


def _title(trend: TableTrend) -> str:
    return f"{trend.spec.numbers.get(trend.spec.edition, trend.spec.name)} over time  {trend.spec.title}"


def headline(trend: TableTrend) -> str:
    """Return how many series changed, held and tell nothing, and of how many results of which days."""
    started = {point.result.id: point.result.started for each in trend.trends for point in each.points}
    if not started:
        return f"no results yet; `harness reproduce {trend.spec.name}` measures some"
    changed, telling = (
        sum(map(bool, kind)) for kind in zip(*((t.changes, t.tells) for t in trend.trends), strict=True)
    )
    few = len(trend.trends) - telling
    counts = f"{changed} of {len(trend.trends)} series changed, {telling - changed} held"
    counts += f", {few} with too few results to tell" if few else ""
    days = dict.fromkeys(f"{time:%Y-%m-%d}" for time in (min(started.values()), max(started.values())))
    return f"{counts if telling else 'too few results to tell a change'}; {len(started)} results, {' to '.join(days)}"


def remarks(trend: TableTrend) -> Iterator[tuple[str, str, str]]:
    """Yield sign, series and sentence of what changed, newest first, and of what fails now."""
    changes = [(change, each) for each in trend.trends for change in each.changes]
    for change, each in sorted(changes, key=lambda pair: pair[0].first_after.id, reverse=True):
        old, new = (value_text(level.value, each.cell.unit) for level in (change.before, change.after))
        text = f"{_when(change)}, {size_of(each, change)}: {old} → {new}; {cause_of(change)}"
        yield SIGNS[_outcome(each, change)], _name(each, trend), text
    for each in trend.trends:
        if each.failing:
            since, error, count = each.failing[0].result.started, each.failing[-1].result.error, len(each.failing)
            results = f"{count} result{'s' if count > 1 else ''}"
            yield _FAILING, _name(each, trend), f"fails since {since:%Y-%m-%d} ({results}): {error}"


def notes_of(trend: TableTrend) -> list[str]:
    """Return what is not shown, and why."""
    few = sum(not is_shown(each) for each in trend.trends)
    unlisted = (
        f"Not listed: {few} series with one or two results. A timed value needs six to tell a change from noise, "
        "any other needs two; `harness reproduce --rerun` adds one."
    )
    retired = f"{trend.retired} results of an older way of measuring are left out: they are not comparable."
    return [*([unlisted] if few else []), *([retired] if trend.retired else [])]


def size_of(trend: Trend, change: LevelChange) -> str:
    """Return by how much a level changed, and in which direction: a share of a timed value, else in its unit."""
    difference = change.difference
    if difference is None:
        return "changed"
    if trend.timed:
        amount = f"{100 * abs(difference / float(change.before.value)):.1f} %"
    elif trend.cell.unit.startswith("%"):
        amount = f"{abs(difference):.2f} points"
    else:
        amount = f"{number(abs(difference), None, significant=3)} {trend.cell.unit}".rstrip()
    return f"{amount} {direction_of(trend.cell, difference)}"


def cause_of(change: LevelChange) -> str:
    """Return what else changed with a level: versions, and the machine by its reference workload."""
    versions = ", ".join(f"{name} {old} → {new}" for name, (old, new) in change.versions.items())
    cause, slowdown = versions or "no version changed", change.slowdown
    if slowdown is None or abs(slowdown) < LEAST_DRIFT:
        return cause
    by = f"{100 * abs(slowdown):.0f} % {'slower' if slowdown > 0 else 'faster'}"
    return f"{cause}; the whole machine {by} (reference workload)"


def _when(change: LevelChange) -> str:
    before, after = change.last_before.started, change.first_after.started
    form = "%Y-%m-%d" if before.date() != after.date() else "%Y-%m-%d %H:%M"
    return f"between {before:{form}} and {after:{form}}"


def _outcome(trend: Trend, change: LevelChange) -> Outcome:
    return Outcome.CHANGED if change.difference is None else outcome_of(trend.cell, change.difference, beyond=True)


# Series.


def is_shown(trend: Trend) -> bool:
    """Whether a series has a line of its own: with one or two results there is nothing to see."""
    return trend.tells or len(trend.points) > 2


def row_of(trend: Trend, table_trend: TableTrend) -> str:
    """Return the row of a series, and what tells it from others of the same cells."""
    others = [each.variant for each in table_trend.trends if each.cells == trend.cells]
    apart = {name for each in others for name in each if len({other.get(name) for other in others}) > 1}
    variant = "".join(f", {name} {trend.variant[name][:12]}" for name in trend.variant if name in apart)
    more = f" and {len(trend.cells) - 1} more" if len(trend.cells) > 1 else ""
    return f"{trend.cell.row.label}{more}{variant}"


def _name(trend: Trend, table_trend: TableTrend) -> str:
    return f"{trend.cell.column.label} of {row_of(trend, table_trend)}"


def _sign(trend: Trend) -> str:
    if trend.failing:
        return _FAILING
    if trend.changes:
        return SIGNS[_outcome(trend, trend.changes[-1])]
    return SIGNS[Outcome.HELD if trend.tells else Outcome.NOT_JUDGED]


def series_by_column(table_trend: TableTrend) -> dict[str, list[tuple[Trend, tuple[str, ...]]]]:
    """Return the series that are shown, with their texts as in `HEADING`, by column and machine."""
    sections: dict[str, list[tuple[Trend, tuple[str, ...]]]] = {}
    for trend in filter(is_shown, table_trend.trends):
        level = trend.levels[-1] if trend.levels else None
        high = level.high if level and trend.timed else None
        kinds = Counter("" if point.measurement else "failed" for point in trend.points)
        kinds["noisy"] = sum(point.noisy for point in trend.points)
        texts = (
            f"{_sign(trend)} {row_of(trend, table_trend)}",
            bars(trend),
            value_text(level.value, trend.cell.unit) if level else "",
            f"±{100 * (high / float(level.value) - 1):.1f} %" if level and high else "",
            ", ".join([str(len(trend.points)), *(f"{kinds[k]} {k}" for k in ("noisy", "failed") if kinds[k])]),
        )
        sections.setdefault(f"{trend.cell.column.label} on {trend.machine.label}", []).append((trend, texts))
    return sections


def bars(trend: Trend) -> str:
    """Return the newest points as bars, × for a failure, · for a noisy one; the noise bands are in their scale."""
    values = [point.value for point in trend.points if isinstance(point.value, (int, float))]
    ends = [*values, *(end for level in trend.levels for end in (level.low, level.high) if end is not None)]
    low, height = min(ends, default=0.0), (max(ends, default=0.0) - min(ends, default=0.0)) or 1.0

    def bar(point: TrendPoint) -> str:
        if not isinstance(point.value, (int, float)) or point.noisy:
            return "·" if point.measurement else "×"
        return _BARS[round((len(_BARS) - 1) * (point.value - low) / height)]

    return "".join(map(bar, trend.points[-_MOST:]))


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a text for each row: on one line, with fewer bars where needed, or the name on lines of its own."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    room = min(widths[1], width - sum(widths) - 2 * (len(widths) - 1) + widths[1])
    if room >= _FEWEST:
        widths[1], rows = room, [[name, shown[-room:], *others] for name, shown, *others in rows]
    padded = [[cell + " " * (most - cell_len(cell)) for cell, most in zip(row, widths, strict=True)] for row in rows]
    if room >= _FEWEST:
        return ["  ".join(row).rstrip() for row in padded]
    return ["\n".join([*wrap(name, width), f"    {'  '.join(others)}".rstrip()]) for name, *others in padded]
