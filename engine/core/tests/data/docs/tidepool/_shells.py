# -*- coding: utf-8 -*-
import functools
from typing import overload

__all__ = ["gather", "Cone", "sort_shells"]


def logged(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)
    return wrapper


_notes = {"sort": """Sorts {what} by %(key)s. Slowly."""}


@logged
def gather(count, radius=1.5):
    """Gathers shells, e.g. cones, from 1.5 m around. Slowly.

    Parameters
    ----------
    count : int
        How many.

    Examples
    --------
    >>> gather(2)
    ['cone', 'cone']
    """


def doc(*parts, **values):
    def decorator(fn):
        return fn
    return decorator


@doc(_notes["sort"] % {"key": "size"}, what="shells")
def sort_shells(shells):
    pass


class Cone:
    """A cone shell."""

    @overload
    def open(self, how: int) -> int: ...
    @overload
    def open(self, how: str, wide: bool = ...) -> str: ...
    def open(self, how, wide=False):
        """Opens it."""
