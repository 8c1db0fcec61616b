"""Whatever a copied table is made of, it becomes a valid spec or one sentence."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.errors import HarnessError, SpecError
from harness.specs.importing.files import read_grid
from harness.specs.importing.grid import FORMATS
from harness.specs.importing.headings import meaning_of, split_unit
from harness.specs.importing.models import side_in
from harness.specs.importing.table import read_table
from harness.specs.importing.toml import write_spec
from harness.specs.importing.values import is_number, leading_mark, read_number, read_side, split_words
from harness.specs.reader import parse
from tests.fuzz.hostile import NUMBERS, TEXTS
from tests.fuzz.mutations import damage_text
from tests.fuzz.profiles import profile
from tests.test_importing import COPIED, HTML, NAMES, PAPER

# What tables are made of, and what breaks readers of them.
PIECES = (
    *(
        "81.8",
        "1,014.45",
        "11.7M",
        "–",
        "5.5×10^{6}",
        "± 0.1",
        "_{± 0.1}",
        "^{*}",
        "[B7]",
        "†",
        "¹",
        "²",
        "%",
        "(",
        ")",
    ),
    *("[", "]", "^{", "}", "_{", "|", "\\|", "&", "\\\\", "$", "\\", "{", "<td>", "<tr>", "<sup>", "</td>", "<!--"),
    *("\\multirow{9999}{*}{x}", "\\multirow{-2}{*}{x}", "\\multicolumn{9999}{c}{x}", "<td colspan=9999 rowspan=999>"),
    *("DeiT-S↑384", "params (M)", "acc@1", "res", "224x224", "9" * 400, "1e99", "-", "+", ".", "\n", "\t", "```", '"'),
    *(text for text in (*NUMBERS, *TEXTS) if len(text) < 1000),
)
cells = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=5).map("".join)


@profile
@given(text=cells)
@example("[a][b]")
@example("^{[x]}81.8")
def test_no_text_of_a_cell_or_a_heading_is_a_traceback(text: str) -> None:
    number = read_number(text)
    for published in [number.published(power) for power in (None, 0, 6, 9)] if number else []:
        assert is_number(published) or len(published) > 300 or not re.search(r"\d", published), (text, published)
    assert (read_side(text) or "0").isdecimal()
    side_in(text), split_words(text), leading_mark(text), meaning_of(split_unit(text)[0])


def spec_of(form: str, text: str, folder: Path) -> None:
    """Import a text as the command does; a mistake of ours in the spec is an error here."""
    path = folder / "table"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        table = read_table(read_grid(path, form, 1), NAMES)
    except SpecError:
        raise
    except HarnessError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- the test is of every outcome
        return
    parse(folder / "mine.toml", write_spec(table, origin=text[:20], cite=text[-20:], schema=folder / "spec.json"))


@profile
@given(lines=st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=5))
def test_a_table_of_any_cells_is_a_spec_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = {
        "csv": "\n".join(",".join(line) for line in lines),
        "markdown": "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:])),
        "html": "<table>" + "".join(f"<tr>{''.join(f'<td>{cell}' for cell in line)}" for line in lines),
        "latex": "\\begin{tabular}{c}" + "\\\\ ".join(" & ".join(line) for line in lines) + "\\end{tabular}",
    }
    for form in FORMATS:
        spec_of(form, rows[form], folder)


TABLES = {
    "latex": PAPER,
    "html": HTML,
    "markdown": (COPIED / "deit3.md").read_text(encoding="utf-8"),
    "csv": "Model,params (M),top-1\nDeiT-S,22,79.8 ± 0.1\nDeiT-B↑384,86,83.1*\n",
}


@profile
@given(form=st.sampled_from(sorted(TABLES)), draw=st.randoms(use_true_random=False))
def test_a_damaged_table_is_a_spec_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, form: str, draw: random.Random
) -> None:
    text = TABLES[form]
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(PIECES) + text[at + draw.randint(0, 3) :]
    spec_of(form, damage_text(text, draw) if draw.random() < 0.1 else text, tmp_path_factory.getbasetemp())
