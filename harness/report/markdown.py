"""`Diff` -> Markdown that a pull request shows well."""

from collections.abc import Iterable
from html import escape

from harness.diff import Diff, Finding, Shape, readings
from harness.report import effects, words


def render_markdown(diff: Diff, *, explain: bool = False) -> str:
    """Write the table and what its order says; ratios, reasons, footnotes and doubts fold away below.

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
        lines += _folded(f"{shape.column.label} relative to one network of the family", _ratios(shape))
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
    # An asterisk would set the rest in italics.
    return f"| {' | '.join(_escaped(part.strip()).replace('*', chr(92) + '*') for part in parts)} |"


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
    beside = ", ".join(filter(None, (cell.published, cell.difference)))
    parts = (
        f"**{cell.measured}**" if cell.measured else "",
        cell.batch and f"`{cell.batch}`",
        cell.sign,
        f"({beside})" if beside else "",
    )
    return _escaped(" ".join(filter(None, parts)))


def _escaped(text: str) -> str:
    """Keep a label from breaking the table or becoming a link."""
    return text.replace("|", "\\|").replace("[", "\\[").replace("]", "\\]").replace("\n", " ").replace("<", "&lt;")
