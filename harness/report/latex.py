r"""`Diff` -> LaTeX: the table as the paper sets it, with booktabs.

What is written compiles as it stands, and goes into a paper by \input.  It is plain ASCII, so that any TeX reads it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from pylatexenc.latexencode import RULE_CALLABLE, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from harness.judge.verdict import Diff, JudgedCell, Verdict
from harness.report import ablation, formatting
from harness.specs import Column, Footnote, Row

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


def render_latex(diffs: Sequence[Diff], published: str | None = None) -> str:
    """Render tables as LaTeX.

    `published` sets the published values in grey `beside` or `below` ours, with difference and verdict; without it a
    table holds only what was measured.  Of a small scale, the ablation is set with the published differences.
    """
    tables = [text for diff in diffs for text in ([_ablation(diff)] if diff.ablations else _floats(diff, published))]
    return "\n".join([BEGIN, *tables, END])


def _ablation(diff: Diff) -> str:
    """A line for each change: measured difference, its interval, the published one, and whether the signs agree."""
    heading = _line(["change", "here", "95\\,\\% interval", "paper", "same sign"])
    lines = ["\\begin{tabular}{@{}lrlrc@{}}", "\\toprule", heading]
    for column in diff.ablations:
        lines += ["\\midrule", f"\\multicolumn{{5}}{{@{{}}l}}{{\\textit{{{escaped(ablation.heading(column))}}}}} \\\\"]
        for row, ours, interval, paper, sign in map(ablation.line, column.rows):
            lines.append(_line([*map(escaped, (row, ours, interval)), _marked(paper), escaped(sign)]))
    sentences = [ablation.introduction(diff)]
    sentences += [f"{column.column.label}: {ablation.signs_sentence(column)}." for column in diff.ablations]
    notes = [*map(escaped, sentences), *map(_note, formatting.footnotes(diff, measured_only=True))]
    return _float(diff, [*lines, "\\bottomrule", "\\end{tabular}%"], notes)


def _floats(diff: Diff, published: str | None) -> Iterator[str]:
    """A table in as many parts as it takes to be readable."""
    parts = _parts(diff.spec.rows, MOST_LINES // (2 if published == "below" else 1))
    for number, rows in enumerate(parts, start=1):
        notes = _notes(diff, published) if number == len(parts) else []
        yield _float(diff, _tabular(diff, rows, published), notes, number)


def _float(diff: Diff, tabular: Sequence[str], notes: Sequence[str], part: int = 1) -> str:
    caption = f"\\caption{{{_caption(diff)}{' (continued)' if part > 1 else ''}}}"
    label = "" if part > 1 else f"\\label{{tab:{re.sub('[^A-Za-z0-9]', '-', diff.spec.name)}}}"
    counter = "\\addtocounter{table}{-1}\n" if part > 1 else ""
    return "\n".join(
        [
            f"{counter}\\begin{{table}}[htbp]",
            "\\centering",
            caption + label,
            "\\harnesstable{%",
            *tabular,
            "}{%",
            "\\par\n".join(notes) + "%" if notes else "%",
            "}",
            "\\end{table}",
            "",
        ]
    )


def _parts(rows: Sequence[Row], most: int) -> list[Sequence[Row]]:
    """Split a table into as few readable parts as possible, of about the same length."""
    count = max(1, math.ceil(len(rows) / most))
    size = max(1, math.ceil(len(rows) / count))
    return [rows[start : start + size] for start in range(0, len(rows), size)] or [()]


def _caption(diff: Diff) -> str:
    name = diff.spec.numbers.get(diff.spec.edition, "")
    caption = f"{escaped(diff.spec.title)}{f' ({escaped(name)} of the paper)' if name else ''}."
    return caption + (f" Throughput measured on {escaped(diff.table.machine.label)}." if diff.table.machine else "")


def _tabular(diff: Diff, rows: Sequence[Row], published: str | None) -> list[str]:
    columns = diff.spec.columns
    twice = published == "beside"
    layout = "".join(_layout(diff, column, twice=twice) for column in columns)
    width = 1 + len(columns) * (2 if twice else 1)
    lines = [f"\\begin{{tabular}}{{@{{}}l{layout}@{{}}}}", "\\toprule", *_headings(diff, twice=twice)]
    for number, (heading, members) in enumerate(formatting.row_groups(rows)):
        if heading:
            lines += ["\\midrule", f"\\multicolumn{{{width}}}{{c}}{{{escaped(heading)}}} \\\\"]
        if heading or number == 0:
            lines.append("\\midrule")
        for row in members:
            lines += _lines(diff, row, published)
    return [*lines, "\\bottomrule", "\\end{tabular}%"]


def _layout(diff: Diff, column: Column, *, twice: bool) -> str:
    """Align numbers to the right and text to the left; long texts are broken into lines."""
    cells = [diff.judged_cells[row.key, column.key] for row in diff.spec.rows]
    texts = map(formatting.cell_text, cells)
    if any(len(part) > LONG for text in texts for part in (text.measured, text.published)):
        return BROKEN * 2 if twice else BROKEN
    if any(cell.filled.cell.text for cell in cells):
        return "ll" if twice else "l"
    return "r@{\\hspace{.4em}}l" if twice else "r"


def _headings(diff: Diff, *, twice: bool) -> list[str]:
    """Column labels above their units, as in the paper."""
    names, units = [], []
    for column in diff.spec.columns:
        unit = column.unit
        name, below = escaped(column.label), f"({escaped(unit)})" if unit and unit not in column.label else ""
        names.append(f"\\multicolumn{{2}}{{c}}{{{name}}}" if twice else name)
        units.append(f"\\multicolumn{{2}}{{c}}{{{below}}}" if twice else below)
    lines = [_line(["", *names])]
    return [*lines, _line(["", *units])] if any("(" in unit for unit in units) else lines


def _lines(diff: Diff, row: Row, published: str | None) -> list[str]:
    judged_cells = [diff.judged_cells[row.key, column.key] for column in diff.spec.columns]
    label = escaped(row.label)
    if published is None:
        return [_line([label, *(_measured_only(judged) for judged in judged_cells)])]
    if all(judged.filled.planned.idle for judged in judged_cells) and published == "below":
        return [_line([label, *map(_published_cell, judged_cells)])]
    if published == "beside":
        return [_line([label, *(part for f in judged_cells for part in (_measured_cell(f), _published_cell(f)))])]
    return [_line([label, *map(_measured_cell, judged_cells)]), _line(["", *map(_published_cell, judged_cells)])]


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _measured_only(judged: JudgedCell) -> str:
    """The measured value; a text that nothing measures is shown as published."""
    cell = formatting.cell_text(judged)
    if judged.filled.planned.idle:
        return escaped(cell.published.partition("[")[0])
    return _measured(cell.measured) or "--"


def _measured_cell(judged: JudgedCell) -> str:
    if judged.filled.planned.idle:
        return ""
    measured, sign = _measured(formatting.cell_text(judged).measured), SIGNS[judged.verdict]
    text = f"{measured} {sign}" if measured else sign
    return f"\\deviates{{{text}}}" if judged.verdict is Verdict.DEVIATES else text


def _published_cell(judged: JudgedCell) -> str:
    cell = formatting.cell_text(judged)
    text = " ".join(filter(None, (_marked(cell.published), escaped(cell.difference))))
    return f"\\published{{{text}}}" if text else ""


def _marked(text: str) -> str:
    """Raise the marks of the footnotes behind a published value."""
    value, *marks = text.replace("]", "").split("[")
    return escaped(value) + (f"\\textsuperscript{{{escaped(', '.join(marks))}}}" if marks else "")


def _measured(text: str) -> str:
    value, plus_minus, half = text.partition(" ±")
    return f"{escaped(value)}{{\\scriptsize\\,$\\pm$\\,{escaped(half)}}}" if plus_minus else escaped(value)


def _notes(diff: Diff, published: str | None) -> list[str]:
    """The legend of a table with verdicts, and its footnotes."""
    if published is None:
        return []
    signs = ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in Verdict if diff.counts[verdict])
    lines = [f"\\published{{Grey: as published.}} {escaped(formatting.counts(diff))}{f': {signs}' if signs else ''}."]
    lines += [f"{escaped(s.column.label)}: {escaped(formatting.shape_sentence(s))}." for s in diff.shapes]
    return [*lines, *map(_note, formatting.footnotes(diff))]


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
