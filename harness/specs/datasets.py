"""The known datasets: how many images and classes they have, and how their classes are numbered."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the sets of test images that have the same classes, and are easily taken for each other.

    `called` is a regular expression for what its folders and files are called, in lower case.  `names` is the SHA-256
    of its images' names, without folder and ending, sorted and each on a line; `labels` that of the same lines with the
    class index after a space.  Both are empty where names are not its own.
    """

    label: str
    called: str
    names: str = ""
    labels: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A dataset as published.

    `order` is how class folders are numbered: `imagenet` by the order of the 1,000 WordNet ids, `names` by the names
    sorted naturally, so that folders called 0 to 999 sort as numbers.  `test` names the folders under which the
    images to evaluate may lie, `train` those of the training images, `inside` the folders in which a download keeps
    them.  `even` says whether each class has the same number of images in a split that its classes divide evenly.
    `variants` are sets that are taken for this one; the one with its label is this one.  `test_bytes` is the size of
    all files of test images, 0 where it is not known.
    """

    label: str
    classes: int
    test_images: int
    train_images: int = 0
    order: str = "names"
    test: tuple[str, ...] = ("test", "val", "validation")
    train: tuple[str, ...] = ("train",)
    inside: tuple[str, ...] = ("",)
    even: bool = True
    variants: tuple[Variant, ...] = ()
    test_bytes: int = 0


# The three test sets of Recht et al. 2019, by the names and classes in the lists of the authors' repository
# (modestyachts/ImageNetV2, data/datasets: revisions b-33, a-44 and c-12 are those that were published).
_IMAGENET_V2 = (
    Variant(
        label="ImageNet-V2 (matched frequency)",
        called=r"matched[-_ ]?freq|imagenet-?v2-?mf|imagenetv2-b-\d",
        names="941145e60d4cff1c979a0ae8573e72786e79f1ca70f33dd75f0eee06943cbbf4",
        labels="820ef646948fb8dc1d6a590371533cfca32ee994aa6fd3cdae92aee843f694fc",
    ),
    Variant(
        label="ImageNet-V2 (threshold 0.7)",
        called=r"thresh(old)?[-_ ]?0?[._]?7|imagenetv2-a-\d",
        names="e576f0ce7b6066df5be39e091f104a1f683118500a6b71dd7d8081ace9c6ffe8",
        labels="976f4b18924fb9ca83f0b7eb1b7a4b73af2dc107e03cc7a8475b9794f46ae436",
    ),
    Variant(
        label="ImageNet-V2 (top images)",
        called=r"top[-_ ]?images|imagenetv2-c-\d",
        names="c05def696c1eecc278eac651bdfb68c6b99aa09ba6a87918abcda213ca7e09d8",
        labels="94218bff7985255a03cabf8a9c74ae28ad8e896cbbc7896a78fede0cd6fd93c9",
    ),
)

# Sets with the classes, and some with the file names, of ImageNet's validation images.
_IMAGENET = (
    Variant(label="ImageNet", called=r"(?<![^/\n])(imagenet|ilsvrc)([-_ ]?(1k|2012))?(?![^/\n])"),
    Variant(
        label="ImageNet-C",
        called=r"(?<![^/\n])imagenet[-_ ]?c([-_ ]?bar)?(?![^/\n.])|"
        r"(noise|blur|frost|snow|fog|brightness|contrast|transform|pixelate|compression|spatter|saturate)/[1-5]/",
    ),
    *(
        Variant(label=f"ImageNet-{name}", called=rf"(?<![^/\n])imagenet[-_ ]?{name.lower()}(?![a-z0-9_])")
        for name in ("A", "O", "R", "P", "Sketch", "Stylized", "V2")
    ),
)


# Sizes: table 6 of the paper; ImageNet-V2: Recht et al. 2019; iNaturalist 2019: the dataset's own page (the paper
# swaps two digits of the test size).
DATASETS: Mapping[str, DataSet] = {
    "imagenet": DataSet(
        label="ImageNet",
        classes=1000,
        test_images=50_000,
        train_images=1_281_167,
        order="imagenet",
        test=("val", "validation", "ILSVRC2012_img_val", "test"),
        inside=("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"),
        variants=_IMAGENET,
        test_bytes=6_706_000_000,  # ILSVRC2012_img_val.tar has 6,744,924,160 bytes, 512 and a padding more for each
    ),
    "imagenet-v2": DataSet(
        label="ImageNet-V2 (matched frequency)",
        classes=1000,
        test_images=10_000,
        order="imagenet",
        test=("imagenetv2-matched-frequency-format-val", "val", "test"),
        variants=_IMAGENET_V2,
    ),
    "cifar10": DataSet(label="CIFAR-10", classes=10, test_images=10_000, train_images=50_000),
    "cifar100": DataSet(label="CIFAR-100", classes=100, test_images=10_000, train_images=50_000),
    "digits": DataSet(
        label="the UCI digits of scikit-learn", classes=10, test_images=360, train_images=1_437, even=False
    ),
    "flowers102": DataSet(label="Flowers-102", classes=102, test_images=6_149, train_images=2_040),
    "cars": DataSet(label="Stanford Cars", classes=196, test_images=8_041, train_images=8_144),
    "inat18": DataSet(
        label="iNaturalist 2018", classes=8142, test_images=24_426, train_images=437_513, test=("val", "test")
    ),
    "inat19": DataSet(
        label="iNaturalist 2019", classes=1010, test_images=3_030, train_images=265_213, test=("val", "test")
    ),
}

# Datasets that an installed package contains, and where: nothing to download.
EMBEDDED: Mapping[str, str] = {"digits": "sklearn/digits"}
