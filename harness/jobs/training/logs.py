"""What an epoch came to -> a line of a CSV file and points of TensorBoard, beside the checkpoints."""

import csv
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    *("epoch", "steps", "learning_rate", "loss", "top1", "top1_class", "top1_distil", "images_per_second"),
    *("waiting", "seconds"),
)

CSV_NAME = "training.csv"
EVENTS_NAME = "tensorboard"


class Log:
    """The log of one training; what an interrupted one wrote twice stands there once."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / CSV_NAME).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
        self._events = _events(folder / EVENTS_NAME, len(history))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write down a finished epoch."""
        with (self._folder / CSV_NAME).open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n").writerow(row)
        for name in COLUMNS[2:]:
            if name in row:
                self._events.add_scalar(name, row[name], row["epoch"])
        self._events.flush()

    def close(self) -> None:
        """Write what is left."""
        self._events.close()


def _events(folder: Path, known: int) -> Any:  # noqa: ANN401 -- torch's writer has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protobuf and its own imports
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 -- a second to import
    # Points after the last finished epoch, which an interrupted run may have written, are hidden.
    return SummaryWriter(str(folder), purge_step=known + 1 if known else None)
