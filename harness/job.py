"""What one piece of work is, and what it is called."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.kinds import KINDS, REVISIONS, Scalar

# Weights that one of our own trainings leaves, in the place of a tag of timm's.
TRAINED = "trained"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: all that decides its outcome except the machine, and the revision of the way of measuring.

    `needs` are the trainings whose weights it takes, each under its part: `weights` to evaluate, `start` to go on
    from, `teacher` to learn from.
    """

    kind: str
    settings: tuple[tuple[str, Scalar], ...]
    revision: int
    needs: tuple[tuple[str, "Job"], ...] = ()

    @classmethod
    def of(cls, kind: str, settings: Mapping[str, Scalar], needs: Mapping[str, "Job"] | None = None) -> "Job":
        """Make a job; the order of the settings does not matter."""
        return cls(
            kind=kind,
            settings=tuple(sorted(settings.items())),
            revision=REVISIONS.get(kind, 0),
            needs=tuple(sorted((needs or {}).items())),
        )

    def __getitem__(self, name: str) -> Scalar:
        """Give a setting."""
        return dict(self.settings)[name]

    def get(self, name: str, default: Scalar = "") -> Scalar:
        """Give a setting that a job of this kind may lack."""
        return dict(self.settings).get(name, default)

    def need(self, part: str) -> "Job | None":
        """Give the training that the job takes the weights of this part from."""
        return dict(self.needs).get(part)

    @cached_property
    def key(self) -> str:
        """The same work has the same key, whichever table asks for it; a person can tell what it is."""
        told = dict(self.settings)
        names = [
            self.kind,
            *(str(told[name]) for name in ("model", "res", "protocol", "data", "recipe") if name in told),
        ]
        parts: list[object] = [self.kind, self.settings, self.revision]
        if self.needs:
            parts.append([(part, job.key) for part, job in self.needs])
        text = json.dumps(parts, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return "-".join([*(re.sub(r"[^A-Za-z0-9_.]+", "_", name) for name in names), digest])

    @property
    def exclusive(self) -> bool:
        """Whether the job measures speed and needs the machine to itself."""
        return KINDS[self.kind].exclusive

    @property
    def of_images(self) -> bool:
        """Whether the job reads the user's images."""
        return self.kind in ("evaluate", "tokens", "dataset", "train")

    @property
    def lineage(self) -> tuple["Job", ...]:
        """Every training behind the job, each after those that it takes weights from."""
        return tuple(dict.fromkeys(one for _, job in self.needs for one in (*job.lineage, job)))

    @property
    def weights_names(self) -> tuple[str, ...]:
        """Name all public weights that the job needs: its own, its teacher's, those that it starts from."""
        learnt = [str(self.get(part)) for part in ("teacher", "start") if self.get(part) and not self.need(part)]
        return tuple(filter(None, (self.weights_name, *learnt)))

    @property
    def weights_name(self) -> str:
        """Name the weights that are measured as timm does, `MODEL.TAG`; empty if there are none, or our own."""
        told = dict(self.settings)
        return f"{told['model']}.{told['weights']}" if told.get("weights", TRAINED) != TRAINED else ""

    def __str__(self) -> str:
        """Say in a word what is measured on what."""
        told = dict(self.settings)
        names = ["model", "first", "second", "recipe", "data"]
        if "model" not in told and "data" not in told:
            names.append("precision")
        what = " ".join(str(told[name]) for name in names if name in told)
        crop = f", crop {told['crop']:g}" if self.kind == "evaluate" else ""
        behind = self.need("weights") or self
        seed = f", seed {behind['seed']}" if "seed" in dict(behind.settings) else ""
        by = f" trained by {behind['recipe']}" if behind is not self else ""
        return f"{self.kind} {what}" + (f" at {told['res']}{crop}" if "res" in told else "") + by + seed
