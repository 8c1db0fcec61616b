r"""`Diff` -> LaTeX: the table as the paper sets it, with booktabs.

What is written compiles as it stands, and goes into a paper by \input.  It is plain ASCII, so that any TeX reads it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pylatexenc.latexencode import RULE_CALLABLE, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from harness.judge.verdict import Diff, Verdict
from harness.report import ablation, formatting
from harness.report.sheet import (
    DIFFERENCE,
    MEASURED,
    PUBLISHED,
    VERDICT,
    Entry,
    Sheet,
    SheetRow,
    sections,
    table_sheets,
)
from harness.specs import Footnote

# A float that is longer than this is set in such small type that nobody can read it.
MOST_LINES = 60
LONG = 28  # characters after which a text is broken into lines
BROKEN = ">{\\raggedright\\arraybackslash}p{4cm}"

SIGNS = {
    Verdict.MATCH: r"\checkmark",
    Verdict.NOISE: r"$\approx$",
    Verdict.DEVIATES: r"$\neq$",
    Verdict.EXPLAINED: r"$\ast$",
    Verdict.NOT_COMPARABLE: r"$\cdot$",
    Verdict.MISSING: r"$\circ$",  # a dash before a published value would be a minus
    Verdict.FAILED: "!",
}

BEGIN = r"""% Compiles as it stands.  In a paper, \input this file; the preamble then needs
% \usepackage{array,booktabs,graphicx,xcolor,amssymb}
\ifx\maketitle\undefined % no document has begun: be one
  \documentclass{article}
  \usepackage{array,booktabs,graphicx,xcolor,amssymb}
  \usepackage[margin=2cm]{geometry}
  \begin{document}
  \def\harnessend{\end{document}}
\else
  \def\harnessend{}
\fi
% The alembic of distilled models; define \alembic before to have your own.
\providecommand{\alembic}{{\setlength{\unitlength}{.1ex}\linethickness{.35pt}\begin{picture}(19,17)
  \put(6,5){\circle{10}}\put(6,10){\line(0,1){6}}\qbezier(6,16)(12,15)(18,4)
  \end{picture}}}
\providecommand{\published}[1]{\textcolor[gray]{.45}{#1}}
\providecommand{\deviates}[1]{\textcolor[rgb]{.7,0,0}{\textbf{#1}}}
\ifx\harnesstable\undefined
  \newsavebox{\harnesscells}\newsavebox{\harnessnotes}
  % Cells above notes, made smaller where they are wider than the line or higher than the page.
  \newcommand{\harnesstable}[2]{%
    \sbox{\harnessnotes}{\parbox{\linewidth}{\footnotesize\raggedright#2}}%
    \sbox{\harnesscells}{\small#1}%
    \ifdim\wd\harnesscells>\linewidth
      \sbox{\harnesscells}{\resizebox{\linewidth}{!}{\usebox{\harnesscells}}}\fi
    \dimen0=\dimexpr\textheight-\ht\harnessnotes-\dp\harnessnotes-7\baselineskip\relax
    \ifdim\dimen0<.3\textheight \dimen0=.3\textheight\fi
    \ifdim\dimexpr\ht\harnesscells+\dp\harnesscells\relax>\dimen0
      \sbox{\harnesscells}{\resizebox*{!}{\dimen0}{\usebox{\harnesscells}}}\fi
    \usebox{\harnesscells}\par\smallskip\usebox{\harnessnotes}}
\fi
"""
END = "\\harnessend\n"


def render_latex(diffs: Sequence[Diff], published: str | None = None, *, everything: bool = False) -> str:
    """Render tables as LaTeX: what was measured, each value with the sign of its verdict.

    `published` sets the published values in grey `beside` or `below` ours, with the difference; `everything` has also
    rows and columns of which nothing was measured.  Of a small scale it is the ablation.
    """
    tables = [
        text
        for diff in diffs
        for number, sheet in enumerate(table_sheets(diff, everything=everything))
        if sheet.columns
        for text in _floats(diff, sheet, published, again=number > 0)
    ]
    return "\n".join([BEGIN, *tables, END])


def _floats(diff: Diff, sheet: Sheet, published: str | None, *, again: bool) -> Iterator[str]:
    """A table in as many parts as it takes to be readable."""
    parts = _parts(sheet.rows, MOST_LINES // (2 if published == "below" else 1))
    for number, rows in enumerate(parts, start=1):
        notes = _notes(diff, sheet, published) if number == len(parts) else []
        tabular = _ablation(sheet) if diff.ablations else _tabular(sheet, rows, published)
        yield _float(diff, tabular, notes, number + again)


def render_sheets_latex(sheets: Sequence[Sheet]) -> str:
    """Render tables as floats, every part of a column in a column of its own."""
    floats = []
    for sheet in sheets:
        signs = ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in sheet.verdicts)
        notes = [*map(escaped, sheet.summary), *([f"Signs: {signs}."] if signs else [])]
        floats.append(_float_of(f"\\caption{{{escaped(sheet.title)}.}}", _every_part(sheet), notes))
    return "\n".join([BEGIN, *floats, END])


def _every_part(sheet: Sheet) -> list[str]:
    parts = [part for column in sheet.columns for part in column.parts]
    layout = "".join("r" if part.number else "l" for part in parts)
    above = [f"\\multicolumn{{{len(column.parts)}}}{{c}}{{{escaped(column.heading)}}}" for column in sheet.columns]
    lines = [f"\\begin{{tabular}}{{@{{}}l{layout}@{{}}}}", "\\toprule", _line(["", *above])]
    lines.append(_line(["", *(escaped(part.heading) for part in parts)]))
    for heading, members in sections(sheet.rows):
        lines += ["\\midrule", f"\\multicolumn{{{1 + len(parts)}}}{{c}}{{{escaped(heading)}}} \\\\"] if heading else []
        lines.append("\\midrule")
        for row in members:
            entries = [entry for cell in row.cells for entry in cell]
            texts = (
                SIGNS[e.verdict] if e.sign and e.verdict else _measured(e.text) if not e.marks else _marked(e)
                for e in entries
            )
            lines.append(_line([escaped(row.label), *texts]))
    return [*lines, "\\bottomrule", "\\end{tabular}%"]


def _ablation(sheet: Sheet) -> list[str]:
    """A line for each change: measured difference, its interval, the published one, and whether the signs agree."""
    lines = [
        "\\begin{tabular}{@{}lrlrc@{}}",
        "\\toprule",
        _line(["change", "here", "95\\,\\% interval", "paper", "same sign"]),
    ]
    lines += ["\\midrule", f"\\multicolumn{{5}}{{@{{}}l}}{{\\textit{{{escaped(sheet.title)}}}}} \\\\"]
    for row in sheet.rows:
        ours, interval, paper, sign = row.cells[0]
        lines.append(_line([*map(escaped, (row.label, ours.text, interval.text)), _marked(paper), escaped(sign.sign)]))
    return [*lines, "\\bottomrule", "\\end{tabular}%"]


def _float(diff: Diff, tabular: Sequence[str], notes: Sequence[str], part: int = 1) -> str:
    caption = f"\\caption{{{_caption(diff)}{' (continued)' if part > 1 else ''}}}"
    label = "" if part > 1 else f"\\label{{tab:{re.sub('[^A-Za-z0-9]', '-', diff.spec.name)}}}"
    counter = "\\addtocounter{table}{-1}\n" if part > 1 else ""
    return counter + _float_of(caption + label, tabular, notes)


def _float_of(caption: str, tabular: Sequence[str], notes: Sequence[str]) -> str:
    return "\n".join(
        [
            "\\begin{table}[htbp]",
            "\\centering",
            caption,
            "\\harnesstable{%",
            *tabular,
            "}{%",
            "\\par\n".join(notes) + "%" if notes else "%",
            "}",
            "\\end{table}",
            "",
        ]
    )


def _parts(rows: Sequence[SheetRow], most: int) -> list[Sequence[SheetRow]]:
    """Split a table into as few readable parts as possible, of about the same length."""
    count = max(1, math.ceil(len(rows) / most))
    size = max(1, math.ceil(len(rows) / count))
    return [rows[start : start + size] for start in range(0, len(rows), size)] or [()]


def _caption(diff: Diff) -> str:
    name = diff.spec.numbers.get(diff.spec.edition, "")
    return f"{escaped(diff.spec.title)}{f' ({escaped(name)} of the paper)' if name else ''}."


def _tabular(sheet: Sheet, rows: Sequence[SheetRow], published: str | None) -> list[str]:
    twice = published == "beside"
    layout = "".join(_layout(sheet, number, twice=twice) for number in range(len(sheet.columns)))
    width = 1 + len(sheet.columns) * (2 if twice else 1)
    lines = [f"\\begin{{tabular}}{{@{{}}l{layout}@{{}}}}", "\\toprule", *_headings(sheet, twice=twice)]
    for number, (heading, members) in enumerate(sections(rows)):
        if heading:
            lines += ["\\midrule", f"\\multicolumn{{{width}}}{{c}}{{{escaped(heading)}}} \\\\"]
        if heading or number == 0:
            lines.append("\\midrule")
        for row in members:
            lines += _lines(sheet, row, published)
    return [*lines, "\\bottomrule", "\\end{tabular}%"]


def _layout(sheet: Sheet, number: int, *, twice: bool) -> str:
    """Align numbers to the right and text to the left; long texts are broken into lines."""
    entries = [entry for row in sheet.rows for entry in row.cells[number]]
    if any(len(entry.text) > LONG for entry in entries):
        return BROKEN * 2 if twice else BROKEN
    if not sheet.columns[number].parts[0].number:
        return "ll" if twice else "l"
    return "r@{\\hspace{.4em}}l" if twice else "r"


def _headings(sheet: Sheet, *, twice: bool) -> list[str]:
    """Column labels above their units, as in the paper."""
    names, units = [], []
    for column in sheet.columns:
        name, below = escaped(column.label), f"({escaped(column.unit)})" if column.unit else ""
        names.append(f"\\multicolumn{{2}}{{c}}{{{name}}}" if twice else name)
        units.append(f"\\multicolumn{{2}}{{c}}{{{below}}}" if twice else below)
    lines = [_line(["", *names])]
    return [*lines, _line(["", *units])] if any("(" in unit for unit in units) else lines


def _lines(sheet: Sheet, row: SheetRow, published: str | None) -> list[str]:
    cells = [
        {part.heading: entry for part, entry in zip(column.parts, cell, strict=True)}
        for column, cell in zip(sheet.columns, row.cells, strict=True)
    ]
    label = escaped(row.label)
    if published == "beside":
        return [_line([label, *(text for cell in cells for text in (_ours(cell), _theirs(cell)))])]
    if published == "below" and any(VERDICT.heading in cell for cell in cells):
        return [_line([label, *map(_ours, cells)]), _line(["", *map(_theirs, cells)])]
    return [_line([label, *(_ours(cell) or _marked(cell[""]) if "" in cell else _ours(cell) for cell in cells)])]


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _ours(cell: Mapping[str, Entry]) -> str:
    """The measured value with the sign of its verdict; what nothing measures has neither."""
    entry = cell.get(MEASURED.heading, Entry())
    verdict = entry.verdict
    if verdict is None:
        return ""
    sign = SIGNS[verdict] if VERDICT.heading in cell else ""  # no sign where nobody published anything
    text = " ".join(filter(None, (_measured(entry.text), sign)))
    return f"\\deviates{{{text}}}" if verdict is Verdict.DEVIATES else text


def _theirs(cell: Mapping[str, Entry]) -> str:
    """The published value with the difference; a dash where nothing was published for what can be measured."""
    published, difference = cell.get("") or cell.get(PUBLISHED.heading, Entry()), cell.get(DIFFERENCE.heading, Entry())
    text = " ".join(filter(None, (_marked(published), escaped(difference.text))))
    if not text and VERDICT.heading in cell and cell[VERDICT.heading].verdict:
        text = "--"
    return f"\\published{{{text}}}" if text else ""


def _marked(entry: Entry) -> str:
    """Raise the marks of the footnotes behind a published value."""
    marks = f"\\textsuperscript{{{escaped(', '.join(entry.marks))}}}" if entry.marks else ""
    return escaped(entry.text) + marks


def _measured(text: str) -> str:
    value, plus_minus, half = text.partition(" ± ")
    return f"{escaped(value)}{{\\scriptsize\\,$\\pm$\\,{escaped(half)}}}" if plus_minus else escaped(value)


def _notes(diff: Diff, sheet: Sheet, published: str | None) -> list[str]:
    """What was judged and how, the signs, what is left out, the order, and the footnotes."""
    if diff.ablations:
        lines = [ablation.introduction(diff), *sheet.left_out]
        return [*map(escaped, lines), *map(_note, formatting.footnotes(diff, measured_only=True))]
    signs = ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in sheet.verdicts)
    grey = "\\published{Grey: as published, -- where nothing was.} " if published else ""
    lines = [f"{grey}{escaped(' '.join(sheet.summary))}{f' Signs: {signs}.' if signs else ''}"]
    lines += [escaped(sentence.replace("`--all-columns`", "--all-columns")) for sentence in sheet.left_out]
    lines += [f"{escaped(s.column.label)}: {escaped(formatting.shape_sentence(s))}." for s in diff.shapes]
    return [*lines, *map(_note, formatting.footnotes(diff, measured_only=published is None))]


def _note(note: Footnote) -> str:
    return f"\\textsuperscript{{{escaped(note.mark)}}} {escaped(note.text)}"


# What pylatexenc does not know, or sets by commands or in letters that need more packages.
_OWN_RULES = {
    "|": r"\textbar",
    "`": r"\textasciigrave",
    "<": r"\textless",
    ">": r"\textgreater",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "★": r"$\star$",
    "✓": r"\checkmark",
    "✗": r"$\times$",
    "✻": r"$\ast$",
    "⚗": r"\alembic",
}
# Letters of the blocks below that only other encodings of fonts have.
_MISSING = "«»ÐÞðþĄąĐđĘęĮįŉŊŋŲųΐϒ"
_BLOCKS = ("\u00a0-\u017f", "\u0391-\u03c9", "\u2013-\u2019\u201c\u201d\u2020-\u2022\u2026", "−⋆≈≠≤≥")


def _encode_letter(text: str, position: int) -> tuple[int, str] | None:
    """Apply our own rules before those of pylatexenc; a letter that plain TeX cannot set is named by its number."""
    letter = text[position]
    if letter in _OWN_RULES:
        return 1, _OWN_RULES[letter]
    if letter.isascii():
        return None if letter.isprintable() else (1, "")
    supported = letter not in _MISSING and re.match(f"[{''.join(_BLOCKS)}]", letter)
    return None if supported else (1, f"[U+{ord(letter):04X}]")


_ENCODER = UnicodeToLatexEncoder(
    conversion_rules=[UnicodeToLatexConversionRule(RULE_CALLABLE, _encode_letter), "defaults"],
    replacement_latex_protection="braces-after-macro",
    unknown_char_policy=lambda letter: f"[U+{ord(letter):04X}]",
    unknown_char_warning=False,
)


def escaped(text: str) -> str:
    """Return any text in a form that TeX sets as it is."""
    # Two hyphens would become a dash, and an option of ours another word.
    return str(_ENCODER.unicode_to_latex(" ".join(text.split()))).replace("--", "-{}-")
