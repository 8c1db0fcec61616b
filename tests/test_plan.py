"""The same work is planned once, whichever cell asks for it, and each empty cell has its reason."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, PlannedCell, make_job, make_plan
from harness.specs import Catalog, Spec, load
from harness.specs.checked import Scalar
from harness.specs.kinds import KINDS

TABLES = Path(__file__).parent.parent / "tables"

MINE = """\
[table]
title = "Mine"
[source.paper]
kind = "paper"
[column.name]
label = "name"
text = true
[column.params]
label = "#param."
job = "count"
metric = "params"
[column.speed]
label = "im/s"
job = "throughput"
metric = "throughput"
[column.batch]
label = "batch"
job = "throughput"
metric = "batch"
[column.top1]
label = "ImNet top-1"
job = "evaluate"
metric = "top1"
set = { data = "imagenet" }
[column.trained]
label = "trained"
job = "train"
metric = "top1"
set = { recipe = "deit-b" }
[column.macs]
label = "multiply-adds"
job = "count"
metric = "macs"
extra = true
[row.one]
label = "Net-One"
set = { model = "one", weights = "w", res = 224 }
paper = { name = "one", top1 = 80.0 }
[row.one_again]
label = "Net-One again"
set = { res = 224, model = "one", repeats = 30 }
[row.two]
label = "Net-Two"
set = { model = "two", res = 384, batch = "largest", memory = "8GiB" }
cost = 1413.4
unreleased = "lost"
train = { recipe = "deit-b" }
[row.three]
label = "Three"
set = { model = "three" }
[row.empty]
label = "Empty"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Spec:
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    return load(path)


@pytest.fixture(scope="module")
def table5() -> Spec:
    (spec,) = Catalog(TABLES).find(["table5"])
    return spec


def cell(plan: Plan, row: str, column: str) -> PlannedCell:
    (spec,) = plan.specs
    return plan.cells_in(spec)[row, column]


def throughput_job(spec: Spec, options: Options, row: str = "one") -> Job:
    job = cell(make_plan([spec], options), row, "speed").job
    assert job is not None
    return job


# Jobs.

settings = st.dictionaries(
    st.sampled_from(["model", "res", "batch", "crop", "ema"]),
    st.text(max_size=8) | st.integers() | st.booleans() | st.floats(allow_nan=False),
    min_size=1,
)


@given(chosen_settings=settings, order=st.randoms(use_true_random=False))
def test_the_order_of_the_settings_does_not_matter(chosen_settings: dict[str, Scalar], order: Random) -> None:
    names = list(chosen_settings)
    order.shuffle(names)
    again = Job.of("throughput", {name: chosen_settings[name] for name in names})
    assert again == Job.of("throughput", chosen_settings)
    assert again.key == Job.of("throughput", chosen_settings).key


@given(chosen_settings=settings, data=st.data())
def test_another_setting_is_another_job(chosen_settings: dict[str, Scalar], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(chosen_settings)))
    value = data.draw(st.integers(min_value=300, max_value=400).filter(lambda value: value != chosen_settings[name]))
    first = Job.of("throughput", chosen_settings).key
    assert Job.of("throughput", {**chosen_settings, name: value}).key != first
    assert (
        Job.of("throughput", {other: chosen_settings[other] for other in chosen_settings if other != name}).key != first
    )


def test_another_kind_or_another_way_of_measuring_is_another_job() -> None:
    job = Job.of("count", {"model": "one", "res": 224})
    other = Job.of("throughput", {"model": "one", "res": 224})
    corrected = Job(kind=job.kind, settings=job.settings, revision=job.revision + 1)
    assert len({job.key, other.key, corrected.key}) == 3


def test_a_key_tells_a_person_what_is_measured_and_can_name_a_folder() -> None:
    job = Job.of("throughput", {"model": "a/b c", "res": 224, "protocol": "paper", "repeats": 30})
    readable, _, digest = job.key.rpartition("-")
    assert readable == "throughput-a_b_c-224-paper"
    assert len(digest) == 10
    assert set(digest) <= set("0123456789abcdef")


def test_a_job_says_in_a_word_what_it_measures() -> None:
    assert str(Job.of("throughput", {"model": "one", "res": 224, "repeats": 30})) == "throughput one at 224"
    assert str(Job.of("dataset", {"data": "cars"})) == "dataset cars"


def test_a_job_gives_its_settings_by_name() -> None:
    job = Job.of("throughput", {"model": "one", "res": 224})
    assert (job["model"], job["res"]) == ("one", 224)


def test_a_whole_number_and_the_same_with_a_point_are_the_same_work(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    head = '[table]\ntitle = "T"\n[column.top1]\nlabel = "top-1"\njob = "evaluate"\nmetric = "top1"\n'
    row = '[row.{0}]\nlabel = "{0}"\nset = {{ model = "m", weights = "w", res = 224, data = "imagenet", crop = {1} }}\n'
    path.write_text(head + row.format("whole", "1") + row.format("point", "1.0"), encoding="utf-8")
    plan = make_plan([load(path)])
    assert len({planned.job.key for planned in plan.cells if planned.job}) == 1


# Which cells share a job.


def test_cells_that_need_the_same_work_share_its_job(mine: Spec) -> None:
    plan = make_plan([mine])
    job = cell(plan, "one", "speed").job
    assert job is not None
    assert [(p.cell.row.key, p.cell.column.key) for p in plan.cells_needing(job)] == [
        ("one", "speed"),
        ("one", "batch"),
        ("one_again", "speed"),
        ("one_again", "batch"),
    ]


def test_each_job_that_can_be_run_comes_once_and_throughput_last(mine: Spec) -> None:
    assert [str(job) for job in make_plan([mine]).jobs] == [
        "count one at 224",
        "count two at 384",
        "throughput one at 224",
        "throughput two at 384",
    ]


def test_a_job_that_is_blocked_is_known_though_it_is_not_run(mine: Spec) -> None:
    plan = make_plan([mine])
    blocked = cell(plan, "one", "top1")
    assert blocked.job is not None
    assert blocked.job not in plan.jobs
    assert blocked.job in plan.all_jobs
    assert set(plan.jobs) < set(plan.all_jobs)


def test_two_tables_that_need_the_same_work_share_it(table5: Spec) -> None:
    (figure,) = Catalog(TABLES).find(["figure1"])
    both = make_plan([table5, figure])
    assert both.jobs == make_plan([table5]).jobs
    assert both.cells_in(figure).keys() == figure.cells.keys()


def test_what_the_spec_leaves_open_has_the_default_of_the_kind(mine: Spec) -> None:
    assert throughput_job(mine, Options()).settings == (
        ("batch", "auto"),
        ("memory", "16GiB"),
        ("model", "one"),
        ("protocol", "paper"),
        ("repeats", 30),
        ("res", 224),
    )


def test_what_the_spec_says_wins_over_the_default(mine: Spec) -> None:
    job = throughput_job(mine, Options(), "two")
    assert (job["batch"], job["memory"]) == ("largest", "8GiB")


# What the command line changes.


def test_the_protocol_of_the_command_line_wins_and_brings_its_own_memory(mine: Spec) -> None:
    job = throughput_job(mine, Options(protocol="modern"))
    assert (job["protocol"], job["memory"]) == ("modern", "all")
    assert job.key != throughput_job(mine, Options()).key
    assert throughput_job(mine, Options(protocol="paper")).key == throughput_job(mine, Options()).key


def test_the_timm_protocol_has_the_arguments_of_timms_script_where_nobody_gives_others(mine: Spec) -> None:
    assert dict(throughput_job(mine, Options(protocol="timm")).settings) == {
        "model": "one",
        "res": 224,
        "protocol": "timm",
        "batch": 256,
        "repeats": 40,
        "step": "inference",
        "precision": "float32",
        "autocast": True,
        "channels_last": False,
        "compile": False,
        "fused_attention": True,
    }
    given = throughput_job(mine, Options(protocol="timm", batch=4, repeats=7))
    assert (given["batch"], given["repeats"]) == (4, 7)


def test_what_a_table_sets_for_timms_protocol_stays_behind_where_another_is_asked_for() -> None:
    (spec,) = Catalog().find(["timm-speed"])
    cell = spec.cell("resnet18", "train_amp_nhwc_pt112_cu113_rtx3090")
    assert dict(make_job(cell, Options(protocol="paper")).settings) == {
        "model": "resnet18",
        "res": 224,
        "protocol": "paper",
        "repeats": 30,
        "batch": "auto",
        "memory": "16GiB",
    }


def test_a_batch_that_is_given_needs_no_cap_on_memory(mine: Spec) -> None:
    for row in ("one", "two"):
        job = throughput_job(mine, Options(batch=64), row)
        assert job["batch"] == 64
        assert "memory" not in dict(job.settings)
        assert throughput_job(mine, Options(batch=64, memory="4GiB"), row) == job


def test_the_largest_batch_keeps_its_cap(mine: Spec) -> None:
    job = throughput_job(mine, Options(batch="largest"))
    assert (job["batch"], job["memory"]) == ("largest", "16GiB")


def test_repeats_and_memory_of_the_command_line_win(mine: Spec) -> None:
    job = throughput_job(mine, Options(repeats=5, memory="4GiB"), "two")
    assert (job["repeats"], job["memory"]) == (5, "4GiB")


def test_the_command_line_changes_no_job_that_does_not_know_the_setting(mine: Spec) -> None:
    options = Options(protocol="modern", batch=64, repeats=5, memory="4GiB")
    assert cell(make_plan([mine], options), "one", "params").job == cell(make_plan([mine]), "one", "params").job


def test_with_throughput_only_the_rest_is_left_out_and_says_so(mine: Spec) -> None:
    plan = make_plan([mine], Options(only=frozenset({"throughput"})))
    assert {job.kind for job in plan.jobs} == {"throughput"}
    assert cell(plan, "one", "params").blocked == "left out: count jobs were not requested"
    assert cell(plan, "one", "params").job is not None
    assert cell(plan, "one", "speed").blocked == ""
    assert cell(plan, "one", "top1").blocked == "needs --data imagenet=PATH"


# Rows and columns.


def shown(plan: Plan) -> tuple[list[str], list[str]]:
    (spec,) = plan.specs
    assert set(plan.cells_in(spec)) == {(row.key, column.key) for row in spec.rows for column in spec.columns}
    return [row.key for row in spec.rows], [column.key for column in spec.columns]


@pytest.mark.parametrize(
    ("patterns", "rows"),
    [
        (("one",), ["one"]),
        (("one*",), ["one", "one_again"]),
        (("Net-*",), ["one", "one_again", "two"]),
        (("net-two",), ["two"]),
        (("t*", "EMPTY"), ["two", "three", "empty"]),
        (("three", "one"), ["one", "three"]),
        (("?wo",), ["two"]),
        (("*",), ["one", "one_again", "two", "three", "empty"]),
    ],
)
def test_rows_are_selected_by_key_or_label_and_keep_the_order_of_the_table(
    mine: Spec, patterns: tuple[str, ...], rows: list[str]
) -> None:
    assert shown(make_plan([mine], Options(rows=patterns)))[0] == rows


@pytest.mark.parametrize(
    ("patterns", "columns"),
    [
        ((), ["name", "params", "speed", "batch", "top1", "trained"]),
        (("im/s",), ["speed"]),
        (("top1", "params"), ["params", "top1"]),
        (("macs",), ["macs"]),
        (("*",), ["name", "params", "speed", "batch", "top1", "trained", "macs"]),
    ],
)
def test_columns_are_selected_likewise_and_extra_ones_only_when_requested(
    mine: Spec, patterns: tuple[str, ...], columns: list[str]
) -> None:
    assert shown(make_plan([mine], Options(columns=patterns)))[1] == columns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(rows=("one", "tow")), "unknown row 'tow'; did you mean 'two'?"),
        (Options(rows=("resnet*",)), "unknown row 'resnet*'; `harness list TABLE` shows what there is"),
        (Options(columns=("spede",)), "unknown column 'spede'; did you mean 'speed'?"),
        (Options(columns=("v2",)), "unknown column 'v2'; `harness list TABLE` shows what there is"),
    ],
)
def test_a_row_or_column_that_no_table_has_is_reported_with_the_nearest(
    mine: Spec, options: Options, message: str
) -> None:
    with pytest.raises(HarnessError) as caught:
        make_plan([mine], options)
    assert str(caught.value) == message


def test_a_row_that_one_of_two_tables_has_is_enough(mine: Spec, table5: Spec) -> None:
    plan = make_plan([mine, table5], Options(rows=("deit_s",), columns=("throughput", "speed")))
    assert [[row.key for row in spec.rows] for spec in plan.specs] == [[], ["deit_s"]]
    assert [str(job) for job in plan.jobs] == ["throughput deit_small_patch16_224 at 224"]


# What keeps a cell empty.


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ("one", "name", "published only; nothing to measure"),
        ("one", "params", ""),
        ("one", "top1", "needs --data imagenet=PATH"),
        ("one", "trained", "needs --train"),
        ("two", "trained", "needs --train (≈ 1,413 V100-hours)"),
        ("two", "top1", "no public weights: lost; needs --train (≈ 1,413 V100-hours)"),
        ("one_again", "top1", "the spec does not set weights of row 'one_again'"),
        ("three", "speed", "the spec does not set res of row 'three'"),
        ("three", "top1", "the spec does not set weights and res of row 'three'"),
        ("empty", "speed", "published only; nothing to measure"),
        ("empty", "top1", "the spec does not set model and weights and res of row 'empty'"),
    ],
)
def test_what_keeps_a_cell_from_being_measured_is_reported(mine: Spec, row: str, column: str, reason: str) -> None:
    assert cell(make_plan([mine]), row, column).blocked == reason


def test_a_1000_epoch_row_of_table_5_has_no_weights_and_says_what_training_costs(table5: Spec) -> None:
    planned = cell(make_plan([table5]), "deit_ti_dist_1000ep", "top1")
    assert planned.blocked == (
        "no public weights: 1000-epoch weights at 224 never released; "
        "nearest public ones: deit_tiny_distilled_patch16_224.fb_in1k; "
        "needs --train (≈ 960 V100-hours) or --allow-nearest"
    )


def test_a_row_of_table_5_with_weights_needs_images(table5: Spec) -> None:
    plan = make_plan([table5])
    needs = "needs --data {}=PATH"
    assert cell(plan, "deit_ti", "top1").blocked == needs.format("imagenet")
    assert cell(plan, "deit_ti", "v2").blocked == needs.format("imagenet-v2")


def test_models_are_counted_and_timed_without_weights(table5: Spec) -> None:
    plan = make_plan([table5])
    for row in table5.rows:
        for column in ("params", "res", "throughput"):
            assert cell(plan, row.key, column).blocked == ""


def test_every_cell_of_every_table_has_a_job_or_a_reason() -> None:
    planned = make_plan(Catalog(TABLES).find(["all"])).cells
    assert planned
    for cell in planned:
        name = (cell.spec, cell.cell.row.key, cell.cell.column.key)
        assert cell.job or cell.blocked or cell.operands, name
        assert not (cell.job and cell.idle), name
        assert not cell.idle or cell.cell.kind is None or not cell.cell.references, name


def test_a_job_has_all_its_kind_requires_and_nothing_that_its_kind_does_not_take() -> None:
    for job in make_plan(Catalog(TABLES).find(["all"])).all_jobs:
        names = {name for name, _ in job.settings}
        assert set(KINDS[job.kind].required) <= names <= set(KINDS[job.kind].settings), job


def test_every_job_has_a_key_of_its_own() -> None:
    jobs = make_plan(Catalog(TABLES).find(["all"])).all_jobs
    assert len({job.key for job in jobs}) == len(jobs)
