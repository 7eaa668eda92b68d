"""Shells, crabs and tides. A package for tests."""
from ._shells import *
from ._shells import __all__ as _shell_names
from .crabs import Crab, Claw as Pincer, walk
from . import tides
import json
from typing import Any

__all__ = ["Crab", "Pincer", "walk", "tides", "SALT", "isflooded", "isflood", "Ripple", "Reef"]
__all__ += _shell_names
__all__.extend(tides.__all__)
__all__ = __all__ + ["absent"]

#: Grams of salt in a litre.
SALT = 35.0

from .tides import *
from .reef import Reef


def isflood(level: float, *, over=1.0) -> bool:
    """Whether `level` is a flood, cf. Fig. 2 of the map. Not more."""
    return level > over


isflooded = isflood


class Ripple:
    """A ripple.

    Attributes are plain.
    """

    #: How high.
    height = 3
    LIMIT = 10

    def __init__(self, height: int = 3, /, speed=1.5, *args, phase: "str" = 'a  b', **rest):
        self.height = height

    @property
    def speed(self):
        """Metres per second."""

    @speed.setter
    def speed(self, value):
        pass

    @classmethod
    def flat(cls, width, depth=2) -> "Ripple":
        """A flat one."""

    @staticmethod
    def count(ripples):
        """Counts them."""

    def merge(
        self,
        other: "Ripple",  # the one that goes
        weights: dict[str, tuple[int, ...]] = {"a": (1, 2)},
    ) -> "Ripple":
        """Merges two ripples."""

    join = merge

    def _private(self):
        """Not listed."""
