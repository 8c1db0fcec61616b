"""The known datasets: how many images and classes they have, and how their classes are numbered."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A dataset as published.

    `order` is how class folders are numbered: `imagenet` by the order of the 1,000 WordNet ids, `names` by the names
    sorted naturally, so that folders called 0 to 999 sort as numbers.  `test` names the folders under which the
    images to evaluate may lie, `train` those of the training images.
    """

    label: str
    classes: int
    test_images: int
    train_images: int = 0
    order: str = "names"
    test: tuple[str, ...] = ("test", "val", "validation")
    train: tuple[str, ...] = ("train",)


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
    ),
    "imagenet-v2": DataSet(
        label="ImageNet-V2 (matched frequency)",
        classes=1000,
        test_images=10_000,
        order="imagenet",
        test=("imagenetv2-matched-frequency-format-val", "val", "test"),
    ),
    "cifar10": DataSet(label="CIFAR-10", classes=10, test_images=10_000, train_images=50_000),
    "cifar100": DataSet(label="CIFAR-100", classes=100, test_images=10_000, train_images=50_000),
    "digits": DataSet(label="the UCI digits of scikit-learn", classes=10, test_images=360, train_images=1_437),
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
