"""Editors check a spec, a recipe and harness.toml by schemas, which are those of the readers."""

import json
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from docs import schemas
from harness.specs.catalog import schema_file

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "tables").glob("*.toml"))
RECIPES = sorted((ROOT / "tables" / "recipes").glob("*.toml"))


def problems(name: str, text: str) -> list[str]:
    """Return what a schema has against a text in TOML, as an editor would."""
    schema = json.loads(schema_file(name).read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    return sorted(error.message for error in Draft7Validator(schema).iter_errors(with_dates(tomllib.loads(text))))


def with_dates(data: Any) -> Any:  # noqa: ANN401 -- whatever TOML holds
    """Return data in which dates are strings, as editors take them."""
    if isinstance(data, dict):
        return {name: with_dates(value) for name, value in data.items()}
    if isinstance(data, list):
        return [with_dates(value) for value in data]
    return data.isoformat() if isinstance(data, date) else data


def test_the_schemas_are_those_of_the_readers_now() -> None:
    written = {path: path.read_text(encoding="utf-8") for path in sorted(schemas.FOLDER.iterdir())}
    assert written == schemas.texts(), "renew them with `python -m docs.generate`"


@pytest.mark.parametrize("path", [*SPECS, *RECIPES], ids=lambda path: path.stem)
def test_every_shipped_spec_and_recipe_is_valid(path: Path) -> None:
    assert problems("recipe" if path in RECIPES else "spec", path.read_text(encoding="utf-8")) == []


SPEC = """\
[table]
title = "T"
[source.paper]
kind = "paper"
checked = 2026-11-21
[column.params]
label = "P"
job = "count"
metric = "params"
tolerance = "5%"
[row.a]
label = "A"
set = { model = "resnet18", res = 224 }
paper = { params = "11.7 ± 0.1" }
"""


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            'title = "T"\n',
            'title = "T"\ntitel = "T"\n',
            "Additional properties are not allowed ('titel' was unexpected)",
        ),
        ('title = "T"\n', "", "'title' is a required property"),
        ('kind = "paper"', 'kind = "Ours"', "'Ours' does not match '^(?:[a-z][a-z0-9_.-]{0,30})$'"),
        ('job = "count"', 'job = "counts"', "'counts' is not one of ["),
        ('tolerance = "5%"', 'tolerance = "5"', "'5' is not valid under any of the given schemas"),
        ("res = 224", 'res = "224"', "'224' is not of type 'integer'"),
        ("res = 224", "ress = 224", "Additional properties are not allowed ('ress' was unexpected)"),
        ('paper = { params = "11.7 ± 0.1" }', "paper = 11.7", "11.7 is not of type 'object'"),
        ("params = ", "params = true, p = ", "True is not of type 'number', 'string'"),
    ],
)
def test_a_typical_mistake_is_none_of_a_valid_spec(right: str, wrong: str, message: str) -> None:
    assert problems("spec", SPEC) == []
    assert SPEC.count(right) == 1
    (problem,) = problems("spec", SPEC.replace(right, wrong))
    assert problem.startswith(message)


def test_mistakes_in_a_recipe_are_found() -> None:
    recipe = (ROOT / "tables" / "recipes" / "deit-b.toml").read_text(encoding="utf-8")
    wrong = re.sub(r"^optimizer .*$", 'optimizer = "adam"', recipe, flags=re.MULTILINE)
    assert problems("recipe", wrong) == ["'adam' is not one of ['adamw', 'sgd']"]


def test_settings_are_the_options_of_all_commands_with_either_line() -> None:
    text = 'runs = "r"\ndata = { imagenet = "/d" }\nthroughput_only = true\nall-columns = true\nseeds = 3\n'
    assert problems("settings", text) == []
    assert problems("settings", "throughput-only = 1\nrun = 'x'") == [
        "1 is not of type 'boolean'",
        "Additional properties are not allowed ('run' was unexpected)",
    ]


def test_an_editor_explains_a_key_in_the_words_of_the_manual() -> None:
    column = schemas.spec_schema()["properties"]["column"]["additionalProperties"]["properties"]
    assert column["better"]["description"] == "higher or lower"
    assert schemas.recipe_schema()["properties"]["set"]["properties"]["mixup"]["description"] == (
        "alphas (Table 9 calls them probabilities); 0: off"
    )
