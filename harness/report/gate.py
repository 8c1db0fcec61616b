"""`Gate` -> a short text, JUnit XML, GitHub annotations and job summary, JSON."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any
from xml.etree import ElementTree as ET

from harness.gate import Evidence, Gate, Judged, Outcome
from harness.report.words import number

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


def headline(gate: Gate) -> str:
    """Say in a line whether the gate is open, and how many cells came to what."""
    counts = Counter(one.outcome for one in gate.judged)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    if gate.failing:
        return f"fails: {said}"
    if gate.empty:
        held = counts[Outcome.HELD]
        what = "baseline, only with the paper" if held else "baseline"
        return f"nothing to compare with the {what if gate.with_baseline else 'paper'}: {said or 'no cell'}"
    return f"passes: {said}"


def sentence(judged: Judged) -> str:
    """Say what happened to a cell: which, from what to what, by how much, and what would have been allowed."""
    return f"{_named(judged)}: {_what(judged)}"


def render_gate(gate: Gate, *, renew: str = "", verbose: bool = False) -> str:
    """Write what fails, what improved and how to keep it, and why cells were not judged; the answer comes first."""
    lines = [headline(gate)]
    worst = sorted(gate.judged, key=lambda one: list(Outcome).index(one.outcome))
    shown = [one for one in worst if one.outcome.fails or one.outcome is Outcome.IMPROVED]
    lines += [f"{SIGNS[one.outcome]} {one.outcome}: {sentence(one)}" for one in shown]
    if verbose:
        rest = [one for one in worst if one not in shown]
        lines += [f"{SIGNS[one.outcome]} {one.outcome}: {sentence(one)}" for one in rest]
    else:
        reasons = _reasons(gate)
        lines += [f"{SIGNS[Outcome.NOT_JUDGED]} not judged: {reason}" for reason in reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            lines.append(f"  and {len(reasons) - MOST_REASONS} reasons more, -v shows all")
    if gate.new:
        lines.append(f"{gate.new} measured {_cells(gate.new)} not in the baseline{_renewing(renew)}")
    elif any(one.outcome is Outcome.IMPROVED for one in gate.judged):
        lines.append(f"to hold what improved{_renewing(renew)}")
    return "\n".join(map(_one_line, lines)) + "\n"


def render_gate_json(gate: Gate) -> str:
    """Write every cell with its evidence; numbers are numbers, units are in `unit`."""
    data = {
        "schema": SCHEMA,
        "passes": not gate.failing and not gate.empty,
        "headline": headline(gate),
        "not_in_baseline": gate.new if gate.with_baseline else None,
        "cells": [_object(one) for one in gate.judged],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_junit(gate: Gate) -> str:
    """Write a test case for each cell and what it was held against: failed, skipped where not judged, or passed."""
    suites = ET.Element("testsuites", {"name": "harness check", **_tally(gate.judged)})
    for table in dict.fromkeys(one.table for one in gate.judged):
        of_table = [one for one in gate.judged if one.table == table]
        suite = ET.SubElement(suites, "testsuite", {"name": _legal(table), **_tally(of_table)})
        for one in of_table:
            name = f"{one.cell.row.label}: {one.cell.column.label}"
            case = ET.SubElement(suite, "testcase", classname=_legal(f"{table}.{one.against}"), name=_legal(name))
            if one.outcome.fails:
                failure = ET.SubElement(case, "failure", type=str(one.outcome), message=_legal(sentence(one)))
                failure.text = _legal(sentence(one))
            elif not one.outcome.judges:
                ET.SubElement(case, "skipped", message=_legal(_what(one)))
            else:
                ET.SubElement(case, "system-out").text = _legal(_what(one))
    ET.indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def render_annotations(gate: Gate) -> str:
    """Write GitHub's workflow commands: an error for each failing cell, a notice for each that improved."""
    lines = [*_annotations("error", gate.failing)]
    lines += _annotations("notice", [one for one in gate.judged if one.outcome is Outcome.IMPROVED])
    if gate.empty and not gate.failing:
        lines.append(f"::error title=harness check::{_data(headline(gate))}")
    return "".join(f"{line}\n" for line in lines)


def render_summary(gate: Gate, *, renew: str = "") -> str:
    """Write GitHub's job summary in Markdown: what fails as a table, the rest folded away."""
    lines = [f"### harness check {_escaped(headline(gate))}", ""]
    lines += _rows(gate.failing)
    lines += _rows([one for one in gate.judged if one.outcome is Outcome.IMPROVED])
    if renew and (gate.new or any(one.outcome is Outcome.IMPROVED for one in gate.judged)):
        lines += [f"`{renew}` renews the baseline.", ""]
    rest = [one for one in gate.judged if not one.outcome.fails and one.outcome is not Outcome.IMPROVED]
    folded = _folded(f"{len(rest)} other cells", _rows(rest)) if rest else []
    if len("\n".join([*lines, *folded]).encode()) > MOST_BYTES:
        folded = [f"{len(rest)} other cells are left out here, they would not fit; `--junit` has them.", ""]
    return "\n".join([*lines, *folded]) + "\n"


# Sentences.


def _named(judged: Judged) -> str:
    return f"{judged.table}, {judged.cell.column.label} of {judged.cell.row.label}"


def _what(judged: Judged) -> str:
    evidence = judged.found.evidence
    if evidence is None:
        return judged.found.why
    if evidence.processes:
        return _speed(evidence, judged.cell.unit)
    said = f"{_value(evidence.now, judged.cell.unit)}, was {_value(evidence.before, judged.cell.unit)}"
    if evidence.difference is None or evidence.allowed is None:
        return said
    return f"{said}{_difference(judged, evidence)}"


def _speed(evidence: Evidence, unit: str) -> str:
    assert evidence.difference is not None
    assert evidence.allowed is not None
    assert evidence.processes is not None
    change = evidence.difference.value
    now, before = evidence.processes
    return (
        f"{_value(evidence.now, unit)}, was {_value(evidence.before, unit)}: {abs(change):.1%} "
        f"{'slower' if change < 0 else 'faster'}, of which {evidence.allowed:.1%} may be noise on this machine; "
        f"{_probability(evidence.p)} by ranks, {now} runs against {before}"
    )


def _difference(judged: Judged, evidence: Evidence) -> str:
    """Say how much it differs and what would be allowed."""
    found, allowed = evidence.difference, evidence.allowed
    assert found is not None
    assert allowed is not None
    if found.value == 0:
        return ""
    points = judged.cell.unit.startswith("%")
    unit = " points" if points else f" {judged.cell.unit}".rstrip()
    way = _way(judged, found.value)
    if evidence.images is None:
        limit = f", {number(allowed, None, significant=2)} allowed" if allowed else ""
        return f": {number(abs(found.value), None, significant=3)}{unit} {way}{limit}"
    low, high = (found.low, found.high) if found.value > 0 else (-found.high, -found.low)
    chance = "" if judged.outcome is not Outcome.HELD or abs(found.value) <= allowed else ", which may be chance"
    return (
        f": {abs(found.value):.2f} [{low:.2f}, {high:.2f}] points {way}{chance}; {_probability(evidence.p)} on the "
        f"same {evidence.images:,} images, {allowed:g} allowed"
    )


def _way(judged: Judged, difference: float) -> str:
    if judged.cell.better is None:
        return "more" if difference > 0 else "less"
    return "better" if (difference > 0) == (judged.cell.better == "higher") else "worse"


def _value(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    if unit.startswith("%"):
        return f"{value:.2f} %"
    return f"{number(value, None)} {unit}".rstrip()


def _probability(p: float | None) -> str:
    if p is None:
        return ""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _reasons(gate: Gate) -> list[str]:
    """Group what was not judged by reason; what the paper's side leaves out is not news where there is a baseline."""
    grouped: dict[str, list[Judged]] = {}
    for one in gate.judged:
        if one.outcome is Outcome.NOT_JUDGED and (one.against == "baseline" or not gate.with_baseline):
            grouped.setdefault(one.found.why, []).append(one)
    return [f"{_some(cells)}: {reason}" for reason, cells in grouped.items()]


def _some(cells: Sequence[Judged]) -> str:
    return _named(cells[0]) + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")


def _cells(count: int) -> str:
    return "cell is" if count == 1 else "cells are"


def _renewing(renew: str) -> str:
    return f"; `{renew}` renews it" if renew else ""


def _one_line(text: str) -> str:
    """Labels and errors may hold line breaks; a log's line is a cell."""
    return re.sub(r"\s*[\r\n]+\s*", " ", text)


# JSON.


def _object(judged: Judged) -> dict[str, Any]:
    evidence = asdict(judged.found.evidence) if judged.found.evidence else {}
    processes = evidence.pop("processes", None)
    difference = evidence.pop("difference", None) or {}
    return {
        "table": judged.table,
        "row": judged.cell.row.key,
        "column": judged.cell.column.key,
        "unit": judged.cell.unit,
        "against": judged.against,
        "outcome": str(judged.outcome),
        "fails": judged.outcome.fails,
        "reason": _what(judged),
        "now": evidence.get("now"),
        "before": evidence.get("before"),
        "difference": difference.get("value"),
        "low": difference.get("low"),
        "high": difference.get("high"),
        "allowed": evidence.get("allowed"),
        "relative": evidence.get("relative"),
        "p": evidence.get("p"),
        "images": evidence.get("images"),
        "runs_now": processes[0] if processes else None,
        "runs_before": processes[1] if processes else None,
    }


# JUnit.


def _tally(judged: Sequence[Judged]) -> dict[str, str]:
    return {
        "tests": str(len(judged)),
        "failures": str(sum(one.outcome.fails for one in judged)),
        "skipped": str(sum(not one.outcome.judges for one in judged)),
    }


def _legal(text: str) -> str:
    """Leave out what XML has no way to write."""
    return re.sub(r"[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\N{REPLACEMENT CHARACTER}", text)


# GitHub.


def _annotations(level: str, judged: Sequence[Judged]) -> Iterable[str]:
    room = MOST_ANNOTATIONS if len(judged) <= MOST_ANNOTATIONS else MOST_ANNOTATIONS - 1
    for one in judged[:room]:
        yield f"::{level} title={_property(f'{one.table} {one.outcome}')}::{_data(sentence(one))}"
    if len(judged) > room:
        yield f"::{level} title=harness check::{len(judged) - room} more, which the job summary lists"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _rows(judged: Sequence[Judged]) -> list[str]:
    if not judged:
        return []
    lines = ["| | cell | against | |", "|---|---|---|---|"]
    for one in judged:
        outcome = f"{SIGNS[one.outcome]} {one.outcome}"
        lines.append(f"| {outcome} | {_escaped(_named(one))} | {one.against} | {_escaped(_what(one))} |")
    return [*lines, ""]


def _folded(title: str, lines: list[str]) -> list[str]:
    return [f"<details><summary>{escape(title)}</summary>", "", *lines, "</details>", ""]


def _escaped(text: str) -> str:
    """Keep a name from breaking the table, becoming a link, or being HTML."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escape(_one_line(text), quote=False))
