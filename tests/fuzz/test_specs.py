"""A damaged spec or recipe is a sentence for each mistake, with its place, or a table: never a traceback."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.specs.catalog import shipped_specs
from tests.commands import Completed, run_harness
from tests.fuzz.mutations import damage_toml
from tests.fuzz.profiles import profile

SPECS = sorted(shipped_specs().glob("*.toml"), key=lambda path: path.name)
RECIPES = sorted((shipped_specs() / "recipes").glob("*.toml"), key=lambda path: path.name)

COMMANDS = [
    ("plan", "--device", "cpu"),
    ("plan", "--device", "cpu", "--train", "--scale", "proxy"),
    ("list",),
    *(("report", "--format", form) for form in ("terminal", "markdown", "json", "latex", "csv", "html")),
    ("check",),
]

# A table whose one row is trained by the recipe next to it.
TRAINED = """
[table]
title = "Trained"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
unit = "% top-1"
set = { data = "cifar10", model = "deit_tiny_patch16_224", res = 224, recipe = "mine-recipe.toml" }
[row.tiny]
label = "Tiny"
"""

DRAW = st.randoms(use_true_random=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specs")


def ends_in_sentences(ran: Completed, name: str) -> None:
    assert "Traceback" not in ran.stderr
    assert ran.returncode in (0, 2, 4), ran
    if ran.returncode == 2:
        error = next(line for line in ran.stderr.splitlines() if line.startswith("error: "))
        assert error.startswith(f"error: {name}"), ran.stderr


@given(spec=st.sampled_from(SPECS), command=st.sampled_from(COMMANDS), draw=DRAW)
@profile
def test_a_damaged_spec_ends_in_sentences(
    folder: Path, spec: Path, command: tuple[str, ...], draw: random.Random
) -> None:
    text = damage_toml(spec.read_text(encoding="utf-8"), draw)
    (folder / "mine.toml").write_text(text, encoding="utf-8", errors="replace")
    output = ("-o", "out.html") if "html" in command else ()
    ends_in_sentences(run_harness(folder, command[0], "mine.toml", *command[1:], *output), "mine.toml")


@given(recipe=st.sampled_from(RECIPES), scale=st.sampled_from(("full", "proxy")), draw=DRAW)
@profile
def test_a_damaged_recipe_ends_in_sentences(folder: Path, recipe: Path, scale: str, draw: random.Random) -> None:
    text = damage_toml(recipe.read_text(encoding="utf-8"), draw)
    (folder / "mine-recipe.toml").write_text(text, encoding="utf-8", errors="replace")
    (folder / "trained.toml").write_text(TRAINED, encoding="utf-8")
    ran = run_harness(folder, "plan", "trained.toml", "--device", "cpu", "--train", "--scale", scale)
    ends_in_sentences(ran, "")
