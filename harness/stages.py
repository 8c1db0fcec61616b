"""What a cell asks to be trained -> the chain of trainings, each a job that takes weights from those before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.job import TRAINED, Job
from harness.kinds import RECIPE, SHAPE, Scalar
from harness.recipe import Recipe, Recipes, Scale
from harness.recipe.read import checked
from harness.spec import Cell

# Of what a spec asks, this is meant for the first stage of a chain, and this for the last; all else for every stage.
_FIRST = ("epochs", "optimizer")
_LAST = ("recipe", "res", "data", "start", "finetune_optimizer")

# What an assumption is about only where this is on.
_ONLY_WITH = {"auto_augment_policy": "auto_augment", "rand_augment_policy": "rand_augment", "teacher": "distillation"}

# What a job is called by in any case.
_TOLD = ("recipe", "model", "res", "data", "start", "teacher", "seed")

# The first seed: a teacher is trained once, its students with several.
FIRST_SEED = 1


class NoStandIn(HarnessError):  # noqa: N818 -- reads as what is the matter
    """A small scale has nothing that stands in for something published; the other cells do not mind."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Makes jobs of recipes, at the published scale (None) or at one that stands in for it.

    `data` names the data sets that are there, `changes` settings that win over every recipe.
    """

    recipes: Recipes = field(default_factory=Recipes)
    scale: Scale | None = None
    data: frozenset[str] = frozenset()
    changes: Mapping[str, Scalar] = field(default_factory=dict)

    def evaluation(self, cell: Cell, seed: int = FIRST_SEED) -> Job:
        """Make the job that evaluates what is trained for a cell.

        Raises `HarnessError` with what is missing or cannot be.
        """
        trained = self.training(cell.training, seed)
        res = int(cell.settings.get("res", trained["res"]))
        data = str(cell.settings.get("data", trained["data"]))
        settings: dict[str, Scalar] = {
            "model": trained["model"],
            "weights": TRAINED,
            "res": self._size(res) if "res" in cell.settings else res,
            "data": self._data(data) if "data" in cell.settings else data,
            "crop": float(cell.settings.get("crop", trained["crop"])),
            "interpolation": cell.settings.get("interpolation", trained["interpolation"]),
            "norm": cell.settings.get("norm", trained["norm"]),
            "precision": "float32",
        }
        return Job.of("evaluate", settings, {"weights": trained})

    def training(self, asked: Mapping[str, Scalar], seed: int = FIRST_SEED) -> Job:
        """Make the training that a cell asks for, with all before it.

        Raises `HarnessError` for an unknown recipe, for what the scale has no stand-in for, and for settings that
        cannot be together.
        """
        if "recipe" not in asked:
            raise HarnessError("no recipe says how it is trained")
        return self._stage(self.recipes.find(str(asked["recipe"])), asked, seed)

    def resolved(self, name: str) -> Job:
        """Make the job that says what the trainer makes of a recipe, at the published scale."""
        settings = self.recipes.find(name).settings
        told = {key: value for key, value in settings.items() if key in (*RECIPE, "model", "res")}
        return Job.of("recipe", {**told, "recipe": name})

    def hours(self, job: Job) -> float | None:
        """Give the V100-hours of one stage alone as published, in proportion to its length; None if they were not."""
        recipe = self.recipes.find(str(job["recipe"]))
        return None if recipe.hours is None else recipe.hours * int(job["epochs"]) / recipe.epochs

    def differences(self, job: Job) -> Mapping[str, Scalar]:
        """Tell which settings of a training are not its recipe's at this scale: what a row of a table changes."""
        try:
            usual = self.training({"recipe": job["recipe"]}, int(job["seed"]))
        except HarnessError:
            return {}  # a recipe that begins with another's weights, which only the row names
        return {name: value for name, value in job.settings if usual.get(name) != value and name not in _TOLD}

    def assumptions(self, cell: Cell, job: Job) -> tuple[str, ...]:
        """Say on which settings that no publication gives the trainings behind a cell rest, each with its reason."""
        found = dict.fromkeys(f"{name} = {_shown(job, name)}: {why}" for name, why in cell.assumed.items())
        for stage in job.lineage:
            recipe = self.recipes.find(str(stage["recipe"]))
            for name, why in recipe.assumed.items():
                switch = stage.get(_ONLY_WITH.get(name, ""), default=True)
                kept = stage.get(name) == recipe.settings.get(name)
                if kept and switch not in (False, "none"):
                    found.setdefault(f"{name} = {stage.get(name)}: {why}")
        return tuple(found)

    # One stage.

    def _stage(self, recipe: Recipe, asked: Mapping[str, Scalar], seed: int) -> Job:
        begins = recipe.start is None and "start" not in asked
        settings: dict[str, Scalar] = {**recipe.settings, **self._asked(asked, begins=begins)}
        settings = {**self._scaled(recipe, settings), **self._ablations(asked, begins=begins), **self.changes}
        needs = self._needs(recipe, asked, settings, seed)
        if settings["eval_mode"] and "start" not in needs and "start" not in settings:
            raise NoStandIn("nothing says which weights it starts from: the paper has it from elsewhere")
        _check(settings)
        told = {name: settings[name] for name in settings if name in (*RECIPE, *SHAPE, "model", "res", "data")}
        for name in ("teacher", "start"):
            if name in settings and name not in needs:
                told[name] = settings[name]
        return Job.of("train", {**told, "recipe": recipe.name, "seed": seed}, needs)

    def _asked(self, asked: Mapping[str, Scalar], *, begins: bool) -> dict[str, Scalar]:
        found = {name: value for name, value in asked.items() if name not in (*_FIRST, "finetune_optimizer", "recipe")}
        if begins and "epochs" in asked:
            found["epochs"] = asked["epochs"]
        return found

    def _ablations(self, asked: Mapping[str, Scalar], *, begins: bool) -> dict[str, Scalar]:
        """Give the recipe's own settings that a cell changes: they win over what a scale sets."""
        found = {name: value for name, value in asked.items() if name in RECIPE and name not in _FIRST}
        named = "optimizer" if begins else "finetune_optimizer"
        if named in asked:
            found["optimizer"] = asked[named]
        return found

    def _scaled(self, recipe: Recipe, settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Put the scale's stand-ins in the place of what the paper has."""
        if self.scale is None:
            return {**settings, "data": self._data(str(settings["data"]))}
        found = {**settings, **self.scale.settings}
        for name in recipe.lineage:
            found |= self.scale.recipes.get(name, {})
        found["epochs"] = self.scale.length(int(settings["epochs"]))
        found["res"] = self._size(int(settings["res"]))
        found["data"] = self._data(str(settings["data"]))
        return {**found, **self._network(str(settings["model"]))}

    def _network(self, model: str) -> Mapping[str, Scalar]:
        scale = self.scale
        if scale is None:
            return {"model": model}
        if model not in scale.models:
            raise NoStandIn(f"the {scale.name} scale has no stand-in for {model}; {scale.path} lists those it has")
        return {"model": model, **scale.models[model]}

    def _size(self, res: int) -> int:
        scale = self.scale
        if scale is None:
            return res
        if res not in scale.sizes:
            raise NoStandIn(f"the {scale.name} scale has no stand-in for {res} pixels; {scale.path} lists those it has")
        return scale.sizes[res]

    def _data(self, data: str) -> str:
        """Give what stands in for a data set, or itself if it is there."""
        if self.scale is not None and data in self.scale.replaces:
            return next((name for name in self.scale.data if name in self.data), self.scale.data[-1])
        if self.scale is not None and data.startswith("imagenet"):
            raise NoStandIn(f"the {self.scale.name} scale has no stand-in for {data}")
        return data

    # What it takes from others.

    def _needs(
        self, recipe: Recipe, asked: Mapping[str, Scalar], settings: dict[str, Scalar], seed: int
    ) -> dict[str, Job]:
        needs = {}
        if "start" in settings:
            ready = self._ready_made(str(settings["start"]), seed)
        else:
            ready = self._before(recipe, asked, seed)
        if ready is not None:
            needs["start"] = ready
        if settings["distillation"] == "none":
            settings.pop("teacher", None)
        elif "teacher" in settings:
            teacher = self._ready_made(str(settings["teacher"]), FIRST_SEED)
            if teacher is not None:
                needs["teacher"] = teacher
        return needs

    def _before(self, recipe: Recipe, asked: Mapping[str, Scalar], seed: int) -> Job | None:
        if recipe.start is None:
            return None
        passed = {name: value for name, value in asked.items() if name not in _LAST}
        return self._stage(self.recipes.find(recipe.start.recipe), {**passed, "res": recipe.start.res}, seed)

    def _ready_made(self, name: str, seed: int) -> Job | None:
        """Give the training behind weights: that of a recipe, or at a small scale what stands in for public ones."""
        if name in self.recipes.names or name.endswith(".toml"):
            return self._stage(self.recipes.find(name), {}, seed)
        if self.scale is None:
            return None
        if name not in self.scale.weights:
            raise NoStandIn(
                f"the {self.scale.name} scale has no stand-in for {name}; {self.scale.path} lists those it has"
            )
        return self._stage(self.recipes.find(self.scale.weights[name]), {}, seed)


def _shown(job: Job, name: str) -> Scalar:
    return next((stage.get(name) for stage in job.lineage if stage.get(name) != ""), "")


def _check(settings: Mapping[str, Scalar]) -> None:
    """Refuse settings that cannot be together, before anything is allocated.

    Raises `HarnessError`.
    """
    for name, value in settings.items():
        if name in RECIPE:
            checked(name, value)
    if settings["distillation"] != "none" and "teacher" not in settings:
        raise HarnessError(
            f"distillation = '{settings['distillation']}' without a teacher; name one, as "
            "teacher = 'regnety_160.deit_in1k'"
        )
    batch = int(settings["batch_size"])
    if (settings["mixup"] or settings["cutmix"]) and batch % 2:
        raise HarnessError(f"mixup and cutmix pair the images of a batch, so batch_size must be even, not {batch}")
    if settings["rand_augment"] and settings["auto_augment"]:
        raise HarnessError("rand_augment and auto_augment are both on; choose one")
    patch, res = settings.get("patch_size"), int(settings["res"])
    if patch is not None and res % int(patch):
        raise HarnessError(f"patches of {patch} pixels do not divide images of {res}; choose a multiple")
