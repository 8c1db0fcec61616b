"""`Finding` -> what a cell of a page shows, and what it tells when it is asked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from harness.diff import Diff, Finding, readings
from harness.effects import Effects
from harness.report import effects, words
from harness.report.html.addresses import Addresses, cell_id
from harness.spec import Column, Footnote, Row
from harness.table import Filled


@dataclass(frozen=True, kw_only=True)
class Exact:
    """A value as a person reads it, and with every digit for a program."""

    said: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """One reference: whose it is, where it stands, and what it says."""

    kind: str
    cite: str
    value: Exact


@dataclass(frozen=True, kw_only=True)
class CellView:
    """A cell.

    `place` is its id within the page.  `low`, `high` and `delta` are None where there is none, `run` and `run_page`
    empty where it was not measured.  `readings` is a heading and the lines of a table, both empty without --explain.
    """

    place: str
    row: str
    column: str
    row_key: str
    column_key: str
    unit: str
    idle: bool
    verdict: str
    sign: str
    reason: str
    written: words.Written
    measured: Exact | None
    low: Exact | None
    high: Exact | None
    delta: Exact | None
    published: tuple[Published, ...]
    footnotes: tuple[Footnote, ...]
    run: str
    run_page: str
    readings: tuple[str, Sequence[tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows under one heading; it is empty where the paper has none."""

    heading: str
    rows: tuple[tuple[Row, tuple[CellView, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class EffectView:
    """What a row's change does, as text, and the pages of the runs behind it with their seeds; `place` as of a cell."""

    place: str
    row: str
    measured: str
    interval: str
    published: str
    sign: str
    runs: tuple[tuple[int, str], ...]


def effects_of(column: Effects, diff: Diff, addresses: Addresses) -> list[EffectView]:
    """Give a line for each row of a column that was trained at a small scale."""
    return [
        EffectView(
            place=place_of(diff, effect.row, column.column),
            row=effect.row.label,
            measured=effects.measured(effect),
            interval=effects.interval(effect),
            published=effects.published(effect),
            sign=effects.sign(effect),
            runs=_runs(diff.findings[effect.row.key, column.column.key].filled, addresses),
        )
        for effect in column.rows
    ]


def place_of(diff: Diff, row: Row, column: Column) -> str:
    """Name the place of a cell within the page of its table."""
    return cell_id(diff.spec.rows.index(row) + 1, diff.spec.columns.index(column) + 1)


def _runs(filled: Filled, addresses: Addresses) -> tuple[tuple[int, str], ...]:
    """Name the pages of the trainings, which show how they went, or of what was measured where they are not there."""
    pages = [(one, addresses.of_run(one)) for one in filled.trainings or filled.results]
    return tuple((int((one.job.need("weights") or one.job)["seed"]), page) for one, page in pages if page)


def groups_of(diff: Diff, addresses: Addresses) -> list[Group]:
    """Give the rows of a table under the headings that the paper has."""
    found: list[tuple[str | None, list[tuple[Row, tuple[CellView, ...]]]]] = []
    for number, row in enumerate(diff.spec.rows, start=1):
        if not found or found[-1][0] != row.group:
            found.append((row.group, []))
        cells = (
            cell_of(diff, diff.findings[row.key, column.key], cell_id(number, place), addresses)
            for place, column in enumerate(diff.spec.columns, start=1)
        )
        found[-1][1].append((row, tuple(cells)))
    return [Group(heading=_heading(group, rows[0][0]), rows=tuple(rows)) for group, rows in found]


def _heading(group: str | None, first: Row) -> str:
    """Leave out a heading that only repeats its row."""
    return group if group and group != first.label else ""


def cell_of(diff: Diff, finding: Finding, place: str, addresses: Addresses) -> CellView:
    """Give all that a page shows and tells of a cell."""
    filled, measurement = finding.filled, finding.filled.measurement
    cell, result = filled.cell, filled.result
    marks = dict.fromkeys(mark for reference in cell.references for mark in reference.printed.marks)
    found = readings(filled)
    return CellView(
        place=place,
        row=cell.row.label,
        column=cell.column.label,
        row_key=cell.row.key,
        column_key=cell.column.key,
        unit=cell.unit,
        idle=filled.planned.idle,
        verdict=str(finding.verdict),
        sign=words.SIGNS[finding.verdict],
        reason=finding.reason,
        written=words.written(finding),
        measured=exact(measurement.value) if measurement else None,
        low=_exact_or_none(measurement.low if measurement else None),
        high=_exact_or_none(measurement.high if measurement else None),
        delta=Exact(said=_signed(finding.delta), value=json.dumps(finding.delta))
        if finding.delta is not None
        else None,
        published=tuple(
            Published(
                kind=reference.source.kind,
                cite=reference.source.cite,
                value=Exact(
                    said=reference.printed.text
                    + (f" ± {reference.printed.uncertainty}" if reference.printed.uncertainty else ""),
                    value=reference.printed.text if cell.text else json.dumps(reference.printed.value),
                ),
            )
            for reference in (() if filled.stands_in else cell.references)
        ),
        footnotes=tuple(diff.spec.footnotes[mark] for mark in marks if mark in diff.spec.footnotes),
        run=result.id if result else "",
        run_page=addresses.of_run(result),
        readings=words.readings_lines(finding, found) if len(found) > 1 else ("", ()),
    )


def exact(value: float | str) -> Exact:
    """Write a value with as many digits as a person wants to see, and with all."""
    if isinstance(value, str):
        return Exact(said=value, value=value)
    return Exact(said=_trimmed(words.number(value, None, significant=6)), value=json.dumps(value))


def _exact_or_none(value: float | None) -> Exact | None:
    return None if value is None else exact(value)


def _trimmed(text: str) -> str:
    """Leave out zeros that say nothing."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(delta: float) -> str:
    text = _trimmed(words.number(delta, None, significant=4))
    return text.replace("-", "−") if delta < 0 else f"+{text}" if delta else "0"
