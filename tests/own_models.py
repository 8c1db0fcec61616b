"""Packages with models of the user's own, as an installation leaves them."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from harness.specs import kinds, plugins

# A model whose 3-to-`width` convolution and `width`-to-classes layer can be counted by hand.
NET = """
from torch import nn
from {package}.layers import WIDTH

def build(num_classes=10, img_size=None):
    return nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, num_classes))
"""


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def install(
    folder: Path, files: Mapping[str, str], models: Mapping[str, str], *, name: str = "nets", record: bool = False
) -> None:
    """Write files, and what tells that a package of this name installed them; an editable one records no file."""
    entries = "".join(f"{model} = {value}\n" for model, value in models.items())
    about = f"{name}-1.0.dist-info"
    told = {f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}
    told[f"{about}/entry_points.txt"] = f"[harness.models]\n{entries}"
    if record:
        told[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{about}/METADATA"))
    write(folder, {**files, **told})
    forget()


def install_net(folder: Path, *, width: int, package: str = "nets", model: str = "net") -> None:
    """Install the package of `NET`, or write it anew with another width."""
    files = {f"{package}/__init__.py": "", f"{package}/layers.py": f"WIDTH = {width}\n"}
    install(folder, {**files, f"{package}/net.py": NET.format(package=package)}, {model: f"{package}.net:build"})


def forget() -> None:
    """Have the next look see what is installed now: a process looks once."""
    importlib.invalidate_caches()
    plugins.plugins.cache_clear()
    kinds._other_kind.cache_clear()
