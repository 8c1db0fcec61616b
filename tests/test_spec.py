"""A spec file is read as it is published, and all mistakes in it are reported at once, each with its line."""

import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, SpecError
from harness.plan.job import Job
from harness.specs import Catalog, PublishedValue, Spec, load
from harness.specs.document import Document

TABLES = Path(__file__).parent.parent / "tables"

# A valid beginning and end, for tests of what is between them or replaces them.
TABLE = '[table]\ntitle = "T"\n'
COLUMN = '[column.a]\nlabel = "A"\n'
ROW = '[row.x]\nlabel = "X"\n'

Read = Callable[[str], Spec]
Mistakes = Callable[[str | bytes], list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str) -> Spec:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


@pytest.fixture
def mistakes(tmp_path: Path) -> Mistakes:
    """Return every mistake in a file, in order, as `mine.toml:LINE: …`."""

    def mistakes(content: str | bytes) -> list[str]:
        path = tmp_path / "mine.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(SpecError) as caught:
            load(path)
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert all(problem.startswith(str(path)) for problem in caught.value.problems)
        return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]

    return mistakes


# The text of the file.


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(HarnessError) as caught:
        load(path)
    assert str(caught.value) == (f"{path}: cannot be read (No such file or directory); name a table or a spec file")


def test_a_folder_is_not_a_spec(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read (Is a directory); name a table or a spec file"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a remark\n"])
def test_an_empty_file_points_to_the_description_of_the_format(mistakes: Mistakes, text: str) -> None:
    assert mistakes(text) == ["mine.toml: is empty; see tables/README.md for the format of a spec"]


def test_a_byte_that_is_not_utf_8_is_reported_with_its_line(mistakes: Mistakes) -> None:
    content = (TABLE + COLUMN).encode() + b'[row.x]\nlabel = "X \xb1"\n'
    assert mistakes(content) == ["mine.toml:6: byte 0xb1 is not UTF-8; save the file as UTF-8"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('set = { model = "m",\n  res = 224 }', "goes on in the next line; write it in one line"),
        ('set = {\n  model = "m"', "has no end; close it with } in its line"),
    ],
)
def test_a_table_in_braces_that_does_not_end_in_its_line_is_one_mistake(
    mistakes: Mistakes, line: str, message: str
) -> None:
    text = f'{TABLE}{COLUMN}{ROW}{line}\n[row.y]\nlabel = "Y"\n'
    assert mistakes(text) == [f"mine.toml:7: not TOML: the table in braces of 'set' {message}"]


def test_values_of_a_source_that_the_file_does_not_define_are_one_mistake(mistakes: Mistakes) -> None:
    rows = f"{ROW}paper = {{ a = 1 }}\n{ROW.replace('x', 'y')}paper = {{ a = 2 }}\n"
    assert mistakes(TABLE + COLUMN + rows) == [
        "mine.toml:7: paper in [row.x] has no [source.paper]; add it, with kind = 'paper', 'author' or 'timm'"
    ]


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        ("params", "add job = 'count'"),
        ("top1", "add job = 'evaluate' or 'train'"),
        ("speed", "name the job that gives it"),
    ],
)
def test_a_metric_without_a_job_is_a_mistake(mistakes: Mistakes, metric: str, remedy: str) -> None:
    message = f"metric = '{metric}' in [column.a] has no job; {remedy}"
    assert mistakes(f'{TABLE}{COLUMN}metric = "{metric}"\n{ROW}') == [f"mine.toml:5: {message}"]


def test_a_metric_of_a_row_is_for_the_columns_that_have_a_job(read: Read, mistakes: Mistakes) -> None:
    row = f'{ROW}metric = "params"\n'
    measured = '[column.b]\nlabel = "B"\njob = "count"\n'
    assert read(TABLE + COLUMN + measured + row).cell("x", "b").metric == "params"
    idle = f'{TABLE}{COLUMN}metric = "params"\n{measured}metric = "params"\n{ROW}'
    assert mistakes(idle) == ["mine.toml:5: metric = 'params' in [column.a] has no job; add job = 'count'"]
    assert mistakes(TABLE + COLUMN + row) == ["mine.toml:7: metric = 'params' in [row.x] has no job; add job = 'count'"]


def test_every_line_that_is_not_toml_is_reported(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
note = T
[column.a]
label = "A"
[row.x]
label = "X"
group "G"
"""
    assert mistakes(text) == [
        "mine.toml:3: not TOML: Invalid value",
        "mine.toml:8: not TOML: Expected '=' after a key in a key/value pair",
    ]


def test_a_list_without_an_end_does_not_swallow_the_next_row(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
[row.x]
label = "X"
nearest = [
    { model = "m", weights = "w" },
[row.y]
lable = "Y"
"""
    assert mistakes(text) == [
        "mine.toml:7: not TOML: Invalid value",
        "mine.toml:9: label in [row.y] is missing; it must be a string",
        "mine.toml:10: unknown key 'lable' in [row.y]; did you mean 'label'?",
    ]


def test_a_key_under_a_broken_heading_is_not_added_to_the_part_before_it(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
[row.x]
label = "X"
[row.y z]
label = "Y"
"""
    assert mistakes(text) == ["mine.toml:7: not TOML: Expected ']' at the end of a table declaration"]


def test_a_heading_without_its_bracket_is_reported_once(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
[row.x
label = "X"
[row.y]
label = "Y"
"""
    assert mistakes(text) == ["mine.toml:5: not TOML: Expected ']' at the end of a table declaration"]


def test_a_row_that_is_defined_twice_names_the_line_of_the_first(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
[row.x]
label = "X"
[row.x]
label = "X again"
"""
    assert mistakes(text) == ["mine.toml:7: [row.x] is defined twice, first in line 5; remove or rename one"]


def test_a_key_that_is_defined_twice_is_reported_on_its_second_line(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
title = "T again"
[column.a]
label = "A"
[row.x]
label = "X"
"""
    assert mistakes(text) == ["mine.toml:3: 'title' is defined twice in [table]; remove one"]


def test_a_table_that_is_extended_from_outside_is_not_toml(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
set = { protocol = "paper" }
set.repeats = 30
[row.x]
label = "X"
"""
    assert mistakes(text) == ["mine.toml:6: not TOML: Cannot mutate immutable namespace ('column', 'a', 'set')"]


def test_a_value_where_a_part_should_be_is_reported(mistakes: Mistakes) -> None:
    text = """\
table = 5
[table]
title = "T"
[column.a]
label = "A"
[row.x]
label = "X"
"""
    assert mistakes(text) == [
        "mine.toml:1: table must be a table, not 5",
        "mine.toml:1: title in [table] is missing; it must be a string",
        "mine.toml:3: 'table' is defined twice in [table]; remove one",
    ]


def test_several_mistakes_of_a_file_are_reported_at_once_in_the_order_of_their_lines(mistakes: Mistakes) -> None:
    text = """\
[table]
titel = "T"
[column.a]
label = "A"
job   = "counts"
[row.x]
label = "X"
set   = { zoom = 224 }
[row.y]
paper = { a = 1 }
"""
    assert mistakes(text) == [
        "mine.toml:1: title in [table] is missing; it must be a string",
        "mine.toml:2: unknown key 'titel' in [table]; did you mean 'title'?",
        "mine.toml:5: unknown kind of job 'counts'; did you mean 'count'?",
        "mine.toml:8: unknown setting 'zoom' in [row.x.set]",
        "mine.toml:9: label in [row.y] is missing; it must be a string",
        "mine.toml:10: paper in [row.y] has no [source.paper]; add it, with kind = 'paper', 'author' or 'timm'",
    ]


def test_lines_are_counted_as_editors_do(mistakes: Mistakes) -> None:
    text = '[table]\r\ntitle = "T\u2028\x85"\r\n[column.a]\r\nlabel = 5\r\n[row.x]\r\nlabel = "X"\r\n'
    assert mistakes(text) == ["mine.toml:4: label in [column.a] must be a string, not 5"]


def test_brackets_in_a_text_of_many_lines_do_not_mislead(mistakes: Mistakes) -> None:
    text = '''\
[table]
title = """
[row.x]
title = "
"""
note = [ "]",
  "a" ]
[column.a]
label = "A"
[row.x]
label = "X"
'''
    assert mistakes(text) == ["mine.toml:6: note in [table] must be a string, not a list"]


# Parts and keys.


def test_a_part_that_is_unknown_is_reported_with_the_nearest(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[colum.a]
label = "A"
[column.a]
label = "A"
[row.x]
label = "X"
"""
    assert mistakes(text) == ["mine.toml:3: unknown part 'colum'; did you mean 'column'?"]


def test_a_list_of_rows_is_not_a_part(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + '[[row]]\nlabel = "X"\n'
    assert mistakes(text) == [
        "mine.toml: has no rows; add [row.KEY]",
        "mine.toml:5: row must be a table, not a list",
    ]


def test_an_entry_that_is_not_a_table_is_reported(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + '[row]\nx = "X"\n[row.y]\nlabel = "Y"\n'
    assert mistakes(text) == ["mine.toml:6: [row.x] must be a table, not 'X'"]


def test_a_missing_title_is_reported(mistakes: Mistakes) -> None:
    assert mistakes("[table]\n" + COLUMN + ROW) == ["mine.toml:1: title in [table] is missing; it must be a string"]


def test_a_table_without_rows_and_columns_is_reported(mistakes: Mistakes) -> None:
    assert mistakes(TABLE) == ["mine.toml: has no columns; add [column.KEY]", "mine.toml: has no rows; add [row.KEY]"]


def test_rows_and_columns_without_labels_are_reported(mistakes: Mistakes) -> None:
    assert mistakes(TABLE + '[column.a]\nunit = "M"\n[row.x]\ngroup = "G"\n') == [
        "mine.toml:3: label in [column.a] is missing; it must be a string",
        "mine.toml:5: label in [row.x] is missing; it must be a string",
    ]


def test_an_unknown_key_is_reported_with_the_nearest(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + "tolerence = 0.05\n" + ROW
    assert mistakes(text) == ["mine.toml:5: unknown key 'tolerence' in [column.a]; did you mean 'tolerance'?"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("text = 1", "text in [column.a] must be true or false, not 1"),
        ('digits = "2"', "digits in [column.a] must be an integer, not '2'"),
        ("digits = true", "digits in [column.a] must be an integer, not true"),
        ("digits = 0.5", "digits in [column.a] must be an integer, not 0.5"),
        ("digits = -1", "digits in [column.a] must be at least 0, not -1"),
        ('set = "paper"', "set in [column.a] must be a table, not 'paper'"),
        ("machine = 2026-11-21", "machine in [column.a] must be a string, not 2026-11-21"),
        ("job = ['count']", "job in [column.a] must be a string, not a list"),
        ("job = 'count'\nmetric = 5", "metric in [column.a] must be a string, not 5"),
        ("better = 1", "better in [column.a] must be 'higher' or 'lower', not 1"),
        ('better = "hihger"', "better in [column.a] must be 'higher' or 'lower', not 'hihger'"),
    ],
)
def test_a_value_of_the_wrong_type_or_not_of_the_choice_is_reported(mistakes: Mistakes, key: str, message: str) -> None:
    line = 5 + key.count("\n")
    assert mistakes(f"{TABLE}{COLUMN}{key}\n{ROW}") == [f"mine.toml:{line}: {message}"]


def test_a_source_has_a_kind_an_edition_and_a_day(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[source.one]
cite = "one"
[source.two]
kind = "papper"
edition = "NeurIPS"
checked = "2026-11-21"
[source.note]
kind = "timm"
[column.a]
label = "A"
[row.x]
label = "X"
"""
    assert mistakes(text) == [
        "mine.toml:3: kind in [source.one] is missing; it must be paper, author, timm or another small word",
        "mine.toml:6: kind in [source.two] is 'papper'; did you mean 'paper'?",
        "mine.toml:7: edition in [source.two] must be both, arxiv, icml or another small word, not 'NeurIPS'",
        "mine.toml:8: checked in [source.two] must be a date, not '2026-11-21'",
        "mine.toml:9: a source cannot be called 'note', which is a key of every row",
    ]


def test_an_unknown_family_and_a_reference_that_is_no_row_are_reported(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
[family.deit]
label = "DeiT"
reference = "deit_c"
[family.vit]
label = "ViT"
reference = ["deit_b"]
[row.deit_b]
label = "DeiT-B"
family = "diet"
"""
    assert mistakes(text) == [
        "mine.toml:7: unknown row 'deit_c' in [family.deit]; did you mean 'deit_b'?",
        "mine.toml:10: reference in [family.vit] must be a string, not a list",
        "mine.toml:13: unknown family 'diet' in [row.deit_b]; did you mean 'deit'?",
    ]


def test_a_published_machine_may_be_slow_but_needs_a_peak_above_zero(read: Read, mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
machine = "V100 16GB"
[machine."V100 16GB"]
tflops = {}
[row.b]
label = "B"
"""
    assert read(text.format(0.5)).machines["V100 16GB"].tflops == 0.5
    for tflops in (0, -1):
        (message,) = mistakes(text.format(tflops))
        assert message == f"mine.toml:7: tflops in [machine.V100 16GB] must be above 0, not {tflops}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("synchronise = true", "unknown setting 'synchronise' in [column.speed.set]; did you mean 'synchronize'?"),
        ("compile = 'default'", "compile in [column.speed.set] must be true or false, not 'default'"),
        (
            "protocol = 'timm', precision = 'tf32'",
            "precision = 'tf32' is what float32 means in the timm protocol on a GPU; set 'float32'",
        ),
    ],
)
def test_a_switch_that_is_none_or_has_another_name_is_reported(mistakes: Mistakes, settings: str, message: str) -> None:
    column = "[column.speed]\nlabel = 'speed'\njob = 'throughput'\nmetric = 'throughput'\n"
    row = "[row.x]\nlabel = 'X'\n"
    assert mistakes(f"{TABLE}{column}set = {{ {settings} }}\n{row}")[0].endswith(f": {message}")


def test_the_axes_of_a_figure_are_columns(mistakes: Mistakes) -> None:
    text = '[table]\ntitle = "T"\nx = "throughput"\ny = "top"\n[column.top1]\nlabel = "A"\n' + ROW
    assert mistakes(text) == [
        "mine.toml:3: unknown column 'throughput' in [table]",
        "mine.toml:4: unknown column 'top' in [table]; did you mean 'top1'?",
    ]


def test_a_paper_is_a_file_with_title_and_authors(read: Read, mistakes: Mistakes, tmp_path: Path) -> None:
    text = f'{TABLE}paper = "own"\n{COLUMN}{ROW}'
    assert mistakes(text) == ["mine.toml:3: unknown paper 'own' in [table]"]
    path = tmp_path / "papers" / "own.toml"
    path.parent.mkdir()
    wrong = 'authors = "Ann"\narxiv = "last year"\nurl = "javascript:alert(1)"\n'
    path.write_text(f'title = "P"\n{wrong}', encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.problems == (
        f"{path}:2: authors must be a list, not 'Ann'",
        f"{path}:3: arxiv must be a number as 2012.12877, not 'last year'",
        f"{path}:4: url must be an address that begins with https://, not 'javascript:alert(1)'",
    )
    path.write_text('title = "P"\nauthors = ["Ann"]\n', encoding="utf-8")
    paper = read(text).paper
    assert paper is not None
    assert (paper.title, paper.authors, paper.link) == ("P", ("Ann",), ("", ""))


def test_the_shipped_paper_is_the_one_that_the_citation_file_names() -> None:
    citation = (TABLES.parent / "CITATION.cff").read_text(encoding="utf-8")
    paper = load(TABLES / "table5.toml").paper
    assert paper is not None
    assert f'title: "{paper.title}"' in citation
    families = re.findall(r"family-names: (.*)\n +given-names: (.*)", citation)
    assert paper.authors == tuple(f"{given} {family}" for family, given in families)
    assert f'value: "arXiv:{paper.arxiv}"' in citation
    assert f'url: "{paper.link[1]}"' in citation


def test_nearest_needs_models_with_weights(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + ROW + 'nearest = [{ model = "m" }, { model = "m", weights = "w", coment = "c" }]\n'
    assert mistakes(text) == [
        "mine.toml:7: unknown key 'coment' in [row.x.nearest]; did you mean 'comment'?",
        "mine.toml:7: weights in [row.x.nearest] is missing; it must be a string",
    ]


# Values.

SOURCE = '[source.paper]\nkind = "paper"\n'


def test_a_value_of_a_column_that_does_not_exist_is_reported_with_the_nearest(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[source.paper]
kind = "paper"
[column.throughput]
label = "throughput"
[row.x]
label = "X"
paper = { througput = 940.4 }
cell = { top1 = { cost = 1 } }
"""
    assert mistakes(text) == [
        "mine.toml:9: unknown column 'througput'; did you mean 'throughput'?",
        "mine.toml:10: unknown column 'top1'",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"96.9?"', "'96.9?'"),
        ('"about 90"', "'about 90'"),
        ('"81.8 ± "', "'81.8 ± '"),
        ('"5%"', "'5%'"),
        ('""', "''"),
        ("true", "true"),
        ("nan", "nan"),
        ("[1]", "a list"),
    ],
)
def test_where_a_number_is_expectedanything_else_is_reported(mistakes: Mistakes, value: str, shown: str) -> None:
    expected = 'a number, or a string like "81.8 ± 0.2" or "96.9[B2]"'
    assert mistakes(f"{TABLE}{SOURCE}{COLUMN}{ROW}paper = {{ a = {value} }}\n") == [
        f"mine.toml:9: a in [row.x.paper] must be {expected}, not {shown}"
    ]


def test_where_words_are_expecteda_number_is_reported(mistakes: Mistakes) -> None:
    text = TABLE + SOURCE + COLUMN + "text = true\n" + ROW + "paper = { a = 5 }\n"
    assert mistakes(text) == ["mine.toml:10: a in [row.x.paper] must be a string, not 5"]


def test_where_words_are_expecteda_list_is_reported(mistakes: Mistakes) -> None:
    text = TABLE + SOURCE + COLUMN + "text = true\n" + ROW + "paper = { a = [] }\n"
    assert mistakes(text) == ["mine.toml:10: a in [row.x.paper] must be a string, not a list"]


def test_a_correction_is_a_value_of_a_column(mistakes: Mistakes) -> None:
    text = TABLE + SOURCE + COLUMN + ROW + 'paper = { a = "1[B]" }\n[footnote.B]\ntext = "Two."\n'
    text += "corrected = { b = 2, a = true }\n"
    assert mistakes(text) == [
        "mine.toml:12: a in [footnote.B.corrected] must be a number or a string, not true",
        "mine.toml:12: unknown column 'b' in [footnote.B.corrected]",
    ]


def test_a_mark_needs_a_footnote_and_a_footnote_a_mark(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[source.paper]
kind = "paper"
[column.throughput]
label = "throughput"
[row.x]
label = "X"
paper = { throughput = "96.9[B2][C8]" }
[footnote.C8]
text = "One."
[footnote.B22]
text = "Two."
[footnote."*"]
effect = "worng"
"""
    assert mistakes(text) == [
        "mine.toml:9: throughput = '96.9[B2]' has no [footnote.'B2']; did you mean 'B22'?",
        "mine.toml:12: [footnote.'B22'] is not used by any value",
        "mine.toml:14: [footnote.'*'] is not used by any value",
        "mine.toml:14: text in [footnote.*] is missing; it must be a string",
        "mine.toml:15: effect in [footnote.*] must be 'note' or 'explains' or 'wrong', not 'worng'",
    ]


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ('"5"', "must be a number or a percentage like '5%', or a table of them by source, not '5'"),
        ('"5 points"', "must be a number or a percentage like '5%', or a table of them by source, not '5 points'"),
        ("-0.5", "must be at least 0, not -0.5"),
        ("nan", "must be a number or a percentage like '5%', or a table of them by source, not nan"),
        ("inf", "must be a number or a percentage like '5%', or a table of them by source, not inf"),
    ],
)
def test_a_tolerance_that_is_none_is_reported(mistakes: Mistakes, tolerance: str, message: str) -> None:
    assert mistakes(f"{TABLE}{COLUMN}tolerance = {tolerance}\n{ROW}") == [
        f"mine.toml:5: tolerance in [column.a] {message}"
    ]


# What is measured.


def test_an_unknown_kind_of_job_is_reported_with_the_nearest(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + 'job = "througput"\nmetric = "throughput"\n' + ROW
    assert mistakes(text) == ["mine.toml:5: unknown kind of job 'througput'; did you mean 'throughput'?"]


def test_an_unknown_metric_is_reported_with_the_nearest_or_with_all(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
job = "throughput"
metric = "througput"
[column.b]
label = "B"
job = "dataset"
metric = "size"
[column.c]
label = "C"
job = "dataset"
[column.d]
label = "D"
job = "tokens"
[row.x]
label = "X"
"""
    assert mistakes(text) == [
        "mine.toml:6: job 'throughput' has no metric 'througput'; did you mean 'throughput'?",
        "mine.toml:10: job 'dataset' has no metric 'size'; it gives train_images, test_images, classes",
        "mine.toml:11: job 'dataset' without a metric; name one of train_images, test_images, classes",
        "mine.toml:14: job 'tokens' without a metric; name one of cosine_in, cosine_out, cosine_class",
    ]


def test_an_unknown_setting_is_reported_with_the_nearest(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + ROW + 'set = { modle = "m", res = 224 }\n'
    assert mistakes(text) == ["mine.toml:7: unknown setting 'modle' in [row.x.set]; did you mean 'model'?"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("res = 224.5", "res in [row.x.set] must be a side in pixels, or height by width as '224x320', not 224.5"),
        ('res = "224"', "res in [row.x.set] must be a side in pixels, or height by width as '224x320', not '224'"),
        ("res = true", "res in [row.x.set] must be a side in pixels, or height by width as '224x320', not true"),
        ("res = 0", "res in [row.x.set] must be at least 1, not 0"),
        ("model = 5", "model in [row.x.set] must be a string, not 5"),
        ("mixup = true", "mixup in [row.x.set] must be a number, not true"),
        ("erasing = 1.5", "erasing in [row.x.set] must be at most 1, not 1.5"),
        ("ema = 1", "ema in [row.x.set] must be true or false, not 1"),
        ('protocol = "new"', "protocol in [row.x.set] must be 'paper' or 'modern' or 'timm', not 'new'"),
        ('batch = "most"', "batch in [row.x.set] must be 'auto' or 'largest' or an integer, not 'most'"),
        ("batch = -4", "batch in [row.x.set] must be at least 1, not -4"),
        ('memory = "16"', "memory in [row.x.set] must be an amount, as 16GiB or 16GB, or all, not '16'"),
    ],
)
def test_a_setting_that_is_not_accepted_is_reported(mistakes: Mistakes, setting: str, message: str) -> None:
    assert mistakes(f"{TABLE}{COLUMN}{ROW}set = {{ {setting} }}\n") == [f"mine.toml:7: {message}"]


def test_a_setting_that_the_job_does_not_take_is_reported_wherever_the_job_is_known(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
job = "count"
metric = "params"
set = { batch = 4 }
[column.b]
label = "B"
[row.x]
label = "X"
cell.a.set = { repeats = 3 }
[row.y]
label = "Y"
job = "dataset"
metric = "classes"
set = { data = "cars", res = 224 }
"""
    assert mistakes(text) == [
        "mine.toml:7: job 'count' does not take the setting 'batch'",
        "mine.toml:12: job 'count' does not take the setting 'repeats'",
        "mine.toml:17: job 'dataset' does not take the setting 'res'",
    ]


def test_settings_of_column_row_and_cell_may_not_contradict_each_other(mistakes: Mistakes) -> None:
    text = """\
[table]
title = "T"
[column.a]
label = "A"
job = "evaluate"
metric = "top1"
set = { data = "imagenet" }
[row.x]
label = "X"
set = { data = "cars", crop = 0.875 }
[row.y]
label = "Y"
set = { crop = 1 }
cell.a.set = { crop = 0.9 }
"""
    assert mistakes(text) == [
        "mine.toml:10: data = 'cars' contradicts data = 'imagenet' of column 'a'; set it in one place only",
        "mine.toml:14: crop = 0.9 contradicts crop = 1.0 of row 'y'; set it in one place only",
    ]


TEMPLATES = """\
[table]
title = "T"
[column.small]
label = "at 224"
job = "count"
metric = "macs"
set = { res = 224 }
[column.large]
label = "at 384"
job = "throughput"
metric = "throughput"
set = { res = 384, batch = 1 }
[column.images]
label = "images"
job = "dataset"
metric = "classes"
set = { data = "imagenet" }
[row.cait]
label = "CaiT-XXS-24"
set = { model = "cait_xxs24_{res}" }
"""


def test_a_setting_is_filled_with_the_other_settings_of_its_cell(read: Read) -> None:
    spec = read(TEMPLATES)
    models = [spec.cell("cait", column).settings.get("model") for column in ("small", "large", "images")]
    assert models == ["cait_xxs24_224", "cait_xxs24_384", None]


def test_a_template_is_filled_in_the_settings_of_a_training_too(read: Read) -> None:
    text = TEMPLATES + 'cell.large.job = "evaluate"\ncell.large.metric = "top1"\ncell.large.set = { data = "cars" }\n'
    text = text.replace(", batch = 1", "") + 'train = { recipe = "deit-{data}", data = "cars" }\n'
    assert read(text).cell("cait", "small").training == {"recipe": "deit-cars", "data": "cars"}


def test_a_template_of_a_setting_that_the_cell_lacks_or_that_is_one_itself_is_reported(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + 'job = "count"\nmetric = "macs"\nset = { res = 224 }\n'
    text += ROW + 'set = { model = "net_{ress}" }\n'
    text += (
        '[row.y]\nlabel = "Y"\njob = "evaluate"\nmetric = "top1"\nset = { model = "{weights}", weights = "a{model}" }\n'
    )
    lacking = "model = 'net_{ress}' needs a setting 'ress', which a cell of this row does not have; did you mean 'res'?"
    assert mistakes(text) == [
        f"mine.toml:10: {lacking}",
        "mine.toml:15: model = '{weights}' is made of 'weights', which has braces itself",
        "mine.toml:15: weights = 'a{model}' is made of 'model', which has braces itself",
    ]


SIZES = (
    TABLE
    + """\
[column.a]
label = "A"
job = "count"
metric = "macs"
[row.square]
label = "square"
set = { model = "net", res = "224x224" }
[row.wide]
label = "wide"
set = { model = "net", res = "224x320" }
"""
)


def test_a_size_of_images_is_a_side_or_height_by_width(read: Read) -> None:
    spec = read(SIZES)
    assert spec.cell("square", "a").settings == {"model": "net", "res": 224}
    assert spec.cell("wide", "a").settings == {"model": "net", "res": 224, "width": 320}
    assert str(Job.of("count", spec.cell("wide", "a").settings)) == "count net at 224x320"


def test_a_size_that_is_none_or_that_its_job_does_not_take_is_reported(mistakes: Mistakes) -> None:
    column = '[column.b]\nlabel = "B"\njob = "evaluate"\nmetric = "top1"\nset = { data = "cars", weights = "w" }\n'
    row = '[row.w]\nlabel = "word"\nset = { model = "net", res = "224 x 320" }\n'
    assert mistakes(column + SIZES + row) == [
        "mine.toml:17: job 'evaluate' takes square images, not those of 224x320 pixels; set res to their side",
        "mine.toml:20: res in [row.w.set] must be a side in pixels, or height by width as '224x320', not '224 x 320'",
    ]


def test_each_source_may_have_a_tolerance_of_its_own(read: Read) -> None:
    sources = '[source.paper]\nkind = "paper"\n[source.timm]\nkind = "timm"\n'
    column = f'{COLUMN}job = "count"\nmetric = "params"\ntolerance = {{ paper = "5%", timm = 0.001 }}\n'
    row = ROW + "timm = { a = 5.717 }\n"
    spec = read(TABLE + sources + column + row + "paper = { a = 5 }\n" + row.replace(".x", ".y"))
    both, one = spec.cell("x", "a"), spec.cell("y", "a")
    assert [(r.source.name, r.tolerance, r.relative) for r in both.references] == [
        ("paper", 0.05, True),
        ("timm", 0.001, False),
    ]
    assert (both.tolerance, both.relative, one.tolerance, one.relative) == (0.05, True, 0.001, False)


def test_a_source_without_a_tolerance_or_with_a_wrong_one_and_an_unknown_source_are_reported(
    mistakes: Mistakes,
) -> None:
    sources = '[source.paper]\nkind = "paper"\n[source.timm]\nkind = "timm"\n'
    column = COLUMN + 'tolerance = { paper = "5", papr = 1 }\n'
    assert mistakes(TABLE + sources + column + ROW + "timm = { a = 5.717 }\n") == [
        "mine.toml:9: paper in [column.a.tolerance] must be a number or a percentage like '5%', not '5'",
        "mine.toml:9: unknown source 'papr' in [column.a.tolerance]; did you mean 'paper'?",
        "mine.toml:12: tolerance of row 'x', column 'a' has none for source 'timm'; name it",
    ]


def test_a_cell_that_is_not_a_table_and_its_unknown_keys_are_reported(mistakes: Mistakes) -> None:
    text = TABLE + COLUMN + '[column.b]\nlabel = "B"\n' + ROW + 'cell.a = "top5"\ncell.b = { metrics = "top5" }\n'
    assert mistakes(text) == [
        "mine.toml:9: [row.x.cell.a] must be a table, not 'top5'",
        "mine.toml:10: unknown key 'metrics' in [row.x.cell.b]; did you mean 'metric'?",
    ]


# What is right.

RIGHT = """\
[table]
title = "Two models"
arxiv = "Table 7"
icml = "Table 6"
note = "N"

[source.paper]
kind = "paper"
cite = "both of them"
[source.arxiv]
kind = "paper"
edition = "arxiv"
[source.icml]
kind = "paper"
edition = "icml"
[source.timm]
kind = "timm"

[column.top1]
label = "top-1"
label_icml = "top-1 at ICML"
job = "evaluate"
metric = "top1"
unit = "%"
better = "higher"
tolerance = 0.05
digits = 2
set = { data = "imagenet" }
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "V100 16GB"
[column.word]
label = "word"
text = true
[column.only_arxiv]
label = "arXiv has it"
[column.own]
label = "nobody published it"
extra = true

[family.deit]
label = "DeiT"
reference = "one"

[row.one]
label = "One"
label_icml = "One at ICML"
group = "G"
group_icml = "G at ICML"
family = "deit"
set = { model = "one", weights = "w", res = 224, crop = 1 }
paper = { top1 = "81.8 ± 0.2[B1][*]", speed = 2536, word = "3.0 or 1.0[*]" }
timm = { top1 = 83.0 }
cell.top1.metric = "top1_softmax_sum"
cell.top1.set = { crop = 1.0, interpolation = "bilinear" }
cell.top1.cost = 424
[row.two]
label = "Two"
set = { model = "two", res = 384 }
unreleased = "never released"
cost = 960.5
tolerance = 1
arxiv = { top1 = 83.1, only_arxiv = 0.000 }
icml = { top1 = 83.0 }
[row.three]
label = "Three"
job = "dataset"
metric = "classes"
arxiv = { top1 = 0.0000001 }

[footnote.B1]
text = "One."
[footnote."*"]
text = "A star."
effect = "wrong"
corrected = { top1 = 169.10, word = "3.0" }
"""


def test_every_digit_that_was_published_is_kept(read: Read) -> None:
    spec = read(RIGHT)
    shown = {
        (row, column, reference.source.name): (reference.published.text, reference.published.value)
        for (row, column), cell in spec.cells.items()
        for reference in cell.references
    }
    assert shown == {
        ("one", "top1", "paper"): ("81.8", 81.8),
        ("one", "top1", "timm"): ("83.0", 83.0),
        ("one", "speed", "paper"): ("2536", 2536.0),
        ("one", "word", "paper"): ("3.0 or 1.0", None),
        ("two", "top1", "arxiv"): ("83.1", 83.1),
        ("two", "top1", "icml"): ("83.0", 83.0),
        ("two", "only_arxiv", "arxiv"): ("0.000", 0.0),
        ("three", "top1", "arxiv"): ("0.0000001", 1e-7),
    }


def test_marks_and_uncertainty_of_a_value_is_kept_apart(read: Read) -> None:
    spec = read(RIGHT)
    assert spec.cell("one", "top1").published == PublishedValue(
        text="81.8", value=81.8, uncertainty="0.2", marks=("B1", "*")
    )
    assert spec.cell("one", "word").published == PublishedValue(text="3.0 or 1.0", marks=("*",))


@pytest.mark.parametrize(("text", "decimals"), [("83.0", 1), ("0.000", 3), ("2536", 0), ("-0.25", 2)])
def test_the_decimals_of_a_value_are_those_published(text: str, decimals: int) -> None:
    assert PublishedValue(text=text).decimals == decimals


def test_the_cell_may_say_more_than_column_and_row(read: Read) -> None:
    cell = read(RIGHT).cell("one", "top1")
    assert (cell.kind, cell.metric, cell.cost) == ("evaluate", "top1_softmax_sum", 424.0)
    assert cell.settings == {
        "model": "one",
        "weights": "w",
        "res": 224,
        "data": "imagenet",
        "crop": 1.0,
        "interpolation": "bilinear",
    }
    assert {type(value) for name, value in cell.settings.items() if name == "crop"} == {float}


def test_a_cell_takes_of_the_settings_what_its_job_understands(read: Read) -> None:
    assert read(RIGHT).cell("one", "speed").settings == {"model": "one", "res": 224}


def test_the_row_may_say_what_is_measured_instead_of_the_column(read: Read) -> None:
    cell = read(RIGHT).cell("three", "top1")
    assert (cell.kind, cell.metric, cell.settings) == ("dataset", "classes", {"data": "imagenet"})


def test_a_tolerance_is_absolute_or_relative_and_may_be_the_rows(read: Read) -> None:
    spec = read(RIGHT)
    tolerances = {place: (cell.tolerance, cell.relative) for place, cell in spec.cells.items() if place[1] != "own"}
    assert tolerances["one", "top1"] == (0.05, False)
    assert tolerances["one", "speed"] == (0.05, True)
    assert tolerances["two", "speed"] == (1.0, False)
    assert tolerances["one", "word"] == (None, False)


def test_reasons_and_costs_of_a_row_are_those_of_its_cells(read: Read) -> None:
    cell = read(RIGHT).cell("two", "top1")
    assert (cell.unreleased, cell.cost) == ("never released", 960.5)


def test_a_spec_without_edition_has_everything(read: Read) -> None:
    spec = read(RIGHT)
    assert (spec.name, spec.title, spec.note) == ("mine", "Two models", "N")
    assert spec.numbers == {"arxiv": "Table 7", "icml": "Table 6"}
    assert [column.key for column in spec.columns] == ["top1", "speed", "word", "only_arxiv", "own"]
    assert [row.key for row in spec.rows] == ["one", "two", "three"]
    assert {name: (s.kind, s.edition, s.cite) for name, s in spec.sources.items()} == {
        "paper": ("paper", "both", "both of them"),
        "arxiv": ("paper", "arxiv", "arxiv"),
        "icml": ("paper", "icml", "icml"),
        "timm": ("timm", "both", "timm"),
    }
    assert {mark: note.effect for mark, note in spec.footnotes.items()} == {"B1": "note", "*": "wrong"}
    corrected = {mark: {key: str(value) for key, value in n.corrected.items()} for mark, n in spec.footnotes.items()}
    assert corrected == {"B1": {}, "*": {"top1": "169.10", "word": "3.0"}}
    assert [source.name for source in spec.sources.values() if source.main] == ["paper", "arxiv", "icml"]


OWN_EDITIONS = """\
[table]
title = "T"
[source.v1]
kind = "paper"
edition = "v1"
cite = "the first version"
[source.iccv]
kind = "paper"
edition = "iccv"
cite = "the proceedings"
url = "https://example.org/iccv"
[source.blog]
kind = "blog"
cite = "a post"
[column.a]
label = "A"
job = "count"
metric = "params"
[row.x]
label = "X"
set = { model = "net", res = 224 }
v1 = { a = 5 }
iccv = { a = 6 }
blog = { a = 7 }
[row.y]
label = "only in the proceedings"
iccv = { a = 1 }
"""


@pytest.mark.parametrize(
    ("edition", "values"),
    [
        ("v1", {"x": ["5", "7"]}),
        ("iccv", {"x": ["6", "7"], "y": ["1"]}),
        ("arxiv", {"x": ["5", "6", "7"], "y": ["1"]}),
    ],
)
def test_a_table_has_the_editions_that_its_sources_name_and_all_of_them_by_default(
    tmp_path: Path, edition: str, values: dict[str, list[str]]
) -> None:
    (tmp_path / "own.toml").write_text(OWN_EDITIONS, encoding="utf-8")
    (spec,) = Catalog(edition=edition).find([str(tmp_path / "own.toml")])
    assert {
        row.key: [reference.published.text for reference in spec.cell(row.key, "a").references] for row in spec.rows
    } == values
    assert spec.editions == ("v1", "iccv")
    assert (spec.sources["blog"].kind, spec.sources["iccv"].url) == ("blog", "https://example.org/iccv")


def test_an_edition_that_a_table_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN_EDITIONS, encoding="utf-8")
    for name, edition, message in (
        (str(tmp_path / "own.toml"), "iccv2", "--edition iccv2: 'own' has v1, iccv; did you mean 'iccv'?"),
        ("table5", "v1", "--edition v1: 'table5' has arxiv, icml"),
    ):
        with pytest.raises(HarnessError) as raised:
            Catalog(edition=edition).find([name])
        assert str(raised.value) == message


def test_a_source_that_is_no_word_or_no_address_is_reported(mistakes: Mistakes) -> None:
    text = OWN_EDITIONS.replace('kind = "blog"', 'kind = "A blog"').replace("https://", "www.")
    assert mistakes(text) == [
        "mine.toml:11: url in [source.iccv] must be an address that begins with https://, not 'www.example.org/iccv'",
        "mine.toml:13: kind in [source.blog] must be paper, author, timm or another small word, not 'A blog'",
    ]


def test_the_icml_edition_has_its_labels_its_values_and_not_what_it_lacks(read: Read) -> None:
    spec = read(RIGHT).in_edition("icml")
    assert spec.edition == "icml"
    assert [(column.key, column.label) for column in spec.columns] == [
        ("top1", "top-1 at ICML"),
        ("speed", "speed"),
        ("word", "word"),
        ("own", "nobody published it"),
    ]
    assert [(row.key, row.label, row.group) for row in spec.rows] == [
        ("one", "One at ICML", "G at ICML"),
        ("two", "Two", None),
    ]
    assert spec.cells.keys() == {(row.key, column.key) for row in spec.rows for column in spec.columns}
    assert spec.cell("one", "top1").row.label == "One at ICML"
    assert spec.cell("one", "top1").column.label == "top-1 at ICML"
    assert [r.source.name for r in spec.cell("one", "top1").references] == ["paper", "timm"]
    assert [r.published.text for r in spec.cell("two", "top1").references] == ["83.0"]


def test_the_arxiv_edition_has_its_labels_and_values(read: Read) -> None:
    spec = read(RIGHT).in_edition("arxiv")
    assert [column.label for column in spec.columns] == [
        "top-1",
        "speed",
        "word",
        "arXiv has it",
        "nobody published it",
    ]
    assert [(row.label, row.group) for row in spec.rows] == [("One", "G"), ("Two", None), ("Three", None)]
    assert [r.published.text for r in spec.cell("two", "top1").references] == ["83.1"]


# Names.


def ids_of(catalog: Catalog, *names: str) -> list[tuple[str, str]]:
    return [(spec.name, spec.edition) for spec in catalog.find(names)]


@pytest.mark.parametrize("name", ["table7", "7", "Table 7", "TABLE7", " table  7 ", "arxiv:7", "arxiv:table7"])
def test_a_table_is_found_by_its_arxiv_number(name: str) -> None:
    assert ids_of(Catalog(TABLES), name) == [("table7", "arxiv")]


@pytest.mark.parametrize("name", ["icml:table6", "icml:6", "ICML Table 6", "icml/6"])
def test_a_table_is_found_by_its_icml_number_whatever_the_edition(name: str) -> None:
    assert ids_of(Catalog(TABLES), name) == [("table7", "icml")]
    assert ids_of(Catalog(TABLES, edition="icml"), name) == [("table7", "icml")]


def test_in_the_icml_edition_numbers_are_its_own() -> None:
    catalog = Catalog(TABLES, edition="icml")
    assert ids_of(catalog, "6", "table7", "Table 5", "text") == [
        ("table7", "icml"),
        ("table8", "icml"),
        ("table5", "icml"),
        ("text", "icml"),
    ]
    assert ids_of(catalog, "arxiv:6") == [("table6", "arxiv")]


@pytest.mark.parametrize("name", ["8", "table 9", "figure1"])
def test_a_table_that_the_icml_edition_lacks_is_reported(name: str) -> None:
    with pytest.raises(HarnessError) as caught:
        Catalog(TABLES, edition="icml").find([name])
    assert str(caught.value) == (f"the ICML edition has no '{name}'; `harness list --edition icml` shows what it has")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel5", "unknown table 'tabel5'; did you mean 'table5'? `harness list` shows them all"),
        ("resnet", "unknown table 'resnet'; `harness list` shows them all"),
        ("cifar10", "unknown table 'cifar10'; did you mean 'cifar10-scratch'? `harness list` shows them all"),
        ("figure 33", "unknown table 'figure 33'; did you mean 'figure3'? `harness list` shows them all"),
    ],
)
def test_a_name_that_nothing_has_is_reported_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(HarnessError) as caught:
        Catalog(TABLES).find([name])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./mine", "unknown table './mine'; did you mean './mine.toml'? `harness list` shows them all"),
        ("mine", "unknown table 'mine'; did you mean 'mine.toml'? `harness list` shows them all"),
        (
            "./other",
            (
                "unknown table './other'; one of your own is the path of a file that ends in .toml; "
                "`harness list` shows them all"
            ),
        ),
    ],
)
def test_a_file_that_is_named_without_its_suffix_is_suggested_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "mine.toml").write_text(TABLE + COLUMN + ROW, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError) as caught:
        Catalog(TABLES).find([name])
    assert str(caught.value) == message


def test_tables_are_listed_by_number_then_figures_then_the_rest() -> None:
    assert Catalog(TABLES).names == (
        *(f"table{number}" for number in range(1, 11)),
        *(
            "figure1",
            "figure3",
            "author-statements",
            "choices",
            "cifar10-scratch",
            "costs",
            "text",
            "timm-speed",
            "train-speed",
        ),
    )


def test_all_means_what_the_edition_has_and_what_is_not_of_the_paper() -> None:
    assert [name for name, _ in ids_of(Catalog(TABLES), "all")] == list(Catalog(TABLES).names)
    assert [name for name, _ in ids_of(Catalog(TABLES, edition="icml"), "all")] == [
        *("table1", "table2", "table3", "table4", "table5", "table7", "table8"),
        *("author-statements", "choices", "cifar10-scratch", "costs", "text", "timm-speed", "train-speed"),
    ]


def test_a_table_that_is_named_twice_comes_once() -> None:
    assert ids_of(Catalog(TABLES), "5", "table5", str(TABLES / "table5.toml")) == [("table5", "arxiv")]


def test_a_file_is_found_by_its_path_and_read_in_the_edition(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RIGHT, encoding="utf-8")
    assert ids_of(Catalog(TABLES, edition="icml"), str(path)) == [("mine", "icml")]
    assert ids_of(Catalog(tmp_path), "mine") == [("mine", "arxiv")]


# For any input.

numbers = st.from_regex(r"[+-]?(0|[1-9][0-9]{0,6})(\.[0-9]{1,7})?", fullmatch=True)
uncertainties = st.none() | st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3})?", fullmatch=True)
marks = st.lists(st.text(min_size=1, max_size=4).filter(lambda mark: not set(mark) & set("[]")), max_size=3).map(tuple)


@given(number=numbers, uncertainty=uncertainties, marks=marks)
def test_any_number_with_uncertainty_and_marks_is_read_as_published(
    number: str, uncertainty: str | None, marks: tuple[str, ...]
) -> None:
    raw = number + (f" ± {uncertainty}" if uncertainty else "") + "".join(f"[{mark}]" for mark in marks)
    expected = PublishedValue(text=number, value=float(number), uncertainty=uncertainty, marks=marks)
    assert PublishedValue.read(raw, words=False) == expected


@given(number=numbers)
def test_any_number_of_a_toml_file_keeps_its_digits(number: str) -> None:
    raw = Decimal(number) if "." in number else int(number)
    published = PublishedValue.read(raw, words=False)
    assert published is not None
    assert published.text == (number.removeprefix("+") if "." in number else str(int(number)))
    assert published.value == float(number)


@given(text=st.text(max_size=20).filter(lambda text: not text.endswith("]")), marks=marks)
def test_any_words_are_kept_as_they_are_and_their_marks_apart(text: str, marks: tuple[str, ...]) -> None:
    raw = text + "".join(f"[{mark}]" for mark in marks)
    assert PublishedValue.read(raw, words=True) == PublishedValue(text=text, marks=marks)


names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
values = st.one_of(
    st.integers(min_value=-999, max_value=999).map(str),
    st.sampled_from(['"a # b"', '"[row.x]"', "'\"'", "true", "0.875", '"↑384 ± 0.2"', "2026-11-21"]),
    st.just("[\n  1, # one ]\n\n  2,\n]"),
    st.just('"""\n[row.x]\na = "\n"""'),
    st.just('[ "]",\n  "[" ]'),
)
fillers = st.lists(st.sampled_from(["", "   ", "# a = 1", "# [row.x]"]), max_size=3)
entries = st.dictionaries(names, st.tuples(fillers, values), max_size=4)
documents = st.dictionaries(st.tuples(names, names), st.tuples(fillers, entries), max_size=4)


@given(document=documents, newline=st.sampled_from(["\n", "\r\n"]))
def test_the_line_of_any_key_is_that_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    document: dict[tuple[str, str], tuple[list[str], dict[str, tuple[list[str], str]]]],
    newline: str,
) -> None:
    written: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for (part, key), (before, keys) in document.items():
        written += [*before, f"[{part}.{key}]"]
        expected[part, key] = len(written)
        for name, (above, value) in keys.items():
            written += above
            expected[part, key, name] = len(written) + 1
            written += f"{name} = {value}".split("\n")
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(newline.join(written).encode())

    read = Document.read(path, expected="a spec")
    assert {keys: read.line(*keys) for keys in expected} == expected
    assert {keys: read.line(*keys, "no_such_key") for keys in expected} == expected
    assert read.line("no such part") == 0
    assert not read.problems


pieces = st.sampled_from(
    [
        *("[table]\n", "[row.x]\n", "[column.a]\n", "[source.s]\n", "[footnote.B]\n", "[family.f]\n", "[[row]]\n"),
        *("title", "label", "set", "job", "metric", "tolerance", "kind", "reference", "family", "cell", "nearest", "s"),
        *(" = ", ".", ",", "\n", "{ ", " }", "[", "]", '"', "'", '"""', "#", "\r", "\r\n", "a", "x", "row"),
        *("nan", "inf", "-1", "0.5", "1e9", "true", '"count"', '"params"', '"96.9[B]"', "{ a = 1 }", "2026-11-21"),
        *('title = "T"\n', 'label = "L"\n', 'kind = "paper"\n', "row = 1\n", "cell.a = 1\n", "set = 1\n"),
    ]
)


@given(text=st.text(max_size=200) | st.lists(pieces, max_size=30).map("".join))
def test_no_text_whatever_ends_in_anything_but_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", errors="replace"))
    with suppress(SpecError):
        load(path)


@given(content=st.binary(max_size=100))
def test_no_bytes_whatever_end_in_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError):
        load(path)


@pytest.mark.parametrize("key", ["paper", "orders"])
def test_a_name_that_no_file_can_have_is_unknown_at_its_line(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[table]\ntitle = "T"\n{key} = "{"a" * 300}"\n[source.paper]\nkind = "paper"\n', encoding="utf-8")
    with pytest.raises(HarnessError) as refused:
        load(path)
    what = "paper" if key == "paper" else "table"
    assert f"mine.toml:3: unknown {what} 'aaaa" in str(refused.value)
    assert "a" * 70 not in str(refused.value)
