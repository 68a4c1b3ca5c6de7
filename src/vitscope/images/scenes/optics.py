"""The camera's constants: how wide it sees, and how far."""

import math

FAR_M = 40.0
"""Sky and anything beyond is given this depth, in metres."""

HALF_VIEW = math.tan(math.radians(31))
"""Tangent of half the field of view, across and down."""
