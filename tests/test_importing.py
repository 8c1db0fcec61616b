"""A copied table becomes a spec: digits as printed, marks as footnotes, models by timm's names, the rest as remarks."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.run.launch import LocalLauncher
from harness.specs import Catalog, Spec
from harness.specs.catalog import schema_file
from harness.specs.importing.files import read_grid
from harness.specs.importing.grid import Grid
from harness.specs.importing.headings import meaning_of, power_of, split_unit
from harness.specs.importing.html import read_html
from harness.specs.importing.latex import read_latex
from harness.specs.importing.models import ModelNames, PublicWeights
from harness.specs.importing.plain import read_csv, read_markdown
from harness.specs.importing.table import read_table
from harness.specs.importing.toml import write_spec
from harness.specs.importing.values import read_number, read_side
from harness.specs.reader import parse
from tests.commands import run_harness
from tests.fakes import FakeLauncher

COPIED = Path(__file__).parent / "copied"
NOBODY = ModelNames({})


def weights(tag: str, res: int = 224, crop: float = 0.9) -> PublicWeights:
    return PublicWeights(tag=tag, res=res, crop=crop, interpolation="bicubic", norm="imagenet")


# Some of timm's names, with some of their weights.
SOME = {
    "deit_tiny_patch16_224": (weights("fb_in1k"),),
    "deit_small_patch16_224": (weights("fb_in1k"),),
    "deit_base_patch16_224": (weights("fb_in1k"),),
    "deit_base_patch16_384": (weights("fb_in1k", 384, 1.0),),
    "deit_base_distilled_patch16_384": (weights("fb_in1k", 384, 1.0),),
    "deit3_small_patch16_224": (weights("fb_in1k"), weights("fb_in22k_ft_in1k", crop=1.0)),
    "deit3_huge_patch14_224": (weights("fb_in1k"), weights("fb_in22k_ft_in1k", crop=1.0)),
    "vit_small_patch16_224": (weights("augreg_in1k"),),
    "vit_huge_patch14_224": (),
    "vit_base_patch16_384": (weights("augreg_in1k", 384, 1.0),),
    "vit_base_patch32_384": (weights("augreg_in1k", 384, 1.0),),
    "regnety_040": (weights("pycls_in1k"),),
    "regnety_160": (weights("deit_in1k"), weights("tv2_in1k")),
    "resnet50": (weights("a1_in1k"), weights("tv_in1k", crop=0.875)),
    "resnet50_gn": (weights("a1h_in1k"),),
    "convnext_tiny": (weights("in12k_ft_in1k"), weights("fb_in22k_ft_in1k"), weights("fb_in1k")),
    "cait_s24_384": (weights("fb_dist_in1k", 384, 1.0),),
    "mobilenetv3_large_075": (),
    "mobilenetv3_large_100": (weights("ra_in1k"),),
}
NAMES = ModelNames(SOME)


def imported(grid: Grid, path: Path = Path("mine.toml"), names: ModelNames = NOBODY) -> Spec:
    text = write_spec(read_table(grid, names), origin="FILE", cite="a paper", schema=schema_file("spec"))
    return parse(path, text)


# Cells.


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("81.80", "81.80"),
        ("1,014.45", "1014.45"),
        (".5", "0.5"),
        ("+3.2", "+3.2"),
        ("-0.3", "-0.3"),
        ("81.8%", "81.8"),
        ("81.2 ± 0.1", "81.2 ± 0.1"),
        ("81.2_{± 0.1}", "81.2 ± 0.1"),
        ("81.2(±0.10)", "81.2 ± 0.10"),
        ("81.2 +/- .1", "81.2 ± 0.1"),
        ("81.8*", "81.8[*]"),
        ("81.8^{*}", "81.8[*]"),
        ("81.8†‡", "81.8[†][‡]"),
        ("81.8¹", "81.8[1]"),
        ("83.4^{B1, C7}", "83.4[B1][C7]"),
        ("83.4[B1][C7]", "83.4[B1][C7]"),
        ("81.8 ± 0.2^{a}", "81.8 ± 0.2[a]"),
        ("5.5e6", "5500000"),
        ("96.9 ms", "96.9"),
    ],
)
def test_a_number_keeps_its_digits_uncertainty_and_marks(cell: str, value: str) -> None:
    number = read_number(cell)
    assert number is not None
    assert number.published() == value


@pytest.mark.parametrize(
    "cell", ["", "–", "N/A", "81.8 (82.1)", "9/0.5", "~4", "> 80", "3.4.5", "1,2", "224x224", "yes", "8٣"]
)
def test_other_text_is_no_number(cell: str) -> None:
    assert read_number(cell) is None


@pytest.mark.parametrize(
    ("cell", "millions"),
    [("11.7M", "11.7"), ("5.5×10^{6}", "5.5"), ("1.20B", "1200"), ("870k", "0.870"), ("25", "25"), ("5.5e6", "5.5")],
)
def test_a_number_with_a_unit_of_its_own_is_scaled_to_that_of_the_column(cell: str, millions: str) -> None:
    number = read_number(cell)
    assert number is not None
    assert number.published(6) == millions


def test_a_side_is_written_in_several_ways_and_an_oblong_is_none() -> None:
    texts = ("224", "224x224", "224×224", "224^{2}", "224²", "224 px", "224x256", "large")
    assert [read_side(text) for text in texts] == ["224"] * 6 + [None] * 2


@pytest.mark.parametrize(
    ("heading", "label", "unit", "key"),
    [
        ("#params (M)", "#params", "M", "params"),
        ("Param. [M]", "Param.", "M", "params"),
        ("GFLOPs", "GFLOPs", "", "macs"),
        ("throughput (img/s)", "throughput", "img/s", "throughput"),
        ("image size", "image size", "", "res"),
        ("Top-1 acc. (%)", "Top-1 acc.", "%", "top1"),
        ("acc@1 (INet-1k)", "acc@1 (INet-1k)", "", "top1"),
        ("IN-1k", "IN-1k", "", "top1"),
        ("Acc@5", "Acc@5", "", "top5"),
        ("ImNet-Real", "ImNet-Real", "", "real"),
        ("acc@1 (v2)", "acc@1 (v2)", "", "v2"),
        ("#heads", "#heads", "", "heads"),
        ("top-1 error", "top-1 error", "", None),
        ("CIFAR-10 top-1", "CIFAR-10 top-1", "", None),
        ("IN-A", "IN-A", "", None),
        ("latency (ms)", "latency", "ms", None),
        ("training throughput (im/s)", "training throughput", "im/s", None),
        ("Peak Mem (MB)", "Peak Mem", "MB", None),
    ],
)
def test_a_heading_names_what_fills_its_column(heading: str, label: str, unit: str, key: str | None) -> None:
    meaning = meaning_of(heading)
    assert (*split_unit(heading), meaning and meaning.key) == (label, unit, key)


def test_an_accuracy_is_of_imagenet_unless_the_title_names_other_images() -> None:
    titles = ("", "Results", "Results on CIFAR-10", "ImageNet and CIFAR-10")
    assert [meaning_of("Acc. (%)", title) is not None for title in titles] == [True, True, False, True]
    assert meaning_of("#params", "Results on CIFAR-10") is not None


def test_units_of_headings_are_powers_of_ten() -> None:
    assert [power_of(*each) for each in (("M", ""), ("×10^{6}", ""), ("", "GFLOPs"), ("", "FLOPs"))] == [6, 6, 9, None]


# Formats.

PAPER = r"""
\begin{table}
\caption{Throughput and accuracy.}\label{tab:x}
\resizebox{\linewidth}{!}{
\begin{tabular}{@{}llccc@{}}
\toprule
\multirow{2}{*}{Model} & \multirow{2}{*}{Params} & \multicolumn{2}{c}{Top-1 (\%)} & Thr. \\
\cmidrule(lr){3-4} & & IN-1k & V2 & (img/s) \\
\midrule
\multicolumn{5}{c}{\emph{Convnets}} \\
\midrule
\rowcolor{gray!10} ResNet-50~\citep{he} & 25M & 76.2 & $63.3_{\pm 0.1}$ & 1{,}226.1 \\
RegNetY-4GF & \textbf{20.6M} & 80.0\% & -- & 1156.7$^{\dagger}$ \\ % a comment
\multicolumn{5}{c}{Transformers} \\
\midrule
DeiT-S & $2.2\times10^{7}$ & \underline{79.8}$^*$ & 68.5 & $\approx 940$ \\
DeiT-B$\uparrow$384 & 86M & 83.1 & 72.4 & 85.9 \\
\bottomrule
\end{tabular}}
$^*$ With the crop of the paper.
\end{table}
"""


def test_a_table_of_a_paper_in_latex_is_read_with_its_spans_groups_and_marks(tmp_path: Path) -> None:
    (grid,) = read_latex(PAPER)
    spec = imported(grid, names=NAMES)
    assert spec.title == "Throughput and accuracy."
    assert [(c.label, c.unit) for c in spec.columns] == [
        ("Params", "M"),
        ("Top-1 (%) IN-1k", "% top-1"),
        ("Top-1 (%) V2", "% top-1"),
        ("Thr.", "im/s"),
    ]
    assert [(row.label, row.group) for row in spec.rows] == [
        ("ResNet-50", "Convnets"),
        ("RegNetY-4GF", "Convnets"),
        ("DeiT-S", "Transformers"),
        ("DeiT-B↑384", "Transformers"),
    ]
    published = {keys: (str(p), p.marks) for keys, cell in spec.cells.items() if (p := cell.published)}
    assert published == {
        ("resnet_50", "params"): ("25", ()),
        ("resnet_50", "top1"): ("76.2", ()),
        ("resnet_50", "v2"): ("63.3 ± 0.1", ()),
        ("resnet_50", "throughput"): ("1226.1", ()),
        ("regnety_4gf", "params"): ("20.6", ()),
        ("regnety_4gf", "top1"): ("80.0", ()),
        ("regnety_4gf", "throughput"): ("1156.7", ("†",)),
        ("deit_s", "params"): ("22", ()),
        ("deit_s", "top1"): ("79.8", ("*",)),
        ("deit_s", "v2"): ("68.5", ()),
        ("deit_b_384", "params"): ("86", ()),
        ("deit_b_384", "top1"): ("83.1", ()),
        ("deit_b_384", "v2"): ("72.4", ()),
        ("deit_b_384", "throughput"): ("85.9", ()),
    }
    assert {mark: note.text for mark, note in spec.footnotes.items()} == {
        "*": "With the crop of the paper.",
        "†": "marked so in the table; what the mark says was not in the file",
    }


def test_what_is_not_understood_stays_in_the_file_as_a_comment() -> None:
    (grid,) = read_latex(PAPER)
    text = write_spec(read_table(grid, NAMES), origin="t.tex", cite="a paper", schema=Path("/schemas/spec.json"))
    assert text.startswith("#:schema file:///schemas/spec.json\n# Imported from t.tex. Compare every value")
    assert "# throughput: '≈ 940' is not a value that the importer knows\n" in text
    assert (
        '[row.resnet_50]\n# resnet50: sure\nlabel = "ResNet-50"\ngroup = "Convnets"\nset = { model = "resnet50", '
        "res = 224 }\n# the table names no size of images: 224 is timm's\n"
        '# add weights = "a1_in1k" or weights = "tv_in1k" to set, if these are the published ones\n'
    ) in text


def test_the_words_of_an_author_are_put_in_and_a_caption_explains_marks() -> None:
    (grid,) = read_latex(
        r"\newcommand{\ours}{Dei\textbf{T}\xspace} \newcommand*\best{\ours-S}"
        r"\begin{table}\begin{tabular}{ll} Model & params \\ \hline \best & 22$^{\dag}$ \\ \ours{}-B & 86 \end{tabular}"
        r"\caption{Sizes. \textsuperscript{\dag}: our count.}\end{table}"
    )
    spec = imported(grid)
    assert [row.label for row in spec.rows] == ["DeiT-S", "DeiT-B"]
    assert spec.footnotes["†"].text == "our count."


def test_a_cell_of_latex_that_spans_lines_is_in_each_of_them() -> None:
    rows = (
        r"\multirow{2}{*}{A} & 224 & \multirow{2}{*}{22}",
        " & 384 & ",
        " & 224 & 86",
        r"\multirow{-2}{*}{B} & 384 & 87",
    )
    (grid,) = read_latex(r"\begin{tabular}{lll} Model & res & params \\ \hline " + r"\\ ".join(rows) + r"\end{tabular}")
    assert grid.lines[1:] == (("A", "224", "22"), ("A", "384", "22"), ("B", "224", "86"), ("B", "384", "87"))


def test_aligned_text_goes_on_in_the_next_line_and_in_the_table_below() -> None:
    text = """\
```text
      top-1,
           %   made by
───   ──────   ───────────
Convnets
A       81.8   its authors
               and others
B       81.9   nobody

      #params, M
───   ──────────
Convnets
A             22
B             23
```
"""
    (grid,) = read_markdown(text)
    assert grid.lines[grid.headings or 0 :] == (
        ("Convnets", "", "", ""),
        ("A", "81.8", "its authors and others", "22"),
        ("B", "81.9", "nobody", "23"),
    )


HTML = """
<h2>Results</h2><table><thead><tr><th rowspan=2>Model<th colspan=2>Top-1</tr><tr><th>IN-1k<th>V2</tr></thead>
<tbody><tr><td colspan=99>Transformers</td></tr>
<tr><td>DeiT-S</td><td>79.80<sup>a</sup></td><td rowspan="2">68.5<span hidden>no</span></td></tr>
<tr><th>DeiT-B<td><b>81.8</b> &plusmn; 0.2</tr></table><p><sup>a</sup> Ours.</p>
"""


def test_html_is_read_with_its_spans_and_without_what_is_hidden() -> None:
    (grid,) = read_html(HTML)
    spec = imported(grid)
    assert (spec.title, [column.label for column in spec.columns]) == ("Results", ["Top-1 IN-1k", "Top-1 V2"])
    published = {keys: str(cell.published) for keys, cell in spec.cells.items()}
    assert published == {
        ("deit_s", "top1"): "79.80",
        ("deit_s", "v2"): "68.5",
        ("deit_b", "top1"): "81.8 ± 0.2",
        ("deit_b", "v2"): "68.5",
    }
    assert spec.cell("deit_s", "top1").row.group == "Transformers"
    assert spec.footnotes["a"].text == "Ours."


def test_markdown_is_read_with_its_markup_and_an_escaped_bar() -> None:
    rows = ("| **A\\|B** | `81.8`<sup>\\*</sup> |", "| [B](x) | $81.2_{\\pm 0.1}$ |")
    text = "\n".join(("| model | $\\mathrm{acc}$@1 |", "|:--|--:|", *rows))
    (grid,) = read_markdown(text)
    assert grid.lines == (("model", "acc@1"), ("A|B", "81.8^{*}"), ("B", "81.2_{± 0.1}"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separated_values_may_have_two_lines_of_headings(delimiter: str) -> None:
    lines = (("Model", "Top-1", "Top-1"), ("", "IN-1k", "V2"), ("A", "81.80", "70.0"))
    spec = imported(read_csv("\n".join(delimiter.join(line) for line in lines))[0])
    assert [(column.key, column.label) for column in spec.columns] == [("top1", "Top-1 IN-1k"), ("v2", "Top-1 V2")]
    assert [str(cell.published) for cell in spec.cells.values()] == ["81.80", "70.0"]


def test_parameters_that_are_counted_in_full_become_millions() -> None:
    spec = imported(read_csv("Model,params\nA,25557032\nB,5717416")[0])
    assert [str(cell.published) for cell in spec.cells.values()] == ["25.557032", "5.717416"]


def test_a_second_column_of_one_meaning_is_not_measured_twice() -> None:
    table = read_table(read_csv("Model,top-1 at 224,top-1 at 384\nA,1,2")[0], NOBODY)
    assert [(c.key, c.remark) for c in table.columns] == [
        ("top1", ""),
        ("top_1_at_384", "reads like 'top-1 at 224', which has that job already"),
    ]


# The tables of this repository, exported and imported again.


def cells(spec: Spec, of: Callable[[str], object] = str) -> Counter[object]:
    """Return how often each published value is there, by the labels of its row and column."""
    published = ((cell, cell.published) for cell in spec.cells.values())
    return Counter(
        (cell.row.label, cell.column.label, of(str(value)), value.marks if of is str else ())
        for cell, value in published
        if value is not None
    )


def number_of(text: str) -> object:
    """Return the number that a published value begins with, as CSV has it; text as it is."""
    plain = text.partition(" ± ")[0]
    return float(plain) if re.fullmatch(r"-?\d+(\.\d+)?", plain) else text


TEN = [f"table{number}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every table as `harness report` writes it where nothing was measured."""
    folder = tmp_path_factory.mktemp("exports")
    for form in ("latex", "markdown", "csv"):
        for name in TEN:
            assert run_harness(folder, "report", name, "--format", form, "-o", f"{name}.{form}").returncode == 0
    assert run_harness(folder, "report", *TEN, "--format", "html", "-o", "site").returncode == 0
    for name in TEN:
        (folder / f"{name}.html").write_bytes((folder / "site" / "tables" / f"{name}.html").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("form", "kept"),
    # The missing one is 9/0.5 of table 9, whose unit, magnitude/std, nothing tells from the words of a cell.
    [("latex", 598), ("markdown", 598), ("html", 598), ("csv", 599)],
)
def test_a_table_that_was_exported_comes_back_with_its_values(exports: Path, form: str, kept: int) -> None:
    same = total = 0
    for name in TEN:
        (hand,) = Catalog().find([name])
        spec = imported(read_grid(exports / f"{name}.{form}", form, None))
        of = number_of if form == "csv" else str  # CSV has no uncertainties and no marks
        same += (cells(hand, of) & cells(spec, of)).total()
        total += cells(hand, of).total()
    assert (same, total) == (kept, 599)


# Models.


@pytest.mark.parametrize(
    ("label", "res", "model"),
    [
        ("DeiT-S", None, "deit_small_patch16_224.fb_in1k: sure"),
        ("DeiT-Ti (ours)", 224, "deit_tiny_patch16_224.fb_in1k: sure"),
        ("DeiT-B↑384", None, "deit_base_patch16_384.fb_in1k: sure"),
        ("DeiT-B", 384, "deit_base_patch16_384.fb_in1k: sure"),
        ("DeiT-B⚗ ↑384", None, "deit_base_distilled_patch16_384.fb_in1k: sure"),
        ("ViT-B/16", 384, "vit_base_patch16_384.augreg_in1k: sure"),
        ("ViT-B/32", 384, "vit_base_patch32_384.augreg_in1k: sure"),
        ("RegNetY-16GF", None, "regnety_160: sure"),
        ("ResNet-50", None, "resnet50: sure"),
        ("resnet50.tv_in1k", None, "resnet50.tv_in1k: sure"),
        ("CaiT-S24", 384, "cait_s24_384.fb_dist_in1k: sure"),
        ("DeiT-S / 1000 epochs", None, "deit_small_patch16_224: likely, what '1000 epochs' means is not known"),
        ("MobileNetV3-L", None, "mobilenetv3_large_075: guess, or mobilenetv3_large_100"),
        ("MLP-DeiT-B", 224, "deit_base_patch16_224: guess, what 'mlp' means is not known"),
        ("DeiT-B", 512, "no model: none, timm has no model with such a name"),
        ("no Erasing", None, "no model: none, timm has no model with such a name"),
    ],
)
def test_a_label_names_a_model_of_timm(label: str, res: int | None, model: str) -> None:
    assert sureness_of(NAMES, label, res) == model


def sureness_of(names: ModelNames, label: str, res: int | None, *context: str, family: str | None = None) -> str:
    from harness.specs.importing.toml import sureness

    return sureness(names.match(label, res=res, context=context, family=family))


def test_the_title_gives_the_family_that_labels_leave_out() -> None:
    assert sureness_of(NAMES, "S24", 384) == "no model: none, timm has no model with such a name"
    assert sureness_of(NAMES, "S24", 384, "CaiT: Going deeper") == "cait_s24_384.fb_dist_in1k: sure"


def test_a_label_that_the_title_reads_otherwise_is_a_guess_until_the_family_is_named() -> None:
    title = "DeiT III: Revenge of the ViT"
    assert sureness_of(NAMES, "ViT-S", 224, title) == (
        "vit_small_patch16_224: guess, vit_small_patch16_224 by its label, deit3_small_patch16_224 by the title; "
        "--family chooses"
    )
    assert sureness_of(NAMES, "ViT-H", 224, title) == (
        "vit_huge_patch14_224: guess, vit_huge_patch14_224 by its label, deit3_huge_patch14_224 by the title; "
        "--family chooses"
    )
    assert sureness_of(NAMES, "ViT-S", 224, title, family="deit3") == "deit3_small_patch16_224.fb_in1k: sure"
    assert sureness_of(NAMES, "ViT-H", 224, title, family="deit3") == "deit3_huge_patch14_224.fb_in1k: sure"


def test_weights_follow_from_the_data_that_the_heading_names() -> None:
    assert sureness_of(NAMES, "ConvNeXt-T", 224, "ImageNet-1K models") == "convnext_tiny.fb_in1k: sure"
    assert sureness_of(NAMES, "ConvNeXt-T", 224, "ImageNet-22K models") == "convnext_tiny.fb_in22k_ft_in1k: sure"


def test_weights_follow_from_the_data_that_the_row_names_before_the_heading() -> None:
    lines = ("# ImageNet-1K and ImageNet-22K models", "|name|pretrain|acc@1|", "|-|-|-|")
    rows = ("|ConvNeXt-T|ImageNet-1K|82.1|", "|ConvNeXt-T|ImageNet-22K|82.9|", "|ConvNeXt-T||82|")
    table = read_table(read_markdown("\n".join((*lines, *rows)))[0], NAMES)
    tags = [row.match.weights.tag if row.match.weights else row.match.others for row in table.rows]
    assert tags == ["fb_in1k", "fb_in22k_ft_in1k", ("fb_in22k_ft_in1k", "fb_in1k")]


def test_a_column_of_links_is_left_out() -> None:
    text = "|m|top-1|1K model|\n|-|-|-|\n|A|1|[github](x)/[log](y)|\n|B|2|[github](z)|\n"
    assert read_table(read_markdown(text)[0], NOBODY).left_out == ("column 3, '1K model': links, as 'github/log'",)


def test_a_guess_is_written_as_a_comment_and_measures_nothing() -> None:
    table = read_table(read_csv("Model,params\nMobileNetV3-L,4")[0], NAMES)
    text = write_spec(table, origin="t.csv", cite="t.csv", schema=schema_file("spec"))
    assert (
        '# set = { model = "mobilenetv3_large_075", res = 224 }    # a guess: take away the # if it is right\n' in text
    )
    (row,) = parse(Path("mine.toml"), text).rows
    assert parse(Path("mine.toml"), text).cell(row.key, "params").settings == {}


# Other papers, with all of timm's names.


@pytest.fixture(scope="module")
def timms_names() -> Mapping[str, tuple[PublicWeights, ...]]:
    return LocalLauncher().model_names()


@pytest.mark.parametrize(
    ("name", "number", "options", "values", "models"),
    [
        (
            *("cait.md", 1, (), 24),
            [
                *("cait_s24_224.fb_dist_in1k", "cait_xs24_384.fb_dist_in1k", "cait_s24_384.fb_dist_in1k"),
                *("cait_s36_384.fb_dist_in1k", "cait_m36_384.fb_dist_in1k", "cait_m48_448.fb_dist_in1k"),
            ],
        ),
        (
            *("deit3.md", 1, ("--family", "deit3"), 49),
            [
                f"deit3_{size}_patch{patch}_{res}.fb_in1k"
                for size, patch, res in (
                    *(("small", 16, 224), ("small", 16, 384), ("base", 16, 224), ("base", 16, 384)),
                    *(("large", 16, 224), ("large", 16, 384), ("huge", 14, 224)),
                )
            ],
        ),
        (
            *("deit3.md", 2, ("--family", "deit3"), 28),
            [
                f"deit3_{name}.fb_in22k_ft_in1k"
                for name in ("small_patch16_224", "small_patch16_384", "base_patch16_224", "huge_patch14_224")
            ],
        ),
        # The data of the weights are those of a column of words.
        (
            *("swin.md", 1, (), 56),
            [
                f"swin_{size}_patch4_window{window}.ms_{data}"
                for size, window, data in (
                    *(("tiny", "7_224", "in1k"), ("small", "7_224", "in1k"), ("base", "7_224", "in1k")),
                    *(("base", "12_384", "in1k"), ("base", "7_224", "in22k_ft_in1k")),
                    *(("base", "12_384", "in22k_ft_in1k"), ("large", "7_224", "in22k_ft_in1k")),
                    ("large", "12_384", "in22k_ft_in1k"),
                )
            ],
        ),
        # timm has no weights of ConvNeXt-B that saw nothing but ImageNet-1k at 384 pixels.
        (
            *("convnext.md", 1, (), 16),
            ["convnext_tiny.fb_in1k", "convnext_small.fb_in1k", "convnext_base.fb_in1k", "convnext_base.None"],
        ),
        (
            *("convnext.md", 2, (), 12),
            [
                *("convnext_tiny.fb_in22k_ft_in1k", "convnext_tiny.fb_in22k_ft_in1k_384"),
                "convnext_xlarge.fb_in22k_ft_in1k_384",
            ],
        ),
    ],
)
def test_tables_of_other_papers_are_planned_with_timms_names(
    timms_names: Mapping[str, tuple[PublicWeights, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    options: tuple[str, ...],
    values: int,
    models: list[str],
) -> None:
    monkeypatch.setattr("harness.run.launch.LocalLauncher", lambda **_: FakeLauncher(names=timms_names))
    arguments = ("import", str(COPIED / name), "--table", str(number), *options, "-o", "mine.toml")
    ran = run_harness(tmp_path, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f", {values} of {values} values understood\n" in ran.stdout
    assert ran.stdout.endswith("\nnext: harness plan ./mine.toml\n")
    (spec,) = Catalog().find([str(tmp_path / "mine.toml")])
    settings = [spec.cell(row.key, "top1").settings for row in spec.rows]
    assert [f"{each['model']}.{each.get('weights')}" for each in settings] == models
    plan = run_harness(tmp_path, "plan", "./mine.toml", "--device", "cpu")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert all(model.partition(".")[0] in plan.stdout for model in models)


# The command.


@pytest.fixture
def some_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.launch.LocalLauncher", lambda **_: FakeLauncher(names=SOME))


@pytest.mark.usefixtures("some_names")
def test_the_command_says_what_it_understood_what_not_and_what_to_type_next(tmp_path: Path) -> None:
    (tmp_path / "t.tex").write_text(PAPER, encoding="utf-8")
    ran = run_harness(tmp_path, "import", "t.tex", "-o", "mine.toml", COLUMNS="100")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (
        ran.stdout
        == """\
4 rows × 4 columns, 14 of 15 values understood

columns
  Params           parameters, counted (count)
  Top-1 (%) IN-1k  top-1 on ImageNet (evaluate)
  Top-1 (%) V2     top-1 on ImageNet-V2 (evaluate)
  Thr.             throughput, measured (throughput)

models: 4 sure
  ResNet-50    resnet50: sure
  RegNetY-4GF  regnety_040.pycls_in1k: sure
  DeiT-S       deit_small_patch16_224.fb_in1k: sure
  DeiT-B↑384   deit_base_patch16_384.fb_in1k: sure

not understood, comments in the file
  DeiT-S, throughput: '≈ 940'

next: harness plan ./mine.toml
"""
    )


@pytest.mark.usefixtures("some_names")
def test_the_format_of_reports_in_harness_toml_is_none_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text('format = "json"\noutput = "report.json"\n', encoding="utf-8")
    (tmp_path / "t.tex").write_text(PAPER, encoding="utf-8")
    assert run_harness(tmp_path, "import", "t.tex", "-o", "mine.toml").returncode == 0
    assert [path.name for path in sorted(tmp_path.glob("*.toml"))] == ["harness.toml", "mine.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("t.md", "-o", "mine"), "-o mine: a spec is a file that ends in .toml; name it mine.toml"),
        (("t.md", "-o", "there.toml"), "-o there.toml: exists already; remove it, or name another file"),
        (
            ("t.txt", "-o", "m.toml"),
            (
                "t.txt: its format does not follow from its name; name the format with --format "
                "(latex, html, markdown, csv)"
            ),
        ),
        (("-", "-o", "m.toml"), "stdin has no suffix; name the format with --format (latex, html, markdown, csv)"),
        (("no.md", "-o", "m.toml"), "no.md: cannot be read (No such file or directory); name the file of a table"),
        (
            ("t.md", "-o", "m.toml", "--format", "html"),
            "t.md: has no table in html; name another file, or another --format",
        ),
        (("t.md", "-o", "m.toml", "--table", "3"), "t.md: has 2 tables, not 3; choose one with --table"),
        (
            ("t.md", "-o", "m.toml"),
            (
                "t.md: has 2 tables; choose one of them\nerror: --table 1: 2 × 2 cells: First: m, top-1\n"
                "error: --table 2: 3 × 2 cells: Second: m, V2"
            ),
        ),
        (("latin.md", "-o", "m.toml"), "latin.md:2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (("deep.tex", "-o", "m.toml"), "deep.tex: is nested too deeply; cut the table out of it"),
        (("empty.csv", "-o", "m.toml"), "empty.csv: has no table in csv; name another file, or another --format"),
        (
            ("rows.csv", "-o", "m.toml"),
            "rows.csv: the table has no rows with values; it needs a line of headings and a row for each model",
        ),
    ],
)
@pytest.mark.usefixtures("some_names")
def test_a_mistake_is_one_sentence_with_its_remedy(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "t.md").write_text(
        "# First\n|m|top-1|\n|-|-|\n|A|1|\n\n# Second\n|m|V2|\n|-|-|\n|A|1|\n|B|2|\n", encoding="utf-8"
    )
    (tmp_path / "there.toml").write_text("mine", encoding="utf-8")
    (tmp_path / "latin.md").write_bytes(b"|m|t|\n|caf\xe9|1|\n")
    (tmp_path / "deep.tex").write_text("{" * 5000, encoding="utf-8")
    (tmp_path / "empty.csv").write_text("m,top-1\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("m,top-1\nDeiT-S,\n", encoding="utf-8")
    ran = run_harness(tmp_path, "import", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {message}\n")
    assert (tmp_path / "there.toml").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "m.toml").exists()
