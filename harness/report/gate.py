"""`Gate` -> a short text, JUnit XML, GitHub annotations and job summary, JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree as ET

from harness.cleaning import github, json_text, markdown, one_line, visible
from harness.errors import name_few
from harness.gate.decision import Evidence, Outcome
from harness.gate.gate import Gate, GatedCell
from harness.report.formatting import number, probability
from harness.report.markdown import collapsed, table
from harness.specs import Cell

SCHEMA = 1

SIGNS = {
    Outcome.REGRESSED: "✗",
    Outcome.CHANGED: "✗",
    Outcome.DEVIATES: "✗",
    Outcome.MISSING: "–",
    Outcome.IMPROVED: "↑",
    Outcome.HELD: "✓",
    Outcome.NOT_JUDGED: "·",
}

# GitHub shows ten of a kind and drops the rest without a word.
MOST_ANNOTATIONS = 10

# GitHub refuses summaries above 1 MiB.
MOST_BYTES = 1_000_000

# Reasons that the text gives unless asked for all.
MOST_REASONS = 10

# Images that are named of those that flipped; JSON has all.
MOST_FLIPS = 5

# Cells of two sides that are shown without a click.
MOST_ROWS = 20


def headline(gate: Gate) -> str:
    """Return in a line whether the gate is open, and how many cells came to what."""
    outcomes = Counter(cell.outcome for cell in gate.cells)
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcomes[outcome])
    if gate.failing:
        return f"fails: {counts}"
    if gate.empty:
        baseline = "baseline, only with the paper" if outcomes[Outcome.HELD] else "baseline"
        return f"nothing to compare with the {baseline if gate.with_baseline else 'paper'}: {counts or 'no cell'}"
    return f"passes: {counts}"


def sentence(cell: GatedCell) -> str:
    """Return what happened to a cell: which, from what to what, by how much, and what would have been allowed."""
    return f"{_name(cell)}: {_change(cell)}"


def render_gate(gate: Gate, *, renew: str = "", verbose: bool = False) -> str:
    """Render what fails, what improved and how to keep it, and why cells were not judged; the answer comes first."""

    def line(cell: GatedCell) -> str:
        return f"{SIGNS[cell.outcome]} {cell.outcome}: {sentence(cell)}"

    order = list(Outcome)
    cells = sorted(gate.cells, key=lambda cell: order.index(cell.outcome))
    shown = [cell for cell in cells if cell.outcome.fails or cell.outcome is Outcome.IMPROVED]
    lines = [headline(gate), *map(line, shown)]
    if verbose:
        lines += [line(cell) for cell in cells if cell not in shown]
    else:
        reasons = _reasons(gate)
        lines += [f"{SIGNS[Outcome.NOT_JUDGED]} not judged: {reason}" for reason in reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            lines.append(f"  and {len(reasons) - MOST_REASONS} reasons more, -v shows all")
    remedy = f"; `{renew}` renews it" if renew else ""
    if gate.new:
        lines.append(f"{gate.new} measured {'cell is' if gate.new == 1 else 'cells are'} not in the baseline{remedy}")
    elif _improved(gate):
        lines.append(f"to hold what improved{remedy}")
    # Labels and errors may hold line breaks; a log's line is a cell.
    return "".join(f"{one_line(line)}\n" for line in lines)


def render_turns(gate: Gate) -> str:
    """Render two environments side by side: old, new, and how sure the change is; then the images that decide it."""
    rows = [("", "", "old", "new", "change"), *map(_turns_row, gate.cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [headline(gate), *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]
    lines += [f"{_name(cell)}: {text}" for cell in gate.cells for text in _flips(cell)]
    return "".join(f"{one_line(line)}\n" for line in lines)


def _turns_row(cell: GatedCell) -> tuple[str, str, str, str, str]:
    sign, evidence = f"{SIGNS[cell.outcome]} {cell.outcome}", cell.evidence
    if evidence is None:
        return sign, _name(cell), "", "", cell.reason
    old, new = (value_text(value, cell.cell.unit) for value in (evidence.before, evidence.now))
    return sign, _name(cell), old, new, _difference(cell, evidence) or ("none" if old == new else "")


def render_gate_json(gate: Gate) -> str:
    """Render every cell with its evidence; numbers are numbers, units are in `unit`."""
    data = {
        "schema": SCHEMA,
        "passes": not gate.failing and not gate.empty,
        "headline": headline(gate),
        "not_in_baseline": gate.new if gate.with_baseline else None,
        "cells": [_as_data(cell) for cell in gate.cells],
    }
    return json_text(data)


def render_junit(gate: Gate) -> str:
    """Render a test case for each cell and what it was compared with: failed, skipped where not judged, or passed."""
    suites = ET.Element("testsuites", {"name": gate.command, **_tally(gate.cells)})
    for name in dict.fromkeys(cell.table for cell in gate.cells):
        cells = [cell for cell in gate.cells if cell.table == name]
        suite = ET.SubElement(suites, "testsuite", {"name": visible(name), **_tally(cells)})
        for cell in cells:
            names = {"classname": f"{name}.{cell.against}", "name": f"{cell.cell.row.label}: {cell.cell.column.label}"}
            case = ET.SubElement(suite, "testcase", {key: visible(text) for key, text in names.items()})
            if cell.outcome.fails:
                text = visible(sentence(cell))
                ET.SubElement(case, "failure", type=str(cell.outcome), message=text).text = text
            elif cell.outcome is Outcome.NOT_JUDGED:
                ET.SubElement(case, "skipped", message=visible(_change(cell)))
            else:
                ET.SubElement(case, "system-out").text = visible(_change(cell))
    ET.indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def render_annotations(gate: Gate) -> str:
    """Render GitHub's workflow commands: an error for each failing cell, a notice for each that improved."""
    lines = [*_annotations("error", gate.failing, gate), *_annotations("notice", _improved(gate), gate)]
    if gate.empty and not gate.failing:
        lines.append(f"::error title={gate.command}::{github(headline(gate))}")
    return "".join(f"{line}\n" for line in lines)


def render_summary(gate: Gate, *, renew: str = "", most: int = MOST_BYTES) -> str:
    """Render GitHub's job summary in Markdown: what fails as a table, the rest collapsed, in at most so many bytes."""
    improved = _improved(gate)
    lines = [f"### {gate.command} {markdown(headline(gate))}", ""]
    if gate.sides:
        lines += [" against ".join(markdown(side) for side in reversed(gate.sides)) + ".", ""]
    if gate.sides and len(gate.cells) <= MOST_ROWS:
        shown = sorted(gate.cells, key=lambda cell: list(Outcome).index(cell.outcome))
        lines += _rows(shown, gate)
    else:
        shown = [*gate.failing, *improved]
        lines += [*_rows(gate.failing, gate), *_rows(improved, gate)]
    if renew and (gate.new or improved):
        lines += [f"`{renew}` renews the baseline.", ""]
    rest = [cell for cell in gate.cells if cell not in shown]
    details = collapsed(f"{len(rest)} other cells", _rows(rest, gate))
    if gate.sides:
        flips = [f"- {markdown(f'{_name(cell)}: {text}')}" for cell in gate.cells for text in _flips(cell)]
        details += collapsed("Images that only one of the two has right", flips)
    if _size([*lines, *details]) > most:
        details = [f"{len(rest)} other cells are left out here, they would not fit; `--junit` has them.", ""]
    if _size([*lines, *details]) > most:
        details = ["More is left out here, it would not fit; `--junit` has it.", ""]
        while _size([*lines, *details]) > most:
            lines.pop()
    return "\n".join([*lines, *details]) + "\n"


def _size(lines: Sequence[str]) -> int:
    return len("\n".join([*lines, ""]).encode())


def _flips(cell: GatedCell) -> Iterator[str]:
    """Name the images that only one of two sides has right."""
    if cell.evidence is None:
        return
    for side, images in (("old", cell.evidence.lost), ("new", cell.evidence.won)):
        if images:
            count = f"{len(images):,} image{'' if len(images) == 1 else 's'}"
            yield f"{count} that only the {side} one has right: {name_few(images, most=MOST_FLIPS)}"


def render_badge(gate: Gate) -> str:
    """Render the JSON of which shields.io makes a badge, by its endpoint."""
    color = "red" if gate.failing else "lightgrey" if gate.empty else "brightgreen"
    badge = {"schemaVersion": 1, "label": gate.command, "message": one_line(headline(gate)), "color": color}
    return json_text(badge)


def _improved(gate: Gate) -> list[GatedCell]:
    return [cell for cell in gate.cells if cell.outcome is Outcome.IMPROVED]


# Sentences.


def _name(cell: GatedCell) -> str:
    what = "forward pass" if cell.against == "cost" else cell.cell.column.label
    return f"{cell.table}, {what} of {cell.cell.row.label}"


def _change(cell: GatedCell) -> str:
    """Return what changed in a cell, by how much, and what would be allowed."""
    evidence, unit = cell.evidence, cell.cell.unit
    if evidence is None:
        return cell.reason
    values = f"{value_text(evidence.now, unit)}, was {value_text(evidence.before, unit)}"
    difference = _difference(cell, evidence)
    return f"{values}: {difference}" if difference else values


def _difference(cell: GatedCell, evidence: Evidence) -> str:
    """Return by how much two values differ, and what would be allowed; empty where that says nothing."""
    if evidence.difference is None or evidence.allowed is None:
        return ""
    difference, allowed, unit = evidence.difference, evidence.allowed, cell.cell.unit
    if evidence.processes and evidence.p is None:
        return _change_by_turns(cell, evidence)
    if evidence.processes:
        now, before = evidence.processes
        return (
            f"{100 * abs(difference.value):.1f} % {direction_of(cell.cell, difference.value)}, "
            f"of which {100 * allowed:.1f} % may be noise on this machine; "
            f"{probability(evidence.p)} by ranks, {now} runs against {before}"
        )
    if difference.value == 0:
        return ""
    direction = direction_of(cell.cell, difference.value)
    if evidence.images is None:
        unit = " points" if unit.startswith("%") else f" {unit}".rstrip()
        limit = f", {number(allowed, None, significant=2)} allowed" if allowed else ""
        return f"{number(abs(difference.value), None, significant=3)}{unit} {direction}{limit}"
    return _paired_change(cell, evidence, direction)


def _change_by_turns(cell: GatedCell, evidence: Evidence) -> str:
    difference, allowed = evidence.difference, evidence.allowed
    assert difference is not None
    assert allowed is not None
    assert evidence.processes is not None
    pairs = f"{evidence.processes[0]} pairs of processes"
    low, value, high = (100 * end for end in (difference.low, difference.value, difference.high))
    if cell.outcome is Outcome.HELD:
        return f"no change beyond {100 * allowed:g} %: {value:+.1f} [{low:+.1f}, {high:+.1f}] %; {pairs}"
    ends = sorted((abs(low), abs(high)))
    direction = direction_of(cell.cell, difference.value)
    return f"{abs(value):.1f} [{ends[0]:.1f}, {ends[1]:.1f}] % {direction}, {100 * allowed:g} % allowed; {pairs}"


def _paired_change(cell: GatedCell, evidence: Evidence, direction: str) -> str:
    difference, allowed = evidence.difference, evidence.allowed
    assert difference is not None
    assert allowed is not None
    low, high = (difference.low, difference.high) if difference.value > 0 else (-difference.high, -difference.low)
    chance = ", which may be chance" if cell.outcome is Outcome.HELD and abs(difference.value) > allowed else ""
    return (
        f"{abs(difference.value):.2f} [{low:.2f}, {high:.2f}] points {direction}{chance}; "
        f"{probability(evidence.p)} on the same {evidence.images:,} images, {allowed:g} allowed"
    )


def direction_of(cell: Cell, difference: float) -> str:
    """Return in a word which way a cell changed."""
    if cell.metric == "throughput":
        return "faster" if difference > 0 else "slower"
    if cell.better is None:
        return "more" if difference > 0 else "less"
    return "better" if (difference > 0) == (cell.better == "higher") else "worse"


def value_text(value: float | str, unit: str) -> str:
    """Return a value with its unit."""
    if isinstance(value, str):
        return value
    return f"{value:.2f} %" if unit.startswith("%") else f"{number(value, None)} {unit}".rstrip()


def _reasons(gate: Gate) -> list[str]:
    """Group what was not judged by reason; where there is a baseline, what the paper leaves out is left out."""
    groups: dict[str, list[GatedCell]] = {}
    for cell in gate.cells:
        if cell.outcome is Outcome.NOT_JUDGED and (cell.against == "baseline" or not gate.with_baseline):
            groups.setdefault(cell.reason, []).append(cell)
    return [
        f"{_name(first)}{f' and {len(others)} more' if others else ''}: {reason}"
        for reason, (first, *others) in groups.items()
    ]


# JSON.


def _as_data(cell: GatedCell) -> dict[str, Any]:
    evidence = asdict(cell.evidence) if cell.evidence else {}
    processes = evidence.get("processes") or (None, None)
    difference = evidence.get("difference") or {}
    return {
        "table": cell.table,
        "row": cell.cell.row.key,
        "column": cell.cell.column.key,
        "unit": cell.cell.unit,
        "against": cell.against,
        "outcome": str(cell.outcome),
        "fails": cell.outcome.fails,
        "reason": _change(cell),
        **{key: evidence.get(key) for key in ("now", "before")},
        "difference": difference.get("value"),
        **{key: difference.get(key) for key in ("low", "high")},
        **{key: evidence.get(key) for key in ("allowed", "relative", "p", "images", "lost", "won")},
        "runs_now": processes[0],
        "runs_before": processes[1],
    }


# JUnit.


def _tally(cells: Sequence[GatedCell]) -> dict[str, str]:
    return {
        "tests": str(len(cells)),
        "failures": str(sum(cell.outcome.fails for cell in cells)),
        "skipped": str(sum(cell.outcome is Outcome.NOT_JUDGED for cell in cells)),
    }


# GitHub.


def _annotations(level: str, cells: Sequence[GatedCell], gate: Gate) -> Iterator[str]:
    room = MOST_ANNOTATIONS if len(cells) <= MOST_ANNOTATIONS else MOST_ANNOTATIONS - 1
    for cell in cells[:room]:
        title = github(f"{cell.table} {cell.outcome}", is_property=True)
        yield f"::{level} title={title}::{github(sentence(cell))}"
    if len(cells) > room:
        yield f"::{level} title={gate.command}::{len(cells) - room} more, which the job summary lists"


def _rows(cells: Sequence[GatedCell], gate: Gate) -> list[str]:
    if not cells:
        return []
    if gate.sides:
        # A number and its unit stay in one line.
        rows = [
            (_unbroken(sign), markdown(name), _unbroken(old), _unbroken(new), markdown(change))
            for sign, name, old, new, change in map(_turns_row, cells)
        ]
        return table(("", "cell", "old", "new", "change"), rows, text_columns=(0, 1, 4))
    plain = [
        (f"{SIGNS[cell.outcome]} {cell.outcome}", markdown(_name(cell)), cell.against, markdown(_change(cell)))
        for cell in cells
    ]
    return table(("", "cell", "against", ""), plain, text_columns=range(4))


def _unbroken(text: str) -> str:
    return markdown(text).replace(" ", "&nbsp;")
