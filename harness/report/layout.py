"""`Sheet` -> lines of text: as many columns next to each other as fit into a window, the others below them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from harness.cleaning import visible
from harness.judge.verdict import Verdict
from harness.report.sheet import Entry, Sheet, SheetColumn

STYLES = {
    Verdict.MATCH: "green",
    Verdict.NOISE: "cyan",
    Verdict.DEVIATES: "bold red",
    Verdict.EXPLAINED: "yellow",
    Verdict.NOT_COMPARABLE: "",
    Verdict.MISSING: "dim",
    Verdict.FAILED: "bold red",
}

# A window below this width has narrower gaps.
USUAL = 80

# A heading above narrower texts is broken at the first width, or after its longest word up to the second.
HEADING, LONGEST_WORD = 14, 20

# Labels and texts are not made narrower than these.
LABEL, NARROWEST = 12, 3


@dataclass
class _Field:
    """The texts of a part, one for each row, with their heading and common width."""

    heading: str
    number: bool
    texts: list[Text]
    width: int = 0

    def __post_init__(self) -> None:
        self.width = max([cell_len(self.heading), *(text.cell_len for text in self.texts)])


@dataclass
class _Column:
    """The fields below one heading."""

    heading: str
    fields: list[_Field]
    gap: int

    def __post_init__(self) -> None:
        longest_word = max(map(cell_len, self.heading.split()), default=0)
        wanted = min(cell_len(self.heading), max(HEADING, min(longest_word, LONGEST_WORD)))
        self.fields[-1].width += max(0, wanted - self.width)

    @property
    def width(self) -> int:
        return sum(field.width for field in self.fields) + self.gap * (len(self.fields) - 1)

    def shrink(self, room: int) -> None:
        """Make the widest field narrower until the column fits: its texts are then broken into lines."""
        while self.width > room and max(field.width for field in self.fields) > NARROWEST:
            max(self.fields, key=lambda field: field.width).width -= 1


@dataclass
class _Block:
    """Columns next to each other; `label` is the width of the rows' names, `gap` the spaces before each column."""

    columns: list[_Column]
    label: int
    gap: int

    @property
    def width(self) -> int:
        return self.label + sum(self.gap + column.width for column in self.columns)

    def has_room(self, columns: Sequence[_Column], width: int) -> bool:
        """Whether these columns fit next to those that are there."""
        return self.width + sum(self.gap + column.width for column in columns) <= width

    def fit(self, room: int) -> int:
        """Break names, then texts, into lines until the block fits; return how many cells had to go."""
        too_wide = max(0, self.width - room)
        self.label = max(min(self.label, LABEL), self.label - too_wide)
        for column in self.columns if self.width > room else ():
            column.shrink(room - self.label - self.gap)
        return too_wide


@dataclass(frozen=True)
class SheetLines:
    """A table as lines; `by_sign` tells that verdicts are signs only, `left_out` names columns without room."""

    lines: list[Text]
    by_sign: bool
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Style:
    """How much of a table is written: verdicts as words, marks of footnotes, headings of parts in full."""

    words: bool
    marks: bool = True
    headings: bool = True


WORDS, BY_SIGN, COMPACT = _Style(words=True), _Style(words=False), _Style(words=False, marks=False, headings=False)


def sheet_lines(console: Console, sheet: Sheet, *, compact: bool = False, whole: bool = False) -> SheetLines:
    """Return the lines of a table for the console's width.

    A verdict is a word unless signs let more columns fit next to each other; `compact` gives up marks and long
    headings as well for that.  Columns that only say what a row is are left out where not all columns fit next to
    each other, unless the table is to be `whole`.
    """
    styles = (WORDS, BY_SIGN, *([COMPACT] if compact else []))
    choices = [_blocks(console, sheet, style) for style in styles]
    # Nothing is broken into lines where signs avoid it, and there are as few blocks as possible.
    costs = [(sum(block.fit(console.width) for block in blocks), len(blocks)) for blocks in choices]
    settings = [number for number, column in enumerate(sheet.columns) if column.setting]
    if min(costs) > (0, 1) and settings and not whole:
        fewer = sheet_lines(console, sheet.without(settings), compact=compact)
        return replace(fewer, left_out=tuple(sheet.columns[number].heading for number in settings))
    best = costs.index(min(costs))
    lines: list[Text] = []
    for block in choices[best]:
        lines += [Text()] if lines else []
        lines += _block_lines(console, sheet, block)
    return SheetLines(lines, by_sign=not styles[best].words)


def _blocks(console: Console, sheet: Sheet, style: _Style) -> list[_Block]:
    """Put columns next to each other as long as they fit; those of one column of the paper stay together."""
    gap = 2 if console.width < USUAL or not style.headings else 3
    label = max((cell_len(visible(row.label)) for row in sheet.rows), default=0)
    blocks = [_Block([], label, gap)]
    numbered = list(enumerate(sheet.columns))
    for _, together in groupby(numbered, key=lambda column: column[1].key or str(column[0])):
        placed = [_column(sheet, index, column, gap - 1, style) for index, column in together]
        if not blocks[-1].has_room(placed, console.width) and _Block([], label, gap).has_room(placed, console.width):
            blocks.append(_Block([], label, gap))
        for column in placed:
            if blocks[-1].columns and not blocks[-1].has_room([column], console.width):
                blocks.append(_Block([], label, gap))
            blocks[-1].columns.append(column)
    return blocks


def _column(sheet: Sheet, index: int, column: SheetColumn, gap: int, style: _Style) -> _Column:
    fields = []
    for place, part in enumerate(column.parts):
        entries = [row.cells[index][place] for row in sheet.rows]
        heading = visible(part.heading if style.headings else part.short or part.heading)
        if not style.words and any(entry.sign for entry in entries):
            heading = ""
        marks = max((len(_marks(entry, style)) for entry in entries), default=0) if part.number else 0
        texts = [_text(entry, style, room=marks) for entry in entries]
        fields.append(_Field(heading + " " * marks if heading else "", part.number, texts))
    return _Column(visible(column.heading), fields, gap)


def _marks(entry: Entry, style: _Style) -> str:
    return visible("".join(f"[{mark}]" for mark in entry.marks)) if style.marks else ""


def _text(entry: Entry, style: _Style, *, room: int) -> Text:
    """A text with its sign before it and its marks behind it, for which all rows leave `room`."""
    shown = [entry.sign, visible(entry.text)] if style.words or not entry.sign else [entry.sign]
    text = " ".join(filter(None, shown))
    look = STYLES[entry.verdict] if entry.verdict else ""
    return Text(text + _marks(entry, style).ljust(room if text else 0), style=look)


def _block_lines(console: Console, sheet: Sheet, block: _Block) -> Iterator[Text]:
    """Yield the headings, a rule, and the rows below the headings of the paper."""
    yield from _headings(console, block)
    group = ""
    for number, row in enumerate(sheet.rows):
        if row.group != group and row.group:
            yield Text(visible(row.group), style="italic")
        group = row.group
        cells = [(field.texts[number], field) for column in block.columns for field in column.fields]
        first = _broken(console, Text(visible(row.label)), block.label)
        yield from _side_by_side(block, first, [_broken(console, text, field.width) for text, field in cells])


def _headings(console: Console, block: _Block) -> Iterator[Text]:
    """Yield each column's heading above those of its parts; one whose parts have none has its own in their place."""
    parts = [
        [_broken(console, Text(field.heading), field.width) for field in column.fields] for column in block.columns
    ]
    below = max((len(lines) for fields in parts for lines in fields), default=1)
    columns = []
    for column, fields in zip(block.columns, parts, strict=True):
        own = _broken(console, Text(column.heading, style="bold"), column.width) if column.heading else []
        if any(field.heading for field in column.fields):
            columns.append(
                [_aligned(text, column.width) for text in own] + [_filled(column, fields, n) for n in range(below)]
            )
        else:
            columns.append([_aligned(text, column.width, right=column.fields[0].number) for text in own])
    for line in range(-max(map(len, columns), default=0), 0):
        out = Text(" " * block.label)
        for column, lines in zip(block.columns, columns, strict=True):
            out.append(" " * block.gap)
            out.append_text(lines[line] if len(lines) + line >= 0 else Text(" " * column.width))
        yield out
    yield Text("─" * block.label + "".join(" " * block.gap + "─" * column.width for column in block.columns))


def _side_by_side(block: _Block, first: Sequence[Text], cells: Sequence[Sequence[Text]]) -> Iterator[Text]:
    """Yield the lines of a row, as many as its longest text takes."""
    for number in range(max(len(first), *(len(lines) for lines in cells)) if cells else len(first)):
        out = _aligned(first[number] if number < len(first) else Text(), block.label)
        rest = list(cells)
        for column in block.columns:
            own, rest = rest[: len(column.fields)], rest[len(column.fields) :]
            out.append(" " * block.gap)
            out.append_text(_filled(column, own, number))
        yield out


def _filled(column: _Column, texts: Sequence[Sequence[Text]], number: int) -> Text:
    """Return one line of a column: line `number` of the texts of each of its fields."""
    parts = [
        _aligned(lines[number] if number < len(lines) else Text(), field.width, right=field.number)
        for field, lines in zip(column.fields, texts, strict=True)
    ]
    return Text(" " * column.gap).join(parts)


def _aligned(text: Text, width: int, *, right: bool = False) -> Text:
    aligned = text.copy()
    aligned.align("right" if right else "left", width)
    return aligned


def plain_console(width: int, *, color: bool = False) -> Console:
    """Return a console that writes into memory, and obeys nothing that is in a text."""
    return Console(
        file=StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )


def _broken(console: Console, text: Text, width: int) -> list[Text]:
    """Break a text into lines that are no wider than this."""
    if text.cell_len <= width:
        return [text]
    lines = list(text.wrap(console, width))
    for line in lines:
        line.rstrip()
    return lines
