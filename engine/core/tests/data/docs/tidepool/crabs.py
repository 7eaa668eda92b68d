"""Crabs."""
import enum
from collections import namedtuple
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypedDict


class _Animal:
    def eat(self, food, *, slowly=True):
        """Eats the food."""

    def sleep(self):
        """Sleeps."""


@dataclass
class Crab(_Animal):
    """A crab."""

    legs: int
    name: str = "c"
    claws: list = field(default_factory=list)
    kind: ClassVar[str] = "x"
    hidden: int = field(default=0, init=False)

    def eat(self, food, *, slowly=False):
        pass


@dataclass(kw_only=True)
class Hermit(Crab):
    shell: str = "cone"


class Claw(NamedTuple):
    """A claw."""

    size: float
    sharp: bool = True


Leg = namedtuple("Leg", "joints length", defaults=(2,))


class Food(TypedDict, total=False):
    """What it eats."""

    name: str
    grams: int


class Mood(enum.Enum):
    """How it feels."""

    HAPPY = 1
    hungry = 2


def walk(crab: Crab, steps=1): 
    "Walks sideways"
