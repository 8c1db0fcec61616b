"""Files and text of other trainers -> what was set, what each epoch gave, and the accuracy in the end.

Known are the `Namespace(…)` line of DeiT's main.py and whatever else it printed, its log.txt, timm's args.yaml and
summary.csv, JSON, command lines, and pairs typed by hand.  What a file is shows in its content, not in its name.
"""

import ast
import csv
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from harness.errors import HarnessError, abridged

Value: TypeAlias = str | int | float | bool | list[object] | None

# The trainers whose options are known, by the names of their scripts.
SCRIPTS: Mapping[str, str] = {
    **dict.fromkeys(("main.py", "run_with_submitit.py"), "deit"),
    **dict.fromkeys(("train.py", "distributed_train.sh"), "timm"),
}
# Options that only one of them has.
_OWN_OPTIONS = {
    "deit": {"unscale_lr", "data_set", "distillation_type", "repeated_aug"},
    "timm": {"lr_base", "aug_repeats"},
}

KINDS = (
    "a Namespace(…) line or other output of main.py, a log.txt, a summary.csv, an args.yaml, a command line or "
    "pairs as batch_size=480"
)

# How an accuracy is called, and what else may be typed behind a command.
_ACCURACIES = ("top1", "acc1", "acc", "accuracy", "max_accuracy", "test_acc1")
_TYPED = (*_ACCURACIES, "epoch", "world_size")

# Options that argparse accepts shortened.
_SHORT = {"b": "batch_size", "batch": "batch_size", "node": "nodes"}

# Options that take no value.
_FLAGS = ("amp", "model_ema", "repeated_aug", "unscale_lr", "no_aug", "channels_last", "train_mode", "use_env")

# The largest file that is read, in bytes; the whole output of 300 epochs has about 10 MB.
_LARGEST = 256 * 2**20

_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d*)?|\.\d{1,18})\d*(e[+-]?\d{1,3})?", re.IGNORECASE)
_WORDS = {**dict.fromkeys(("true", "yes", "on"), True), **dict.fromkeys(("false", "no", "off"), False)}
_NOTHING = ("", "none", "null", "~")
_PAIR = re.compile(r"-{0,2}([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
_ACCURACY = re.compile(r"(?:\* Acc@1|Max accuracy:|Accuracy of the network on the \d+ test images:)\s+(\d{1,3}\.\d+)")
_NAMESPACE = re.compile(r"Namespace\(.*?\)(?=\s*$)", re.DOTALL | re.MULTILINE)
_DIVERGED = re.compile(r"Loss is (?:nan|-?inf), stopping training", re.IGNORECASE)

# How the columns of logs are called.
_COLUMNS = {
    "train_loss": ("train_loss", "loss"),
    "test_loss": ("test_loss", "eval_loss", "val_loss"),
    "top1": ("test_acc1", "eval_top1", "test_top1", "val_acc1", "top1"),
    "top1_ema": ("test_acc1_ema", "test_ema_acc1", "ema_acc1", "eval_top1_ema"),
    "rate": ("train_lr", "lr", "learning_rate"),
}


@dataclass(frozen=True, kw_only=True)
class LoggedEpoch:
    """An epoch of a log, counted from 0: losses, accuracies in percent, and the learning rate; None where it lacks one.

    `top1_ema` is the accuracy of the moving average of the weights.
    """

    number: int
    train_loss: float | None = None
    test_loss: float | None = None
    top1: float | None = None
    top1_ema: float | None = None
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class GivenTraining:
    """What is known of a training.

    `options` have the names and values of `script`, which is `deit`, `timm`, or empty for neither.  `whole` tells that
    options that are not there were left at their defaults, `launched` that the number of processes is among them.
    `top1` is the accuracy in percent that was printed or typed, `diverged` tells that the loss was not finite.  `read`
    says what was read, `notes` what was wrong with it.
    """

    options: Mapping[str, Value] = field(default_factory=dict)
    script: str = ""
    whole: bool = False
    launched: bool = False
    epochs: tuple[LoggedEpoch, ...] = ()
    top1: float | None = None
    diverged: bool = False
    read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def and_also(self, other: "GivenTraining") -> "GivenTraining":
        """Return what both say; where they differ, the other one is right."""
        stated = {name: value for name, value in vars(other).items() if value not in ("", (), None, False)}
        both = {"options": {**self.options, **other.options}, "read": self.read + other.read}
        return GivenTraining(**{**vars(self), **stated, **both, "notes": self.notes + other.notes})


def read_given(arguments: Sequence[str], logs: Iterable[Path] = ()) -> GivenTraining:
    """Read files, and text typed by hand, which has precedence.

    Raises `HarnessError` for what is neither, and for a file that cannot be read.
    """
    files, words = [*logs], []
    for argument in arguments:
        if _is_file(argument):
            files.append(Path(argument))
        else:
            words.append(argument)
    parts = [_parse(_read(path), str(path)) for path in files]
    # Words of a command belong together; else a text in quotation marks is one thing, and pairs around it another.
    texts = [] if any(word.startswith("-") for word in words) else [word for word in words if re.search(r"\s", word)]
    rest = [word for word in words if word not in texts]
    for text in (*texts, *([rest[0] if len(rest) == 1 else shlex.join(rest)] if rest else [])):
        if not re.search(r"[\s=(]", text):
            raise HarnessError(f"'{abridged(text)}': there is no such file; name one, or type {KINDS}")
        parts.append(_parse(text, "the command line"))
    return reduce(GivenTraining.and_also, parts, GivenTraining())


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name
        return False


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            reason = "is no file" if path.exists() else "there is no such file"
            raise HarnessError(f"{path}: {reason}; name {KINDS.partition(' or pairs')[0]}")
        if path.stat().st_size > _LARGEST:
            raise HarnessError(f"{path}: has more than {_LARGEST // 2**20} MiB; name the log of a single training")
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); name another file") from error


def _parse(text: str, place: str) -> GivenTraining:
    """Tell by a text's content what it is, and read it."""
    text = text.replace("\r\n", "\n").replace("\\\n", " ").strip()
    lines = text.splitlines()
    if "Namespace(" in text:
        return _parse_namespace(text, place)
    if text.startswith("{"):
        return _parse_json(lines, text, place)
    if lines and re.match(r"\s*\"?epoch\"?\s*,", lines[0]):
        try:
            return _epochs(list(csv.DictReader(lines, skipinitialspace=True)), f"{place}: a table of epochs")
        except csv.Error as error:
            raise HarnessError(f"{place}: is damaged ({error}); name the file as the training wrote it") from error
    if printed := _printed(text):
        return GivenTraining(**printed, read=(f"{place}: output of a training",))
    words = _split(text, place)
    if any(word.startswith("--") or Path(word).name in SCRIPTS for word in words):
        return _parse_command(words, place)
    if words and all(_PAIR.fullmatch(word) for word in words):
        pairs = {name: value_of(value) for name, value in (_PAIR.fullmatch(word).groups() for word in words)}  # type: ignore[union-attr]
        return _settings(pairs, f"{place}: pairs", launched=not {"batch_size", "batch-size", *_SHORT}.isdisjoint(pairs))
    return _parse_yaml(text, place)


def _printed(text: str) -> dict[str, Any]:
    """Return the last accuracy in the output of a training, and whether it stopped at a loss that is not finite."""
    accuracies = _ACCURACY.findall(text)
    reading: dict[str, Any] = {"top1": float(accuracies[-1])} if accuracies else {}
    return {**reading, "diverged": True} if _DIVERGED.search(text) else reading


def _settings(options: Mapping[str, Value], read: str, **more: Any) -> GivenTraining:  # noqa: ANN401 -- fields
    """Return options under their plain names, with the accuracy taken out that may be among them."""
    lower = ((re.sub(r"\W", "_", name).lower(), value) for name, value in options.items())
    plain = {_SHORT.get(name, name): value for name, value in lower}
    names = [name for name in _ACCURACIES if name in plain]
    top1 = next((number for name in names if (number := number_of(plain[name])) is not None), None)
    if top1 is not None:
        plain = {name: value for name, value in plain.items() if name not in names}
    script = next((script for script, own in _OWN_OPTIONS.items() if own & plain.keys()), "")
    return GivenTraining(**{"options": plain, "script": script, "top1": top1, "read": (read,), **more})


def _parse_namespace(text: str, place: str) -> GivenTraining:
    """Read the line that main.py begins with; output before and behind it may have the accuracy."""
    match = _NAMESPACE.search(text)
    try:
        call = ast.parse(match[0], mode="eval").body if match else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if call is None:
        raise HarnessError(f"{place}: the Namespace(…) line is damaged; copy it whole, up to its last parenthesis")
    keywords = call.keywords if isinstance(call, ast.Call) else []
    options = {keyword.arg: _literal(keyword.value) for keyword in keywords if keyword.arg}
    given = _settings(options, f"{place}: a Namespace(…)", whole=True, launched="world_size" in options)
    return given.and_also(GivenTraining(**_printed(text)))


def _literal(node: ast.expr) -> Value:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return "…"  # an object, as a path
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (str, int, float, list)) or value is None else str(value)


def _parse_json(lines: Sequence[str], text: str, place: str) -> GivenTraining:
    """Read a log with an object a line, as far as it is whole; settings in JSON are YAML as well."""
    rows = [row for row in map(_object, lines) if row is not None and "epoch" in row]
    if not rows:
        return _parse_yaml(text, place)
    left_out = len(list(filter(str.strip, lines))) - len(rows)
    notes = (f"{place}: {left_out} of its lines are no epochs and were left out",) if left_out else ()
    return _epochs(rows, f"{place}: a log").and_also(GivenTraining(notes=notes))


def _object(text: str) -> dict[str, object] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _flat(value: object) -> Value:
    """Return a single value; W&B keeps each below a key of its own."""
    value = value["value"] if isinstance(value, dict) and "value" in value else value
    return value if isinstance(value, (str, int, float, list)) or value is None else str(value)


def _epochs(rows: Iterable[Mapping[str, object]], read: str) -> GivenTraining:
    """Read the rows of a log; a training that went on after an end has its epochs once, the newest of each."""
    epochs = {}
    for row in rows:
        number = number_of(row.get("epoch"))
        if number is not None and 0 <= number < 10**6:
            values = {
                name: next((_measured(row[key]) for key in keys if row.get(key) not in (None, "")), None)
                for name, keys in _COLUMNS.items()
            }
            epochs[int(number)] = LoggedEpoch(number=int(number), **values)
    ordered = tuple(epochs[number] for number in sorted(epochs))
    return GivenTraining(epochs=ordered, read=(f"{read}, {len(ordered)} epochs",))


def _measured(value: object) -> float | None:
    """Return a measured number, which may be infinite or none; None for what is no number."""
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _split(text: str, place: str) -> list[str]:
    try:
        return shlex.split(text, comments=False)
    except ValueError:
        if re.search(r"(^|\s)--\w", text):
            raise HarnessError(f"{place}: a quotation mark is not closed; copy the command whole") from None
        return []


def _parse_command(words: Sequence[str], place: str) -> GivenTraining:
    """Read the options of a script and of what launched it."""
    options: dict[str, Value] = {}
    name, script = "", ""
    for word in words:
        pair, file = _PAIR.fullmatch(word), Path(word).name
        if file in SCRIPTS:
            name, script = "", SCRIPTS[file]
            options |= {"ngpus": 8, "nodes": 2} if file == "run_with_submitit.py" else {}
            name = "nproc_per_node" if file == "distributed_train.sh" else ""
        elif word.startswith("-") and not _NUMBER.fullmatch(word):
            name = word.lstrip("-").replace("-", "_")
            if pair:
                options[pair[1]] = value_of(pair[2])
                name = ""
            elif name:
                options[name.removeprefix("no_")] = not name.startswith("no_")
        elif pair and (pair[1] in _TYPED or (pair[1].islower() and options.get(name) is not True)):
            options[pair[1]] = value_of(pair[2])
        elif name:
            before = options.get(name)
            if before is True and name in _FLAGS and value_of(word) == word:  # what follows is a file
                name = ""
                continue
            fresh = isinstance(before, bool) or name not in options or name in ("ngpus", "nodes")
            options[name] = (
                value_of(word) if fresh else [*(before if isinstance(before, list) else [before]), value_of(word)]
            )
            name = "" if name == "nproc_per_node" else name
    given = _settings(options, f"{place}: a command line", launched=True, whole=True)
    return GivenTraining(**{**vars(given), "script": script or given.script})


def _parse_yaml(text: str, place: str) -> GivenTraining:
    """Read an args.yaml; numbers stay text until they are asked for, as YAML does not know 5e-4 for one."""
    try:
        data = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 -- makes strings, lists and mappings, no objects
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        data = None
    if not isinstance(data, dict) or not data:
        raise HarnessError(f"{place}: nothing in it is known; name or type {KINDS}")
    flat = {str(name): _flat(value) for name, value in data.items()}
    options = {name: value_of(value) if isinstance(value, str) else value for name, value in flat.items()}
    return _settings(options, f"{place}: YAML", whole=True)


def value_of(text: str) -> Value:
    """Return what a text says: true or false, nothing, a number, or itself."""
    word = text.strip().lower()
    if word in _NOTHING:
        return None
    if word in _WORDS:
        return _WORDS[word]
    return float(word) if _NUMBER.fullmatch(word) and math.isfinite(float(word)) else text.strip()


def number_of(value: object) -> float | None:
    """Return a finite number; None for what is none."""
    number = _measured(value_of(value) if isinstance(value, str) else value)
    return number if number is not None and math.isfinite(number) else None
