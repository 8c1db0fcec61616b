"""Play what `harness ab` is for: an environment that became slower by a few percent, on a machine that others use too.

    python examples/ab_story.py                          # a change of nothing passes, 5 % slower fails: ten minutes
    python examples/ab_story.py --slower 1.03 --load 20  # one environment 3 % slower, under 20 busy processes
    python examples/ab_story.py --slower 1.05 --times 10 --csv trials.csv

Makes two environments that share what is installed here.  In the new one each forward pass of a model takes the given
factor of its time.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROWS = "resnet18,efficientnet_b0,deit_ti"

# Runs in the new environment as Python starts: the outermost module of each forward pass is slowed down.
SLOWDOWN = """
import sys, time
FACTOR = {factor}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "timm":
            return None
        sys.meta_path.remove(self)
        import torch
        call, depth = torch.nn.Module._wrapped_call_impl, [0]
        def slowed(self, *args, **kwargs):
            depth[0] += 1
            start = time.perf_counter()
            try:
                return call(self, *args, **kwargs)
            finally:
                depth[0] -= 1
                end = start + FACTOR * (time.perf_counter() - start)
                while not depth[0] and time.perf_counter() < end:
                    pass
        torch.nn.Module.__call__ = slowed
        return None

if FACTOR > 1:
    sys.meta_path.insert(0, Finder())
"""


def make_environment(folder: Path, factor: float) -> Path:
    """Make an environment with what is installed here, slower by a factor, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    installed = [path for path in sys.path if path.endswith("-packages")]
    (site / "here.pth").write_text("".join(f"{path}\n" for path in installed), encoding="utf-8")
    (site / "slowdown.py").write_text(SLOWDOWN.format(factor=factor), encoding="utf-8")
    (site / "slowdown.pth").write_text("import slowdown\n", encoding="utf-8")
    return folder / "bin" / "python"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def compare(old: Path, new: Path, rows: str, options: Sequence[str]) -> dict[str, object]:
    """Run `harness ab` and return its JSON, with the exit code and the seconds that it took."""
    command = [sys.executable, "-m", "harness", "ab", "table5", "--rows", rows, "--device", "cpu"]
    began = time.monotonic()
    ran = subprocess.run(
        [*command, "--python", old, "--python", new, "--json", "-q", *options], stdout=subprocess.PIPE, check=False
    )
    return {**json.loads(ran.stdout), "exit_code": ran.returncode, "seconds": time.monotonic() - began}


def main() -> int:
    """Play the story once, or one part of it several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slower", type=float, action="append", help="factor of the new environment's time")
    parser.add_argument("--load", type=int, default=0, help="busy processes at the same time")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--csv", type=Path, help="append a line for each network")
    parser.add_argument("options", nargs="*", help="for `harness ab`, after --")
    given = parser.parse_args()
    as_expected = True
    for _ in range(given.times):
        for factor in given.slower or (1.0, 1.05):
            with tempfile.TemporaryDirectory() as folder, busy(given.load):
                old, new = (make_environment(Path(folder) / f"{f}", f) for f in (1.0, factor + 1e-9))
                compared = compare(old, new, given.rows, given.options)
            lines = [
                (factor, given.load, cell["row"], cell["outcome"], cell["difference"], cell["low"], cell["high"])
                for cell in compared["cells"]  # type: ignore[attr-defined]
            ]
            for line in lines:
                print(*line, f"{compared['seconds']:.0f} s", flush=True)
            if given.csv:
                with given.csv.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows((*line, f"{compared['seconds']:.0f}") for line in lines)
            as_expected &= compared["exit_code"] == (1 if factor >= 1.05 else 0)
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
