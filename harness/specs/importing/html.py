"""HTML -> grids: every `<table>`, as browsers copy and save it.

pandas would read it as well, but with lxml, which is no dependency, and into numbers that have lost their digits.
"""

from html.parser import HTMLParser

from harness.specs.importing.grid import Grid, SpannedCell, clean, spread

_VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
}
_HIDDEN = {"script", "style", "template", "noscript"}
_HEADINGS = {"title", "caption", *(f"h{level}" for level in range(1, 7))}
_BLOCKS = {"p", "li", "div", "dd", "tr", "figcaption", "section", "ul", "ol", "br"}
_MARKS = {"sup": "^{", "sub": "_{"}


def read_html(text: str) -> list[Grid]:
    """Return the tables of a page or of a part of one."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    parser.end_tables()
    notes = tuple(filter(None, map(clean, parser.notes)))
    return [table.grid(notes) for table in parser.tables]


class _Table:
    """What was read of a table so far."""

    def __init__(self, context: tuple[str, ...]) -> None:
        self.context, self.caption = context, ""
        self.rows: list[list[SpannedCell]] = []
        self.headings = 0
        self.in_head = False
        self.cell: list[str] | None = None
        self._spans = (1, 1)

    def begin_row(self) -> None:
        self.end_cell()
        self.headings += self.in_head
        self.rows.append([])

    def begin_cell(self, columns: int, rows: int) -> None:
        self.end_cell()
        self._spans, self.cell = (columns, rows), []

    def end_cell(self) -> None:
        if self.cell is None:
            return
        if not self.rows:
            self.rows.append([])
        columns, rows = self._spans
        self.rows[-1].append(SpannedCell(text=clean("".join(self.cell)), columns=columns, rows=rows))
        self.cell = None

    def grid(self, notes: tuple[str, ...]) -> Grid:
        lines, groups = spread(self.rows, implied=True)
        kept = [number for number, line in enumerate(lines) if any(line)]
        head = sum(number < self.headings for number in kept)
        return Grid(
            lines=tuple(tuple(lines[number]) for number in kept),
            headings=head if 0 < head < len(kept) else None,
            groups=frozenset(place for place, number in enumerate(kept) if number in groups and place >= head),
            caption=self.caption,
            context=self.context,
            notes=notes,
        )


class _Parser(HTMLParser):
    """Collects tables, the headings above them, and the lines of text outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[_Table] = []
        self.notes: list[str] = [""]
        self._open: list[_Table] = []
        self._hidden: list[str] = []  # the elements that are open inside of a hidden one, which is the first
        self._context: list[str] = []
        self._heading: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if self._hidden or _is_hidden(tag, named):
            self._hidden += [tag] if tag not in _VOID else []
            return
        if tag == "table":
            self._open.append(_Table(tuple(self._context)))
        elif tag in _HEADINGS:
            self._heading = []
        elif tag in _BLOCKS:
            self._write(" ")
            self.notes.append("")
        elif tag in _MARKS:
            self._write(_MARKS[tag])
        if self._open:
            table = self._open[-1]
            if tag == "tr":
                table.begin_row()
            elif tag in ("td", "th"):
                table.begin_cell(_span(named.get("colspan")), _span(named.get("rowspan")))
            elif tag in ("thead", "tbody"):
                table.in_head = tag == "thead"

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                del self._hidden[len(self._hidden) - 1 - self._hidden[::-1].index(tag) :]
            return
        if tag in _MARKS:
            self._write("}")
        elif tag in _HEADINGS and self._heading is not None:
            self._end_heading(tag)
        elif self._open and tag in ("td", "th", "tr"):
            self._open[-1].end_cell()
        elif self._open and tag == "thead":
            self._open[-1].in_head = False
        elif self._open and tag == "table":
            self._end_table()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._write(data)

    def end_tables(self) -> None:
        while self._open:
            self._end_table()

    def _end_table(self) -> None:
        table = self._open.pop()
        table.end_cell()
        self.tables.append(table)

    def _end_heading(self, tag: str) -> None:
        text = clean("".join(self._heading or ()))
        if tag == "caption" and self._open:
            self._open[-1].caption = text
        elif text:
            self._context.append(text)
        self._heading = None

    def _write(self, text: str) -> None:
        if self._heading is not None:
            self._heading.append(text)
        elif not self._open:
            self.notes[-1] += text
        elif self._open[-1].cell is not None:
            self._open[-1].cell.append(text)


def _is_hidden(tag: str, named: dict[str, str | None]) -> bool:
    """Whether a reader of the page does not see an element, by HTML and by the usual names of such classes."""
    classes = (named.get("class") or "").split()
    return (
        tag in _HIDDEN
        or bool(named.keys() & {"hidden", "popover"})
        or named.get("aria-hidden") == "true"
        or bool({"visually-hidden", "sr-only"} & set(classes))
    )


def _span(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and 0 < len(text) < 5 else 1
