r"""LaTeX -> grids: every `tabular` and its like, as pylatexenc parses it."""

import re
from collections.abc import Iterator, Sequence

from pylatexenc import latexwalker as walker
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.macrospec import std_environment, std_macro

from harness.specs.importing.grid import Grid, SpannedCell, clean, spread

TABULAR = {"tabular", "tabular*", "tabularx", "tabulary", "longtable", "array", "NiceTabular", "tblr"}
_RULES = {"midrule", "hline", "specialrule", "Xhline"}
_END_OF_ROW = {"\\", "tabularnewline", "cr"}

# The arguments of macros that are common in tables, as pylatexenc writes them; the text is in the last one.
_LAST = {
    "multicolumn": "{{{",
    "multirow": "[{[{[{",
    **dict.fromkeys(("textcolor", "rotatebox"), "[{{"),
    **dict.fromkeys(("makecell", "thead"), "*[{"),
    **dict.fromkeys(("shortstack", "caption"), "[{"),
    **dict.fromkeys(("resizebox",), "*{{{"),
    **dict.fromkeys(("scalebox", "adjustbox", "colorbox", "href"), "{{"),
    **dict.fromkeys(("ensuremath", "underline", "uline", "mbox", "hbox", "url", "num", "ul"), "{"),
    "raisebox": "{[[{",
    "parbox": "[[[{{",
}
# Those without a text of their own.
_NOTHING = {
    **dict.fromkeys(("cellcolor", "rowcolor", "color", "arrayrulecolor"), "[{"),
    **dict.fromkeys(("cline", "label", "ref", "vspace", "hspace", "phantom", "hphantom", "vphantom", "pagestyle"), "{"),
    **dict.fromkeys(("toprule", "midrule", "bottomrule", "addlinespace", "Xhline"), "["),
    **dict.fromkeys(("cite", "citep", "citet", "citealp"), "*[[{"),
    **dict.fromkeys(("setlength", "fontsize", "renewcommand", "newsavebox", "addtocounter", "setcounter"), "{{"),
    "specialrule": "{{{",
    "footnotetext": "[{",
    "rule": "[{{",
    "hline": "",
}
_RAISED = {"textsuperscript": "{", "tnote": "{", "footnotemark": "[", "footnote": "{"}
_LOWERED = {"textsubscript": "{"}

# Signs that pylatexenc does not know.
_SIGNS = {
    **dict.fromkeys(("checkmark", "cmark"), "✓"),
    **dict.fromkeys(("xmark", "ding"), "✗"),
    **dict.fromkeys(("alembic", "alambic"), "⚗"),
    **dict.fromkeys(("star", "bigstar"), "⋆"),
    **dict.fromkeys((",", ";", ":", "!", "quad", "qquad", " ", "null"), " "),
    "xspace": "",
    **dict.fromkeys(("par", "item"), "\n\n"),
}

# A word without arguments that an author defines; how deep one is in another, and how often one is used, at most.
_OWN_WORD = re.compile(r"\\(?:(?:re)?new|provide)command\*?\s*\{?\\([A-Za-z]+)\}?\s*\{((?:[^{}]|\{[^{}]*\}){0,200})\}")
_NESTED, _USES = 3, 5000

# Their arguments are in parentheses, which pylatexenc has no word for.
_PARTIAL_RULE = re.compile(r"\\cmidrule\s*(?:\[[^\]]*\]\s*)?(?:\([^)]*\)\s*)?\{[^}]*\}")

_CONTEXT = walker.get_default_latex_context_db()
_CONTEXT.add_context_category(
    "tables",
    macros=[std_macro(name, spec) for name, spec in {**_LAST, **_NOTHING, **_RAISED, **_LOWERED}.items()],
    environments=[
        std_environment(name, spec)
        for name, spec in {
            "tabular": "[{",
            "longtable": "[{",
            "tabulary": "{[{",
            "NiceTabular": "[{",
            "tblr": "[{",
        }.items()
    ],
    specials=[],
    prepend=True,
)
_TO_TEXT = LatexNodes2Text(keep_comments=False, strict_latex_spaces=False)


def read_latex(text: str) -> list[Grid]:
    """Return the tables of a text in LaTeX, of a whole paper or of a table alone."""
    nodes = _parse(_expanded(text))
    return [_grid(tabular, around) for tabular, around in _tabulars(nodes, nodes)]


def latex_text(text: str) -> str:
    """Return a short text without its markup."""
    return clean(_text(_parse(text)))


def _expanded(text: str) -> str:
    r"""Return a text with the author's own words in place, as `\newcommand{\ours}{DeiT}` defines them."""
    own = {name: body for name, body in _OWN_WORD.findall(text) if name not in {*_SIGNS, *_LAST, *_NOTHING, *_RAISED}}
    if not own:
        return text
    used = re.compile(rf"\\({'|'.join(own)})(?![A-Za-z])(?:\{{\}})?")
    for _ in range(_NESTED):
        text = used.sub(lambda word: own[word[1]], _OWN_WORD.sub("", text), count=_USES)
    return text


def _parse(text: str) -> Sequence[walker.LatexNode]:
    plain = _PARTIAL_RULE.sub("", text)
    nodes, _, _ = walker.LatexWalker(plain, latex_context=_CONTEXT, tolerant_parsing=True).get_latex_nodes()
    return nodes  # type: ignore[no-any-return]


def _inner(node: walker.LatexNode) -> Iterator[Sequence[walker.LatexNode]]:
    """Yield the lists of nodes that are inside of one."""
    if isinstance(node, (walker.LatexGroupNode, walker.LatexEnvironmentNode, walker.LatexMathNode)):
        yield node.nodelist or []
    if isinstance(node, (walker.LatexMacroNode, walker.LatexEnvironmentNode)):
        yield from ([argument] for argument in _arguments(node) if argument is not None)


def _arguments(node: walker.LatexNode) -> Sequence[walker.LatexNode | None]:
    return list(node.nodeargd.argnlist or []) if node.nodeargd is not None else []


def _tabulars(
    nodes: Sequence[walker.LatexNode], around: Sequence[walker.LatexNode]
) -> Iterator[tuple[walker.LatexNode, Sequence[walker.LatexNode]]]:
    """Yield every table that is in no other, with the nodes of what floats with it."""
    for node in nodes:
        is_environment = isinstance(node, walker.LatexEnvironmentNode)
        if is_environment and node.environmentname in TABULAR:
            yield node, around
            continue
        floats = is_environment and node.environmentname.rstrip("*") in ("table", "sidewaystable", "wraptable")
        for inner in _inner(node):
            yield from _tabulars(inner, inner if floats else around)


def _grid(tabular: walker.LatexNode, around: Sequence[walker.LatexNode]) -> Grid:
    rows: list[list[list[walker.LatexNode]]] = [[[]]]
    rule = 0  # the number of the row below the first rule that has rows above it
    for node in tabular.nodelist or []:
        name = getattr(node, "macroname", "")
        if isinstance(node, walker.LatexSpecialsNode) and node.specials_chars == "&":
            rows[-1].append([])
        elif name in _END_OF_ROW:
            rows.append([[]])
        elif name in _RULES and _is_filled(rows):
            rule = rule or len(rows) - 1
        else:
            rows[-1][-1].append(node)
    above = sum(_row_is_filled(row) for row in rows[:rule])
    cells = [[_cell(nodes) for nodes in row] for row in rows if _row_is_filled(row)]
    lines, groups = spread(cells, implied=False)
    captions = [clean(_text([node])) for node in _macros(around, "caption")]
    return Grid(
        lines=tuple(map(tuple, lines)),
        headings=above if 0 < above < len(lines) else None,
        groups=groups,
        caption=captions[0] if captions else "",
        notes=tuple(filter(None, map(clean, re.split(r"\n\s*\n", _text_below(tabular, around))))),
    )


def _is_filled(rows: Sequence[Sequence[Sequence[walker.LatexNode]]]) -> bool:
    return any(map(_row_is_filled, rows))


def _row_is_filled(row: Sequence[Sequence[walker.LatexNode]]) -> bool:
    return any(_text(nodes).strip() for nodes in row)


def _macros(nodes: Sequence[walker.LatexNode], name: str) -> Iterator[walker.LatexNode]:
    for node in nodes:
        if isinstance(node, walker.LatexMacroNode) and node.macroname == name:
            yield node
        elif not isinstance(node, walker.LatexEnvironmentNode) or node.environmentname not in TABULAR:
            for inner in _inner(node):
                yield from _macros(inner, name)


def _text_below(tabular: walker.LatexNode, around: Sequence[walker.LatexNode]) -> str:
    """Return the text of what follows a table in its float; empty lines are between paragraphs."""
    return _text([node for node in around if node.pos >= tabular.pos + tabular.len])


def _cell(nodes: Sequence[walker.LatexNode]) -> SpannedCell:
    columns = next((_number(node, 0) for node in _macros(nodes, "multicolumn")), 1)
    inside = [list(inner) for node in _macros(nodes, "multicolumn") for inner in _inner(node)]
    rows = next((_number(node, 1) for part in (nodes, *inside) for node in _macros(part, "multirow")), 1)
    return SpannedCell(text=clean(_text(nodes)), columns=max(1, columns), rows=rows)


def _number(node: walker.LatexNode, place: int) -> int:
    """Return the number that an argument is; 1 where it is none, or was not closed."""
    text = _text(_arguments(node)[place : place + 1]).strip()
    return int(text) if re.fullmatch(r"-?\d{1,4}", text) else 1


def _text(nodes: Sequence[walker.LatexNode | None]) -> str:
    """Return the text of nodes, what is raised or lowered between braces."""
    return "".join(map(_text_of, nodes))


def _text_of(node: walker.LatexNode | None) -> str:
    if node is None or isinstance(node, walker.LatexCommentNode):
        return ""
    if isinstance(node, walker.LatexMathNode):
        return _braced(node.nodelist)
    if isinstance(node, walker.LatexGroupNode):
        return _text(node.nodelist)
    if isinstance(node, walker.LatexEnvironmentNode):
        return " " if node.environmentname == "picture" else _text(node.nodelist or [])
    if isinstance(node, walker.LatexMacroNode):
        return _text_of_macro(node)
    if isinstance(node, walker.LatexSpecialsNode) and node.specials_chars == "&":
        return " "
    return str(_TO_TEXT.nodelist_to_text([node]))


def _text_of_macro(node: walker.LatexMacroNode) -> str:
    name = node.macroname
    last = next((argument for argument in reversed(_arguments(node)) if argument is not None), None)
    if name in _SIGNS:
        return _SIGNS[name]
    if name in _NOTHING:
        return ""
    if name in _END_OF_ROW:  # within a cell
        return " "
    if name in _RAISED:
        return f"^{{{_text_of(last)}}}"
    if name in _LOWERED:
        return f"_{{{_text_of(last)}}}"
    if name in ("newcommand", "providecommand", "def"):
        return ""
    if name in _LAST or (last is not None and name.startswith(("text", "math", "emph"))):
        return _text_of(last)
    return str(_TO_TEXT.nodelist_to_text([node])) + (" " if node.macro_post_space else "")


def _braced(nodes: Sequence[walker.LatexNode]) -> str:
    """Return the text of a formula, with braces around exponents and indices."""
    text = ""
    for node in nodes:
        inner = _braced(node.nodelist) if isinstance(node, walker.LatexGroupNode) else _text_of(node)
        text += f"{{{inner.strip()}}}" if text.endswith(("^", "_")) else inner
    text = re.sub(r"([\^_])\s*(?![\s{])(\S)", r"\1{\2}", text)
    return re.sub(r"\{,\}", ",", text)
