"""A heading -> what its column is: the job and the metric behind it, its unit, or that nobody knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.specs.checked import Scalar
from harness.specs.importing.values import readable


@dataclass(frozen=True, kw_only=True)
class ColumnMeaning:
    """What fills a column, if something does.

    `power` is that of ten in which the unit counts; `tolerance` is the largest difference from a published value that
    still matches, where rounding does not say it.  `remark` is what a reader of the file should check.
    """

    key: str
    says: str = ""
    job: str = ""
    metric: str = ""
    unit: str = ""
    power: int = 0
    better: str = ""
    tolerance: float | str | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    remark: str = ""


def _accuracy(key: str, says: str, metric: str = "top1", data: str = "imagenet") -> ColumnMeaning:
    unit = "% top-5" if metric == "top5" else "% top-1"
    settings = {"data": data}
    remark = (
        ""
        if metric == "real" or data != "imagenet"
        else "taken for ImageNet; name other images in set, if it is of some"
    )
    return ColumnMeaning(
        key=key,
        says=says,
        job="evaluate",
        metric=metric,
        unit=unit,
        better="higher",
        tolerance=0.05,
        settings=settings,
        remark=remark,
    )


def _counted(key: str, says: str) -> ColumnMeaning:
    return ColumnMeaning(key=key, says=f"{says}, counted", job="count", metric=key, tolerance=0)


PARAMS = ColumnMeaning(key="params", says="parameters, counted", job="count", metric="params", unit="M", power=6)
MACS = ColumnMeaning(
    key="macs",
    says="multiply-accumulates, counted",
    job="count",
    metric="macs",
    unit="GMAC",
    power=9,
    tolerance="2%",
    remark="a FLOP of most papers is a multiply-accumulate; counters leave out different small operations, hence 2 %",
)
RES = ColumnMeaning(key="res", says="side of the images", job="count", metric="res", unit="px", tolerance=0)
THROUGHPUT = ColumnMeaning(
    key="throughput",
    says="throughput, measured",
    job="throughput",
    metric="throughput",
    unit="im/s",
    better="higher",
    tolerance="5%",
    settings={"protocol": "paper"},
    remark='add the GPU of the paper, as machine = "V100 16GB": a throughput is judged there alone',
)

# Images of other datasets.
_OTHERS = r"cifar|inat|flower|\bcars?\b|\bpets?\b|\bvoc\b|coco|\bade|places|sketch|mnist|svhn|kinetics"
_IMAGENET = re.compile(r"image-?net|imnet|inet|\bin-?1k\b", re.IGNORECASE)

# In this order; the first that matches wins.  What is no accuracy of ImageNet must not be taken for one.
_KNOWN: tuple[tuple[str, ColumnMeaning | None], ...] = (
    (r"train(ing)?\b.*(time|speed|throughput|memory|cost)|latency|epoch|memory|\bmem\b|\bhours?\b|batch", None),
    (r"param|#\s*p\b|\bmodel size", PARAMS),
    (r"flop|\bg?macs?\b|mult-?adds|madds", MACS),
    (r"embed(ding)?\.? dim|^dim\.?$|\bwidth\b", _counted("embed_dim", "width of the embedding")),
    (r"#?\s*\bheads?\b", _counted("heads", "heads of an attention")),
    (r"#?\s*\blayers?\b|\bdepth\b", _counted("layers", "layers")),
    (r"throughput|(im|img|imgs|images?)\s*/\s*s|\bfps\b|images per second|inference speed", THROUGHPUT),
    (r"resolution|(image|img\.?|input|crop)\s*size|^res\.?$|^size$|input res", RES),
    (rf"error|\berr\b|{_OTHERS}|adversarial|corrupt", None),
    (r"\bmap\b|miou|\bap\b|gain|transfer|linear|k-?nn|few-?shot|zero-?shot|\bin(et)?-?[arc]\b|imagenet-?[arc]\b", None),
    (r"\breal\b|\brea?l\b", _accuracy("real", "top-1 on ImageNet with the labels of ReaL", metric="real")),
    (r"\bv2\b|(inet|imnet|imagenet|in)-?v2", _accuracy("v2", "top-1 on ImageNet-V2", data="imagenet-v2")),
    (r"(top|acc|accuracy|acc\.)\s*[-@]?\s*5\b", _accuracy("top5", "top-5 on ImageNet", metric="top5")),
    (
        r"(top|acc|accuracy|acc\.)\s*[-@]?\s*1\b|\bacc(uracy)?\b|^(im(age)?net|inet|imnet|in)(-?1k)?\b",
        _accuracy("top1", "top-1 on ImageNet"),
    ),
)
_MEANINGS = tuple((re.compile(pattern), meaning) for pattern, meaning in _KNOWN)

# What stands behind a heading in parentheses, brackets, or after a comma, and is a unit.
_UNIT = re.compile(
    r"(?P<label>.*?)\s*(?:[(\[]\s*(?P<inside>[^()\[\]]+?)\s*[)\]]|,\s*(?P<after>[^,()]+?))\s*", re.DOTALL
)
_UNITS = re.compile(
    r"%(\s*top-[15])?|×?\s*10\^?\{?\d\}?|[kmgbt]|(mega|giga)?(im|img|imgs|images?|samples)\s*/\s*(s|sec|second)|px|pixels|ms|s|h"
    r"|hours|days|[mg]i?b|[mgt]?(flop|mac)s?|g?macs?|millions?|images|classes|epochs|flag|points|optimizer|magnitude/std|fraction",
    re.IGNORECASE,
)
_POWERS = {"k": 3, "m": 6, "g": 9, "b": 9, "t": 12}


def split_unit(heading: str) -> tuple[str, str]:
    """Return the label of a heading and the unit that it names, which may be empty."""
    match = _UNIT.fullmatch(heading)
    unit = (match["inside"] or match["after"]) if match else ""
    return (match["label"], unit) if match and match["label"] and _UNITS.fullmatch(unit) else (heading, "")


def power_of(unit: str, heading: str) -> int | None:
    """Return the power of ten that the unit of a heading counts in, as in `(M)`, `GFLOPs` or `×10^{6}`."""
    exponent = re.search(r"10\^?\{?(\d)\}?", unit)
    if exponent:
        return int(exponent[1])
    prefix = re.fullmatch(r"([kmgbt])(?:illions?|(?:flop|mac)s?)?", unit.lower()) or re.search(
        r"\b([kmgt])(?:flop|mac)s?\b", heading.lower()
    )
    return _POWERS[prefix[1]] if prefix else None


def meaning_of(heading: str, title: str = "") -> ColumnMeaning | None:
    """Return what fills a column of this heading; None where that is not known.

    An accuracy is one of ImageNet unless the heading or the title names other images.
    """
    text = readable(heading).lower()
    meaning = next((meaning for pattern, meaning in _MEANINGS if pattern.search(text)), None)
    elsewhere = re.search(_OTHERS, title, re.IGNORECASE) and not _IMAGENET.search(f"{heading} {title}")
    return None if meaning and meaning.job == "evaluate" and elsewhere else meaning
