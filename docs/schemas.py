"""What the program's readers accept -> JSON schemas of specs, recipes and harness.toml, for editors.

`python -m docs.generate` writes them into docs/schemas/, from the tables by which the readers check a file; the
descriptions are those of tables/README.md.  What one table alone cannot tell, as a key that names a row, the reader
checks.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from harness.cli.main import cli
from harness.cli.usage.options import options_by_name
from harness.specs import reader as spec
from harness.specs.checked import Constraint
from harness.specs.kinds import OUR_KINDS, SETTINGS
from harness.specs.recipe import reader as recipe

FOLDER = Path(__file__).parent / "schemas"
_README = (Path(__file__).parent.parent / "tables" / "README.md").read_text(encoding="utf-8")

Schema = dict[str, Any]

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}

# Defined once: columns, rows and cells have them.
_SETTINGS: Schema = {"$ref": "#/definitions/settings"}

# A value as published: a number, or a string with an uncertainty, marks, or words.
_PUBLISHED: Schema = {"type": ["number", "string"]}


def of_constraint(constraint: Constraint) -> Schema:
    """Return the schema of the values that a constraint accepts."""
    schemas = [_of_type(kind, constraint) for kind in constraint.types]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _of_type(kind: type, constraint: Constraint) -> Schema:
    schema: Schema = {"type": _NAMES[kind]} if kind in _NAMES else {"type": "string", "format": "date"}
    if kind is str and constraint.choices:
        schema["enum"] = list(constraint.choices)
    elif kind is str and constraint.pattern and not constraint.pattern.flags & re.IGNORECASE:
        schema["pattern"] = f"^(?:{re.sub(r'[(][?]P<[a-z_]+>', '(?:', constraint.pattern.pattern)})$"
    elif kind in (int, float):
        limits = {"minimum": constraint.least, "exclusiveMinimum": constraint.above, "maximum": constraint.most}
        schema |= {name: limit for name, limit in limits.items() if limit is not None}
    elif kind is list:
        schema |= {"items": of_constraint(constraint.items)} if constraint.items else {}
        schema |= {} if constraint.may_be_empty or not constraint.items else {"minItems": 1}
    return schema


def of_keys(keys: Mapping[str, Constraint], described: Mapping[str, str], **inner: Schema) -> Schema:
    """Return the schema of a table of known keys; `inner` are those of keys that are tables or lists of them."""
    properties = {name: inner.get(name) or of_constraint(constraint) for name, constraint in keys.items()}
    required = [name for name, constraint in keys.items() if constraint.required]
    return {
        "type": "object",
        "properties": {
            name: schema | ({"description": described[name]} if name in described else {})
            for name, schema in properties.items()
        },
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _any_key(schema: Schema, **more: object) -> Schema:
    """Return the schema of a table of any keys whose values are alike."""
    return {"type": "object", "additionalProperties": schema, **more}


def _described(heading: str) -> dict[str, str]:
    """Return what tables/README.md says of each key in the table below a heading, or in that of the settings."""
    _, _, below = _README.partition(heading)
    table = re.search(r"^\|(?!-).*?(?=^(?!\|)|\Z)", below, re.MULTILINE | re.DOTALL)
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].splitlines()] if table else []
    return {
        key: re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", cells[-1]).replace("`", "").strip()
        for cells in lines
        for key in re.findall(r"`([\w.]+)`", cells[0])
    }


def spec_schema() -> Schema:
    """Return the schema of a spec."""
    keys, settings = spec.KEYS, of_keys(SETTINGS, _described("| setting | type | meaning |\n|---|---|---|\n"))
    kind = {"type": "string", "enum": list(OUR_KINDS)}
    column, row = _described("### `[column.KEY]`"), _described("### `[row.KEY]`")
    reasons = of_keys(dict.fromkeys(SETTINGS, Constraint(types=(str,))), {})
    shared = {
        "set": _SETTINGS,
        "train": _SETTINGS,
        "assumed": {"$ref": "#/definitions/reasons"},
        "job": kind,
        "of": {"type": "array", "minItems": 2, "items": of_keys(keys["of"], {})},
    }
    values = _any_key(_PUBLISHED)
    nearest = {**of_keys(keys["nearest"], {}), "additionalProperties": values}
    cells = _any_key(of_keys(keys["cell"], {**column, **row}, **shared))
    # What a row has besides its keys are the published values of a source.
    rows = {
        **of_keys(keys["row"], {**column, **row}, **shared, cell=cells, nearest={"type": "array", "items": nearest}),
        "additionalProperties": values,
    }
    return _document(
        "A spec of deit-harness: a published table, and what to measure to check it",
        {
            "table": of_keys(keys["table"], _described("### `[table]`")),
            "source": _any_key(of_keys({**keys["source"]}, _described("### `[source.NAME]`"))),
            "column": _any_key(of_keys(keys["column"], column, **shared), minProperties=1),
            "row": _any_key(rows, minProperties=1),
            "family": _any_key(of_keys(keys["family"], _described("### `[family.KEY]`"))),
            "machine": _any_key(of_keys(keys["machine"], _described('### `[machine."NAME"]`'))),
            "footnote": _any_key(of_keys(keys["footnote"], _described("### `[footnote.MARK]`"), corrected=values)),
        },
        required=["table", "column", "row"],
        definitions={"settings": settings, "reasons": reasons},
    )


def recipe_schema() -> Schema:
    """Return the schema of a recipe."""
    described = _described("| setting | type | meaning |\n|---|---|---|\n")
    parts = {name: of_keys(keys, described if name == "set" else {}) for name, keys in recipe.KEYS.items()}
    return _document("A recipe of deit-harness: how a model is trained", parts, required=["recipe"])


def settings_schema() -> Schema:
    """Return the schema of harness.toml: the options of all commands, with - or _ in their names."""
    properties: dict[str, Schema] = {}
    for name, option in _options(cli):
        schema = {**_of_option(option), "description": option.help or ""}
        for spelled in {name, name.replace("-", "_")}:
            other = properties.get(spelled)
            # One name may be an option of several commands, with other values.
            properties[spelled] = (
                schema if other in (None, schema) else {"anyOf": [*other.get("anyOf", [other]), schema]}
            )
    return _document("harness.toml: defaults for the options of deit-harness", properties)


def _options(group: click.Group) -> list[tuple[str, click.Option]]:
    return [option for command in group.commands.values() for option in options_by_name(command).items()]


def _of_option(option: click.Option) -> Schema:
    word: Schema = {"type": ["string", "number"]}
    if option.is_flag:
        return {"type": "boolean"}
    if isinstance(option.type, click.Choice):
        return {"type": "string", "enum": list(option.type.choices)}
    if option.multiple:
        pair: Schema = {"type": ["string", "number", "boolean"]}
        return {"anyOf": [word, {"type": "array", "items": word}, _any_key(pair)]}
    if option.type.name.endswith(",..."):
        return {"anyOf": [word, {"type": "array", "items": {"type": "string"}}]}
    return word


def _document(title: str, properties: Mapping[str, Schema], **more: object) -> Schema:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "properties": dict(sorted(properties.items())) if "required" not in more else dict(properties),
        "additionalProperties": False,
        **more,
    }


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "spec": spec_schema,
    "recipe": recipe_schema,
    "settings": settings_schema,
}


def texts() -> dict[Path, str]:
    """Return what each file of schemas has to hold."""
    return {
        FOLDER / f"{name}.json": json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        for name, make in SCHEMAS.items()
    }
