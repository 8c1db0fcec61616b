"""Cell, recipes and scale -> its chain of trainings, each a job that takes the weights of earlier ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from harness.errors import HarnessError
from harness.plan.job import CODE, TRAINED, Job
from harness.specs import Cell
from harness.specs.checked import Scalar
from harness.specs.kinds import KINDS, RECIPE, SHAPE
from harness.specs.model_names import split_weights
from harness.specs.recipe import Recipe, Recipes, Scale

# Of a spec's training settings, these are for the first stage of a chain and these for the last; all others for every
# stage.
_FIRST = ("epochs", "optimizer")
_LAST = ("recipe", "res", "data", "start", "fixres", "finetune_optimizer")

# An assumption is about a setting that matters only where this is on.
_ONLY_WITH = {"auto_augment_policy": "auto_augment", "rand_augment_policy": "rand_augment", "teacher": "distillation"}

# What a job's description names in any case, and what follows from it.
_DESCRIBED = ("recipe", "model", "res", "data", "start", "teacher", "seed", CODE)

# The first seed: a teacher is trained once, its students with several.
FIRST_SEED = 1

Key = TypeVar("Key")
Value = TypeVar("Value")


class NoStandIn(HarnessError):  # noqa: N818 -- reads as what is the matter
    """A small scale has nothing that stands in for something published; the other cells do not mind."""


class UnfitBatch(HarnessError):  # noqa: N818 -- reads as what is the matter
    """The step of a training cannot be timed with this batch; the other cells do not mind."""


@dataclass(frozen=True, kw_only=True)
class TrainingStages:
    """Makes jobs of recipes, at the published scale (None) or at one that stands in for it.

    `data` names the available datasets, `changes` settings that win over every recipe.
    """

    recipes: Recipes = field(default_factory=Recipes)
    scale: Scale | None = None
    data: frozenset[str] = frozenset()
    changes: Mapping[str, Scalar] = field(default_factory=dict)

    def jobs(self, cell: Cell, seeds: int | None = None) -> tuple[Job, ...]:
        """Make the jobs whose results fill a trained cell, one for each seed (None: as many as the scale has).

        Each is an evaluation of what is trained, or the training itself for what it costs.  Raises `HarnessError` with
        what is missing or not possible.
        """
        first, count = FIRST_SEED, seeds or (self.scale.seeds if self.scale else 1)
        trainings = [self.training(cell.training, seed) for seed in range(first, first + count)]
        return tuple(trainings if cell.metric == "hours" else (self._evaluation(cell, job) for job in trainings))

    def _evaluation(self, cell: Cell, trained: Job) -> Job:
        requested = cell.settings
        settings: dict[str, Scalar] = {
            "model": trained["model"],
            "weights": TRAINED,
            "res": self._size(int(requested["res"])) if "res" in requested else trained["res"],
            "data": self._data_set(str(requested["data"])) if "data" in requested else trained["data"],
            "crop": float(requested.get("crop", trained["crop"])),
            "interpolation": requested.get("interpolation", trained["interpolation"]),
            "norm": requested.get("norm", trained["norm"]),
            "precision": "float32",
        }
        return Job.of("evaluate", settings, {"weights": trained})

    def training(self, requested: Mapping[str, Scalar], seed: int = FIRST_SEED) -> Job:
        """Make the training that a cell requests, with all before it.

        Raises `HarnessError` for an unknown recipe, for what the scale has no stand-in for, and for settings that
        exclude each other.
        """
        if "recipe" not in requested:
            raise HarnessError("no recipe says how it is trained")
        return self._stage(self.recipes.find(str(requested["recipe"])), requested, seed)

    def recipe_job(self, name: str) -> Job:
        """Make the job that returns what the trainer makes of a recipe, at the published scale."""
        settings = self.recipes.find(name).settings
        kept = {key: value for key, value in settings.items() if key in (*RECIPE, "model", "res")}
        return Job.of("recipe", {**kept, "recipe": name})

    def speed_job(self, requested: Mapping[str, Scalar]) -> Job:
        """Make the job that times the step of a recipe; what is not requested is as in the recipe.

        It needs no weights: those of the teacher do not change how long a step takes, so only its model counts.  Raises
        `HarnessError` for an unknown recipe, and for settings that are missing or exclude each other, and of these
        `UnfitBatch` for a batch that a step cannot have.
        """
        settings = {**self.recipes.find(str(requested["recipe"])).settings, **requested, **self.changes}
        missing = [name for name in ("model", "res", "data") if name not in settings]
        if missing:
            raise HarnessError(f"recipe '{requested['recipe']}' does not set {' and '.join(missing)}; set them here")
        _check_combination(settings)
        _check_batch(settings)
        if settings["distillation"] == "none":
            settings.pop("teacher", None)
        else:
            settings["teacher"] = self._model_of(str(settings["teacher"]))
        return Job.of(
            "train-speed", {name: settings[name] for name in KINDS["train-speed"].settings if name in settings}
        )

    def speed_job_of(self, training: Job, overrides: Mapping[str, Scalar] | None = None) -> Job:
        """Make the job that times the step of a training on one device; `overrides` are settings of the kind."""
        settings = {**KINDS["train-speed"].defaults, **dict(training.settings), **(overrides or {})}
        teacher = training.need("teacher")
        if teacher is not None:
            settings["teacher"] = teacher["model"]
        return self.speed_job(settings)

    def _model_of(self, teacher: str) -> str:
        """Return the model of public weights, or of a recipe.

        Raises `HarnessError` for a recipe that trains whichever model it is given.
        """
        if not self._is_recipe(teacher):
            return split_weights(teacher)[0]
        settings = self.recipes.find(teacher).settings
        if "model" not in settings or settings.get("fixres"):
            raise HarnessError(f"the teacher's recipe '{teacher}' is for any model; name the teacher's model instead")
        return str(settings["model"])

    def _is_recipe(self, name: str) -> bool:
        return name in self.recipes.names or name.endswith(".toml")

    def hours(self, job: Job) -> float | None:
        """Return the published V100-hours of one stage, in proportion to its length; None if they are not published."""
        recipe = self.recipes.find(str(job["recipe"]))
        return None if recipe.hours is None else recipe.hours * int(job["epochs"]) / recipe.epochs

    def differences(self, job: Job) -> Mapping[str, Scalar]:
        """Return the settings of a training that are not its recipe's at this scale: what a row of a table changes."""
        try:
            usual = (
                self.speed_job({**KINDS[job.kind].defaults, "recipe": job["recipe"]})
                if job.kind == "train-speed"
                else self.training({"recipe": job["recipe"]}, int(job["seed"]))
            )
        except HarnessError:
            return {}  # a recipe that begins with another's weights, which only the row names
        return {name: value for name, value in job.settings if usual.get(name) != value and name not in _DESCRIBED}

    def assumptions(self, cell: Cell, job: Job) -> tuple[str, ...]:
        """Return the unpublished settings of the trainings behind a cell, each with the reason for its value."""
        texts: dict[str, None] = {}  # in their order, each once
        for name, reason in cell.assumed.items():
            requested = cell.training.get(name, "")
            value = next((stage.get(name) for stage in job.lineage if stage.get(name) != ""), requested)
            texts[f"{name} = {value}: {reason}"] = None
        for stage in job.lineage:
            recipe = self.recipes.find(str(stage["recipe"]))
            for name, reason in recipe.assumed.items():
                switch = stage.get(_ONLY_WITH.get(name, ""), default=True)
                kept = stage.get(name) == recipe.settings.get(name)
                if kept and switch not in (False, "none"):
                    texts[f"{name} = {stage.get(name)}: {reason}"] = None
        return tuple(texts)

    # One stage.

    def _stage(self, recipe: Recipe, requested: Mapping[str, Scalar], seed: int) -> Job:
        is_first = recipe.start is None and "start" not in requested
        settings = {
            **self._scaled(recipe, {**recipe.settings, **self._for_stage(requested, is_first=is_first)}),
            **self._ablations(requested, is_first=is_first),
            **self.changes,
        }
        res = int(requested.get("res", recipe.settings["res"]))
        needs = self._needs(recipe, requested, settings, res, seed)
        fine_tunes = settings["eval_mode"] or settings.get("fixres")
        if fine_tunes and "start" not in needs and "start" not in settings:
            raise NoStandIn("nothing says which weights it starts from: the paper has it from elsewhere")
        _check_combination(settings)
        kept = (*RECIPE, *SHAPE, "model", "res", "data", "fixres")
        known = {name: settings[name] for name in settings if name in kept}
        known |= {part: settings[part] for part in ("teacher", "start") if part in settings and part not in needs}
        return Job.of("train", {**known, "recipe": recipe.name, "seed": seed}, needs)

    def _for_stage(self, requested: Mapping[str, Scalar], *, is_first: bool) -> dict[str, Scalar]:
        left_out = {"optimizer", "finetune_optimizer", "recipe", *(() if is_first else ("epochs",))}
        return {name: value for name, value in requested.items() if name not in left_out}

    def _ablations(self, requested: Mapping[str, Scalar], *, is_first: bool) -> dict[str, Scalar]:
        """Return the recipe's own settings that a cell changes: they win over the scale's."""
        changes = {name: value for name, value in requested.items() if name in RECIPE and name not in _FIRST}
        optimizer = requested.get("optimizer" if is_first else "finetune_optimizer")
        return changes if optimizer is None else {**changes, "optimizer": optimizer}

    def _scaled(self, recipe: Recipe, settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Replace the paper's model, images and schedule by the scale's stand-ins."""
        data = self._data_set(str(settings["data"]))
        if self.scale is None:
            return {**settings, "data": data}
        scaled = {**settings, "epochs": self.scale.length(int(settings["epochs"])), **self.scale.settings}
        for name in recipe.lineage:
            scaled |= self.scale.recipes.get(name, {})
        model = str(settings["model"])
        return {
            **scaled,
            "res": self._size(int(settings["res"])),
            "data": data,
            "model": model,
            **self._stand_in(self.scale.models, model, model),
        }

    def _size(self, res: int) -> int:
        return res if self.scale is None else self._stand_in(self.scale.sizes, res, f"{res} pixels")

    def _data_set(self, data: str) -> str:
        """Return what stands in for a dataset, or itself if it is available."""
        if self.scale is not None and data in self.scale.replaces:
            return next((name for name in self.scale.data if name in self.data), self.scale.data[-1])
        if self.scale is not None and data.startswith("imagenet"):
            raise NoStandIn(f"the {self.scale.name} scale has no stand-in for {data}")
        return data

    def _stand_in(self, stand_ins: Mapping[Key, Value], key: Key, name: str) -> Value:
        if self.scale is not None and key not in stand_ins:
            raise NoStandIn(
                f"the {self.scale.name} scale has no stand-in for {name}; {self.scale.path} lists those it has"
            )
        return stand_ins[key]

    # The weights that it starts from and learns from.

    def _needs(
        self, recipe: Recipe, requested: Mapping[str, Scalar], settings: dict[str, Scalar], res: int, seed: int
    ) -> dict[str, Job]:
        if "start" in settings:
            start = self._ready_made(str(settings["start"]), seed)
        elif recipe.start is not None:
            passed = {name: value for name, value in requested.items() if name not in _LAST}
            start = self._stage(self.recipes.find(recipe.start.recipe), {**passed, "res": recipe.start.res}, seed)
        else:
            start = None
        teacher = None
        if settings["distillation"] == "none":
            settings.pop("teacher", None)
        elif "teacher" in settings:
            settings["teacher"], teacher = self._teacher(settings, res)
        return {part: job for part, job in (("start", start), ("teacher", teacher)) if job is not None}

    def _teacher(self, student: Mapping[str, Scalar], res: int) -> tuple[str, Job | None]:
        """Return the name of a stage's teacher and the training behind it (None: public weights).

        The paper's teachers have the resolution of their students (section 4), so one of another size is adapted first.
        `res` is the student's size as published.  Raises `HarnessError` where nothing says how.
        """
        name = str(student["teacher"])
        teacher = self._ready_made(name, FIRST_SEED)
        size = teacher["res"] if teacher else student.get("teacher_res", res)
        if size == student["res"]:
            return name, teacher
        if "adapted_teacher" not in student:
            raise HarnessError(
                f"the teacher '{name}' is for images of {size} pixels, the student learns at {student['res']}; name "
                "the recipe that adapts it, as adapted_teacher = 'fixres'"
            )
        adapted = str(student["adapted_teacher"])
        recipe = self._recipe_behind(adapted)
        if recipe is None:
            return adapted, None
        requested: dict[str, Scalar] = {"res": res}
        if recipe.settings.get("fixres"):
            trained = self._recipe_behind(name)
            model = trained.settings["model"] if trained else split_weights(name)[0]
            requested |= {"start": name, "model": model, "data": student["data"], "norm": student["norm"]}
        return adapted, self._stage(recipe, requested, FIRST_SEED)

    def _ready_made(self, name: str, seed: int) -> Job | None:
        """Make the training behind weights; None for public ones."""
        recipe = self._recipe_behind(name)
        return None if recipe is None else self._stage(recipe, {}, seed)

    def _recipe_behind(self, name: str) -> Recipe | None:
        """Return the recipe of this name, or the one that stands in for public weights; None for public ones."""
        if not self._is_recipe(name):
            if self.scale is None:
                return None
            name = self._stand_in(self.scale.weights, name, name)
        return self.recipes.find(name)


def _check_batch(settings: Mapping[str, Scalar]) -> None:
    """Raise `UnfitBatch` for a batch of one device that a step of the recipe cannot have."""
    total, devices, batch = int(settings["batch_size"]), int(settings["devices"]), settings["batch"]
    if batch == "largest":
        raise UnfitBatch("a train-speed job takes batch auto or a number, not largest")
    if total % devices:
        raise UnfitBatch(f"{devices} devices cannot share a batch of {total}")
    share = total // devices if batch == "auto" else int(batch)
    if (settings["mixup"] or settings["cutmix"]) and share % 2:
        raise UnfitBatch(f"mixup and cutmix pair the images of a batch, so that of a device must be even, not {share}")


def _check_combination(settings: Mapping[str, Scalar]) -> None:
    """Refuse settings that exclude each other, before anything is allocated.

    Raises `HarnessError`.
    """
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
