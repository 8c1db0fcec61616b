"""`Diff` -> Markdown that a pull request shows well."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from harness.cleaning import markdown, one_line
from harness.judge.verdict import Diff, Shape, Verdict, head_variants
from harness.report import ablation, formatting, sheet
from harness.report.layout import plain_console, sheet_lines
from harness.report.sheet import Entry, Sheet, SheetColumn, SheetRow

# What GitHub takes as one comment, in characters.
LONGEST_COMMENT = 65_536


def render_comment(
    diffs: Sequence[Diff], *, longest: int = LONGEST_COMMENT, explain: bool = False, everything: bool = False
) -> str:
    """Render tables so that they fit into one comment of a pull request: several are collapsed under an overview.

    What would not fit is left out and named: first the collapsed details of each table, then whole tables, last first.
    """
    whole = _together(diffs, [render_markdown(diff, explain=explain, everything=everything) for diff in diffs])
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
        lines += collapsed(f"{formatting.title(diff)}: {sheet.verdicts_sentence(diff.counts)}", [text.rstrip()])
    return "\n".join(lines).rstrip() + "\n"


def _left_out(diffs: Sequence[Diff], longest: int) -> str:
    names = markdown(" ".join(diff.spec.name for diff in diffs))
    tables = f" and the tables {names}" if diffs else ""
    return (
        f"Reasons, footnotes and warnings{tables} are left out: a comment takes {longest:,} characters; "
        f"`harness report {names or 'TABLE'}` prints them."
    )


def render_markdown(diff: Diff, *, details: bool = True, explain: bool = False, everything: bool = False) -> str:
    """Render the table and what its order says; ratios, reasons, notes and warnings are collapsed below.

    `explain` adds what each crop and head gives, `everything` what was not measured.
    """
    lines = [f"### {markdown(formatting.title(diff))}", ""]
    if diff.ablations:
        lines += [markdown(ablation.introduction(diff)), ""]
    shown = sheet.table_sheets(diff, everything=everything)
    lines += [markdown(" ".join(sheet.summary(diff) if diff.ablations else shown[0].summary)), ""]
    for one in shown:
        lines += [f"**{markdown(one.title)}**", ""] if diff.ablations else []
        lines += sheet_table(one)
    for shape in diff.shapes:
        lines += [f"**{markdown(shape.column.label)}**: {markdown(formatting.shape_sentence(shape))}.", ""]
        if details:
            orders = formatting.orders_sentence(shape)
            more = [*([f"{markdown(orders)}.", ""] if orders else []), *_ratios(shape)]
            lines += collapsed(
                f"{shape.column.label}: other machines, and models relative to one of their family", more
            )
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
        warnings = [f"- warning: {markdown(warning)}" for warning in formatting.merged_warnings(diff)]
        lines += collapsed("footnotes and warnings", [*notes, *warnings])
    return "\n".join(lines).rstrip() + "\n"


def render_sheets_markdown(sheets: Sequence[Sheet]) -> str:
    """Render tables one below the other, each with its title and summary."""
    lines: list[str] = []
    for shown in sheets:
        lines += [f"### {markdown(shown.title)}", ""]
        lines += [f"- {markdown(sentence)}" for sentence in shown.summary]
        lines += [*([""] if shown.summary else []), *sheet_table(shown)]
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


# What GitHub shows next to each other, and below each other without making a reader scroll: pixels of a table, and
# letters of a block of code.
PIXELS, LETTERS = 780, 90
MOST_ROWS = 20


def sheet_table(shown: Sheet) -> list[str]:
    """Return a table with a line a row, and below it what its signs mean and what is left out.

    A long or wide table is a block of code, whose lines are half as high and never broken.
    """
    if not shown.columns:
        return []
    words, signs = (_width(shown, by_sign=by_sign) <= PIXELS for by_sign in (False, True))
    if len(shown.rows) > MOST_ROWS or not signs:
        return _block_of_code(shown)
    return [*_pipes(shown, by_sign=not words), *_below(shown, by_sign=not words)]


def _block_of_code(shown: Sheet) -> list[str]:
    # Of what was published and nothing else, every value with its marks: nobody can look it up above the table.
    whole = not any(part.heading for column in shown.columns for part in column.parts)
    laid = sheet_lines(plain_console(LETTERS), shown, compact=not whole, whole=whole)
    lines = [line.plain.rstrip() for line in laid.lines]
    fence = "`" * max(3, *(len(ticks) + 1 for line in lines for ticks in re.findall("`+", line)), 3)
    left_out = [f"Left out for want of room: {markdown('; '.join(laid.left_out))}."] if laid.left_out else []
    return [f"{fence}text", *lines, fence, "", *_below(shown, by_sign=laid.by_sign, left_out=left_out)]


def _below(shown: Sheet, *, by_sign: bool, left_out: Sequence[str] = ()) -> list[str]:
    legend = [f"{formatting.legend(shown.verdicts)}."] if by_sign and shown.verdicts else []
    sentences = [*legend, *left_out, *map(markdown, shown.left_out)]
    return [" ".join(sentences), ""] if sentences else []


def _width(shown: Sheet, *, by_sign: bool) -> float:
    """Return about how wide a table is, in pixels: of letters, and of the margins of each cell."""
    texts = [[row.label for row in shown.rows]]
    for index, column in enumerate(shown.columns):
        for place, part in enumerate(column.parts):
            entries = [row.cells[index][place] for row in shown.rows]
            head = column.heading if place == 0 else ""
            texts.append(
                [part.heading, head, *(entry.sign if by_sign and entry.sign else entry.text for entry in entries)]
            )
    return sum(8.3 * max(map(len, one), default=0) + 27 for one in texts)


def _pipes(shown: Sheet, *, by_sign: bool) -> list[str]:
    """Return a table of GitHub's; a column's heading stands above that of its first part."""
    heads = [_head(column, number) for column in shown.columns for number in range(len(column.parts))]
    parts = [part for column in shown.columns for part in column.parts]
    rows = [
        [_label(shown, row), *(_entry(entry, by_sign=by_sign) for cell in row.cells for entry in cell)]
        for row in shown.rows
    ]
    return table(["", *heads], rows, text_columns=[0, *(n for n, part in enumerate(parts, 1) if not part.number)])


def _head(column: SheetColumn, number: int) -> str:
    above = _unbroken(column.heading) if number == 0 else ""
    return "<br>".join(filter(None, (above, column.parts[number].heading)))


def _label(shown: Sheet, row: SheetRow) -> str:
    """Return a row's label, below the heading of the paper where only that tells it from another row."""
    alike = sum(other.label == row.label for other in shown.rows) > 1
    return _unbroken(f"{row.group}: {row.label}" if alike and row.group else row.label)


def _entry(entry: Entry, *, by_sign: bool) -> str:
    text = _unbroken(entry.text) if not (by_sign and entry.sign) else ""
    marks = f"<sup>{markdown(', '.join(entry.marks))}</sup>" if entry.marks and text else ""
    bold = f"**{text}**" if entry.verdict is Verdict.DEVIATES and text else text
    return " ".join(filter(None, (entry.sign, bold))).replace(" ", NO_BREAK) + marks


NO_BREAK, NO_BREAK_HYPHEN = "\N{NO-BREAK SPACE}", "\N{NON-BREAKING HYPHEN}"


def _unbroken(text: str) -> str:
    """Escape a text that is to stay on one line, as far as it is short."""
    if len(text) > SHORT:
        return markdown(text)
    return markdown(text).replace(" ", NO_BREAK).replace("-", NO_BREAK_HYPHEN)


# Texts up to this length are never broken into lines.
SHORT = 30


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
