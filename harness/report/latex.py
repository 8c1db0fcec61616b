r"""`Diff` -> LaTeX: the table as the paper sets it, with booktabs.

What is written compiles as it stands, and goes into a paper by \input.  It is plain ASCII, so that any TeX reads it.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from harness.diff import Diff, Finding, Verdict
from harness.report import effects, words
from harness.spec import Column, Footnote, Row

# How the published value stands by ours.
PLACES = ("beside", "below")

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
% The alembic of distilled networks; define \alembic before to have your own.
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
    """Write tables as LaTeX.

    `published` sets the published values in grey `beside` or `below` ours, with difference and verdict; without it a
    table holds only what was measured.  Of a small scale the effects of each change are set beside the published ones.
    """
    tables = [text for diff in diffs for text in ([_effects(diff)] if diff.effects else _floats(diff, published))]
    return "\n".join([BEGIN, *tables, END])


def _effects(diff: Diff) -> str:
    """Write what each change does: ours, its interval, the paper's, and whether the signs agree."""
    heading = _line(["change", "here", "95\\,\\% interval", "paper", "same sign"])
    lines = ["\\begin{tabular}{@{}lrlrc@{}}", "\\toprule", heading]
    for column in diff.effects:
        lines += ["\\midrule", f"\\multicolumn{{5}}{{@{{}}l}}{{\\textit{{{escaped(effects.heading(column))}}}}} \\\\"]
        for row, ours, interval, paper, sign in effects.lines(column):
            lines.append(_line([*map(escaped, (row, ours, interval)), _marked(paper), escaped(sign)]))
    said = [effects.introduction(diff)]
    said += [f"{one.column.label}: {effects.signs_sentence(one)}." for one in diff.effects]
    notes = [*map(escaped, said), *map(_note, words.footnotes(diff, measured_only=True))]
    return _float(diff, [*lines, "\\bottomrule", "\\end{tabular}%"], notes)


def _floats(diff: Diff, published: str | None) -> Iterator[str]:
    """Write a table, in as many parts as can be read."""
    parts = _parts(diff.spec.rows, MOST_LINES // (2 if published == "below" else 1))
    for number, rows in enumerate(parts, start=1):
        notes = _notes(diff, published) if number == len(parts) else []
        yield _float(diff, _tabular(diff, rows, published), notes, number)


def _float(diff: Diff, tabular: Sequence[str], notes: Sequence[str], part: int = 1) -> str:
    caption = f"\\caption{{{_caption(diff)}{' (continued)' if part > 1 else ''}}}"
    label = "" if part > 1 else f"\\label{{tab:{_key(diff.spec.name)}}}"
    again = "\\addtocounter{table}{-1}\n" if part > 1 else ""
    return "\n".join(
        [
            f"{again}\\begin{{table}}[htbp]",
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
    """Cut a table into as few parts as can be read, of about the same length."""
    count = max(1, math.ceil(len(rows) / most))
    size = max(1, math.ceil(len(rows) / count))
    return [rows[start : start + size] for start in range(0, len(rows), size)] or [()]


def _caption(diff: Diff) -> str:
    name = diff.spec.numbers.get(diff.spec.edition, "")
    said = [escaped(diff.spec.title) + (f" ({escaped(name)} of the paper)" if name else "") + "."]
    if diff.table.machine:
        said.append(f"Speeds measured on {escaped(diff.table.machine.label)}.")
    return " ".join(said)


def _tabular(diff: Diff, rows: Sequence[Row], published: str | None) -> list[str]:
    columns = diff.spec.columns
    twice = published == "beside"
    layout = "".join(_layout(diff, column, twice=twice) for column in columns)
    width = 1 + len(columns) * (2 if twice else 1)
    lines = [f"\\begin{{tabular}}{{@{{}}l{layout}@{{}}}}", "\\toprule", *_headings(diff, twice=twice)]
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            if group and group != row.label:
                lines += ["\\midrule", f"\\multicolumn{{{width}}}{{c}}{{{escaped(group)}}} \\\\", "\\midrule"]
        elif row is rows[0]:
            lines.append("\\midrule")
        lines += _lines(diff, row, published)
    return [*lines, "\\bottomrule", "\\end{tabular}%"]


def _layout(diff: Diff, column: Column, *, twice: bool) -> str:
    """Align numbers to the right, words to the left; long ones are broken into lines."""
    texts = [text for row in diff.spec.rows for text in _plain(diff.findings[row.key, column.key])]
    if any(len(text) > LONG for text in texts):
        return BROKEN * 2 if twice else BROKEN
    if any(diff.findings[row.key, column.key].filled.cell.text for row in diff.spec.rows):
        return "ll" if twice else "l"
    return "r@{\\hspace{.4em}}l" if twice else "r"


def _plain(finding: Finding) -> tuple[str, str]:
    return words.written(finding).measured, _printed(finding)


def _printed(finding: Finding) -> str:
    """Give what the paper prints; of a statement that nothing measures, what its own source says."""
    references = finding.filled.cell.references if finding.filled.planned.idle else ()
    return words.written(finding).published or (references[0].printed.text if references else "")


def _headings(diff: Diff, *, twice: bool) -> list[str]:
    """Write names over units, as the paper does."""
    names, units = [], []
    for column in diff.spec.columns:
        shown = {diff.findings[row.key, column.key].filled.cell.unit for row in diff.spec.rows}
        unit = shown.pop() if len(shown) == 1 else ""
        name, below = escaped(column.label), f"({escaped(unit)})" if unit and unit not in column.label else ""
        names.append(f"\\multicolumn{{2}}{{c}}{{{name}}}" if twice else name)
        units.append(f"\\multicolumn{{2}}{{c}}{{{below}}}" if twice else below)
    lines = [_line(["", *names])]
    return [*lines, _line(["", *units])] if any("(" in unit for unit in units) else lines


def _lines(diff: Diff, row: Row, published: str | None) -> list[str]:
    findings = [diff.findings[row.key, column.key] for column in diff.spec.columns]
    label = escaped(row.label)
    if published is None:
        return [_line([label, *(_alone(finding) for finding in findings)])]
    if all(finding.filled.planned.idle for finding in findings) and published == "below":
        return [_line([label, *map(_theirs, findings)])]
    if published == "beside":
        return [_line([label, *(part for f in findings for part in (_ours(f), _theirs(f)))])]
    return [_line([label, *map(_ours, findings)]), _line(["", *map(_theirs, findings)])]


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _alone(finding: Finding) -> str:
    """Write what was measured; what is only printed for the reader stands as it was printed."""
    cell = words.written(finding)
    if finding.filled.planned.idle:
        return escaped(_printed(finding).partition("[")[0])
    return _measured(cell.measured) or "--"


def _ours(finding: Finding) -> str:
    if finding.filled.planned.idle:
        return ""
    measured, sign = _measured(words.written(finding).measured), SIGNS[finding.verdict]
    said = f"{measured} {sign}" if measured else sign
    return f"\\deviates{{{said}}}" if finding.verdict is Verdict.DEVIATES else said


def _theirs(finding: Finding) -> str:
    cell = words.written(finding)
    said = " ".join(filter(None, (_marked(_printed(finding)), escaped(cell.difference))))
    return f"\\published{{{said}}}" if said else ""


def _marked(text: str) -> str:
    """Set the footnotes' marks behind a published value as they are printed, raised."""
    value, *marks = text.replace("]", "").split("[")
    return escaped(value) + (f"\\textsuperscript{{{escaped(', '.join(marks))}}}" if marks else "")


def _measured(text: str) -> str:
    value, plus_minus, half = text.partition(" ±")
    return f"{escaped(value)}{{\\scriptsize\\,$\\pm$\\,{escaped(half)}}}" if plus_minus else escaped(value)


def _notes(diff: Diff, published: str | None) -> list[str]:
    """Say below a table with verdicts what they mean and what the footnotes are."""
    if published is None:
        return []
    signs = ", ".join(f"{SIGNS[verdict]} {verdict}" for verdict in Verdict if diff.counts[verdict])
    lines = [f"\\published{{Grey: as published.}} {escaped(words.counts(diff))}{f': {signs}' if signs else ''}."]
    lines += [f"{escaped(s.column.label)}: {escaped(words.shape_sentence(s))}." for s in diff.shapes]
    return [*lines, *map(_note, words.footnotes(diff))]


def _note(note: Footnote) -> str:
    return f"\\textsuperscript{{{escaped(note.mark)}}} {escaped(note.text)}"


def _key(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "µ": r"$\mu$",
    "°": r"$^\circ$",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
    "⋆": r"$\star$",
    "★": r"$\star$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "✓": r"\checkmark{}",
    "✗": r"$\times$",
    "✻": r"$\ast$",
    "⚗": r"\alembic{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "\u00a0": "~",
}
_GREEK = {
    letter: unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    for letter in "αβγδζηθικλμνξπρστυχψω"
}
_GREEK |= {"ε": "varepsilon", "φ": "varphi"}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0308": r"\"",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
    "\u0328": r"\k",
}


def escaped(text: str) -> str:
    """Write any text so that TeX sets it; a letter that plain TeX has no way to set is named by its number."""
    # Two hyphens would become a dash, and an option of ours another word.
    return "".join(map(_escaped, " ".join(text.split()))).replace("--", "-{}-")


def _escaped(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if letter in _GREEK:
        return f"$\\{_GREEK[letter]}$"
    if letter.isascii():
        return letter if letter.isprintable() else ""
    base, accent = (f"{unicodedata.normalize('NFD', letter)} "[place] for place in (0, 1))
    if base.isascii() and accent in _ACCENTS:
        return f"{_ACCENTS[accent]}{{{base}}}"
    return f"[U+{ord(letter):04X}]"
