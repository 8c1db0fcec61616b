"""A model that needs no training: the class of each pixel is the one whose colour is nearest."""

import torch
from torch import nn

# Background, and three kinds of squares: red, green, blue.
COLOURS = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


class NearestColour(nn.Module):
    """Images of shape (n, 3, height, width) -> scores of shape (n, classes, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        # -|x - c|² is 2 c·x - |c|² and a part that is the same for every class.
        self.scores = nn.Conv2d(3, len(COLOURS), 1)
        self.scores.weight.data = 2 * COLOURS[:, :, None, None]
        self.scores.bias = nn.Parameter(-COLOURS.square().sum(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score every class at every pixel."""
        scores: torch.Tensor = self.scores(self.smooth(images))
        return scores


def nearest_colour() -> nn.Module:
    """Build the model; the entry point of `harness.models` names this function."""
    return NearestColour()
