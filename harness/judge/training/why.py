"""A training and a recipe -> what differs, most likely cause of a lower accuracy first.

What a difference is worth comes from the tables in which a row changes a recipe, from the authors' statements and from
the recipe's own rule for the learning rate; nothing here is a number of its own but how often a run's noise counts.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.judge.training.curve import NOT_FINITE, not_finite, read_curve
from harness.judge.training.given import GivenTraining
from harness.judge.training.options import RELEVANT, TheirSettings, their_settings
from harness.specs import Cell, Spec
from harness.specs.checked import Scalar
from harness.specs.datasets import DATASETS
from harness.specs.kinds import RECIPE
from harness.specs.recipe import Recipe, Recipes

STATEMENTS = "author-statements"
DEFAULT = "deit-b"

# Two runs, ours and the published one, each vary: a gap of twice the noise between runs is no sign of a mistake.
_NOISE_TIMES = 2

# Settings without a published effect, those first that decide how far and how well a training gets.
_ORDER = (
    *("learning_rate", "batch_size", "epochs", "optimizer", "schedule", "warmup_epochs", "weight_decay"),
    *("repeated_aug", "mixup", "cutmix", "erasing", "drop_path", "label_smoothing", "distillation", "precision"),
)

# The authors' statement on a setting, by the row of their statements, and why it matters.
_STATEMENTS = {
    "batch_size": "released_code_defaults_batch_size_per_gpu",
    "crop": "released_code_defaults_evaluation_crop_ratio",
    "warmup_epochs": "cifar_10_from_scratch_warm_up_when_training_7200_epochs",
    "ema_decay": "released_code_defaults_ema_decay",
    **dict.fromkeys(("warmup_lr", "min_lr"), "released_code_defaults_warm_up_rate_minimum_rate_cooldown"),
    "mix_switch": "released_code_defaults_mixup_alpha_cutmix_alpha_mixup_prob_switch_prob",
}

_ADVICE = {
    "repeated_aug": "; the batch size counts the repeats",
    "epochs": "; an epoch is one pass' worth of images, repeats counted",
    "warmup_epochs": "; it is not lengthened with the schedule",
    "crop": "; evaluate the same weights with that crop before training again",
    "ema": "; or evaluate the model itself, which a checkpoint has as well",
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A difference: theirs and the recipe's, the published change in points (None where there is none), its source.

    `key` is the recipe's setting, or what the curve shows; `likely` orders causes, the largest first.
    """

    key: str
    theirs: str = ""
    recipe: str = ""
    points: float | None = None
    effect: str
    source: str = ""
    advice: str
    likely: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was compared with what, and what came of it; accuracies in percent, `noise` and `gap` in points."""

    recipe: Recipe
    read: tuple[str, ...]
    top1: float | None
    published: float | None
    published_source: str = ""
    noise: float
    causes: tuple[Cause, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """How far the training is below the published value."""
        return None if self.top1 is None or self.published is None else self.published - self.top1


@dataclass(frozen=True, kw_only=True)
class _Effect:
    """What a row of a table changes of a recipe, from one value to another each, and by how many points."""

    changes: Mapping[str, tuple[Scalar, Scalar]]
    points: float
    failed: bool
    text: str
    source: str


@dataclass(kw_only=True)
class _Case:
    """All that causes are derived from."""

    given: GivenTraining
    theirs: TheirSettings
    recipe: Recipe
    recipes: Recipes
    specs: Sequence[Spec]
    noise: float = 0.0
    gap: float | None = None
    causes: list[Cause] = field(default_factory=list)

    def statement(self, row: str) -> tuple[str, str]:
        """Return a statement of the authors and its source; empty where there is none."""
        spec = next((spec for spec in self.specs if spec.name == STATEMENTS), None)
        cell = spec.cells.get((row, "value")) if spec else None
        published = cell.published if cell else None
        return (published.text, (cell.row.note or "") if cell else "") if published else ("", "")


def diagnose(given: GivenTraining, specs: Sequence[Spec], recipes: Recipes, name: str | None) -> Diagnosis:
    """Compare a training with a recipe: that of this name, or the one that trains their model.

    Raises `HarnessError` where nothing was given that could be compared, or for an unknown recipe.
    """
    theirs = their_settings(given)
    known = (theirs.values, theirs.rate, theirs.batch, given.epochs, given.top1, given.diverged)
    if all(each in (None, False, (), {}) for each in known):
        raise HarnessError("no option, epoch or accuracy in it is known; give main.py's Namespace(…) line or its log")
    recipe = recipes.find(name or _recipe_for(theirs, recipes))
    top1 = given.top1 if given.top1 is not None else _last_top1(given)
    published, source = _published(specs, recipe)
    case = _Case(given=given, theirs=theirs, recipe=recipe, recipes=recipes, specs=specs)
    case.noise = _number(case.statement("training_run_to_run_noise")[0]) or 0.0
    case.gap = None if top1 is None or published is None else published - top1
    _add_differences(case)
    _add_unfinished(case)
    _add_curve(case)
    _add_surroundings(case)
    likeliest = sorted(case.causes, key=lambda cause: -cause.likely)
    return Diagnosis(
        recipe=recipe,
        read=given.read,
        top1=top1,
        published=published,
        published_source=source,
        noise=case.noise,
        causes=tuple(likeliest),
        notes=(*given.notes, *theirs.notes),
        unknown=tuple(theirs.unknown),
    )


def _number(text: str) -> float | None:
    match = re.search(r"\d+(?:\.\d+)?", text)
    return float(match[0]) if match else None


def _last_top1(given: GivenTraining) -> float | None:
    return next((e.top1 for e in reversed(given.epochs) if e.top1 is not None and math.isfinite(e.top1)), None)


def _recipe_for(theirs: TheirSettings, recipes: Recipes) -> str:
    """Return the recipe that trains their model at their size; without a model, or such a recipe, that of DeiT-B."""
    model = str(theirs.values.get("model", ""))
    res = theirs.values.get("res") or (float(size[0]) if (size := re.search(r"(?<=_)\d{3}$", model)) else 224)
    loaded = [recipes.find(name) for name in recipes.names]
    fitting = [recipe for recipe in loaded if model and _equal(model, recipe.settings.get("model", ""))]
    if model and not fitting:
        theirs.notes.append(f"no recipe trains {model}; --recipe names the one to compare with instead of {DEFAULT}")
    fitting.sort(key=lambda r: (r.settings.get("res") != res, r.settings.get("data") != "imagenet", len(r.lineage)))
    return fitting[0].name if fitting else DEFAULT


def _plain(value: str) -> str:
    """Return a model's name without its tag and size: 384 pixels are the same model."""
    return re.sub(r"_\d{3}$", "", value.partition(".")[0].lower()) if "/" not in value else value


def _published(specs: Sequence[Spec], recipe: Recipe) -> tuple[float | None, str]:
    """Return the accuracy that the recipe is published with, and where."""
    own = {"recipe": recipe.name, **{name: recipe.settings.get(name) for name in ("model", "res")}}
    for spec, cell, value in _trained_cells(specs, recipe):
        if cell.training.items() <= own.items():
            return value, f"{spec.numbers.get('arxiv', spec.name)}, {cell.row.label}"
    return None, ""


def _trained_cells(specs: Sequence[Spec], recipe: Recipe) -> Iterator[tuple[Spec, Cell, float]]:
    """Yield the cells that a recipe trains, on the images of this one, with their published accuracy."""
    data = recipe.settings.get("data")
    for spec in specs:
        for cell in spec.cells.values():
            value = cell.published.value if cell.published else None
            known = cell.training.get("recipe") and cell.settings.get("data", data) == data
            if cell.metric == "top1" and known and value is not None:
                yield spec, cell, value


def _effects(case: _Case) -> list[_Effect]:
    """Return what rows of tables change of the recipe, the nearest recipe's first and those with most changes first."""
    ranked: list[tuple[int, _Effect]] = []
    trained = list(_trained_cells(case.specs, case.recipe))
    defaults = {(s.name, c.column.key): (c, value) for s, c, value in trained if s.default == c.row.key}
    for spec, cell, value in trained:
        default, before = defaults.get((spec.name, cell.column.key), (cell, value))
        if default.training["recipe"] not in case.recipe.lineage:
            continue
        old, new = ({**case.recipes.find(str(c.training["recipe"])).settings, **c.training} for c in (default, cell))
        changes = {name: (old[name], new[name]) for name in RECIPE if old[name] != new[name]}
        marks = cell.published.marks if cell.published else ()
        effect = _Effect(
            changes=changes,
            points=value - before,
            failed=any("did not work" in spec.footnotes[mark].text for mark in marks if mark in spec.footnotes),
            text=f"{cell.row.label} {cell.published}, {default.row.label} {default.published}",
            source=f"{spec.numbers.get('arxiv', spec.name)}, {cell.column.label}",
        )
        if changes:
            ranked.append((case.recipe.lineage.index(str(default.training["recipe"])), effect))
    return [effect for _, effect in sorted(ranked, key=lambda pair: (-pair[0], -len(pair[1].changes)))]


def _add_differences(case: _Case) -> None:
    """Add each setting that differs, with the published effect where a row changes the same."""
    recipe, theirs = dict(case.recipe.settings), dict(case.theirs.values)
    merged = {**recipe, **theirs}
    different = {
        name: value
        for name, value in theirs.items()
        if name in recipe
        and not _equal(value, recipe[name])
        and (name not in RELEVANT or (RELEVANT[name](recipe) and RELEVANT[name](merged)))
    }
    explained: set[str] = set()
    for effect in _effects(case):
        names = set(effect.changes)
        if names <= different.keys() - explained and (how := _covers(effect, different, recipe)):
            explained |= names
            case.causes.append(_published_cause(case, effect, how))
    if case.recipe.settings.get("distillation") != different.get("distillation", recipe["distillation"]):
        explained |= {"model", "teacher"} & different.keys()  # the model with a token and its teacher belong to it
    rest = _unexplained(case)
    case.causes += [_unpublished_cause(case, *pair, rest) for pair in different.items() if pair[0] not in explained]
    _add_batch_and_rate(case, rest)


def _equal(theirs: Scalar, recipe: Scalar) -> bool:
    if isinstance(theirs, str) or isinstance(recipe, str):
        return _plain(str(theirs)) == _plain(str(recipe)) or str(theirs).lower() == str(recipe).lower()
    return math.isclose(float(theirs), float(recipe), rel_tol=1e-6, abs_tol=1e-12)


def _covers(effect: _Effect, theirs: Mapping[str, Scalar], recipe: Mapping[str, Scalar]) -> str:
    """Return whether they change the same as a row: `all` of it, `part` of the way, `more`, its `reverse`, or not."""
    ways = set()
    for name, (before, after) in effect.changes.items():
        value, ours = theirs[name], recipe[name]
        if _equal(value, after) and _equal(ours, before):
            ways.add("all")
        elif _equal(value, before) and _equal(ours, after):
            ways.add("reverse")
        elif any(isinstance(each, (str, bool)) for each in (value, before, after)) or not _equal(ours, before):
            return ""
        else:
            share = (float(value) - float(before)) / (float(after) - float(before))
            ways.add("part" if 0 < share < 1 else "more" if share > 1 else "")
    return ways.pop() if len(ways) == 1 else ""


def _published_cause(case: _Case, effect: _Effect, how: str) -> Cause:
    names = tuple(effect.changes)
    points = -effect.points if how == "reverse" else effect.points
    kind = {"part": "at most ", "more": "at least "}.get(how, "")
    words = f"{kind}{points:+.1f} points".replace("-", "−")
    likely = -points / 2 if how == "part" else -points
    if effect.failed:
        words = "the training of that row failed"
        # One that reached more than the failed training did not fail as that one did.
        likely = case.noise if case.gap is not None and case.gap < likely / 2 else likely
    values = {name: case.theirs.values[name] for name in names}
    return Cause(
        key=" and ".join(names),
        theirs=" and ".join(written(value) for value in values.values()),
        recipe=" and ".join(written(case.recipe.settings[name]) for name in names),
        points=None if effect.failed or kind else round(points, 2),
        effect=words,
        source=f"{effect.source}: {effect.text}",
        advice=_set(case, *names),
        likely=likely,
    )


def written(value: object) -> str:
    """Write a value as a reader of recipes knows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _set(case: _Case, *names: str) -> str:
    """Return the advice to set what the recipe has, in the words of their options."""
    options = {case.theirs.names.get(name, name): case.recipe.settings[name] for name in names}
    if "rand_augment" in names and case.theirs.names.get("rand_augment") == "aa":
        options = {"aa": case.recipe.settings["rand_augment_policy"]}
    if case.theirs.names.get(names[0]) == "aug_repeats":
        options = {"aug_repeats": case.recipe.settings["repeats_of_image"]}
    pairs = ", ".join(f"{name} = {written(value)}" for name, value in options.items())
    return f"set {pairs}{_ADVICE.get(names[0], '')}"


def _unexplained(case: _Case) -> float:
    """Return how many points no published effect explains; what a run's noise is where that is not known."""
    explained = sum(max(-(cause.points or 0.0), 0.0) for cause in case.causes)
    return case.noise if case.gap is None else max(case.gap - explained, case.noise)


def _unpublished_cause(case: _Case, name: str, value: Scalar, rest: float) -> Cause:
    statement, source = case.statement(_STATEMENTS.get(name, ""))
    return Cause(
        key=name,
        theirs=written(value),
        recipe=written(case.recipe.settings[name]),
        effect="not published",
        source=f"the authors: {statement} ({source})" if statement else case.recipe.cite,
        advice=_set(case, name),
        likely=_likely(name, rest),
    )


def _likely(name: str, rest: float) -> float:
    """Order what may explain the rest: important settings first, and those that hardly matter last."""
    place = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    return rest * (1 - place / 100) if name in _ORDER else 0.0


def _add_batch_and_rate(case: _Case, rest: float) -> None:
    """Hold the batch size against the recipe's, and the peak rate against its rule for their batch size."""
    settings, theirs, batch = case.recipe.settings, case.theirs, case.theirs.batch
    published, base, unit = (float(settings[name]) for name in ("batch_size", "learning_rate", "lr_batch"))
    peak = max((e.rate for e in case.given.epochs if e.rate is not None and math.isfinite(e.rate)), default=None)
    rate = peak if peak is not None and len(case.given.epochs) > float(settings["warmup_epochs"]) + 1 else theirs.rate
    images = float(batch.total) if batch else published
    rule = base * images / unit if unit else base
    formula = f"{base:g} × batch size / {unit:g}" if unit else f"{base:g} for any batch size"
    if rate is not None and not math.isclose(rate, rule, rel_tol=0.02):
        passed = f"; for main.py that is --lr {rule / theirs.scale:.3g}" if theirs.scale != 1 and theirs.names else ""
        case.causes.append(
            Cause(
                key="learning_rate",
                theirs=f"{rate:.3g}",
                recipe=f"{rule:.3g} for a batch of {images:g}",
                effect=f"{rate / rule:.2g} times the rate of the rule; not published",
                source=f"{case.recipe.cite}: {formula}",
                advice=f"train with a peak rate of {rule:.3g}{passed}",
                likely=_likely("learning_rate", rest),
            )
        )
    if batch and batch.total != published:
        statement, source = case.statement(_STATEMENTS["batch_size"])
        times = max(round(published / (batch.per_device * batch.devices)), 1)
        reached = batch.per_device * batch.devices * times
        accumulates = times > 1 and batch.accumulation != times
        scaled = base * (reached if accumulates else published) / unit if unit else base
        how_to = f"accumulate {times} steps ({reached} images)" if accumulates else f"have {published:g} images a step"
        follows = rate is None or math.isclose(rate, rule, rel_tol=0.02)
        how = f"scaled by the rule, but was tuned for {published:g}" if follows else "not scaled for it"
        case.causes.append(
            Cause(
                key="batch_size",
                theirs=str(batch),
                recipe=f"{published:g}, repeats counted" if settings["repeated_aug"] else f"{published:g}",
                effect=f"not published; the rate is {how}",
                source=f"{case.recipe.cite}; the authors: {statement} images on a GPU, {source.partition('; ')[2]}",
                advice=f"{how_to} at a peak rate of {scaled:.3g}",
                likely=_likely("batch_size", rest),
            )
        )


def _add_unfinished(case: _Case) -> None:
    """Tell a training that was cut off from one with a shorter schedule, whose rate has come to its end."""
    epochs = int(float(case.theirs.values.get("epochs", case.recipe.settings["epochs"])))
    last = case.given.epochs[-1] if case.given.epochs else None
    ended = case.theirs.ended or (last.number + 1 if last else None)
    if ended is None or ended >= epochs:
        return
    whole = last is not None and last.rate is not None and last.rate <= 2 * float(case.recipe.settings["min_lr"])
    left = 50 * (1 + math.cos(math.pi * ended / epochs))
    case.causes.append(
        Cause(
            key="epochs" if whole else "the training is not over",
            theirs=f"{ended} epochs",
            recipe=f"{epochs} epochs",
            effect="not published" if whole else f"at {left:.0f} % of the peak rate the accuracy still rises",
            source=case.recipe.cite,
            advice="compare after the last epoch; a schedule that is cut off has no published accuracy",
            likely=_likely("epochs", _unexplained(case)) if whole else math.inf,
        )
    )


def _add_curve(case: _Case) -> None:
    settings = {**case.recipe.settings, **case.theirs.values}
    batch = case.theirs.batch.total if case.theirs.batch else float(case.recipe.settings["batch_size"])
    steps = DATASETS["imagenet"].train_images / max(batch, 1)
    decay = min(max(float(settings["ema_decay"]), 0.0), 1 - 1e-9)
    findings = read_curve(
        case.given.epochs,
        mixed=any(float(settings[name]) > 0 for name in ("mixup", "cutmix", "label_smoothing")),
        horizon=1 / (1 - decay) / steps,
        noise=case.noise,
        warmup=float(settings["warmup_epochs"]),
    )
    if case.given.diverged and not any(finding.name == NOT_FINITE for finding in findings):
        findings.append(not_finite("the training stopped at it"))
    case.causes += [
        Cause(
            key=finding.name,
            effect=finding.evidence,
            source=f"the log: {finding.meaning}",
            advice=finding.advice,
            likely=math.inf if finding.certain else case.noise,
        )
        for finding in findings
    ]


def _add_surroundings(case: _Case) -> None:
    """Add noise where that may be all, and what no setting shows where the settings leave a part of the gap."""
    if noise := _noise_alone(case):
        case.causes.append(noise)
    elif case.gap is not None and _unexplained(case) > _NOISE_TIMES * case.noise:
        case.causes += filter(None, (_software(case), _images_on_a_device(case)))


def _noise_alone(case: _Case) -> Cause | None:
    """Return the noise between two runs where it is as large as the gap and nothing else is certain."""
    certain = any(cause.likely == math.inf for cause in case.causes)
    if case.gap is None or not 0 < case.gap <= _NOISE_TIMES * case.noise or certain:
        return None
    statement, source = case.statement("training_run_to_run_noise")
    return Cause(
        key="the noise between runs",
        theirs=f"{case.gap:.2f} points below",
        recipe=f"{statement} points between two runs",
        effect="nothing may be wrong",
        source=source,
        advice="train with another seed before looking for a mistake",
        likely=math.inf,
    )


def _software(case: _Case) -> Cause:
    software, source = case.statement("training_software")
    return Cause(
        key="software",
        theirs="not in the settings",
        recipe=software,
        effect="not published",
        source=source,
        advice="compare the versions of PyTorch, torchvision and timm, then the images: `harness doctor --data "
        "imagenet=PATH` checks those",
        likely=case.noise * 0.9,
    )


def _images_on_a_device(case: _Case) -> Cause | None:
    """Return how the batch is divided, where only that differs from the authors' training."""
    batch, (usual, source) = case.theirs.batch, case.statement(_STATEMENTS["batch_size"])
    if not batch or batch.total != case.recipe.settings["batch_size"] or batch.per_device == _number(usual):
        return None
    return Cause(
        key="images on a device",
        theirs=f"{batch.per_device} on each of {batch.devices}",
        recipe=f"{usual} on each",
        effect="not published; the same in exact arithmetic, not in float16 with another loss scale",
        source=source,
        advice="train in bfloat16, or with fewer images on each of more devices",
        likely=case.noise * 0.8,
    )
