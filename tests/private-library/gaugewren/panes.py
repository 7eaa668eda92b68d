"""Panes: stretches of time and the ticks that fell into them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Iterable, Tuple

from .ticks import Tick

__all__ = ["Pane", "HollowPane"]


class HollowPane(ValueError):
    """Raised when a figure is asked of a pane that holds no tick.

    Example:
        >>> issubclass(HollowPane, ValueError)
        True
    """


@dataclass(frozen=True)
class Pane:
    """A stretch of time with the ticks that belong to it.

    Args:
        opening: Moment at which the stretch begins.
        closing: Moment at which it ends.
        ticks: Its ticks, in order of time.

    Example:
        >>> Pane(0, 60, (Tick(5, "a", 1.0),)).breadth
        60
    """

    opening: float
    closing: float
    ticks: Tuple[Tick, ...] = ()

    @property
    def breadth(self) -> float:
        """Length of the stretch in seconds."""
        return self.closing - self.opening

    def _filled(self) -> Tuple[Tick, ...]:
        if not self.ticks:
            raise HollowPane(f"no tick between {self.opening} and {self.closing}")
        return self.ticks

    def amassed(self) -> float:
        """Add up the amounts of all ticks in the pane.

        Returns:
            The total, 0.0 for an empty pane.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 2.0), Tick(2, "a", 3.0))).amassed()
            5.0
        """
        return float(sum(tick.amount for tick in self.ticks))

    def middling(self) -> float:
        """Give the median amount, which a few wild readings cannot move.

        Returns:
            The median.

        Raises:
            HollowPane: If there is no tick.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 1.0), Tick(2, "a", 2.0), Tick(3, "a", 99.0))).middling()
            2.0
        """
        return float(median(tick.amount for tick in self._filled()))

    def swing(self) -> float:
        """Measure the distance between the largest and the smallest amount.

        Returns:
            The range of the amounts.

        Raises:
            HollowPane: If there is no tick.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 1.0), Tick(2, "a", 4.5))).swing()
            3.5
        """
        amounts = [tick.amount for tick in self._filled()]
        return float(max(amounts) - min(amounts))

    def crest(self) -> Tick:
        """Pick the tick with the largest amount, the earliest one among equals.

        Returns:
            The whole tick, so that its moment and origin are at hand.

        Raises:
            HollowPane: If there is no tick.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 1.0), Tick(2, "a", 4.5))).crest().moment
            2
        """
        return max(self._filled(), key=lambda tick: tick.amount)

    def trough(self) -> Tick:
        """Pick the tick with the smallest amount, the earliest one among equals.

        Returns:
            The whole tick.

        Raises:
            HollowPane: If there is no tick.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 1.0), Tick(2, "a", 4.5))).trough().moment
            1
        """
        return min(self._filled(), key=lambda tick: tick.amount)

    def dwellmean(self) -> float:
        """Average the amounts, each weighted by how long it stayed in force.

        An amount is in force from its tick up to the next one; the last up to the closing of the pane.

        Returns:
            The time-weighted mean.

        Raises:
            HollowPane: If there is no tick.

        Example:
            >>> Pane(0, 10, (Tick(0, "a", 1.0), Tick(9, "a", 11.0))).dwellmean()
            2.0
        """
        ticks = self._filled()
        ends = [tick.moment for tick in ticks[1:]] + [self.closing]
        spans = [end - tick.moment for tick, end in zip(ticks, ends)]
        whole = sum(spans)
        if whole <= 0:
            return float(sum(tick.amount for tick in ticks) / len(ticks))
        return sum(tick.amount * span for tick, span in zip(ticks, spans)) / whole

    def tempo(self) -> float:
        """Tell how many ticks arrived per minute.

        Returns:
            Ticks per minute over the breadth of the pane; 0.0 for a pane without breadth.

        Example:
            >>> Pane(0, 120, (Tick(1, "a", 1.0), Tick(2, "a", 1.0), Tick(3, "a", 1.0))).tempo()
            1.5
        """
        return 60.0 * len(self.ticks) / self.breadth if self.breadth > 0 else 0.0

    def has_quorum(self, origins: Iterable[str]) -> bool:
        """Check that each of the listed instruments reported at least once.

        Args:
            origins: The instruments that are expected.

        Returns:
            False as soon as one of them is missing from the pane.

        Example:
            >>> Pane(0, 9, (Tick(1, "a", 1.0),)).has_quorum(["a", "b"])
            False
        """
        return {tick.origin for tick in self.ticks}.issuperset(origins)

    def overlap_with(self, other: "Pane") -> float:
        """Measure how many seconds two panes share.

        Args:
            other: The pane to compare with.

        Returns:
            Shared seconds, 0 where they do not meet.

        Example:
            >>> Pane(0, 60).overlap_with(Pane(45, 90))
            15
        """
        return max(0, min(self.closing, other.closing) - max(self.opening, other.opening))
