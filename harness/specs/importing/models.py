"""The label of a row -> timm's name of its model, and how sure that is."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from harness.errors import name_few
from harness.specs.importing.values import SIGNS, readable


class Sureness(StrEnum):
    """How sure it is that a row is of a model; a guess is written as a comment, and measures nothing."""

    SURE = "sure"
    LIKELY = "likely"
    GUESS = "guess"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class PublicWeights:
    """Weights of a model for the 1,000 classes of ImageNet, with how timm prepares images for them."""

    tag: str
    res: int
    crop: float
    interpolation: str
    norm: str


@dataclass(frozen=True, kw_only=True)
class ModelMatch:
    """The model that a row is of; `why` says what speaks against it, where something does.

    `res` is the side of the images that the model is built for.  `weights` are None where it is not clear which ones
    were published; `others` are tags that would do as well.
    """

    sureness: Sureness
    model: str = ""
    res: int | None = None
    weights: PublicWeights | None = None
    others: tuple[str, ...] = ()
    why: str = ""


# How papers shorten what timm spells out.
_SIZES = {
    "n": "nano",
    "p": "pico",
    "f": "femto",
    "a": "atto",
    "ti": "tiny",
    "t": "tiny",
    "s": "small",
    "m": "medium",
    "b": "base",
    "l": "large",
    "h": "huge",
    "g": "giant",
    "xl": "xlarge",
    "iii": "3",
    "ii": "2",
}
_DISTILLED = re.compile(r"⚗|\bdistilled\b|\bdist\.?\b")
_SIDE = re.compile(r"(?P<sign>[↑@]|\bat |[/( ])\s*(?P<side>[1-9]\d{2})(?:\s*[×x]\s*\d{3}|²)?(?=[\s)/,;⚗*]|$)")
_USUAL = re.compile(r"patch16|patch4_window7")
_ANY_PATCH = re.compile(r"patch\d+(?:_window\d+)?")
_NAMED_SIDE = re.compile(r"_(?P<side>[1-9]\d{2})$")
_NOISE = re.compile(rf"\b(?:ours|at|px|pixels|the|our)\b|[{SIGNS}]")
# What a word costs that a name has and a label has not, so many of which are too many; another size of patches costs 1.
_WORD, _MOST = 10, 4

_EPOCHS = "epochs"

# The data of weights: the 1,000 classes, or all of ImageNet, which has 21k or 22k; and what is neither.
_SMALLER, _LARGER = "in1k", "in22k"
_DATA = re.compile(r"(?:imagenet|inet|imnet|\bin)[- ]?(1|21|22)k|\b(?:21|22)k\b")
_OTHER_DATA = re.compile(r"clip|12k|ssl|swsl|ns_|dino|mae|(?<!2[12]k)_ft_")


def side_in(label: str) -> int | None:
    """Return the side of the images that a label names, as `DeiT-B↑384` does."""
    # A number behind a blank may be a depth; the sides of images are multiples of 32 by far most often.
    sides = [m for m in _SIDE.finditer(readable(label)) if m["sign"] not in ("/", "(", " ") or int(m["side"]) % 32 == 0]
    return int(sides[0]["side"]) if sides else None


class ModelNames:
    """timm's models by name, each with its public weights, the default ones first."""

    def __init__(self, models: Mapping[str, Sequence[PublicWeights]]) -> None:
        self._models = models

    @cached_property
    def _tokens(self) -> dict[str, Counter[str]]:
        return {name: Counter(_split(name)) for name in self._models}

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word for tokens in self._tokens.values() for word in tokens)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        """The first word of each name, which is its family's, and the first two, as of `deit3_small`."""
        return frozenset(" ".join(_split(name)[:count]) for name in self._models for count in (1, 2))

    @cached_property
    def _families(self) -> frozenset[str]:
        return frozenset(word for word in self._beginnings if " " not in word and len(word) > 2)

    def match(
        self,
        label: str,
        *,
        res: int | None = None,
        context: Sequence[str] = (),
        family: str | None = None,
        words: str = "",
    ) -> ModelMatch:
        """Return the model that a label names, for images of this size if the table gives one.

        `context` are the titles above the table: they name the family where labels leave it out.  The data that weights
        are trained on follow from the label, other `words` of the row, or the nearest title.  `family`, where it is
        given, is the first part of timm's names.
        """
        data = _data_in(f"{label} {words}") or _data_in("".join(context[-1:])) or {_SMALLER}
        res, plain = res or side_in(label), readable(label).lower()
        exact = plain.partition(".")[0]
        if exact in self._models:
            weights = [each for each in self._models[exact] if each.tag == plain.partition(".")[2]]
            return self._matched(exact, Sureness.SURE, res, data, weights=weights)
        wanted, rest = self._wanted(plain, res)
        titles = [word for title in context for word in self._families_in(title)]
        if family:
            wanted = [*_split(family), *(wanted[1:] if wanted and wanted[0] in self._families else wanted)]
        elif wanted and not any(word in self._families for word in wanted):
            wanted = [*titles[-1:], *wanted]
        best = self._best(wanted, res)
        if not best or not any(word in self._families for word in wanted):
            return ModelMatch(sureness=Sureness.NONE, why="timm has no model with such a name")
        cost, names = best
        rival = None if family else self._rival(wanted, res, titles)
        if rival and rival not in names:
            either = f"{names[0]} by its label, {rival} by the title; --family chooses"
            return self._matched(names[0], Sureness.GUESS, res, data, why=either)
        if len(names) > 1:
            return self._matched(names[0], Sureness.GUESS, res, data, why=f"or {name_few(names[1:])}")
        if rest:
            # Longer training is of the same model; any other word may name another one.
            sureness = Sureness.LIKELY if rest.endswith(_EPOCHS) else Sureness.GUESS
            return self._matched(names[0], sureness, res, data, why=f"what '{rest}' means is not known")
        if cost >= _WORD:
            return self._matched(names[0], Sureness.LIKELY, res, data, why="timm's name says more")
        return self._matched(names[0], Sureness.SURE, res, data)

    def _wanted(self, label: str, res: int | None) -> tuple[list[str], str]:
        """Return the words of a label that names of models have, and the rest of it."""
        words = _split(_NOISE.sub(" ", label))
        rest = [word for word in words if word not in self._words and word != str(res)]
        # What follows an unknown word, as the number of `1000 epochs` precedes it, is none of the name.
        wanted = [word for word in words if word in self._words and word != str(res)]
        if {_EPOCHS, "epoch"} & set(rest) and len(rest) == 1:
            lengths = [word for word in words if word.isdigit() and int(word) >= 90 and word != str(res)][-1:]
            rest, wanted = [*lengths, _EPOCHS], [word for word in wanted if word not in lengths]
        return wanted, " ".join(rest)

    def _families_in(self, title: str) -> list[str]:
        words = _split(title.lower())
        return [
            pair if after.isdigit() and (pair := f"{word} {after}") in self._beginnings else word
            for word, after in zip(words, [*words[1:], ""], strict=True)
            if word in self._families
        ]

    def _rival(self, wanted: Sequence[str], res: int | None, titles: Sequence[str]) -> str | None:
        """Return the model that the same label has in a family that the title names, as DeiT III's ViT-S."""
        for title in titles:
            words = title.split()
            if words != list(wanted[: len(words)]) and words[0] != wanted[0]:
                best = self._best([*words, *wanted[1:]], res)
                if best and best[0] < _WORD:
                    return best[1][0]
        return None

    def _best(self, wanted: Sequence[str], res: int | None) -> tuple[int, list[str]] | None:
        """Return the models whose names have all these words and the fewest others, and how many others."""
        words = Counter(word for part in wanted for word in part.split())
        costs = {
            name: cost
            for name, tokens in self._tokens.items()
            if words and words <= tokens and (cost := self._cost(name, tokens, words, res)) is not None
        }
        least = min(costs.values(), default=None)
        return None if least is None or least > _MOST * _WORD else (least, [n for n in costs if costs[n] == least])

    def _cost(self, name: str, tokens: Counter[str], words: Counter[str], res: int | None) -> int | None:
        """Return how far a name is from some words that it has; None where it is for another size."""
        named = self._side(name)
        if named and res and named != res:
            return None
        free = Counter(_split(" ".join(_ANY_PATCH.findall(name)))) + Counter([str(named)] if named else [])
        unusual = bool(_ANY_PATCH.sub("", _USUAL.sub("", name)) != _USUAL.sub("", name))
        away = _WORD * (named is not None and not res and named != 224)
        return _WORD * (tokens - words - free).total() + unusual + away

    def _side(self, name: str) -> int | None:
        """Return the side of images that a name ends with; that of `regnety_160` is none."""
        named = _NAMED_SIDE.search(name)
        known = {weights.res for weights in self._models[name]} or {int(named["side"]) // 32 * 32 if named else 0}
        return int(named["side"]) if named and int(named["side"]) in known else None

    def _matched(  # noqa: PLR0913
        self,
        name: str,
        sureness: Sureness,
        res: int | None,
        data: set[str],
        *,
        weights: Sequence[PublicWeights] = (),
        why: str = "",
    ) -> ModelMatch:
        known = self._models[name]
        own = self._side(name) or (known[0].res if known else 224)
        fitting = list(weights) or _fitting(known, res or own, data)
        return ModelMatch(
            sureness=sureness,
            model=name,
            res=res or own,
            weights=fitting[0] if len(fitting) == 1 and sureness is Sureness.SURE else None,
            others=tuple(each.tag for each in fitting),
            why=why,
        )


def _data_in(text: str) -> set[str]:
    """Return which versions of ImageNet a text names, for training."""
    return {_SMALLER if match[1] == "1" else _LARGER for match in _DATA.finditer(text.lower())}


def _fitting(known: Sequence[PublicWeights], res: int, data: set[str]) -> list[PublicWeights]:
    """Return the weights for a size that were trained on these data and no others."""
    sized = [each for each in known if each.res == res and not _OTHER_DATA.search(each.tag)]
    return [each for each in sized if (_LARGER if re.search("2[12]k", each.tag) else _SMALLER) in data]


def _split(text: str) -> list[str]:
    """Split a name into words and numbers, as both papers and timm have them: `DeiT-S` and `deit_small`."""
    plain = _DISTILLED.sub(" distilled ", text.lower())
    plain = re.sub(r"(\d{1,3}(?:\.\d)?)\s*gf\b", lambda size: f"{round(float(size[1]) * 10):03d}", plain)
    return [_SIZES.get(word, word) for word in re.findall(r"[a-z]+|\d+", plain)] or [""]
