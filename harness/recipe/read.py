"""One recipe or scale file -> `Recipe` or `Scale`, or every mistake in it at once."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, SpecError, did_you_mean
from harness.kinds import RECIPE, SETTINGS, SHAPE, Scalar
from harness.recipe.model import Recipe, Scale, Start
from harness.spec.document import Document

# What a recipe may fix beside its own settings.
FIXED = ("model", "res", "data", "teacher", "seed")

_PARTS = ("recipe", "start", "set", "assumed")
_ABOUT: Mapping[str, tuple[type, ...]] = {"title": (str,), "cite": (str,), "like": (str,), "hours": (int, Decimal)}
_START: Mapping[str, tuple[type, ...]] = {"recipe": (str,), "res": (int,)}
_SCALE: Mapping[str, tuple[type, ...]] = {
    "title": (str,),
    "seeds": (int,),
    "epochs": (int, Decimal),
    "least_epochs": (int,),
    "most_epochs": (int,),
    "data": (list,),
    "replaces": (list,),
}
_SCALE_PARTS = ("scale", "set", "recipe", "model", "res", "weights")

_TYPES = {str: "a string", int: "an integer", Decimal: "a number", list: "a list"}

Like = Callable[[str, tuple[str, ...]], Recipe]


def load_recipe(path: Path, like: Like, seen: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `like` gives the recipe that it changes, if it says so, and `seen` what led here.

    Raises `SpecError` with every mistake in the file, and `HarnessError` if it cannot be read.
    """
    reader = _Reader(path)
    reader.parts(_PARTS)
    about = reader.entry("recipe", _ABOUT)
    changes = reader.settings("set", allowed=(*RECIPE, *FIXED))
    assumed = reader.words("assumed", allowed=(*RECIPE, *FIXED))
    start = reader.entry("start", _START)
    if start and start.keys() != _START.keys():
        reader.say("[start] needs recipe and res", "start")
    if "title" not in about:
        reader.say('[recipe] has no title; add title = "…"', "recipe")
    reader.finish()
    base = like(about["like"], seen) if "like" in about else None
    settings = {**(base.settings if base else {}), **changes}
    missing = [name for name in RECIPE if name not in settings]
    if missing:
        reader.say(f'does not say {", ".join(missing)}; say it, or like = "RECIPE" for all that it does not change')
    reader.finish()
    inherited = {name: why for name, why in (base.assumed if base else {}).items() if name not in changes}
    return Recipe(
        name=seen[-1] if seen else path.stem,
        title=about["title"],
        cite=about.get("cite", base.cite if base else ""),
        settings=settings,
        assumed={**inherited, **assumed},
        start=Start(**start) if start else (base.start if base else None),
        hours=float(about["hours"]) if "hours" in about else None,  # another network costs something else
        lineage=(*(base.lineage if base else ()), path.stem),
    )


def load_scale(path: Path) -> Scale:
    """Read a scale.

    Raises `SpecError` with every mistake in the file, and `HarnessError` if it cannot be read.
    """
    reader = _Reader(path)
    reader.parts(_SCALE_PARTS)
    about = reader.entry("scale", _SCALE)
    for name in _SCALE:
        if name not in about:
            reader.say(f"[scale] does not say {name}", "scale")
    settings = reader.settings("set", allowed=tuple(RECIPE))
    recipes = reader.tables("recipe", allowed=tuple(RECIPE))
    models = reader.tables("model", allowed=("model", *SHAPE))
    weights = reader.words("weights")
    sizes = {key: value for key, value in reader.part("res").items() if reader.is_size(key, value)}
    reader.finish()
    return Scale(
        name=path.stem,
        title=about["title"],
        seeds=about["seeds"],
        epochs=float(about["epochs"]),
        least_epochs=about["least_epochs"],
        most_epochs=about["most_epochs"],
        data=tuple(about["data"]),
        replaces=tuple(about["replaces"]),
        settings=settings,
        recipes=recipes,
        models=models,
        sizes={int(key): int(value) for key, value in sizes.items()},
        weights=weights,
        path=path,
    )


class _Reader:
    """Takes a document apart and notes what is wrong on the way."""

    def __init__(self, path: Path) -> None:
        try:
            self._document = Document.read(path)
        except OSError as error:
            raise HarnessError(f"{path}: cannot be read ({error.strerror}); name a recipe or its file") from error
        self._path = path
        self.say = self._document.add

    def finish(self) -> None:
        """Raise what was noted."""
        problems = sorted({(p.line, p.text) for p in self._document.problems})
        if problems:
            path = self._path
            raise SpecError(f"{path}:{line}: {text}" if line else f"{path}: {text}" for line, text in problems)

    def parts(self, known: tuple[str, ...]) -> None:
        for name, value in self._document.data.items():
            if name not in known:
                self.say(f"unknown part '{name}'{did_you_mean(name, known)}", name)
            elif not isinstance(value, dict):
                self.say(f"{name} is not a table; write [{name}]", name)

    def part(self, name: str) -> dict[str, Any]:
        found = self._document.data.get(name, {})
        return found if isinstance(found, dict) else {}

    def entry(self, name: str, allowed: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
        """Take a table of known keys, without what is wrong in it."""
        found = {}
        for key, value in self.part(name).items():
            if key not in allowed:
                self.say(f"unknown key '{key}' in [{name}]{did_you_mean(key, allowed)}", name, key)
            elif isinstance(value, bool) or not isinstance(value, allowed[key]):
                self.say(f"{key} in [{name}] must be {_TYPES[allowed[key][-1]]}, not {_shown(value)}", name, key)
            else:
                found[key] = value
        return found

    def words(self, name: str, allowed: tuple[str, ...] | None = None) -> dict[str, str]:
        """Take a table of strings."""
        found = {}
        for key, value in self.part(name).items():
            if allowed is not None and key not in allowed:
                self.say(f"unknown setting '{key}' in [{name}]{did_you_mean(key, allowed)}", name, key)
            elif not isinstance(value, str):
                self.say(f"{key} in [{name}] must be a string, not {_shown(value)}", name, key)
            else:
                found[key] = value
        return found

    def tables(self, name: str, allowed: tuple[str, ...]) -> dict[str, dict[str, Scalar]]:
        """Take tables of settings by name."""
        found = {}
        for key, value in self.part(name).items():
            if not isinstance(value, dict):
                self.say(f"{name}.{key} is not a table; write [{name}.{key}]", name, key)
                continue
            found[key] = self._settings(value, allowed, name, key)
        return found

    def settings(self, name: str, allowed: tuple[str, ...]) -> dict[str, Scalar]:
        """Take a table of settings."""
        return self._settings(self.part(name), allowed, name)

    def _settings(self, entry: Mapping[str, Any], allowed: tuple[str, ...], *keys: str) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        for name, raw in entry.items():
            if name not in allowed:
                self.say(f"unknown setting '{name}' in [{'.'.join(keys)}]{did_you_mean(name, allowed)}", *keys, name)
                continue
            try:
                found[name] = checked(name, float(raw) if isinstance(raw, Decimal) else raw)
            except HarnessError as error:
                self.say(str(error), *keys, name)
        return found

    def is_size(self, key: str, value: object) -> bool:
        """Whether `224 = 32` is a pair of sides."""
        if key.isdigit() and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return True
        self.say(f"{key} = {_shown(value)} in [res] is not a pair of sides in pixels, as 224 = 32", "res", key)
        return False


# What a number must not be below or above; below 0 is never right.
_AT_MOST_ONE = (
    *("label_smoothing", "dropout", "drop_path", "mix_probability", "mix_switch", "erasing", "ema_decay", "flip"),
    *("soft_weight", "crop", "crop_area"),
)
_ABOVE_NOTHING = ("learning_rate", "temperature", "crop", "crop_area")


def checked(name: str, value: object) -> Scalar:
    """Give the value of a setting as jobs have it: what may be a fraction is a float.

    Raises `HarnessError` for what it cannot be.
    """
    setting = SETTINGS[name]
    if not setting.accepts(value) or not isinstance(value, (str, int, float, bool)):
        raise HarnessError(f"{name} must be {setting.expectation()}, not {_shown(value)}")
    if isinstance(value, (bool, str)):
        return value
    if float not in setting.types:
        if value < 1:
            raise HarnessError(f"{name} must be at least 1, not {value}")
        return value
    number = float(value)
    if not 0 <= number < float("inf"):
        raise HarnessError(f"{name} must be 0 or more, not {value}")
    if name in _AT_MOST_ONE and number > 1:
        raise HarnessError(f"{name} must be at most 1, not {value}")
    if name in _ABOVE_NOTHING and number == 0:
        raise HarnessError(f"{name} must be above 0")
    return number


def _shown(value: object) -> str:
    return repr(float(value)) if isinstance(value, Decimal) else repr(value)
