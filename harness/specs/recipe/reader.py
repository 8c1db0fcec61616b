"""One recipe or scale file -> `Recipe` or `Scale`, or every mistake in it at once."""

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.specs.checked import TABLE, TEXT, Constraint, Reader
from harness.specs.document import Document
from harness.specs.kinds import RECIPE, SETTINGS, SHAPE
from harness.specs.recipe.model import Recipe, Scale, Start

# What a recipe may fix besides its own settings.
_FIXED = {
    name: SETTINGS[name]
    for name in ("model", "res", "data", "teacher", "teacher_res", "adapted_teacher", "fixres", "seed")
}

_TITLE = Constraint(types=(str,), required=True)
_COUNT = Constraint(types=(int,), least=1, required=True)
_NAMES = Constraint(types=(list,), items=TEXT, required=True)
_ABOUT = {"title": _TITLE, "cite": TEXT, "like": TEXT, "hours": Constraint(types=(float,), least=0)}
_START = {"recipe": _TITLE, "res": _COUNT}
# The keys that each part of a recipe may have, for a schema.
KEYS: Mapping[str, Mapping[str, Constraint]] = {
    "recipe": _ABOUT,
    "start": _START,
    "set": {**RECIPE, **_FIXED},
    "assumed": dict.fromkeys((*RECIPE, *_FIXED), TEXT),
}
_SCALE_PARTS = dict.fromkeys(("scale", "set", "recipe", "model", "res", "weights"), TABLE)
_SCALE = {
    "title": _TITLE,
    **dict.fromkeys(("seeds", "least_epochs", "most_epochs"), _COUNT),
    "epochs": Constraint(types=(float,), above=0, required=True),
    **dict.fromkeys(("data", "replaces"), _NAMES),
}

Like = Callable[[str, tuple[str, ...]], Recipe]


def load_recipe(path: Path, like: Like, lineage: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `like` finds the recipe that it changes, if it names one, and `lineage` are those that led here.

    Raises `SpecError` with every mistake in the file, and `HarnessError` if it cannot be read.
    """
    document = Document.read(path, expected="a recipe or its file")
    reader = Reader(document.add)
    parts = reader.table(document.data, dict.fromkeys(KEYS, TABLE), what="part")
    about = reader.table(parts.get("recipe", {}), _ABOUT, "recipe")
    changes = reader.table(parts.get("set", {}), KEYS["set"], "set", what="setting")
    assumed = reader.table(parts.get("assumed", {}), KEYS["assumed"], "assumed", what="setting")
    start = reader.table(parts["start"], _START, "start") if "start" in parts else None
    document.check()
    base = like(about["like"], lineage) if "like" in about else None
    settings = {**(base.settings if base else {}), **changes}
    missing = [name for name in RECIPE if name not in settings]
    if missing:
        document.add(f'does not set {", ".join(missing)}; set them, or like = "RECIPE" for all that it does not change')
    document.check()
    inherited = {name: why for name, why in (base.assumed if base else {}).items() if name not in changes}
    return Recipe(
        name=lineage[-1] if lineage else path.stem,
        title=about["title"],
        cite=about.get("cite", base.cite if base else ""),
        settings=settings,
        assumed={**inherited, **assumed},
        start=Start(**start) if start else (base.start if base else None),
        hours=about.get("hours"),  # not the base's: another model costs something else
        lineage=(*(base.lineage if base else ()), path.stem),
    )


def load_scale(path: Path) -> Scale:
    """Read a scale.

    Raises `SpecError` with every mistake in the file, and `HarnessError` if it cannot be read.
    """
    document = Document.read(path, expected="a scale")
    reader = Reader(document.add)
    parts = reader.table(document.data, _SCALE_PARTS, what="part")
    about = reader.table(parts.get("scale", {}), _SCALE, "scale")

    recipes, models = (
        {name: reader.table(raw, known, part, name, what="setting") for name, raw in parts.get(part, {}).items()}
        for part, known in (("recipe", RECIPE), ("model", {"model": TEXT, **SHAPE}))
    )
    settings = reader.table(parts.get("set", {}), RECIPE, "set", what="setting")
    weights = reader.mapping(parts.get("weights", {}), TEXT, "weights")
    sizes = reader.mapping(parts.get("res", {}), SETTINGS["res"], "res")
    for size in sizes:
        if not size.isdecimal():
            reader.report(f"{size} in [res] is not the side of an image in pixels, as 224 = 32", "res", size)
    document.check()
    about |= {name: tuple(about[name]) for name in ("data", "replaces")}
    return Scale(
        name=path.stem,
        **about,
        settings=settings,
        recipes=recipes,
        models=models,
        sizes={int(size): substitute for size, substitute in sizes.items()},
        weights=weights,
        path=path,
    )
