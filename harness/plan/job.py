"""A job: one piece of work, and its key."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from harness.machine.own_models import code_digest, kind_digest
from harness.specs.checked import Scalar
from harness.specs.kinds import KINDS
from harness.specs.model_names import split_weights

# Weights of one of our own trainings, in place of a tag of timm's.
TRAINED = "trained"

# The settings that no spec has: what the code of the user's own models is, and that of a kind of another package.
CODE, METHOD = "code", "method"

# The settings that name a model, with its weights and one of its heads or without.
_MODELS = ("model", "first", "second", "teacher", "start")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: all that decides its outcome except the machine, and the revision of the measuring code.

    `needs` are the trainings whose weights it takes, by their part: `weights` to evaluate, `start` to fine-tune,
    `teacher` to distill from.
    """

    kind: str
    settings: tuple[tuple[str, Scalar], ...]
    revision: int
    needs: tuple[tuple[str, "Job"], ...] = ()

    @classmethod
    def of(cls, kind: str, settings: Mapping[str, Scalar], needs: Mapping[str, "Job"] | None = None) -> "Job":
        """Make a job; the order of the settings does not matter.

        Where it needs a model of the user's own, or is of a kind of another package, a digest of the code that there is
        now is among its settings.  Raises `HarnessError` where that code cannot be read.
        """
        return cls(
            kind=kind,
            settings=tuple(sorted(_with_code(kind, settings).items())),
            revision=KINDS[kind].revision if kind in KINDS else 0,
            needs=tuple(sorted((needs or {}).items())),
        )

    def __getitem__(self, name: str) -> Scalar:
        """Return a setting."""
        return dict(self.settings)[name]

    def get(self, name: str, default: Scalar = "") -> Scalar:
        """Return a setting that a job of this kind may lack."""
        return dict(self.settings).get(name, default)

    def need(self, part: str) -> "Job | None":
        """Return the training that the job takes the weights of this part from."""
        return dict(self.needs).get(part)

    @cached_property
    def key(self) -> str:
        """The same work has the same key, whichever table needs it; the key is readable."""
        parts: list[object] = [self.kind, self.settings, self.revision]
        if self.needs:
            parts.append([(part, job.key) for part, job in self.needs])
        text = json.dumps(parts, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self._named('model', 'res', 'protocol', 'data', 'recipe')}-{digest}"

    @property
    def key_prefix(self) -> str:
        """What the keys of all jobs of this kind on this model, at this size, begin with."""
        return f"{self._named('model', 'res')}-"

    def _named(self, *names: str) -> str:
        settings = dict(self.settings)
        parts = (self.kind, *(str(settings[name]) for name in names if name in settings))
        return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)

    @property
    def without_code(self) -> "Job":
        """The same job whatever the code of the user's own models is: what a baseline compares before and after."""
        return self.without(CODE)

    def without(self, *names: str, revision: bool = True) -> "Job":
        """Return the same job without the settings of these names, also of the trainings that it needs.

        Where `revision` is false, neither have a revision: however it was measured.
        """
        return replace(
            self,
            settings=tuple((name, value) for name, value in self.settings if name not in names),
            revision=self.revision if revision else 0,
            needs=tuple((part, job.without(*names, revision=revision)) for part, job in self.needs),
        )

    @property
    def exclusive(self) -> bool:
        """Whether the job measures throughput and needs the machine to itself."""
        return KINDS[self.kind].exclusive

    @property
    def reads_images(self) -> bool:
        """Whether the job reads the user's images."""
        return KINDS[self.kind].reads_images

    @property
    def lineage(self) -> tuple["Job", ...]:
        """Every training behind the job, each after those that it takes weights from."""
        return tuple(dict.fromkeys(each for _, job in self.needs for each in (*job.lineage, job)))

    @property
    def weights_names(self) -> tuple[str, ...]:
        """All public weights that the job needs: its own, its teacher's, those that it starts from."""
        parts = () if self.kind == "train-speed" else ("teacher", "start")  # whose teacher has random weights
        others = [str(self.get(part)) for part in parts if self.get(part) and not self.need(part)]
        return tuple(filter(None, (self.weights_name, *others)))

    @property
    def weights_name(self) -> str:
        """The measured weights as timm names them, `MODEL.TAG`; empty if there are none, or our own."""
        named = self.get("model") and self.get("weights", TRAINED) != TRAINED
        return f"{self['model']}.{self['weights']}" if named else ""

    def __str__(self) -> str:
        """Describe in a few words what is measured on what."""
        settings = dict(self.settings)
        names = ["model", "first", "second", "recipe", "data"]
        if "model" not in settings and "data" not in settings:
            names.append("precision")
        described = " ".join(str(settings[name]) for name in names if name in settings)
        crop = f", crop {settings['crop']:g}" if self.kind == "evaluate" and "crop" in settings else ""
        width = f"x{settings['width']}" if "width" in settings else ""
        size = f" at {settings['res']}{width}{crop}" if "res" in settings else ""
        training = self.need("weights")
        recipe = f" trained by {training['recipe']}" if training else ""
        seed = (training or self).get("seed")
        return f"{self.kind} {described}{size}{recipe}" + (f", seed {seed}" if seed else "")


def _with_code(kind: str, settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Add a digest of the code of the user's own models and kind of job; results have the versions of all others."""
    names = {name: str(settings[name]) for name in _MODELS if name in settings}
    models = {text if name == "model" else split_weights(text.partition("#")[0])[0] for name, text in names.items()}
    codes = dict.fromkeys(filter(None, map(code_digest, sorted(models))))
    added = {CODE: "+".join(codes), METHOD: kind_digest(kind)}
    without = {name: value for name, value in settings.items() if name not in added}
    return {**without, **{name: digest for name, digest in added.items() if digest}}
