"""Every number of `tables/*.toml` is in a copy of the paper, and every number of the copies in a spec."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.specs import Catalog, Spec, load, reader
from harness.specs.kinds import OUR_KINDS, SETTINGS

TABLES = Path(__file__).parent.parent / "tables"
PUBLISHED = Path(__file__).parent / "published"
README = (TABLES / "README.md").read_text(encoding="utf-8")

COPIES = {
    **{f"table{number}": f"table{number:02d}.csv" for number in range(1, 11)},
    "cifar10-scratch": "cifar10_scratch.csv",
    "figure1": "figure1.csv",
    "figure3": "figure3.csv",
    "text": "text_numbers.csv",
}
SPECS = {path.stem: load(path) for path in sorted(TABLES.glob("*.toml"))}

# The edition of a value in the copies -> the source in the specs, and what that source must say of its edition.
SOURCES = {"both": "paper", "arxiv": "arxiv", "icml": "icml"}
EDITIONS = {"paper": "both", "arxiv": "arxiv", "icml": "icml", "arxiv_v1": "arxiv"}

Place = tuple[str, str, str]  # row, label of the column, source
Value = tuple[str, str, str]  # the digits as published, the uncertainty, the unit


def copy_of(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def source_of(line: Mapping[str, str]) -> str:
    """Say which source of the spec a line of a copy belongs to."""
    if line["row_label_in_paper"] == "headline, distilled":  # from the abstract of the first version
        return "arxiv_v1"
    return SOURCES[line["edition"]]


def published_in_copy(name: str) -> dict[Place, Value]:
    """Give the values of a copy; cells that the paper leaves blank are not among them."""
    values: dict[Place, Value] = {}
    for line in copy_of(name):
        place = line["row"], line["column"], source_of(line)
        assert place not in values, place
        if line["value"]:
            values[place] = line["value"], line["uncertainty"], line["unit"]
    return values


def published_in_spec(spec: Spec, kind: str) -> dict[Place, Value]:
    """Give the values that a spec has from sources of this kind."""
    return {
        (row, cell.column.label, reference.source.name): (
            reference.published.text,
            reference.published.uncertainty or "",
            cell.unit,
        )
        for (row, _), cell in spec.cells.items()
        for reference in cell.references
        if reference.source.kind == kind
    }


def throughput_jobs(name: str) -> set[Job]:
    return {job for job in make_plan([SPECS[name]]).jobs if job.kind == "throughput"}


def job_in(name: str, row: str, column: str) -> Job | None:
    return make_plan([SPECS[name]]).cells_in(SPECS[name])[row, column].job


# The paper.


def test_every_copy_belongs_to_a_spec_and_every_spec_to_a_copy() -> None:
    others = {"author_statements.csv", "timm_benchmarks.csv", "timm_reference.csv"}
    assert {path.name for path in PUBLISHED.iterdir()} == set(COPIES.values()) | others
    assert SPECS.keys() == COPIES.keys() | {"author-statements", "choices", "costs", "timm-speed", "train-speed"}


@pytest.mark.parametrize("name", COPIES)
def test_every_published_value_is_in_the_spec_digit_by_digit_and_no_other(name: str) -> None:
    assert published_in_spec(SPECS[name], "paper") == published_in_copy(COPIES[name])


@pytest.mark.parametrize("name", COPIES)
def test_a_cell_that_the_paper_leaves_blank_is_blank_in_the_spec_and_has_its_unit(name: str) -> None:
    spec = SPECS[name]
    keys = {column.label: column.key for column in spec.columns}
    for line in copy_of(COPIES[name]):
        if not line["value"]:
            cell = spec.cell(line["row"], keys[line["column"]])
            assert (cell.published, cell.unit) == (None, line["unit"])


@pytest.mark.parametrize("name", COPIES)
def test_rows_and_columns_are_in_the_order_of_the_paper(name: str) -> None:
    lines = copy_of(COPIES[name])
    assert [row.key for row in SPECS[name].rows] == list(dict.fromkeys(line["row"] for line in lines))
    shown = [column.label for column in SPECS[name].columns if not column.extra]
    assert shown == list(dict.fromkeys(line["column"] for line in lines))


@pytest.mark.parametrize("name", COPIES)
def test_rows_are_called_what_the_paper_calls_them(name: str) -> None:
    rows = {row.key: row for row in SPECS[name].rows}
    for line in copy_of(COPIES[name]):
        row, label = rows[line["row"]], line["row_label_in_paper"]
        if name == "table8":  # the copy has the heading of the group; its flags are what the row changes
            assert label == (row.group or row.label)
        elif source_of(line) != "arxiv_v1":
            assert label == row.label


@pytest.mark.parametrize("name", COPIES)
def test_each_source_is_of_the_edition_whose_values_it_has(name: str) -> None:
    for source in SPECS[name].sources.values():
        assert source.kind != "paper" or source.edition == EDITIONS[source.name]


@pytest.mark.parametrize("name", COPIES)
def test_what_the_icml_edition_lacks_is_not_in_its_tables(name: str) -> None:
    spec = SPECS[name].in_edition("icml")
    lines = [line for line in copy_of(COPIES[name]) if line["edition"] != "arxiv"]
    assert [row.key for row in spec.rows] == list(dict.fromkeys(line["row"] for line in lines))
    shown = {column.label for column in SPECS[name].columns if column.key in {c.key for c in spec.columns}}
    extra = {column.label for column in spec.columns if column.extra}
    assert shown - extra == {line["column"] for line in lines}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("edition", ["arxiv", "icml"])
def test_an_edition_shows_its_own_values(name: str, edition: str) -> None:
    expected = {
        (line["row"], line["column"]): line["value"]
        for line in copy_of(COPIES[name])
        if line["edition"] in ("both", edition) and line["value"] and source_of(line) != "arxiv_v1"
    }
    labels = {column.key: column.label for column in SPECS[name].columns}
    cells = SPECS[name].in_edition(edition).cells
    shown = {(row, labels[key]): cell.published.text for (row, key), cell in cells.items() if cell.published}
    assert shown == expected


def test_labels_that_differ_in_icml_are_those_of_the_copies() -> None:
    expected = {
        (name, line["row"], label[1])
        for name, copy in COPIES.items()
        for line in copy_of(copy)
        if (label := re.match(r"ICML label: ([^;]+)", line["note"]))
    }
    expected |= {
        ("table5", line["row"], line["row_label_in_paper"].removesuffix(" / 1000 epochs"))
        for line in copy_of("table05.csv")
        if line["note"].startswith("ICML prints the label without the epochs")
    }
    in_specs = {(name, row.key, row.label_icml) for name, spec in SPECS.items() for row in spec.rows if row.label_icml}
    assert len(expected) == 6 + 4
    assert in_specs == expected


def test_the_column_that_icml_abbreviates_is_that_of_the_copy() -> None:
    expected = {line["column"] for line in copy_of("table04.csv") if line["note"] == "ICML column label: distil."}
    in_specs = {(n, c.label, c.label_icml) for n, spec in SPECS.items() for c in spec.columns if c.label_icml}
    assert expected == {"distillation"}
    assert in_specs == {("table4", "distillation", "distil.")}


def test_icml_puts_the_transformers_of_table_5_under_two_headings() -> None:
    groups = {
        row.key: row.group for row in SPECS["table5"].in_edition("icml").rows if row.key.startswith(("vit", "deit"))
    }
    assert len(groups) == 14
    for key, group in groups.items():
        epochs = 1000 if key.endswith("1000ep") else 300
        assert group == f"Transformers: training {epochs} epochs"


def test_stars_of_table_8_are_where_the_paper_has_them() -> None:
    expected = {
        (line["row"], line["column"])
        for line in copy_of("table08.csv")
        if line["note"].startswith("marked * in the paper")
    }
    in_specs = {
        (row, cell.column.label)
        for (row, _), cell in SPECS["table8"].cells.items()
        if cell.published and "*" in cell.published.marks
    }
    assert len(expected) == 2
    assert in_specs == expected


def test_the_misprint_of_table_5_is_marked_as_wrong_and_its_neighbour_is_not() -> None:
    spec = SPECS["table5"]
    suspect = [line["row"] for line in copy_of("table05.csv") if line["note"].startswith("suspect")]
    wrong = [
        row
        for (row, column), cell in spec.cells.items()
        if cell.published and any(spec.footnotes[mark].effect == "wrong" for mark in cell.published.marks)
    ]
    assert suspect == wrong == ["efficientnet_b5_ra"]


# timm and the authors.


def test_values_of_timm_and_the_authors_are_those_of_the_public_weights_that_match() -> None:
    expected: dict[tuple[str, str, str, str], str] = {}
    for line in copy_of("timm_reference.csv"):
        if line["match"] in ("same weights", "same source weights"):
            for source, column, value in published_in(line):
                expected[f"table{line['paper_table']}", line["paper_row"], source, column] = value
    in_specs = {
        (name, row, reference.source.name, column): reference.published.text
        for name, spec in SPECS.items()
        if name in COPIES
        for (row, column), cell in spec.cells.items()
        for reference in cell.references
        if reference.source.kind != "paper"
    }
    assert in_specs == expected


def published_in(line: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Source, column and value of every result that a line of the reference has."""
    places = {
        "timm_top1": ("timm", "top1"),
        "timm_real_top1": ("timm", "real"),
        "timm_v2mf_top1": ("timm", "v2"),
        "deit_repo_top1": ("author", "top1"),
        "deit_repo_top5": ("author", "top5"),
    }
    return [(*place, line[name]) for name, place in places.items() if line[name]]


def test_rows_with_public_weights_evaluate_those_weights_at_the_size_of_the_paper() -> None:
    for line in copy_of("timm_reference.csv"):
        if line["match"] in ("same weights", "same source weights"):
            settings = SPECS[f"table{line['paper_table']}"].cell(line["paper_row"], "top1").settings
            assert f"{settings['model']}.{settings['weights']}" == line["timm_model"]
            assert (settings["res"], settings["interpolation"]) == (int(line["img_size"]), line["interpolation"])


def test_rows_without_public_weights_say_why() -> None:
    columns = {"2": "teacher", "5": "top1", "7": "imagenet"}
    for line in copy_of("timm_reference.csv"):
        if line["match"] == "no public weight":
            cell = SPECS[f"table{line['paper_table']}"].cell(line["paper_row"], columns[line["paper_table"]])
            comment = line["comment"].replace(
                "Grafit weights are not in timm; network =", "timm has no Grafit weights of its model"
            )
            assert cell.unreleased == comment
            assert "weights" not in cell.settings


def test_the_nearest_public_weights_are_those_of_the_reference() -> None:
    expected = [
        (
            f"table{line['paper_table']}",
            line["paper_row"],
            line["timm_model"],
            line["match"],
            line["comment"],
            sorted(published_in(line)),
        )
        for line in copy_of("timm_reference.csv")
        if line["match"] not in ("same weights", "same source weights", "no public weight")
    ]
    in_specs = [
        (
            name,
            row.key,
            f"{near.model}.{near.weights}",
            near.match,
            near.comment,
            sorted((source, column, value) for source, of in near.published.items() for column, value in of.items()),
        )
        for name, spec in SPECS.items()
        for row in spec.rows
        for near in row.nearest
    ]
    assert sorted(in_specs) == sorted(expected)


def test_every_throughput_that_timm_published_is_in_the_spec_and_no_other() -> None:
    expected = {
        (line["timm_network"], line["source_file"], "timm"): (line["samples_per_sec"], "", "im/s")
        for line in copy_of("timm_benchmarks.csv")
    }
    assert len(expected) == 590
    assert published_in_spec(SPECS["timm-speed"], "timm") == expected


def test_throughputs_of_timm_at_another_size_than_the_papers_are_marked_with_that_size() -> None:
    lines = copy_of("timm_benchmarks.csv")
    expected = {
        (line["timm_network"], line["source_file"]): (line["img_size"],) if line["size_as_in_paper"] == "no" else ()
        for line in lines
    }
    in_specs = {
        (row, cell.column.label): reference.published.marks
        for (row, _), cell in SPECS["timm-speed"].cells.items()
        for reference in cell.references
    }
    assert in_specs == expected


def test_every_throughput_that_timm_published_has_a_job_as_its_file_says() -> None:
    precisions = {
        "amp": ("float16", True),
        "amp_bf16": ("bfloat16", True),
        "bf16": ("bfloat16", False),
        "fp32": ("float32", True),
    }
    spec = SPECS["timm-speed"]
    columns = {column.label: column.key for column in spec.columns}
    for line in copy_of("timm_benchmarks.csv"):
        precision, autocast = precisions[line["precision"]]
        job = job_in("timm-speed", line["timm_network"], columns[line["source_file"]])
        assert job is not None
        assert dict(job.settings) == {
            "model": line["timm_network"],
            "res": int(line["img_size"]),
            "batch": int(line["batch"]),
            "protocol": "timm",
            "repeats": 40,
            "precision": precision,
            "autocast": autocast,
            "channels_last": line["layout"] == "nhwc",
            "compile": line["compiled"] == "yes",
            # What torch 1 computed in unfused attention, as the counts of that table show.
            "fused_attention": not line["torch"].startswith("pt1"),
            "step": "inference",
            **({"step": "training"} if line["mode"] == "train" else {}),
        }


def test_every_column_of_timms_throughputs_names_its_machine_and_version_of_torch() -> None:
    machines = {
        **{f"rtx{number}": (f"RTX {number}", None) for number in (3090, 4090, 5090)},
        "pro6000maxq": ("RTX PRO 6000 Max-Q", None),
        "i9_10940x": ("Core i9-10940X", 14),
        "i7_12700h": ("Core i7-12700H", 14),
    }
    lines = {line["source_file"]: line for line in copy_of("timm_benchmarks.csv")}
    for column in SPECS["timm-speed"].columns:
        assert (column.machine, column.cores) == machines[lines[column.label]["device"]]
        assert f"pt{str(column.torch).replace('.', '')}" == lines[column.label]["torch"]


def test_statements_of_the_authors_are_in_the_spec_line_by_line() -> None:
    expected = [
        (
            line["topic"],
            line["item"],
            line["value"],
            line["unit"],
            "; ".join(text for text in (line["source"], line["note"]) if text),
        )
        for line in copy_of("author_statements.csv")
    ]
    spec = SPECS["author-statements"]
    cells = [spec.cell(row.key, "value") for row in spec.rows]
    in_specs = [(c.row.group, c.row.label, c.references[0].published.text, c.unit, c.row.note) for c in cells]
    assert in_specs == expected
    assert {reference.source.kind for cell in cells for reference in cell.references} == {"author"}


# The specs as such.


@pytest.mark.parametrize("name", SPECS)
def test_every_footnote_has_a_sentence(name: str) -> None:
    for footnote in SPECS[name].footnotes.values():
        assert footnote.text.strip().endswith("."), footnote


def in_editions(*, there: bool) -> list[tuple[str, str]]:
    """Give the tables and the editions that have them, or that have them not; what is not the paper's is in both."""
    return [
        (name, edition)
        for name, spec in SPECS.items()
        for edition in ("arxiv", "icml")
        if (edition in spec.numbers or not spec.numbers) == there
    ]


@pytest.mark.parametrize(("name", "edition"), in_editions(there=True))
def test_every_table_plans_in_the_editions_that_have_it(name: str, edition: str) -> None:
    (spec,) = Catalog(TABLES, edition=edition).find([str(TABLES / f"{name}.toml")])
    columns = [column for column in spec.columns if not column.extra]
    assert len(make_plan([spec]).cells) == len(spec.rows) * len(columns) > 0


@pytest.mark.parametrize(("name", "edition"), in_editions(there=False))
def test_a_table_that_an_edition_lacks_has_no_rows_there(name: str, edition: str) -> None:
    assert SPECS[name].in_edition(edition).rows == ()


def test_the_figure_of_a_table_is_a_spec_with_axes() -> None:
    figures = {name: spec.figure for name, spec in SPECS.items() if spec.figure}
    assert figures["table5"] == "figure1"
    for figure in figures.values():
        assert SPECS[figure].axes is not None


@pytest.mark.parametrize("name", SPECS)
def test_every_cell_can_be_planned_and_a_model_to_evaluate_has_weights_or_a_reason(name: str) -> None:
    for planned in make_plan([SPECS[name]]).cells:
        place = (planned.cell.row.key, planned.cell.column.key)
        assert not planned.blocked.startswith("the spec does not set"), (place, planned.blocked)


# Tables share jobs.


def test_the_throughputs_of_figure_1_are_measured_for_table_5() -> None:
    assert len(throughput_jobs("figure1")) == 14
    assert throughput_jobs("figure1") <= throughput_jobs("table5")


def test_the_throughputs_of_table_1_are_measured_for_table_5() -> None:
    assert len(throughput_jobs("table1")) == 3
    assert throughput_jobs("table1") <= throughput_jobs("table5")


def test_the_same_model_with_other_weights_has_the_same_throughput() -> None:
    b5 = job_in("table5", "efficientnet_b5", "throughput")
    assert b5 is not None
    assert b5 == job_in("table5", "efficientnet_b5_ra", "throughput")
    assert job_in("table5", "efficientnet_b5", "top1") != job_in("table5", "efficientnet_b5_ra", "top1")


@pytest.mark.parametrize("row", ["deit_ti_dist", "deit_s_dist", "deit_b_dist", "deit_b_dist_384"])
def test_a_model_trained_for_1000_epochs_is_as_fast_as_after_300(row: str) -> None:
    job = job_in("table5", row, "throughput")
    assert job is not None
    assert job == job_in("table5", f"{row}_1000ep", "throughput")
    assert job_in("table5", row, "params") == job_in("table5", f"{row}_1000ep", "params")


def test_table_5_measures_each_model_at_each_size_once() -> None:
    models = set()
    for line in copy_of("table05.csv"):
        if line["column"] == "image size":
            name = (
                line["row"].removesuffix("_1000ep").removesuffix("_ra")
            )  # training, which does not change the throughput
            models.add((name, line["value"]))
    assert len(models) == 32 - 4 - 2  # rows, less those of 1000 epochs, less those of RandAugment
    assert len(throughput_jobs("table5")) == len(models)


def test_table_5_builds_each_row_at_the_size_that_is_published() -> None:
    for line in copy_of("table05.csv"):
        if line["column"] == "image size":
            job = job_in("table5", line["row"], "throughput")
            assert job is not None
            assert job["res"] == int(line["value"])


# tables/README.md.


Lines = list[list[str]]


def tables_under(heading: str) -> list[Lines]:
    """Give the tables that stand under a heading, each as the cells of its lines below the rule."""
    text = re.split(r"^##+ ", README.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = [[line for line in block.splitlines() if line[:1] == "|"] for block in text.split("\n\n")]
    return [
        [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block[2:]] for block in blocks if block
    ]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("`[table]`", reader._TABLE),
        ("`[source.NAME]`", reader._SOURCE),
        ("`[column.KEY]`", reader._COLUMN),
        ("`[row.KEY]`", reader._ROW),
        ("`[family.KEY]`", reader._FAMILY),
        ('`[machine."NAME"]`', reader._MACHINE),
        ("`[footnote.MARK]`", reader._FOOTNOTE),
        ("Papers", reader._PAPER),
    ],
)
def test_the_keys_of_each_part_are_documented_and_no_others(heading: str, keys: Mapping[str, object]) -> None:
    (table,) = tables_under(heading)
    documented = [word for row in table for word in words(row[0])]
    assert sorted(documented) == sorted(keys)


def test_the_keys_of_a_single_cell_are_documented_and_no_others() -> None:
    (meaning,) = [row[1] for row in tables_under("`[row.KEY]`")[0] if row[0] == "`cell`"]
    assert sorted(words(meaning)) == sorted(reader._CELL)


def test_the_keys_of_nearest_are_documented_and_no_others() -> None:
    (meaning,) = [row[1] for row in tables_under("`[row.KEY]`")[0] if row[0] == "`nearest`"]
    (example,) = words(meaning)
    assert example == f"{{ {', '.join(reader._NEAREST)}, timm = {{ … }} }}"


def test_the_kinds_of_job_with_their_settings_and_metrics_are_documented_and_no_others() -> None:
    jobs, _ = tables_under("Jobs, their settings and their metrics")
    documented = {words(row[0])[0]: (sorted(words(row[1])), sorted(words(row[2]))) for row in jobs}
    assert documented == {name: (sorted(kind.settings), sorted(kind.metrics)) for name, kind in OUR_KINDS.items()}


def test_the_settings_are_documented_with_their_types_and_choices_and_no_others() -> None:
    names = {"string": str, "integer": int, "number": float, "boolean": bool}
    _, settings = tables_under("Jobs, their settings and their metrics")
    documented = {setting: (row[1], words(row[2])) for row in settings for setting in words(row[0])}
    assert sorted(documented) == sorted(SETTINGS)
    for name, setting in SETTINGS.items():
        kinds, values = documented[name]
        types = {names[kind] for kind in kinds.split(" or ")}
        assert types == ({float} if float in setting.types else set(setting.types)), name
        assert set(setting.choices) <= set(values), name
