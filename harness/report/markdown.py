"""`Diff` -> Markdown that a pull request shows well."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from harness.diff import Diff, Finding, Shape, Verdict, readings
from harness.report import effects, words

# What GitHub takes as one comment, in characters.
LONGEST_COMMENT = 65_536


def render_comment(diffs: Sequence[Diff], *, longest: int = LONGEST_COMMENT, explain: bool = False) -> str:
    """Write tables so that they fit into one comment of a pull request: several begin with an overview and fold away.

    What would not fit is left out and named: first what folds away within each table, then whole tables, last first.
    """
    whole = _together(diffs, [render_markdown(diff, explain=explain) for diff in diffs])
    if len(whole) <= longest:
        return whole
    short = [render_markdown(diff, details=False) for diff in diffs]
    for kept in range(len(diffs), -1, -1):
        text = f"{_together(diffs, short[:kept])}\n{_left_out(diffs[kept:], longest)}\n"
        if len(text) <= longest:
            return text
    return f"{_left_out(diffs, longest)}\n"


def _together(diffs: Sequence[Diff], texts: Sequence[str]) -> str:
    if len(diffs) == 1:
        return "".join(texts)
    verdicts = [verdict for verdict in Verdict if any(diff.counts[verdict] for diff in diffs)]
    lines = [f"| table | {' | '.join(f'{words.SIGNS[v]} {v}' for v in verdicts)} |", f"|---|{'--:|' * len(verdicts)}"]
    for diff in diffs:
        found = " | ".join(str(diff.counts[verdict] or "") for verdict in verdicts)
        lines.append(f"| {_escaped(words.title(diff))} | {found} |")
    folded = [
        line
        for diff, text in zip(diffs, texts, strict=False)
        for line in _folded(f"{words.title(diff)}: {words.counts(diff)}", [text.rstrip()])
    ]
    return "\n".join([*lines, "", *folded]).rstrip() + "\n"


def _left_out(diffs: Sequence[Diff], longest: int) -> str:
    names = " ".join(diff.spec.name for diff in diffs)
    tables = f" and the tables {names}" if diffs else ""
    said = f"Reasons, footnotes and doubts{tables} are left out: a comment takes {longest:,} characters"
    return f"{said}; `harness report {names or 'TABLE'}` prints them."


def render_markdown(diff: Diff, *, details: bool = True, explain: bool = False) -> str:
    """Write the table and what its order says; ratios, reasons, notes and doubts fold away below.

    `explain` adds what each crop and head gives.
    """
    lines = [f"### {_escaped(words.title(diff))}", ""]
    if diff.table.machine:
        lines += [f"Speeds measured on {_escaped(diff.table.machine.label)}.", ""]
    if diff.effects:
        lines += _effects(diff)
    else:
        lines += [*_table(diff), "", f"{words.counts(diff)}. Signs: {words.legend(diff)}.", ""]
    for shape in diff.shapes:
        lines += [f"**{_escaped(shape.column.label)}**: {words.shape_sentence(shape)}.", ""]
        if not details:
            continue
        lines += _folded(f"{shape.column.label} relative to one network of the family", _ratios(shape))
    if not details:
        return "\n".join(lines).rstrip() + "\n"
    reasons = [
        f"- {words.SIGNS[verdict]} **{verdict}**: {_escaped(cells)}: {_escaped(reason)}"
        for verdict, reason, cells in words.reasons(diff)
    ]
    notes = [f"- \\[{note.mark}\\] {_escaped(note.text)}" for note in words.footnotes(diff, measured_only=True)]
    lines += _folded("why cells are not plain matches", reasons)
    lines += _folded("what each crop and head gives", _explanations(diff)) if explain else []
    lines += _folded("footnotes", notes)
    lines += _folded("doubts", [f"- {_escaped(doubt)}" for doubt in words.doubts_in_short(diff)])
    return "\n".join(lines).rstrip() + "\n"


def _effects(diff: Diff) -> list[str]:
    lines = [effects.introduction(diff), ""]
    for column in diff.effects:
        lines += [f"**{_escaped(effects.heading(column))}**", ""]
        lines += ["| | here | 95 % interval | paper | |", "|---|--:|--:|--:|---|"]
        lines += [f"| {' | '.join(_escaped(part) for part in line)} |" for line in effects.lines(column)]
        lines += ["", f"{effects.signs_sentence(column)}.", ""]
    return lines


def _folded(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    # HTML, where backslashes would show.
    return [f"<details><summary>{escape(title)}</summary>", "", *lines, "", "</details>", ""]


def _ratios(shape: Shape) -> list[str]:
    lines = ["| network | relative to | measured | published |", "|---|---|--:|--:|"]
    for reference, ratios in words.ratios_by_reference(shape):
        lines += [
            f"| {_escaped(r.row.label)} | {_escaped(reference.label)} "
            f"| {words.number(r.measured, None, significant=3)} "
            f"| {words.number(r.published, None, significant=3)} |"
            for r in ratios
        ]
    return lines


def _explanations(diff: Diff) -> list[str]:
    lines: list[str] = []
    for finding in diff.findings.values():
        found = readings(finding.filled)
        if found:
            title, (heading, *rows) = words.readings_lines(finding, found)
            lines += [*([""] if lines else []), f"**{_escaped(title)}**", ""]
            lines += [_line(heading), f"|---|{'--:|' * (len(heading) - 1)}", *map(_line, rows)]
    return [*lines, "", words.READINGS_LEGEND] if lines else []


def _line(parts: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(part.strip()) for part in parts)} |"


def _table(diff: Diff) -> list[str]:
    headings = ["", *(_escaped(words.heading(c.label, c.unit)) for c in diff.spec.columns)]
    lines = [f"| {' | '.join(headings)} |", f"|---|{'--:|' * len(diff.spec.columns)}"]
    group = None
    for row in diff.spec.rows:
        if row.group != group:
            group = row.group
            if group and group != row.label:
                lines.append(f"| *{_escaped(group)}* |{' |' * len(diff.spec.columns)}")
        cells = [_cell(diff.findings[row.key, column.key]) for column in diff.spec.columns]
        lines.append(f"| {_escaped(row.label)} | {' | '.join(cells)} |")
    return lines


def _cell(finding: Finding) -> str:
    cell = words.written(finding)
    if finding.filled.planned.idle:
        return _escaped(cell.published)
    beside = ", ".join(filter(None, (_escaped(cell.published), cell.difference)))
    parts = (
        f"**{_escaped(cell.measured)}**" if cell.measured else "",
        cell.batch and f"`{cell.batch}`",
        cell.sign,
        f"({beside})" if beside else "",
    )
    return " ".join(filter(None, parts))


def _escaped(text: str) -> str:
    """Keep a label from breaking the table, becoming a link or another type, or calling somebody by name."""
    plain = re.sub(r"([\\|\[\]*]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.splitlines()))
    return re.sub(r"@(?=\w)|#(?=\d)", "\\g<0>\u200b", plain).replace("<", "&lt;")
