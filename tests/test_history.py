"""The commands `compare` and `runs`: output, refusals, and the runs that a prune keeps."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from harness.cli.runs import HEADS
from harness.errors import StoreError
from harness.judge.compare import Evaluation
from harness.machine import Machine
from harness.plan.job import Job
from harness.store.predictions import HEADS as HEADS_OF_PREDICTIONS
from harness.store.predictions import write
from harness.store.result import Measurement, Result, new_id
from harness.store.store import Store, superseded
from tests.commands import Command, Completed, run_harness
from tests.evaluations import FOUR, NAMES, SIX, evaluation, lite, result_of_evaluation, tiny
from tests.fakes import H200, LAPTOP, V100, VERSIONS, result_of

SPEED = Job.of("throughput", {"model": "resnet18", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"})
COUNT = Job.of("count", {"model": "resnet18", "res": 224})

TINY, LITE = "20261121T120000000000Z-00000000", "20261121T120100000000Z-00000001"


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return partial(run_harness, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def keep(store: Store, *sides: Evaluation) -> None:
    for side in sides:
        write(side.predictions, store.predictions_of(side.result))
        store.save(side.result)


def run_of(
    job: Job, number: int, *, error: str | None = None, machine: Machine = LAPTOP, torch: str = "2.15.0"
) -> Result:
    """A result whose id tells its number: a minute each."""
    made = result_of(job, minutes=number, error=error, machine=machine, software={**VERSIONS, "torch": torch})
    return replace(made, id=f"20261121T12{number:02d}00000000Z-{number:08x}")


def ids(store: Store) -> list[str]:
    return [result.id for result in store.all_results()]


# compare


def test_two_runs_are_compared_by_the_beginning_of_their_ids(harness: Command, store: Store) -> None:
    keep(store, tiny(), lite())
    ran = harness("compare", TINY[:13], LITE[:13])
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "A  evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875"
    assert lines[4] == "B  evaluate tf_efficientnet_lite0 imagenet at 224, crop 0.875"
    # A pipe gets whole lines.  6 against 4 of 10 images; 3 and 1 discordant.
    assert lines[15] == (
        "no difference beyond chance: deit_tiny_patch16_224 (A) is 20.00 [-21.71, 55.15] points ahead, p = 0.62."
    )
    assert lines[18] == "6 of the 6 images where predictions differ, ✓ the right one:"
    assert len(lines) == 18 + 2 + 6


def test_runs_are_found_by_the_files_of_their_results_too(harness: Command, store: Store, tmp_path: Path) -> None:
    keep(store, tiny())
    elsewhere = Store(tmp_path / "elsewhere")
    keep(elsewhere, lite())
    by_file = harness("compare", TINY, str(elsewhere.path_of(lite().result)), "--images", "2")
    keep(store, lite())
    assert by_file == harness("compare", TINY, LITE, "--images", "2")
    assert by_file.stdout.splitlines()[18] == "2 of the 6 images where predictions differ, ✓ the right one:"


def test_a_program_gets_json(harness: Command, store: Store) -> None:
    keep(store, tiny(), lite())
    ran = harness("compare", TINY, LITE, "--format", "json", "--images", "1")
    comparison = json.loads(ran.stdout)
    assert (comparison["first"]["run"], comparison["second"]["run"], comparison["p"]) == (TINY, LITE, 0.625)
    assert [image["image"] for image in comparison["differing"]] == [NAMES[3]]


def test_a_head_can_be_named(harness: Command, store: Store) -> None:
    both = {"distil": FOUR, "softmax_sum": SIX, "logit_mean": FOUR}
    keep(store, tiny(SIX, **both), replace(lite(SIX, **both), result=lite().result))
    comparison = json.loads(harness("compare", TINY, LITE, "--head", "distil", "--format", "json").stdout)
    assert (comparison["first"]["head"], comparison["first"]["top1"]["value"]) == ("distil", 40.0)
    comparison = json.loads(harness("compare", TINY, LITE, "--format", "json").stdout)
    assert (comparison["first"]["head"], comparison["first"]["top1"]["value"]) == ("softmax_sum", 60.0)


def test_the_heads_that_can_be_named_are_those_that_predictions_have() -> None:
    assert HEADS == HEADS_OF_PREDICTIONS


def test_what_cannot_be_compared_ends_in_one_sentence(harness: Command, store: Store) -> None:
    failed = replace(result_of_evaluation(evaluation("resnet50"), minutes=2), error="out of memory at batch 1")
    gone = result_of_evaluation(evaluation("resnet101"), minutes=3)
    speed = run_of(SPEED, 4)
    keep(store, tiny(), lite())
    for result in (failed, gone, speed):
        store.save(result)
    path = store.predictions_of(gone).relative_to(Path.cwd())
    for other, sentence in (
        (
            speed.id,
            f"run {speed.id} is of throughput resnet18 at 224, which keeps no predictions; compare evaluate runs",
        ),
        (
            failed.id,
            (
                f"run {failed.id} of evaluate resnet50 imagenet at 224, crop 0.875 failed (out of memory at batch 1), "
                "so there is nothing to compare"
            ),
        ),
        (gone.id, f"{path}: the predictions are gone; run the job again with --rerun"),
        ("2025", "no run '2025' in runs/; `harness runs list` shows what there is"),
        ("2026*0", "no run '2026*0' in runs/; `harness runs list` shows what there is"),
        (
            "2026",
            f"5 runs in runs/ begin with '2026' ({speed.id}, {gone.id}, {failed.id}, …); write more of the id",
        ),
        ("there/it.json", "there/it.json: cannot be read (No such file or directory)"),
    ):
        ran = harness("compare", TINY, other)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.splitlines() == [f"error: {sentence}"]


def test_one_run_is_not_compared_with_itself_however_it_is_named(
    harness: Command, store: Store, tmp_path: Path
) -> None:
    copies = Store(tmp_path / "copies")
    for of in (store, copies):
        keep(of, tiny())
    path = str(copies.path_of(tiny().result))
    for first, second in ((TINY, TINY), (TINY[:9], TINY), (path, TINY)):
        sentence = f"error: {first} and {second} are the same run {TINY}; name two, `harness runs list` shows them\n"
        assert harness("compare", first, second) == Completed(returncode=2, stdout="", stderr=sentence)


def test_a_copy_in_another_folder_makes_no_run_ambiguous_and_is_no_run_itself(harness: Command, store: Store) -> None:
    keep(store, tiny(), lite())
    (store.root / "backup").mkdir()
    store.path_of(tiny().result).rename(store.root / "backup" / f"{TINY}.json")
    assert harness("runs", "show", TINY) == Completed(
        returncode=2, stdout="", stderr=f"error: no run '{TINY}' in runs/; `harness runs list` shows what there is\n"
    )
    keep(store, tiny())
    assert harness("compare", TINY, LITE).returncode == 0


def test_a_head_that_a_model_lacks_ends_in_one_sentence(harness: Command, store: Store) -> None:
    keep(store, tiny(), lite())
    ran = harness("compare", TINY, LITE, "--head", "distil")
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        2,
        "",
        f"error: --head distil: deit_tiny_patch16_224 (run {TINY}) has no such head; it has class\n",
    )


# runs list


def test_runs_are_listed_newest_first_with_their_outcome(harness: Command, store: Store) -> None:
    now = datetime.now(tz=UTC)
    evaluated = result_of_evaluation(evaluation(), metrics={"top1": 60.0})
    for result, age in (
        (run_of(SPEED, 1), timedelta(minutes=45, seconds=20)),
        (evaluated, timedelta(days=3, hours=1)),
        (run_of(COUNT, 2, machine=V100), timedelta(hours=2, minutes=3)),
        (run_of(SPEED, 3, error="no\nroom"), timedelta(seconds=5)),
    ):
        store.save(replace(result, id=new_id(now - age), started=now - age))
    ran = harness("runs", "list")
    assert (ran.returncode, ran.stderr) == (0, "")
    heading, *lines = ran.stdout.splitlines()
    assert heading.split() == ["run", "age", "outcome", "job", "machine"]
    assert [re.split(r"  +", line) for line in lines] == [
        [run, *described]
        for run, described in zip(
            ids(store),
            (
                ("just now", "failed: no room", "throughput resnet18 at 224", LAPTOP.label),
                ("45 min ago", "100.0 im/s at batch 4, 2 s", "throughput resnet18 at 224", LAPTOP.label),
                ("2 h ago", "params 100 M, res 224 px", "count resnet18 at 224", V100.label),
                (
                    "3 d ago",
                    "top-1 60.00 % [59.00, 61.00]",
                    "evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875",
                    LAPTOP.label,
                ),
            ),
            strict=True,
        )
    ]


def test_only_the_newest_runs_are_listed_where_a_limit_is_given(harness: Command, store: Store) -> None:
    for number in (1, 3, 2):
        store.save(run_of(SPEED, number))
    for limit, listed in (("1", [3]), ("2", [3, 2]), ("9", [3, 2, 1])):
        ran = harness("runs", "list", "--limit", limit)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == [
            run_of(SPEED, number).id for number in listed
        ]
    ran = harness("runs", "list", "--limit", "0")
    assert ran == Completed(
        returncode=2, stdout="", stderr="error: Invalid value for '--limit': '0' is not a whole number of at least 1\n"
    )


def test_without_runs_there_is_a_message(harness: Command) -> None:
    assert harness("runs", "list") == Completed(returncode=0, stdout="no runs in runs/\n", stderr="")
    assert harness("runs", "prune") == Completed(
        returncode=0, stdout="nothing to remove; runs in runs/: 0\n", stderr=""
    )


@pytest.mark.parametrize("command", [["list"], ["show", "2026"], ["prune"]], ids=" ".join)
def test_a_file_in_place_of_the_folder_is_refused(harness: Command, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    ran = harness("runs", *command, "--runs", "taken")
    assert ran == Completed(
        returncode=2, stdout="", stderr="error: --runs taken: is a file, not a folder; name the folder of the results\n"
    )


def test_the_folder_of_harness_toml_and_of_the_environment_holds_for_runs_too(harness: Command, tmp_path: Path) -> None:
    for number, name in enumerate(("of_file", "of_variable")):
        Store(tmp_path / name).save(run_of(SPEED, number))
    (tmp_path / "harness.toml").write_text('runs = "of_file"\ndevice = "cpu"\n')
    listed = "\n20261121T120000000000Z-00000000  "
    assert listed in harness("runs", "list").stdout
    assert harness("runs", "show", "2026").stdout.startswith("run       20261121T120000000000Z-00000000\n")
    listed = "\n20261121T120100000000Z-00000001  "
    assert listed in harness("runs", "list", HARNESS_RUNS="of_variable").stdout


# runs show


def test_a_run_is_shown_whole(harness: Command, store: Store) -> None:
    side = tiny()
    measured = Measurement(unit="%", value=60.0, low=31.267, high=83.182, samples=(0.5, 0.25), sample_unit="s")
    facts = {
        **side.result.facts,
        "unreadable": [],
        "flags": {"tf32": False, "layout": "contiguous"},
        "devices": ["cpu"],
        "groups": [["evaluate a", "evaluate b"], ["evaluate c"]],
    }
    kept = replace(side.result, metrics={"top1": measured}, facts=facts, warnings=("one warning", "another warning"))
    keep(store, replace(side, result=kept))
    ran = harness("runs", "show", TINY[:9])
    assert (ran.returncode, ran.stderr) == (0, "")
    folder = f"runs/{kept.job.key}/{TINY}"
    assert (
        ran.stdout
        == f"""\
run          {TINY}
job          evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875
outcome      top-1 60.00 % [31.27, 83.18]
started      2026-11-21 12:00:00 UTC, took 2.0 s
machine      Some Processor, 4 cores
file         {folder}.json
predictions  {folder}.predictions.npz
warnings     one warning
             another warning
metrics
  top1  60 % [31.267, 83.182], samples in s: 0.5, 0.25
settings
  crop           0.875
  data           imagenet
  interpolation  bicubic
  model          deit_tiny_patch16_224
  norm           imagenet
  precision      float32
  res            224
  weights        fb_in1k
software
  python  3.11.7
  torch   2.15.0
  timm    1.0.31
  numpy   2.4.6
facts
  weights
    file    deit_tiny_patch16_224.safetensors
    sha256  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    origin  file
  images
    said         10 of the 50,000 images of ImageNet, 10 of its 1,000 classes
    fingerprint  f
    whole        false
  unreadable  []
  flags
    tf32    false
    layout  contiguous
  devices     cpu
  groups      ["evaluate a", "evaluate b"]
              ["evaluate c"]
"""
    )


def test_a_failed_run_is_shown_with_its_error(harness: Command, store: Store) -> None:
    store.save(run_of(SPEED, 1, error="out of memory at batch 1"))
    lines = harness("runs", "show", "2026").stdout.splitlines()
    assert lines[2] == "outcome   failed: out of memory at batch 1"
    assert [line for line in lines if line.startswith(("predictions", "metrics", "facts"))] == []


def test_a_damaged_run_is_named_and_left_as_it_is(harness: Command, store: Store) -> None:
    path = store.save(run_of(SPEED, 1))
    path.write_text(path.read_text()[:100])
    shown = path.relative_to(Path.cwd())
    ran = harness("runs", "show", "2026")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {shown}: is not complete JSON (")
    assert path.exists()


# runs prune


def test_the_newest_good_run_of_each_job_machine_and_software_stays() -> None:
    older, newer, failed = run_of(SPEED, 1), run_of(SPEED, 2), run_of(SPEED, 3, error="no room")
    others = [
        run_of(COUNT, 0),
        run_of(SPEED, 4, machine=V100),
        run_of(SPEED, 5, machine=H200),
        run_of(SPEED, 6, torch="2.4.0"),
    ]
    assert superseded([older, *others, failed, newer]) == {older.id: newer}


def test_an_evaluation_of_other_images_or_weights_supersedes_none() -> None:
    def of(number: int, images: str, weights: str, **facts: object) -> Result:
        result_facts = {"images": {"fingerprint": images}, "weights": {"sha256": weights}, **facts}
        return replace(run_of(evaluation(), number), facts=result_facts)

    apart = [of(1, "all", "paper"), of(2, "some", "paper"), of(3, "all", "ours"), of(4, "all", "paper", unreadable=[3])]
    newest = of(5, "some", "paper")
    assert superseded([*apart, newest]) == {apart[1].id: newest}


def fill(store: Store) -> tuple[Evaluation, Evaluation, Result]:
    """An old evaluation, a newer one of the same, and a failed throughput."""
    old = tiny()
    new = replace(old, result=result_of_evaluation(evaluation(), minutes=1))
    failed = run_of(SPEED, 2, error="out of memory at batch 1")
    keep(store, old, new)
    store.save(failed)
    return old, new, failed


PRUNED = (
    "20261121T120200000000Z-00000002  throughput resnet18 at 224: failed: out of memory at batch 1\n"
    "20261121T120000000000Z-00000000  evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875: "
    "20261121T120100000000Z-00000001 is newer\n"
)


def test_prune_removes_failed_and_superseded_runs_with_their_predictions(harness: Command, store: Store) -> None:
    old, new, failed = fill(store)
    ran = harness("runs", "prune", "--yes")
    assert ran == Completed(returncode=0, stdout=f"{PRUNED}removed 2 of 3 runs, 0.0 MB\n", stderr="")
    assert ids(store) == [new.result.id]
    assert store.predictions_of(new.result).exists()
    assert [path for path in store.root.rglob("*") if path.is_file() and old.result.id in path.name] == []
    assert not store.path_of(failed).exists()
    assert harness("runs", "prune", "--yes").stdout == "nothing to remove; runs in runs/: 1\n"


def test_a_dry_run_and_a_run_with_nobody_there_remove_nothing(harness: Command, store: Store) -> None:
    fill(store)
    before = sorted(store.root.rglob("*"))
    assert harness("runs", "prune", "--dry-run") == Completed(
        returncode=0, stdout=f"{PRUNED}would remove 2 of 3 runs, 0.0 MB\n", stderr=""
    )
    assert harness("runs", "prune") == Completed(
        returncode=2,
        stdout=PRUNED,
        stderr="error: stdin is not a terminal, so nobody can confirm; add --yes to remove, or --dry-run to list\n",
    )
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("answer", "kept", "message"), [("y\n", 1, "removed 2 of 3 runs, 0.0 MB"), ("\n", 3, "nothing was removed")]
)
def test_prune_asks_first_in_a_terminal(store: Store, tmp_path: Path, answer: str, kept: int, message: str) -> None:
    fill(store)
    ours, theirs = pty.openpty()
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    command = [sys.executable, "-m", "harness", "runs", "prune"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=surroundings
    ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        output = b""
        with suppress(OSError):  # so Linux says that the other end is closed
            while block := os.read(ours, 65536):
                output += block
        assert process.wait(60) == 0
    os.close(ours)
    assert "remove 2 of 3 runs, 0.0 MB? [y/N]: " in output.decode()
    assert output.decode().endswith(f"{message}\r\n")
    assert len(ids(store)) == kept


def test_damaged_and_foreign_files_are_named_and_never_touched(harness: Command, store: Store) -> None:
    fill(store)
    damaged = store.root / evaluation().key / "20261121T115900000000Z-aaaaaaaa.json"
    foreign = store.root / "package" / "package.json"
    copied = store.root / "backup" / f"{TINY}.json"
    newer = store.root / evaluation().key / "20261121T115800000000Z-bbbbbbbb.json"
    copied.parent.mkdir()
    foreign.parent.mkdir()
    damaged.write_bytes(b"\xff\xfe")
    foreign.write_text('{"name": "package"}')
    copied.write_text(store.path_of(tiny().result).read_text())
    newer.write_text('{"schema": 99}')
    for arguments in (["list"], ["prune", "--yes"]):
        ran = harness("runs", *arguments)
        assert ran.returncode == 0
        assert ran.stderr.splitlines() == [
            f"warning: {foreign.relative_to(Path.cwd())}: is not a result; left as it is",
            (
                f"warning: {copied.relative_to(Path.cwd())}: belongs in runs/{evaluation().key}/{TINY}.json; left as "
                "it is and not used"
            ),
            f"warning: {damaged.relative_to(Path.cwd())}: is not text; left as it is",
            (
                f"warning: {newer.relative_to(Path.cwd())}: has schema 99, this version reads 1; update the harness; "
                "left as it is"
            ),
        ]
    assert all(path.exists() for path in (damaged, foreign, copied, newer))
    assert len(ids(Store(store.root))) == 1


def test_a_run_that_cannot_be_removed_is_an_error(store: Store) -> None:
    result = run_of(SPEED, 1)
    store.path_of(result).mkdir(parents=True)  # a folder in its place
    with pytest.raises(StoreError) as reason:
        store.remove(result)
    assert str(reason.value) == f"{store.path_of(result)}: cannot be removed (Is a directory)"


def test_removing_what_is_gone_already_is_no_error(store: Store) -> None:
    store.remove(run_of(SPEED, 1))
