"""Command lines as people write them, with pieces replaced, doubled, left out and put in."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.main import cli
from tests.commands import run_harness
from tests.fuzz.hostile import check, values
from tests.fuzz.profiles import profile

GATE = "check mine.toml --baseline b.json --baseline-runs main --runs change --fail-on deviates,failed --newest 3"

LINES = tuple(
    line.split()
    for line in (
        "list",
        "list mine.toml --edition icml",
        "plan mine.toml --rows tiny --columns * --only count,throughput --batch 8 --repeats 5 --device cpu",
        "plan mine.toml --memory 16GiB --train --scale smoke --seeds 2 --set epochs=2 --set ema=true --explain",
        "report mine.toml --runs main --format terminal -v --machine Laptop --roofline --explain",
        "report mine.toml --runs change --format csv -o out.csv --data imagenet=x",
        "report mine.toml --runs main --format latex --diff below",
        "report mine.toml --runs main --format json --protocol modern --allow-nearest",
        "report mine.toml --runs main --format markdown --throughput-only",
        "report mine.toml --runs main --format pytest-benchmark -o bench.json",
        "trend mine.toml --runs main --runs change --machine Laptop --format markdown -o trend.md",
        "figure mine.toml --chart trend -o t.svg --runs main",
        "figure mine.toml --chart runs --points ours --style paper -o f.svg --runs main",
        GATE,
        f"{GATE} --junit j.xml --json --allow-missing -v",
        "baseline mine.toml --runs main -o new.json --rounds 3 -q",
        "baseline mine.toml --runs fresh --calibrate --rounds 3 -o new.json --device cpu -q",
        "compare 20261121 main/x.json --runs main --head class --images 3 --format json",
        "runs list --runs main --kind evaluate --model tiny --machine * --since 7d --before 2026-11-21 --limit 2",
        "runs show 20261121 --runs main",
        "runs prune --runs main --dry-run --yes --failed",
        "runs export --runs main -o x.csv --since 2w",
        "runs export --runs main -o x.parquet",
        "status --runs main -v",
        "cancel --runs main",
        "reproduce mine.toml --runs fresh --device cpu -q --jobs 1 --workers 0 --skip-unreadable --yes",
        "reproduce mine.toml --launcher slurm --detach --hours 2 --gpus 1 --nodes 2 --cpus 4 --job-memory 32GiB -q",
        "doctor --weights main --device cpu --runs main",
        "why main.py --batch-size 60 --mixup 0 top1=78.8 --recipe deit-b --log new.json --format markdown",
        "import table.csv --table 1 --family deit --format csv --cite x -o new.toml",
        "nonsense",
    )
)
OPTIONS = sorted({name for command in cli.commands.values() for option in command.params for name in option.opts})


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    line = list(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(line)))
        mutation = draw(st.sampled_from(("replace", "option", "insert", "double", "leave out", "splice", "cut")))
        word = line[place] if place < len(line) else ""
        if mutation == "replace":
            line[place : place + 1] = [draw(values)]
        elif mutation == "option":
            line[place:place] = [draw(st.sampled_from(OPTIONS)), draw(values)]
        elif mutation == "insert":
            line.insert(place, draw(values))
        elif mutation == "double":
            line.insert(place, word)
        elif mutation == "leave out":
            line[place : place + 1] = []
        elif mutation == "splice":
            at = draw(st.integers(0, len(word)))
            line[place : place + 1] = [word[:at] + draw(values) + word[at:]]
        else:
            line[place : place + 1] = [word[: draw(st.integers(0, len(word)))]]
    return line


@pytest.mark.usefixtures("without_processes")
@profile
@given(line=command_lines())
def test_no_command_line_ends_in_a_traceback_or_with_the_code_of_the_gate(
    template: Path, tmp_path: Path, line: list[str]
) -> None:
    folder = tmp_path / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    check(run_harness(folder, *line), gate="check" in line)
