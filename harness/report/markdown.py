"""`Diff` -> Markdown that a pull request shows well."""

from collections.abc import Iterable, Sequence
from html import escape

from harness.cleaning import markdown, one_line
from harness.judge.verdict import Diff, JudgedCell, Shape, Verdict, head_variants
from harness.report import ablation, formatting

# What GitHub takes as one comment, in characters.
LONGEST_COMMENT = 65_536


def render_comment(diffs: Sequence[Diff], *, longest: int = LONGEST_COMMENT, explain: bool = False) -> str:
    """Render tables so that they fit into one comment of a pull request: several are collapsed under an overview.

    What would not fit is left out and named: first the collapsed details of each table, then whole tables, last first.
    """
    whole = _together(diffs, [render_markdown(diff, explain=explain) for diff in diffs])
    if len(whole) <= longest:
        return whole
    short = [render_markdown(diff, details=False) for diff in diffs]
    for count in range(len(diffs), -1, -1):
        text = f"{_together(diffs, short[:count])}\n{_left_out(diffs[count:], longest)}\n"
        if len(text) <= longest:
            return text
    return f"{_left_out(diffs, longest)}\n"


def _together(diffs: Sequence[Diff], texts: Sequence[str]) -> str:
    if len(diffs) == 1:
        return "".join(texts)
    verdicts = [verdict for verdict in Verdict if any(diff.counts[verdict] for diff in diffs)]
    overview = [[markdown(formatting.title(diff)), *(str(diff.counts[v] or "") for v in verdicts)] for diff in diffs]
    lines = table(["table", *(f"{formatting.SIGNS[v]} {v}" for v in verdicts)], overview)
    for diff, text in zip(diffs, texts, strict=False):
        lines += collapsed(f"{formatting.title(diff)}: {formatting.counts(diff)}", [text.rstrip()])
    return "\n".join(lines).rstrip() + "\n"


def _left_out(diffs: Sequence[Diff], longest: int) -> str:
    names = markdown(" ".join(diff.spec.name for diff in diffs))
    tables = f" and the tables {names}" if diffs else ""
    return (
        f"Reasons, footnotes and warnings{tables} are left out: a comment takes {longest:,} characters; "
        f"`harness report {names or 'TABLE'}` prints them."
    )


def render_markdown(diff: Diff, *, details: bool = True, explain: bool = False) -> str:
    """Render the table and what its order says; ratios, reasons, notes and warnings are collapsed below.

    `explain` adds what each crop and head gives.
    """
    lines = [f"### {markdown(formatting.title(diff))}", ""]
    if diff.table.machine:
        lines += [f"Throughput measured on {markdown(diff.table.machine.label)}.", ""]
    if diff.ablations:
        lines += _ablation(diff)
    else:
        lines += [*_cells(diff), f"{formatting.counts(diff)}. Signs: {formatting.legend(diff)}.", ""]
    for shape in diff.shapes:
        lines += [f"**{markdown(shape.column.label)}**: {markdown(formatting.shape_sentence(shape))}.", ""]
        if details:
            lines += collapsed(f"{shape.column.label} relative to one model of the family", _ratios(shape))
    if details:
        reasons = [
            f"- {formatting.SIGNS[verdict]} **{verdict}**: {markdown(cells)}: {markdown(reason)}"
            for verdict, reason, cells in formatting.reasons(diff)
        ]
        notes = [
            f"- \\[{markdown(note.mark)}\\] {markdown(note.text)}"
            for note in formatting.footnotes(diff, measured_only=True)
        ]
        lines += collapsed("why cells are not plain matches", reasons)
        lines += collapsed("what each crop and head gives", _explanations(diff)) if explain else []
        lines += collapsed("footnotes", notes)
        lines += collapsed("warnings", [f"- {markdown(warning)}" for warning in formatting.merged_warnings(diff)])
    return "\n".join(lines).rstrip() + "\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: Sequence[int] = (0,)) -> list[str]:
    """Return a table and an empty line; numbers are aligned to the right, `text_columns` to the left."""
    rule = "|".join("---" if number in text_columns else "--:" for number in range(len(heading)))
    return [_line(heading), f"|{rule}|", *map(_line, rows), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def collapsed(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are shown at a click on the title; nothing where there are none."""
    if not lines:
        return []
    # HTML, where backslashes would show.
    summary = f"<details><summary>{escape(one_line(title))}</summary>"
    return [summary, "", *lines, *([""] if lines[-1] else []), "</details>", ""]


def _ablation(diff: Diff) -> list[str]:
    lines = [markdown(ablation.introduction(diff)), ""]
    for column in diff.ablations:
        rows = [[markdown(text) for text in line] for line in map(ablation.line, column.rows)]
        lines += [f"**{markdown(ablation.heading(column))}**", ""]
        lines += table(("", "here", "95 % interval", "paper", ""), rows, text_columns=(0, 4))
        lines += [f"{markdown(ablation.signs_sentence(column))}.", ""]
    return lines


def _ratios(shape: Shape) -> list[str]:
    rows = [
        [
            *(markdown(row.label) for row in (ratio.row, reference)),
            *(formatting.number(value, None, significant=3) for value in (ratio.measured, ratio.published)),
        ]
        for reference, ratios in formatting.ratios_by_reference(shape)
        for ratio in ratios
    ]
    return table(("model", "relative to", "measured", "published"), rows, text_columns=(0, 1)) if rows else []


def _explanations(diff: Diff) -> list[str]:
    lines: list[str] = []
    for judged in diff.judged_cells.values():
        variants = head_variants(judged.filled)
        if variants:
            title, texts = formatting.head_table(judged, variants)
            heading, *rows = ([markdown(text.strip()) for text in line] for line in texts)
            lines += [f"**{markdown(title)}**", "", *table(heading, rows)]
    return [*lines, formatting.HEAD_LEGEND] if lines else []


def _cells(diff: Diff) -> list[str]:
    columns = diff.spec.columns
    rows: list[list[str]] = []
    for heading, members in formatting.row_groups(diff.spec.rows):
        if heading:
            rows.append([f"*{markdown(heading)}*", *("" for _ in columns)])
        rows += [[markdown(row.label), *(_cell(diff.judged_cells[row.key, c.key]) for c in columns)] for row in members]
    return table(["", *(markdown(formatting.heading(c.label, c.unit)) for c in columns)], rows)


def _cell(judged: JudgedCell) -> str:
    text = formatting.cell_text(judged)
    if judged.filled.planned.idle:
        return markdown(text.published)
    published = ", ".join(filter(None, (markdown(text.published), text.difference)))
    parts = (
        f"**{markdown(text.measured)}**" if text.measured else "",
        text.batch and f"`{text.batch}`",
        text.sign,
        f"({published})" if published else "",
    )
    return " ".join(filter(None, parts))
