"""Cells that span others -> a grid of texts, which every format is read into.

The text of a cell is plain but for `^{…}` and `_{…}` around what is raised or lowered: a mark, an exponent, or ± and
its number.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# The formats by name, each with the suffixes of its files.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "latex": (".tex", ".latex", ".ltx"),
    "html": (".html", ".htm", ".xhtml"),
    "markdown": (".md", ".markdown"),
    "csv": (".csv", ".tsv"),
}

# Columns or rows that a cell may span at most: no paper has more.
MOST_SPANNED = 100


@dataclass(frozen=True, kw_only=True)
class SpannedCell:
    """A cell as written, with how many columns and rows it takes."""

    text: str
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of texts, with as many in each line.

    `headings` counts the lines of headings, None where the format does not tell.  `groups` are the lines that one
    spanning cell fills.  `context` are the title and the headings above the table, the nearest last; `notes` are the
    lines of text below it.
    """

    lines: tuple[tuple[str, ...], ...]
    headings: int | None = None
    groups: frozenset[int] = frozenset()
    caption: str = ""
    context: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What tells this table from the others of its file."""
        width = len(self.lines[0]) if self.lines else 0
        named = self.caption or (self.context[-1] if self.context else "")
        first = ", ".join(filter(None, self.lines[0] if self.lines else ()))
        return f"{len(self.lines)} × {width} cells" + "".join(f": {text}" for text in (named, first) if text)


def spread(cells: Iterable[Sequence[SpannedCell]], *, implied: bool) -> tuple[list[list[str]], frozenset[int]]:
    """Return the texts of all positions, and the lines that one cell fills.

    With `implied` positions a cell below a spanning one is left out, as in HTML; otherwise it is there and empty, as in
    LaTeX.
    """
    lines: list[list[str]] = []
    below: dict[tuple[int, int], str] = {}
    groups = set()
    for number, line in enumerate(cells):
        texts: list[str] = []
        for cell in line:
            while implied and (number, len(texts)) in below:
                texts.append(below[number, len(texts)])
            start, width = len(texts), min(cell.columns, MOST_SPANNED)
            texts += [cell.text] * width
            for row in range(number + 1, number + min(abs(cell.rows), MOST_SPANNED)) if cell.rows > 1 else ():
                below |= {(row, column): cell.text for column in range(start, start + width)}
            if cell.rows < 0:  # a cell of LaTeX that spans the lines above
                for above in lines[cell.rows + 1 :]:
                    above[start : start + 1] = [above[start] or cell.text] if start < len(above) else []
        while implied and (number, len(texts)) in below:
            texts.append(below[number, len(texts)])
        if not implied:
            texts = [text or below.get((number, column), "") for column, text in enumerate(texts)]
        filled = [cell for cell in line if cell.text]
        if len(filled) == 1 and filled[0].columns > 1 and filled[0].columns * 2 > len(texts):
            groups.add(number)
        lines.append(texts)
    # A heading above rows may span more columns than there are: pages write `colspan=99`.
    others = [len(line) for number, line in enumerate(lines) if number not in groups]
    width = max(others or map(len, lines), default=0)
    return [[*line[:width], *[""] * (width - len(line))] for line in lines], frozenset(groups)


def clean(text: str) -> str:
    """Return a text on one line, with ordinary blanks, hyphens and minus signs, and without characters of no width."""
    plain = re.sub("[\u200b\u2060\ufeff\xad]", "", text).translate({0x2212: "-", 0x2011: "-"})
    return " ".join(plain.split())
