"""`ImportedTable` -> the text of a spec, with remarks on what to check."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.cleaning import visible
from harness.specs.checked import Scalar
from harness.specs.importing.models import ModelMatch, Sureness
from harness.specs.importing.table import ImportedColumn, ImportedRow, ImportedTable

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]+)?")  # of ASCII, which \d is not


def write_spec(table: ImportedTable, *, origin: str, cite: str, schema: Path) -> str:
    """Return the spec of a table from `origin`, which a reader will find in `cite`."""
    lines = [
        f"#:schema {schema.as_uri()}",
        f"# Imported from {_plain(origin)}. Compare every value with its source, and set `checked` below.",
        *(f"# Left out: {_plain(text)}." for text in table.left_out),
        "",
        "[table]",
        f"title = {_string(table.title or f'Table of {origin}')}",
        "",
        "[source.paper]",
        'kind = "paper"',
        f"cite = {_string(cite)}",
        "# checked = 2026-01-31    # the day on which you compared the values with it",
    ]
    for column in table.columns:
        lines += ["", *_column(column)]
    group = ""
    for row in table.rows:
        lines += ["", *([f"# {_plain(row.group)}"] if row.group not in ("", group) else []), *_row(row, table)]
        group = row.group
    for mark, text in table.footnotes.items():
        lines += ["", f"[footnote.{json.dumps(visible(mark), ensure_ascii=False)}]", f"text = {_string(text)}"]
    return "\n".join(lines) + "\n"


def _column(column: ImportedColumn) -> Iterator[str]:
    meaning = column.meaning
    yield f"[column.{column.key}]"
    yield f"label = {_string(column.label)}"
    if meaning:
        yield f'job = "{meaning.job}"'
        yield f'metric = "{meaning.metric}"'
    if column.unit:
        yield f"unit = {_string(column.unit)}"
    if column.is_text:
        yield "text = true"
    if meaning and meaning.better:
        yield f'better = "{meaning.better}"'
    if column.tolerance is not None:
        tolerance = column.tolerance
        yield f"tolerance = {_string(tolerance) if isinstance(tolerance, str) else f'{tolerance:g}'}"
    if meaning and meaning.settings:
        yield f"set = {_inline({name: _scalar(value) for name, value in meaning.settings.items()})}"
    for remark in filter(None, (column.remark, meaning.remark if meaning else "")):
        yield f"# {remark}"


def _row(row: ImportedRow, table: ImportedTable) -> Iterator[str]:
    yield f"[row.{row.key}]"
    if table.measures:
        yield f"# {_plain(sureness(row.match))}"
    yield f"label = {_string(row.label)}"
    if row.group:
        yield f"group = {_string(row.group)}"
    if table.measures:
        yield from _settings(row, evaluates="evaluate" in table.measures)
    if row.unit is not None:
        yield from (["text = false"] + ([f"unit = {_string(row.unit)}"] if row.unit else []))
    words = {column.key: column.is_text and row.unit is None for column in table.columns}
    if row.published:
        yield f"paper = {_inline({key: _value(text, words=words[key]) for key, text in row.published.items()})}"
    for key, text in row.unknown.items():
        yield f"# {key}: {_plain(text)!r} is not a value that the importer knows"


def sureness(match: ModelMatch) -> str:
    """Return the model of a row, how sure it is, and why not surer."""
    named = f"{match.model}.{match.weights.tag}" if match.weights else match.model
    return f"{named or 'no model'}: {match.sureness}" + (f", {match.why}" if match.why else "")


def _settings(row: ImportedRow, *, evaluates: bool) -> Iterator[str]:
    match, res = row.match, row.res or row.match.res
    if not match.model:
        yield '# set = { model = "NAME", res = 224 }    # timm\'s name of the model; `harness plan` says what lacks it'
        return
    settings: dict[str, Scalar] = {"model": match.model, **({"res": res} if res else {})}
    weights = match.weights if evaluates else None
    if weights:
        settings["weights"] = weights.tag
        settings |= {"crop": weights.crop, "interpolation": weights.interpolation, "norm": weights.norm}
    line = f"set = {_inline({name: _scalar(value) for name, value in settings.items()})}"
    yield f"# {line}    # a guess: take away the # if it is right" if match.sureness is Sureness.GUESS else line
    if row.res is None:
        yield f"# the table names no size of images: {res} is timm's"
    if evaluates and not weights:
        tags = " or ".join(f'weights = "{tag}"' for tag in match.others[:4])
        yield f"# add {tags} to set, if these are the published ones" if tags else f"# timm has no weights for {res} px"


def _value(text: str, *, words: bool) -> str:
    return text if not words and _NUMBER.fullmatch(text) else _string(text)


def _inline(entries: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{_key(name)} = {value}' for name, value in entries.items())} }}"


def _scalar(value: Scalar) -> str:
    return _string(value) if isinstance(value, str) else str(value).lower()


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    return json.dumps(visible(text), ensure_ascii=False)


def _plain(text: str) -> str:
    """Return a text for a comment, which ends with its line."""
    return visible(" ".join(text.split()))


def left_alone(rows: Iterable[ImportedRow]) -> list[str]:
    """Return the cells that are comments, each with its row and column."""
    return [f"{row.label}, {key}: {text!r}" for row in rows for key, text in row.unknown.items()]
