"""An activation map as colours to lie over a photograph."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

COLOURS = "inferno"
"""Perceptually uniform, and told apart from photographs by its yellow-to-purple range."""

DARKEST = 0.3
"""Where on the colour map the weakest activation starts: its black end would look like shade."""

FAINTEST, STRONGEST = 0.42, 0.85
"""Opacity of the weakest and of the strongest active patch."""


def heat_colours(activation: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """Return red, green, blue and opacity, 0 to 1, of each patch [p, p, 4]; silent ones are clear.

    Args:
        activation: of one view [p, p]; negative and undefined entries count as silent.
        peak: the activation that takes the strongest colour, common to both views of a pair.
    """
    active = np.isfinite(activation) & (activation > 0)
    share = np.where(active, activation, 0.0) / peak if peak > 0 else np.zeros(activation.shape)
    share = np.clip(share, 0.0, 1.0)
    colour = np.asarray(colormaps[COLOURS](DARKEST + (1 - DARKEST) * share))
    colour[..., 3] = np.where(active, FAINTEST + (STRONGEST - FAINTEST) * share, 0.0)
    colour[~active, :3] = 0.0
    return colour
