"""Markdown and CSV -> grids: pipe tables, blocks of aligned text, and lines of separated values."""

import csv
import html
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from harness.specs.importing.grid import Grid, clean
from harness.specs.importing.html import read_html
from harness.specs.importing.latex import latex_text

_DELIMITER = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\s*(?:[─━]+|-{3,}|={3,})(?:\s{1,8}(?:[─━]+|-{2,}|={2,}))+\s*")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?P<text>.*?)\s*#*\s*|\*\*(?P<bold>[^*|]+)\*\*")

_INLINE = (
    (re.compile(r"<!--.*?-->"), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"(?<!\\)\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"<su(?P<which>[pb])>(?P<text>.*?)</su(?P=which)>", re.IGNORECASE), None),
    (re.compile(r"<[^<>]+>"), " "),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*\\])([*_])(?=[^\s*_])([^*_]*[^\s*_\\])\1(?![\w*])"), r"\2"),
    (re.compile(r"`([^`]*)`"), r"\1"),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!|<>~$-])"), r"\1"),
)
# Letters of a cell or line that is read for its markup; one with an embedded image has far more.
LONGEST = 2000

_FORMULA = re.compile(r"\$([^$]+)\$")


def read_markdown(text: str) -> list[Grid]:
    """Return the tables of a text in Markdown: those with pipes, those of aligned text, and those in HTML."""
    lines = text.splitlines()
    notes = tuple(filter(None, (re.sub(r"^\s*[-*]\s+", "", _inline(line)) for line in lines if "|" not in line)))
    grids: list[Grid] = []
    context: list[str] = []
    number = 0
    while number < len(lines):
        grid, after = _pipes(lines, number) or _aligned(lines, number) or (None, number + 1)
        if grid:
            grids.append(Grid(lines=grid[0], headings=grid[1], context=tuple(context), notes=notes))
        elif heading := _HEADING.fullmatch(lines[number]):
            context.append(_inline(heading["text"] or heading["bold"]))
        number = after
    return [*grids, *(read_html(text) if "<table" in text.lower() else ())]


_Read = tuple[tuple[tuple[tuple[str, ...], ...], int], int]


def _pipes(lines: Sequence[str], start: int) -> _Read | None:
    """Return a pipe table that begins at a line, with the number of its headings, and the line after it."""
    if start + 1 == len(lines) or "|" not in lines[start] or not _DELIMITER.fullmatch(lines[start + 1]):
        return None
    if "|" not in lines[start + 1] and len(_split(lines[start])) > 1:
        return None
    end = start + 2
    while end < len(lines) and "|" in lines[end]:
        end += 1
    rows = [_split(line) for line in (lines[start], *lines[start + 2 : end])]
    return (_rectangle(rows), 1), end


def _split(line: str) -> list[str]:
    text = line.strip()
    cells = _PIPE.split(text)
    cells = cells[1:] if text.startswith("|") else cells
    cells = cells[:-1] if len(cells) > 1 and not cells[-1].strip() else cells
    return [_inline(cell) for cell in cells]


def _rectangle(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    width = max(map(len, rows), default=0)
    return tuple((*row, *[""] * (width - len(row))) for row in rows)


def _inline(text: str) -> str:
    """Return the text of a cell or a line without its markup; what is raised or lowered is between braces."""
    if len(text) > LONGEST:
        return clean(text)
    text = _FORMULA.sub(lambda formula: latex_text(formula[0]), text)
    for pattern, by in _INLINE:
        text = pattern.sub(by if by is not None else _raised, text)
    return clean(html.unescape(text))


def _raised(match: re.Match[str]) -> str:
    return f"{'^' if match['which'].lower() == 'p' else '_'}{{{match['text']}}}"


# Text that is aligned below a rule, as a terminal or a block of code shows it.


def _aligned(lines: Sequence[str], start: int) -> _Read | None:
    """Return a table of aligned text that begins at a line: headings, a rule, rows.

    Tables with the same names of rows, one below the other, are the columns of one.
    """
    read = _aligned_block(lines, start)
    if read is None:
        return None
    (rows, heads), end = read
    while end + 1 < len(lines) and not lines[end].strip():
        more = _aligned_block(lines, end + 1)
        if more is None or [row[0] for row in more[0][0][more[0][1] :]] != [row[0] for row in rows[heads:]]:
            break
        (below, other), end = more
        filler = [[""] * len(rows[0])] * (other - heads), [[""] * len(below[0])] * (heads - other)
        rows = [[*left, *right[1:]] for left, right in zip([*filler[0], *rows], [*filler[1], *below], strict=True)]
        heads = max(heads, other)
    return (_rectangle(rows), heads), end


def _aligned_block(lines: Sequence[str], start: int) -> tuple[tuple[list[list[str]], int], int] | None:
    if not lines[start].strip() or "|" in lines[start] or lines[start].startswith("```"):
        return None
    rule = next((n for n in range(start + 1, min(start + 9, len(lines))) if _RULE.fullmatch(lines[n])), None)
    if rule is None or not all(line.strip() and not line.startswith("```") for line in lines[start:rule]):
        return None
    spans = [(match.start(), match.end()) for match in re.finditer(r"\S+", lines[rule])]
    end = next((n for n in range(rule + 1, len(lines)) if not _goes_on(lines[n])), len(lines))
    heads = [_cut(line, spans) for line in lines[start:rule]]
    rows: list[list[str]] = []
    for line in lines[rule + 1 : end]:
        cells = _cut(line, spans)
        if rows and not cells[0]:  # what was broken into lines
            rows[-1] = [clean(f"{above} {below}") for above, below in zip(rows[-1], cells, strict=True)]
        elif len(line.rstrip()) > spans[0][1] and not line[spans[0][1] : spans[0][1] + 1].isspace():
            rows.append([clean(line), *[""] * (len(spans) - 1)])  # a heading above rows, wider than their names
        else:
            rows.append(cells)
    return ([*heads, *rows], len(heads)), end


def _goes_on(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("```")


def _cut(line: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Cut a line in the middle of the gaps of a rule."""
    edges = [0, *((left[1] + right[0]) // 2 for left, right in pairwise(spans)), None]
    return [clean(line[left:right]) for left, right in pairwise(edges)]


# Separated values.


def read_csv(text: str) -> list[Grid]:
    """Return the table of a text whose values are separated by commas, semicolons or tabs."""
    first = text.lstrip("\ufeff").partition("\n")[0]
    delimiter = max(("\t", ";", ","), key=first.count)
    lines = list(csv.reader(text.lstrip("\ufeff").splitlines(), delimiter=delimiter))
    rows = [list(map(_value, line)) for line in lines if any(cell.strip() for cell in line)]
    rows = list(_pivoted(rows)) or rows
    return [Grid(lines=_rectangle(rows))] if rows else []


def _value(cell: str) -> str:
    return latex_text(cell) if "$" in cell or "\\" in cell else clean(cell)


_LONG = ("row_label", "column_label", "unit", "published")


def _pivoted(rows: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield a table of which `harness report --format csv` wrote a line for each cell; nothing for any other."""
    if not rows or not {*_LONG, "row", "column"} <= set(rows[0]):
        return
    records = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    cells = {(record["row"], record["column"]): record.get("published", "") for record in records}
    columns = {record["column"]: (record["column_label"], record["unit"]) for record in records}
    yield ["", *(f"{label} ({unit})" if unit else label for label, unit in columns.values())]
    for row, label in {record["row"]: record["row_label"] for record in records}.items():
        yield [label, *(cells.get((row, column), "") for column in columns)]
