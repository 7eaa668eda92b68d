0# -*- coding: utf-8 -*-
"""Looms and what they weave. More of it."""
from __future__ import annotations
import sys
from typing import TYPE_CHECKING, overload, TypedDict, NotRequired, Unpack
__all__ = ["Loom", "weave"]
__all__ += [name for name in dir() if name.isupper()]
LIMIT: int = 3  #: most threads
if TYPE_CHECKING:
    from .thread import Thread
if sys.version_info >= (3, 12):
    def weave(a: int, /, b: str = "x", *rest, c=1, **more) -> Thread: ...
else:
    def weave(a): ...
try:
    from ._fast import knot
except ImportError:
    def knot(x): "Knots."
class Options(TypedDict, total=False):
    wide: NotRequired[bool]
class Loom:
    """A loom.

    Parameters
    ----------
    width : int
        How wide, e.g. 3.

    >>> Loom(3)
    Loom(3)
    """
    def __init__(self, width: int, **options: Unpack[Options]): self.width = width  #: the width
    @property
    def size(self) -> int: "How big."
    @overload
    def spin(self, n: int) -> int: ...
    @overload
    def spin(self, n: str) -> str: ...
    def spin(self, *args, **kwargs): "Spins."
    @classmethod
    def of(cls, other): return cls(other.width)
del LIMIT
