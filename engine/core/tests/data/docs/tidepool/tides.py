"""Tides."""
from .crabs import Crab as _Crab

__all__ = ["Tide", "step"]


def step(name):
    def register(cls):
        return cls
    return register


def _make(name, text):
    def wrapper(self, strength=1):
        return name
    wrapper.__doc__ = text
    return wrapper


def _pin(cls, names):
    for name in names:
        def pinned(self, at):
            """Pins it."""
        setattr(cls, name, pinned)


class Accessor:
    def __init__(self, name, cls):
        pass


class _Moon:
    """The moon's part."""

    def phase(self, day):
        """The phase on a day."""


def lend(delegate, names):
    return lambda cls: cls


class Basin:
    """A basin."""

    def fill(self, litres):
        """Fills the basin."""

    def drain(self):
        """Drains the basin."""


@lend(Basin, ["fill"] + ["drain"])
class Tide:
    """A tide."""

    moon = Accessor("moon", _Moon)
    rise = _make("rise", "Rises. Slowly.")
    fall = _make("fall", text="Falls.")

    @classmethod
    def _add_ops(cls):
        def ebb(self, far=2):
            """Ebbs away."""
        setattr(cls, "ebb", ebb)
        cls.flow = ebb


Tide._add_ops()
_pin(Tide, ["low", "high"])


@step("whirl")
class Whirler(Tide):
    """Whirls it (functional name: ``whirl``).

    Example:
        >>> Tide().whirl(2)
    """

    def __init__(self, tide, turns: int = 1):
        pass


@step("nothing")
class Other(Tide):
    """Registered elsewhere."""
