"""The command line as users meet it: help, completion, messages, exit codes, settings, pipes, interruptions.

Those of the last part measure two tiny models in processes of their own and take seconds; the others measure nothing.
"""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from rich.cells import cell_len

from docs.generate import CPU_RESULTS
from harness.cli.main import cli, stoppable
from harness.machine import describe, gpus
from harness.plan.plan import make_plan
from harness.run.launch.local import LOADING
from harness.run.launch.slurm import SlurmRecord
from harness.specs import Catalog, load
from harness.specs.catalog import shipped_specs
from harness.specs.kinds import KINDS
from harness.store.store import Store
from tests.commands import Completed, clean_environment, run_harness, start_harness
from tests.fakes import result_of
from tests.test_cluster import FakeSlurm, controller, finish

COMMANDS = (
    *("ab", "baseline", "bundle", "cancel", "check", "compare", "doctor", "figure"),
    *("import", "list", "merge", "plan", "report", "reproduce", "runs", "status", "trend", "why"),
)


NOTHING_YET = "note: there is no folder runs/, so there are no results; --runs DIR names another\n"

SPEC = """
[table]
title = "Two tiny models"
[source.paper]
kind = "paper"
cite = "the paper"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 0.1
digits = 2
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "V100 16GB"
[row.vit]
label = "ViT"
set = { model = "test_vit", res = 160 }
paper = { params = 0.4, speed = 1000 }
[row.resnet]
label = "ResNet"
set = { model = "test_resnet", res = 160 }
paper = { params = 0.5 }
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def keep(runs: Path, spec: Path, *, value: float) -> None:
    """Fill a store with results of this machine."""
    here = replace(describe("cpu"), threads=1)
    for job in make_plan([load(spec)]).jobs:
        Store(runs).save(result_of(job, machine=here, value=value))


# Help and what there is.


def test_help_names_every_command(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    sections = ran.stdout.partition("\nTables:")[2].partition("\nExamples:")[0]
    assert tuple(sorted(re.findall(r"^  ([a-z]+)  ", sections, re.MULTILINE))) == COMMANDS


def test_without_a_command_the_help_is_shown_and_the_usage_is_wrong(tmp_path: Path) -> None:
    ran = run_harness(tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == run_harness(tmp_path, "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    ran = run_harness(tmp_path, command, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: harness {command} ")
    assert ran.stdout.splitlines()[2].strip()


def options_of(command: click.Command) -> Iterator[click.Option]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter
    for subcommand in getattr(command, "commands", {}).values():
        yield from options_of(subcommand)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    assert [option.opts for option in options_of(cli.commands[command]) if not option.help] == []


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_one_line(tmp_path: Path, option: str) -> None:
    ran = run_harness(tmp_path, option)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"harness, version \d+\.\d+\.\d+\S*\n", ran.stdout)


def test_list_has_a_line_for_each_table_and_list_table_one_for_each_row_and_column(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "list")
    assert (ran.returncode, ran.stderr) == (0, "")
    heading, *lines = ran.stdout.splitlines()
    assert heading.split() == ["table", "paper", "rows", "×", "columns", "jobs", "title"]
    names = [line.split()[0] for line in lines]
    assert sorted(names) == sorted(path.stem for path in shipped_specs().glob("*.toml"))
    assert names[:10] == [f"table{number}" for number in range(1, 11)]
    ran = run_harness(tmp_path, "list", "table5")
    assert (ran.returncode, ran.stderr) == (0, "")
    data = tomllib.loads((shipped_specs() / "table5.toml").read_text(encoding="utf-8"))
    assert {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("  ")} == {
        *data["column"],
        *data["row"],
    }


def test_plan_counts_the_distinct_jobs_of_a_table(tmp_path: Path) -> None:
    data = tomllib.loads((shipped_specs() / "table5.toml").read_text(encoding="utf-8"))
    models = {(row["set"]["model"], row["set"]["res"]) for row in data["row"].values()}
    ran = run_harness(tmp_path, "plan", "table5", "--device", "cpu")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"\ncount: {len(models)} distinct jobs, 0 measured already\n" in ran.stdout
    assert f"\nthroughput: {len(models)} distinct jobs, 0 measured already\n" in ran.stdout
    listed = ran.stdout.partition("\nthroughput: ")[0].splitlines()
    assert sum(bool(re.match(r"  \w+ at \d+  ", line)) for line in listed) == len(models)
    assert not (tmp_path / "runs").exists()


WIDE = [
    ("list",),
    ("list", "table5"),
    ("list", "timm-speed"),
    ("list", "--edition", "icml"),
    ("plan", "table5", "--device", "cpu"),
    ("plan", "timm-speed", "--device", "cpu"),
    ("plan", "table3", "--train", "--scale", "proxy", "--rows", "class_distil", "--device", "cpu"),
    ("plan", "table4", "--device", "cpu", "--data", "imagenet=x"),
    ("runs", "list"),
]


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("command", WIDE, ids=" ".join)
def test_no_line_of_a_list_is_wider_than_the_window_and_no_word_is_lost(
    tmp_path: Path, mine: Path, command: tuple[str, ...], width: int
) -> None:
    if command[0] == "runs":
        keep(tmp_path / "runs", mine, value=100.0)
    whole = run_harness(tmp_path, *command)
    ran = run_harness(tmp_path, *command, COLUMNS=str(width))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line for line in ran.stdout.splitlines() if len(line) > width] == []
    if command[0] == "plan":
        # Words that are wider than their column are broken, and blocks of columns interleave their lines.
        assert sorted("".join(ran.stdout.split())) == sorted("".join(whole.stdout.split()))


@pytest.mark.parametrize("width", [60, 80])
def test_the_names_of_tables_and_models_are_whole_in_a_narrow_window(tmp_path: Path, width: int) -> None:
    listed = run_harness(tmp_path, "list", COLUMNS=str(width)).stdout.splitlines()
    names = [line.split()[0] for line in listed[1:] if not line.startswith(" ")]
    assert sorted(names) == sorted(path.stem for path in shipped_specs().glob("*.toml"))
    planned = run_harness(tmp_path, "plan", "table5", "--device", "cpu", COLUMNS=str(width)).stdout
    assert [name for name in models_of("table5") if not re.search(rf"^  {name}( |$)", planned, re.MULTILINE)] == []


def models_of(table: str) -> set[str]:
    data = tomllib.loads((shipped_specs() / f"{table}.toml").read_text(encoding="utf-8"))
    return {row["set"]["model"] for row in data["row"].values()}


def test_in_a_narrow_window_runs_are_a_table_of_short_ids_under_their_machine(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=100.0)
    ran = run_harness(tmp_path, "runs", "list", COLUMNS="80")
    title, heading, *lines = ran.stdout.splitlines()
    assert title == f"measured on {replace(describe('cpu'), threads=1).label}"
    assert heading.split() == ["run", "age", "outcome", "job"]
    ids = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert len(set(ids)) == len(ids) == 4
    for run in ids:  # each is enough to find the run
        assert run_harness(tmp_path, "runs", "show", run).returncode == 0


def test_plan_shows_which_jobs_are_measured_already(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=100.0)
    ran = run_harness(tmp_path, "plan", "mine.toml", "--device", "cpu")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[1:7] == [
        "",
        "count: 2 distinct jobs, 2 measured already",
        "  fill #param. of mine",
        "  job                 state            rows",
        "  test_vit at 160     measured in 2 s  ViT",
        "  test_resnet at 160  measured in 2 s  ResNet",
    ]


def test_plan_lists_the_seeds_of_a_training_together_with_the_changes_of_its_row(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "plan", "table3", "--train", "--scale", "proxy", "--device", "cpu")
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("  train deit_tiny") and "=soft" in line]
    assert line == (
        "  train deit_tiny_patch16_224 deit-ti digits at 32 with distillation=soft  "
        "(taught by train regnety_002 regnety-16gf digits at 32), seeds 1, 2, 3  to do  "
        "for table3 DeiT– usual distillation: Ti 224"
    )


def test_plan_lists_what_an_adapted_teacher_starts_from_and_whom_it_teaches(tmp_path: Path) -> None:
    cell = ("--rows", "class_distil", "--columns", "b_384", "--data", "imagenet=x")
    ran = run_harness(tmp_path, "plan", "table3", "--train", "--device", "cpu", *cell)
    student = "train deit_base_distilled_patch16_224"
    origin = f"from {student} deit-b-distilled imagenet at 224; taught by train regnety_160 fixres imagenet at 384"
    assert [line.partition(", seed 1")[0] for line in ran.stdout.splitlines() if line.startswith("  train ")] == [
        f"  {student} deit-b-distilled imagenet at 224  (taught by regnety_160.deit_in1k)",
        "  train regnety_160 fixres imagenet at 384  (from regnety_160.deit_in1k)",
        f"  {student} deit-b-distilled-finetune imagenet at 384  ({origin})",
    ]


def test_the_cost_of_training_does_not_depend_on_whether_the_data_is_named(tmp_path: Path) -> None:
    plan = ("plan", "table2", "--train", "--device", "cpu")
    without = run_harness(tmp_path, *plan).stdout
    named = run_harness(tmp_path, *plan, "--data", "imagenet=x").stdout
    (cost,) = [line for line in named.splitlines() if line.startswith("training: ")]
    # By hand: 424 V100-hours for each of five students at 224, 160 for each at 384.
    # Nor is the cost of three teachers published, or of adapting all four that are convnets.
    assert cost == "training: 10 of known cost, ≈ 2,920 V100-hours; 7 more whose cost was not published"
    assert cost in without.splitlines()


def test_all_tables_can_be_planned_and_reported_at_once(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "plan", "all", "--device", "cpu")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = run_harness(tmp_path, "report", "all")
    assert (ran.returncode, ran.stderr) == (0, NOTHING_YET)
    titles = [spec.title for spec in Catalog().find(["all"])]
    assert [title for title in titles if title not in ran.stdout] == []


# Completion.


def completed(*arguments: str, last: str = "") -> list[str]:
    return [item.value for item in ShellComplete(cli, {}, "harness", "").get_completions(list(arguments), last)]


def test_the_shell_completes_commands_and_tables_and_leaves_paths_to_itself() -> None:
    assert completed(last="re") == ["report", "reproduce"]
    assert completed("report", last="table1") == ["table1", "table10"]
    assert completed("report", "table5", last="figure") == completed("figure", last="figure") == ["figure1", "figure3"]
    (item,) = ShellComplete(cli, {}, "harness", "").get_completions(["report"], "./mi")
    assert (item.type, item.value) == ("file", "./mi")


def test_the_shell_completes_rows_and_columns_of_the_tables_in_hand(mine: Path) -> None:
    assert completed("plan", str(mine), "--rows") == ["vit", "resnet"]
    assert completed("plan", str(mine), "--rows", last="resnet,v") == ["resnet,vit"]
    assert completed("plan", str(mine), "--rows", last="vit,") == ["vit,resnet"]
    assert completed("plan", str(mine), "--columns") == ["params", "speed"]
    assert completed("report", "--edition", "icml", "table6", "--columns", last="c") == ["cifar10", "cifar100", "cars"]
    assert completed("plan", "table0", "--rows") == completed("plan", "--rows") == []


def test_the_shell_completes_kinds_of_jobs() -> None:
    assert completed("plan", "table5", "--only", last="count,t") == [
        *("count,throughput", "count,train-speed", "count,tokens", "count,train"),
    ]
    assert completed("runs", "list", "--kind", last="ag") == ["agreement"]


@pytest.mark.parametrize("command", [[], ["runs"]], ids=["harness", "runs"])
def test_no_line_of_the_help_is_cut_off(tmp_path: Path, command: list[str]) -> None:
    commands = run_harness(tmp_path, *command, "--help").stdout.partition("-h, --help")[2].partition("Examples:")[0]
    assert commands.count("\n") > len(command)
    assert "..." not in commands


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_help_shows_how_completion_is_switched_on(tmp_path: Path, shell: str) -> None:
    assert f"_HARNESS_COMPLETE={shell}_source harness" in run_harness(tmp_path, "--help").stdout
    script = run_harness(tmp_path, _HARNESS_COMPLETE=f"{shell}_source")
    assert script.returncode == 0
    assert f"_HARNESS_COMPLETE={shell}_complete" in script.stdout


# Reports and figures from the results there are.


def test_without_results_a_report_names_what_is_missing(tmp_path: Path, mine: Path) -> None:
    ran = run_harness(tmp_path, "report", "mine.toml")
    assert (ran.returncode, ran.stderr) == (0, NOTHING_YET)
    assert ran.stdout == (
        "mine  Two tiny models\n"
        "None of 4 values is measured.\n"
        "This is what was published.\n"
        "\n"
        "         #param., M   speed, im/s\n"
        "──────   ──────────   ───────────\n"
        "ViT             0.4          1000\n"
        "ResNet          0.5\n"
        "\n"
        "– missing: #param., speed of ViT, ResNet: not measured yet; `harness reproduce mine.toml` measures it\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_report_of_what_nobody_can_measure_does_not_ask_for_results(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "report", "author-statements")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[1] == "Nothing here is to be measured."


def test_a_figure_of_two_columns_is_named_by_them_and_may_have_extra_ones(tmp_path: Path) -> None:
    ran = run_harness(
        tmp_path, "figure", "table5", "--x", "macs", "--y", "top1", "--runs", str(CPU_RESULTS), "--pareto"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "figures/table5-macs-top1.png\n", "")
    assert (tmp_path / "figures" / "table5-macs-top1.png").read_bytes().startswith(b"\x89PNG")


def test_without_results_a_figure_has_the_published_points(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "figure", "figure1")
    note = "note: no measured points in runs/: published values only\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "figures/figure1.png\n", note)
    assert (tmp_path / "figures" / "figure1.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_shows_what_the_store_has(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "kept", mine, value=0.42)
    ran = run_harness(tmp_path, "report", "mine.toml", "--runs", "kept")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[1] == "2 of 4 values judged: 2 match; 2 not comparable."
    assert lines[2].startswith(f"Measured on {replace(describe('cpu'), threads=1).label}; torch ")
    speed = ["0.420", "±", "0.004"]
    assert [line.split() for line in lines[8:10]] == [
        ["ViT", "0.42", "0.4", "+0.02", "✓", "match", *speed, "1000", "2381×", "slower", "·", "not", "comparable"],
        ["ResNet", "0.42", "0.5", "−0.08", "✓", "match", *speed, "·", "not", "comparable"],
    ]


@pytest.mark.parametrize(("form", "begins"), [("json", "{\n"), ("markdown", "### mine")])
def test_a_report_can_be_written_to_a_file(tmp_path: Path, mine: Path, form: str, begins: str) -> None:
    keep(tmp_path / "runs", mine, value=0.42)
    printed = run_harness(tmp_path, "report", "mine.toml", "--format", form)
    written = run_harness(tmp_path, "report", "mine.toml", "--format", form, "-o", "new/report")
    assert (written.returncode, written.stdout, written.stderr) == (0, "new/report\n", "")
    assert printed.stdout.startswith(begins)
    assert (tmp_path / "new" / "report").read_text(encoding="utf-8") == printed.stdout


def test_a_damaged_result_is_named_by_a_report(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=0.42)
    (path,) = (tmp_path / "runs").glob("count-test_vit-*/*.json")
    path.write_text("{}")
    ran = run_harness(tmp_path, "report", "mine.toml")
    path_shown = path.relative_to(tmp_path)
    assert ran.returncode == 0
    assert ran.stderr == (
        f"warning: {path_shown}: is not a result; set aside as {path.name}.damaged and measured again when requested\n"
    )
    assert ran.stdout.splitlines()[1] == "1 of 4 values judged: 1 match; 2 not comparable, 1 missing."


def test_icmls_table_6_is_arxivs_table_7(tmp_path: Path) -> None:
    spellings = [["icml:table6"], ["table6", "--edition", "icml"], ["icml:6"]]
    first, *others = [run_harness(tmp_path, "report", *arguments) for arguments in spellings]
    assert first.stdout.splitlines()[0] == "Table 6 (ICML)  Transfer learning from ImageNet pre-training"
    assert [(other.returncode, other.stdout) for other in others] == [(0, first.stdout)] * 2
    arxiv = run_harness(tmp_path, "report", "table7")
    assert arxiv.stdout.splitlines()[0] == "Table 7  Transfer learning from ImageNet pre-training"


def test_a_bug_ends_with_its_traceback_and_a_code_that_no_verdict_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cli.listing.resolve_target", lambda device: 1 // 0)
    ran = run_harness(tmp_path, "plan", "table5")
    assert (ran.returncode, ran.stdout) == (70, "")
    first, *_, error, request = ran.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert error.startswith("ZeroDivisionError: ")
    assert request == (
        "error: this is a bug in the harness; please report it with the lines above and `harness doctor`"
    )


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("reproduc table5", "unknown command 'reproduc'; did you mean 'reproduce'?"),
        ("frobnicate", "unknown command 'frobnicate'"),
        ("report tabel5", "unknown table 'tabel5'; did you mean 'table5'? `harness list` shows them all"),
        ("list nothing", "unknown table 'nothing'; `harness list` shows them all"),
        (
            "report icml:table9",
            "the ICML edition has no 'icml:table9'; `harness list --edition icml` shows what it has",
        ),
        ("plan table5 --rows deit_tii", "unknown row 'deit_tii'; did you mean 'deit_ti'?"),
        ("plan table5 --rows DEIT_TII", "unknown row 'DEIT_TII'; did you mean 'deit_ti'?"),
        ("plan table5 --rows zzz", "unknown row 'zzz'; `harness list TABLE` shows what there is"),
        ("plan table5 --columns througput", "unknown column 'througput'; did you mean 'throughput'?"),
        (
            "plan table5 --batch x",
            "Invalid value for '--batch': 'x' is not auto, largest or a batch size",
        ),
        (
            "plan table5 --batch 0",
            "Invalid value for '--batch': '0' is not auto, largest or a batch size",
        ),
        (
            "plan table5 --memory much",
            "Invalid value for '--memory': memory 'much' is not an amount; write it as 16GiB, 16GB or all",
        ),
        ("plan table5 --repeats 1", "Invalid value for '--repeats': '1' is not a whole number of at least 2"),
        (
            "plan table5 --only coutn",
            "Invalid value for '--only': unknown kind of job 'coutn'; did you mean 'count'?",
        ),
        (
            "plan table5 --only foo",
            "Invalid value for '--only': unknown kind of job 'foo'; they are " + ", ".join(KINDS),
        ),
        ("plan table5 --device gpu", "--device gpu: not a device; write auto, cpu, cuda or cuda:N"),
        ("reproduce table5 --device cuda:x", "--device cuda:x: not a device; write auto, cpu, cuda or cuda:N"),
        ("report mine.toml --runs taken", "--runs taken: is a file, not a folder; name the folder of the results"),
        ("figure figure1 --runs taken", "--runs taken: is a file, not a folder; name the folder of the results"),
        (
            "reproduce mine.toml --device cpu --runs taken",
            "--runs taken: is a file, not a folder; name another folder",
        ),
        (
            "report other.toml",
            "other.toml: cannot be read (No such file or directory); name a table or a spec file",
        ),
        ("report bad.toml", "bad.toml:24: unknown column 'speeed'; did you mean 'speed'?"),
        ("report mine.toml -o folder", "-o folder: Is a directory; name another file"),
        (
            "figure table5",
            (
                "'table5' has no axes, so it is not drawn; `harness report table5` prints it, "
                "--chart runs or ratios draws its throughput, --chart curves or losses draws its trainings"
            ),
        ),
        *(
            (
                f"reproduce table5 --device cpu {option}",
                f"{option.partition(' ')[0]} is about a cluster; add --launcher slurm",
            )
            for option in ("--detach", "--partition gpu", "--job-memory 4GiB", "--sbatch x=1", "--nodes 1")
        ),
        (
            "figure table5 --chart layers",
            (
                "--chart layers: 'table5' has no data for that; "
                "it can be drawn as runs or ratios or curves or losses or trend"
            ),
        ),
        (
            "figure table5 --chart runs",
            "no throughput of 'table5' was measured yet; run `harness reproduce table5 --throughput-only`",
        ),
        (
            "figure figure3 --points ours",
            (
                "nothing of 'figure3' was measured yet, so there is nothing of ours to draw; "
                "run `harness reproduce figure3`, or draw the paper's with --points published"
            ),
        ),
        (
            "figure table8 --x pretrained --y finetune",
            ("--y finetune: the columns of numbers of 'table8' are pretrained, finetuned; did you mean 'finetuned'?"),
        ),
        (
            "figure table5 --x params --y top1 --chart runs",
            "--chart runs: has no columns on its axes; leave out --chart, or --x and --y",
        ),
        (
            "figure figure1 -o figure1.jpg",
            "-o figure1.jpg: a figure is written as .png, .svg, .pdf; choose one by the suffix",
        ),
    ],
    ids=lambda value: value if len(value) < 40 else "",
)
def test_a_mistake_is_answered_in_one_sentence(tmp_path: Path, mine: Path, arguments: str, sentence: str) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder").mkdir()
    bad = SPEC.replace("paper = { params = 0.4, speed = 1000 }", "paper = { params = 0.4, speeed = 1000 }")
    (tmp_path / "bad.toml").write_text(bad, encoding="utf-8")
    ran = run_harness(tmp_path, *arguments.split())
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {sentence}\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("report table5 --bach 3", ["No such option", "--bach", "--batch"]),
        ("report table5 --edition cvpr", ["--edition", "cvpr", "arxiv", "icml"]),
        ("report table5 --format xml", ["--format", "xml", "terminal", "markdown", "csv", "json"]),
        ("plan table5 --protocol old", ["--protocol", "old", "paper", "modern"]),
        ("plan table5 --repeats many", ["--repeats", "many"]),
    ],
)
def test_a_mistake_that_click_finds_is_answered_in_one_line(tmp_path: Path, arguments: str, parts: list[str]) -> None:
    # In click's words, which change from version to version.
    ran = run_harness(tmp_path, *arguments.split())
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert [part for part in parts if part not in ran.stderr] == []


@pytest.mark.skipif(bool(gpus()), reason="needs a machine without a GPU")
def test_without_a_gpu_cuda_is_refused(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "reproduce", "table5", "--device", "cuda")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: --device cuda: no NVIDIA driver answers on this machine; use --device cpu\n"


def test_every_mistake_of_a_spec_has_its_line(tmp_path: Path) -> None:
    bad = SPEC.replace('unit = "M"', "unti = 'M'").replace('job = "throughput"', 'job = "througput"')
    (tmp_path / "bad.toml").write_text(bad, encoding="utf-8")
    ran = run_harness(tmp_path, "report", "bad.toml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: bad.toml:11: unknown key 'unti' in [column.params]; did you mean 'unit'?\n"
        "error: bad.toml:16: unknown kind of job 'througput'; did you mean 'throughput'?\n"
    )


# Settings of the folder and of the environment.


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("btach = 8", "harness.toml:1: unknown setting 'btach'; did you mean 'batch'?"),
        ("form = 'json'", "harness.toml:1: unknown setting 'form'; did you mean 'format'?"),
        ("batch = 'x'", "harness.toml: Invalid value for '--batch': 'x' is not auto, largest or a batch size"),
    ],
)
def test_a_mistake_in_harness_toml_is_answered_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "harness.toml").write_text(text, encoding="utf-8")
    ran = run_harness(tmp_path, "plan", "table5", "--device", "cpu")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {sentence}\n")


def test_a_harness_toml_that_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text("batch = 8\nrepeats = 5 5\n")
    ran = run_harness(tmp_path, "list")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: harness.toml:2: not TOML: Expected newline or end of document after a statement\n"


def measured(ran: Completed) -> list[float]:
    assert (ran.returncode, ran.stderr) == (0, "")
    return [cell["measured"] for cell in json.loads(ran.stdout)["cells"]]


def test_harness_toml_is_the_default_a_variable_beats_it_and_the_command_line_beats_both(
    tmp_path: Path, mine: Path
) -> None:
    for name, value in (("runs", 1.0), ("of_file", 2.0), ("of_variable", 3.0), ("of_line", 4.0)):
        keep(tmp_path / name, mine, value=value)
    report = ("report", "mine.toml", "--columns", "params", "--format", "json")
    assert measured(run_harness(tmp_path, *report)) == [1.0, 1.0]
    (tmp_path / "harness.toml").write_text('runs = "of_file"')
    assert measured(run_harness(tmp_path, *report)) == [2.0, 2.0]
    assert measured(run_harness(tmp_path, *report, HARNESS_RUNS="of_variable")) == [3.0, 3.0]
    assert measured(run_harness(tmp_path, *report, "--runs", "of_line", HARNESS_RUNS="of_variable")) == [4.0, 4.0]


def test_harness_toml_takes_every_form_of_setting(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=1.0)
    text = 'rows = ["vit", "resnet"]\ncolumns = "params"\nformat = "json"\nbatch = 8\nthroughput-only = true\n'
    (tmp_path / "harness.toml").write_text(text)
    assert measured(run_harness(tmp_path, "report", "mine.toml")) == [1.0, 1.0]
    assert measured(run_harness(tmp_path, "report", "mine.toml", "--rows", "vit")) == [1.0]
    planned = run_harness(tmp_path, "plan", "mine.toml", "--columns", "*", "--device", "cpu")
    assert planned.returncode == 0
    assert "batch=8" in planned.stdout
    assert "  left out: count jobs were not requested: 2 in mine; distinct jobs: 2\n" in planned.stdout


# Terminals and pipes.


def in_a_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command writes to a terminal of 90 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
    surrounding = clean_environment(folder, **{"TERM": "xterm-256color", **environment})
    surrounding.pop("COLUMNS", None)
    command = [sys.executable, "-m", "harness", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, env=surrounding) as process:
        os.close(theirs)
        output = b"".join(_read(ours))
        assert process.wait(60) == 0
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other end is closed
            return
        if not block:
            return
        yield block


def test_a_terminal_gets_colours_and_its_own_width(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "runs").mkdir()
    meanwhile, shown = in_a_terminal(tmp_path, "report", "mine.toml").rsplit("\r", 1)
    assert meanwhile == f"reading runs/…\r{'':14}"
    assert shown.startswith("\x1b[1mmine  Two tiny models\x1b[0m\n")
    bare = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert max(map(cell_len, bare.splitlines())) <= 90
    piped = run_harness(tmp_path, "report", "mine.toml", COLUMNS="90").stdout
    assert [line.rstrip() for line in bare.splitlines()] == piped.splitlines()


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_gets_no_colours_where_they_are_disabled(
    tmp_path: Path, mine: Path, variable: dict[str, str]
) -> None:
    assert "\x1b" not in in_a_terminal(tmp_path, "report", "mine.toml", **variable)


def test_an_empty_no_color_disables_nothing(tmp_path: Path, mine: Path) -> None:
    assert "\x1b[1m" in in_a_terminal(tmp_path, "report", "mine.toml", NO_COLOR="")


@pytest.mark.parametrize("form", ["terminal", "markdown", "json"])
def test_a_pipe_gets_no_escape_codes(tmp_path: Path, mine: Path, form: str) -> None:
    keep(tmp_path / "runs", mine, value=0.42)
    ran = run_harness(tmp_path, "report", "mine.toml", "--format", form, FORCE_COLOR="1", TERM="xterm-256color")
    assert ran.returncode == 0
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("arguments", ["list", "plan all --device cpu", "report table5", "report table5 --format json"])
def test_a_closed_pipe_is_no_error(tmp_path: Path, arguments: str) -> None:
    (tmp_path / "runs").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environment(tmp_path),
    )
    assert process.stdout
    process.stdout.close()  # before it writes, as `| head -1` may
    assert process.stderr
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), stderr) == (0, b"")


# Jobs on a cluster, which is a fake; tests/test_slurm.py has a real one.


def test_status_lists_jobs_by_state_and_cancel_ends_those_that_are_open(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = FakeSlurm()
    monkeypatch.setattr("harness.run.launch.slurm.Slurm", lambda: slurm)
    nothing = run_harness(tmp_path, "status")
    assert nothing == Completed(returncode=0, stdout="runs/: nothing was submitted from here\n", stderr="")
    controller(tmp_path, slurm).run(make_plan([load(mine)]), detach=True)
    slurm.queue["101_0"] = SlurmRecord(state="RUNNING", node="node1")
    ran = run_harness(tmp_path, "status")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "pending   100        count test_vit at 160: Priority",
        "pending   100        count test_resnet at 160: Priority",
        "pending   101_1      throughput test_resnet at 160: Priority",
        "running   101_0      throughput test_vit at 160 on node1",
        "3 pending, 1 running",
    ]
    finish(slurm, Store(tmp_path / "runs"), "100", error="out of memory")
    ran = run_harness(tmp_path, "status")
    assert ran.returncode == 3
    assert ran.stdout.splitlines()[2] == "failed    100        count test_vit at 160: out of memory"
    assert re.fullmatch(r" {21}log runs/\S+", ran.stdout.splitlines()[3])
    assert ran.stdout.splitlines()[-1] == "1 pending, 1 running, 2 failed"
    ran = run_harness(tmp_path, "cancel")
    assert ran.stdout == "2 jobs cancelled; what is done is kept\n"
    assert run_harness(tmp_path, "status").stdout.splitlines()[-1] == "2 failed, 2 cancelled"


# Two tiny models, measured for real.

REPRODUCE = ("reproduce", "./mine.toml", "--repeats", "5", "--device", "cpu")


def measure(folder: Path, *more: str) -> Completed:
    return start_harness(folder, *REPRODUCE, *more)


def results(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/*.json"))


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as the leader of a session of its own, so that its children can be told from others."""
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=clean_environment(folder),
        start_new_session=True,
        # A test run in the background ignores Ctrl-C, and its children with it.
        preexec_fn=_listen_to_ctrl_c,  # noqa: PLW1509 -- no threads here
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a failing test leaves


def processes_of(session: int) -> dict[int, str]:
    """The command lines of the living processes of a session, by process."""
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, leader, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(leader) == session and state != "Z":
                processes[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
    return processes


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    assert process.stderr
    text = ""
    for line in process.stderr:
        text += line
        if line.startswith(beginning):
            return text
    raise AssertionError(f"{beginning!r} was never printed, but: {text}")


def test_what_is_missing_is_measured_once_and_what_is_damaged_again(tmp_path: Path, mine: Path) -> None:
    first = measure(tmp_path)
    assert first.returncode == 0
    assert [line.partition(":")[0] for line in first.told.splitlines()] == [
        "[1/4] count test_vit at 160",
        "[2/4] count test_resnet at 160",
        "[3/4] throughput test_vit at 160",
        "[4/4] throughput test_resnet at 160",
    ]
    lines = first.stdout.splitlines()
    assert lines[0] == "mine  Two tiny models"
    assert lines[1] == "2 of 4 values judged: 2 match; 2 not comparable."
    assert [line.split()[:3] for line in lines[8:10]] == [["ViT", "0.37", "0.4"], ["ResNet", "0.47", "0.5"]]
    assert lines[-1] == "jobs: 4 measured, 0 known already.  runs/"
    kept = {path: path.read_bytes() for path in results(tmp_path)}
    assert len(kept) == 4
    speeds = [json.loads(text) for path, text in kept.items() if path.parent.name.startswith("throughput")]
    assert [len(speed["metrics"]["throughput"]["samples"]) for speed in speeds] == [5, 5]
    assert [speed["facts"]["threads"] for speed in speeds] == [1, 1]

    again = measure(tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[:-1] == lines[:-1]
    assert again.stdout.splitlines()[-1] == "jobs: 0 measured, 4 known already.  runs/"
    assert {path: path.read_bytes() for path in results(tmp_path)} == kept

    damaged = next(path for path in kept if path.parent.name.startswith("count-test_vit"))
    damaged.write_bytes(kept[damaged][:100])
    mended = measure(tmp_path)
    assert mended.returncode == 0
    path_shown = damaged.relative_to(tmp_path)
    lines = mended.told.splitlines()
    assert lines[0] == "[1/1] count test_vit at 160: params 0.3712 M, macs 0.03764 GMAC"
    assert re.fullmatch(
        re.escape(f"warning: {path_shown}: is not complete JSON (")
        + r".*"
        + re.escape(f"); set aside as {damaged.name}.damaged and measured again when requested"),
        lines[1],
    )
    assert lines[2:] == []
    assert mended.stdout.splitlines()[1] == "2 of 4 values judged: 2 match; 2 not comparable."
    assert mended.stdout.splitlines()[-1] == "jobs: 1 measured, 3 known already.  runs/"


def test_an_unknown_model_is_refused_before_anything_is_measured(tmp_path: Path, mine: Path) -> None:
    mine.write_text(SPEC.replace("test_resnet", "test_resnett"), encoding="utf-8")
    ran = measure(tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(
        r"error: mine\.toml: row 'resnet': timm \S+ knows no model 'test_resnett'; did you mean 'test_resnet'\?\n",
        ran.told,
    )
    assert results(tmp_path) == []


def test_explanations_are_refused_in_a_format_without_a_place_for_them(tmp_path: Path, mine: Path) -> None:
    ran = run_harness(tmp_path, "report", mine.name, "--explain", "--format", "csv")
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        2,
        "",
        "error: --explain: CSV has one line a cell and no place for explanations; add --format json, or leave it out\n",
    )


@pytest.mark.parametrize("command", ["report", "figure"])
def test_a_named_folder_of_results_that_does_not_exist_is_refused(tmp_path: Path, command: str) -> None:
    ran = run_harness(tmp_path, command, "figure1", "--runs", "gone")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: --runs gone: there is no such folder; name that of the results\n"


def test_a_model_that_does_not_run_fails_alone(tmp_path: Path, mine: Path) -> None:
    mine.write_text(SPEC.replace('"test_vit", res = 160', '"test_vit", res = 50'), encoding="utf-8")
    ran = measure(tmp_path, "--columns", "params")
    reason = "'test_vit' has patches of 16 pixels, which do not divide 50; choose a multiple"
    assert ran.returncode == 3
    assert ran.told == (
        f"[1/2] count test_vit at 50: failed: {reason}\n"
        "[2/2] count test_resnet at 160: params 0.4697 M, macs 0.1025 GMAC\n"
    )
    lines = ran.stdout.splitlines()
    assert lines[1] == "1 of 2 values judged: 1 match; 1 failed."
    assert [line.split() for line in lines[8:10]] == [
        ["ViT", "0.4", "!", "failed"],
        ["ResNet", "0.47", "0.5", "−0.03", "✓", "match"],
    ]
    assert lines[10:] == [
        "",
        f"! failed: #param. of ViT: {reason}",
        "jobs: 1 measured, 1 failed, 0 known already.  runs/",
    ]
    assert [json.loads(path.read_text())["error"] for path in results(tmp_path)] == [None, reason]


INTERRUPTED = "interrupted before it was measured; what is finished is kept, and the same command goes on from here"
GO_ON = "interrupted: what is finished is kept; the same command goes on from here\n"


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path: Path, mine: Path) -> None:
    with started(tmp_path, *REPRODUCE) as process:
        first = read_until(process, "[1/")
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first == f"{LOADING}\n[1/4] count test_vit at 160: params 0.3712 M, macs 0.03764 GMAC\n"
    *others, last = stderr.splitlines(keepends=True)
    assert last == GO_ON
    assert [line for line in others if not line.startswith("[")] == []
    lines = stdout.splitlines()
    assert lines[0] == "mine  Two tiny models"
    assert next(line for line in lines if line.startswith("ViT")).split()[:3] == ["ViT", "0.37", "0.4"]
    assert any(line.startswith("– missing: ") and line.endswith(f": {INTERRUPTED}") for line in lines)
    assert "harness reproduce" not in stdout
    assert lines[-1] == f"jobs: {1 + len(others)} measured, 0 known already.  runs/"
    finished = len(results(tmp_path))  # one more may have been saved before the command heard of it
    assert 1 + len(others) <= finished < 4
    after = measure(tmp_path)
    assert after.returncode == 0
    assert after.stdout.splitlines()[-1] == f"jobs: {4 - finished} measured, {finished} known already.  runs/"


def test_a_command_is_stopped_by_sigterm_as_by_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_while_torch_is_imported_leaves_no_traceback(tmp_path: Path, mine: Path) -> None:
    with started(tmp_path, *REPRODUCE) as process:
        give_up = time.monotonic() + 20
        while not any("forkserver" in command for command in processes_of(process.pid).values()):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, f"{LOADING}\n{GO_ON}")
    assert stdout.splitlines()[1] == "None of 4 values is measured."
    assert stdout.splitlines()[-1] == "jobs: 0 measured, 0 known already.  runs/"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_process_behind_and_the_next_one_goes_on(tmp_path: Path, mine: Path) -> None:
    with started(tmp_path, *REPRODUCE) as process:
        read_until(process, "[2/")
        time.sleep(0.5)  # now it measures the throughput of the first model, whose warm-up alone lasts a second
        assert len(processes_of(process.pid)) >= 4  # the command, Python's resource tracker, fork server, worker
        process.kill()
        process.wait()
        give_up = time.monotonic() + 30  # the fork server takes a second to tear torch down, more on a busy machine
        while processes_of(process.pid) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert processes_of(process.pid) == {}
    finished = len(results(tmp_path))
    assert finished == 2
    assert list((tmp_path / "runs").glob("*/.*")) == []
    after = measure(tmp_path)
    assert after.returncode == 0
    assert [line.partition(":")[0] for line in after.told.splitlines()] == [
        "[1/2] throughput test_vit at 160",
        "[2/2] throughput test_resnet at 160",
    ]
    assert after.stdout.splitlines()[-1] == "jobs: 2 measured, 2 known already.  runs/"
