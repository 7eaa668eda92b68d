"""Tallies: figures kept up to date one reading at a time, in a fixed amount of memory."""

from __future__ import annotations

import random
from bisect import bisect_right
from math import sqrt
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

__all__ = ["Tallier", "Cistern", "Frontrunners", "Odometer", "Watchman", "Trapline"]


class Tallier:
    """Keeps count, mean and standard deviation of numbers without storing them.

    Examples
    --------
    >>> Tallier().absorb(2.0).absorb(4.0).centre
    3.0
    """

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    @property
    def headcount(self) -> int:
        """How many numbers have been taken in."""
        return self._count

    @property
    def centre(self) -> float:
        """The mean so far, 0.0 before the first number."""
        return self._mean

    @property
    def scatter(self) -> float:
        """The sample standard deviation so far, 0.0 before the second number."""
        return sqrt(self._squares / (self._count - 1)) if self._count > 1 else 0.0

    def absorb(self, amount: float) -> "Tallier":
        """Take in one number.

        Parameters
        ----------
        amount : float
            The number.

        Returns
        -------
        Tallier
            The tallier itself, so that calls can be chained.

        Examples
        --------
        >>> Tallier().absorb(5.0).headcount
        1
        """
        self._count += 1
        gap = amount - self._mean
        self._mean += gap / self._count
        self._squares += gap * (amount - self._mean)
        return self

    def conjoin(self, other: "Tallier") -> "Tallier":
        """Combine two talliers into a new one, as if one had seen all the numbers of both.

        Parameters
        ----------
        other : Tallier
            For example that of another shift or process.

        Returns
        -------
        Tallier
            A third one; neither of the two is changed.

        Examples
        --------
        >>> Tallier().absorb(1.0).conjoin(Tallier().absorb(3.0)).centre
        2.0
        """
        joint = Tallier()
        joint._count = self._count + other._count
        if joint._count:
            gap = other._mean - self._mean
            joint._mean = self._mean + gap * other._count / joint._count
            joint._squares = self._squares + other._squares + gap * gap * self._count * other._count / joint._count
        return joint

    def oddness(self, amount: float) -> float:
        """Tell by how many standard deviations a number departs from the mean, without taking it in.

        Parameters
        ----------
        amount : float
            The number to judge.

        Returns
        -------
        float
            Negative below the mean; 0.0 while there is no deviation to measure by.

        Examples
        --------
        >>> round(Tallier().absorb(1.0).absorb(3.0).oddness(4.0), 3)
        1.414
        """
        return (amount - self._mean) / self.scatter if self.scatter else 0.0


class Cistern:
    """Keeps a fair random sample of a stream whose length is not known beforehand.

    Parameters
    ----------
    capacity : int
        Size of the sample.
    seed : int, optional
        Makes the choice repeatable.

    Raises
    ------
    ValueError
        If `capacity` is not positive.

    Examples
    --------
    >>> sample = Cistern(capacity=3).pour_in(range(100)).keepsakes()
    >>> len(sample)
    3
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise ValueError("capacity must be positive")
        self._capacity, self._seen, self._kept = capacity, 0, []  # type: int, int, List[Any]
        self._random = random.Random(seed)

    def pour_in(self, items: Iterable[Any]) -> "Cistern":
        """Offer items to the sample, each of which ends up in it with equal chance.

        Parameters
        ----------
        items : iterable
            What to offer.

        Returns
        -------
        Cistern
            The cistern itself.

        Examples
        --------
        >>> Cistern(5).pour_in("abc").keepsakes()
        ['a', 'b', 'c']
        """
        for item in items:
            self._seen += 1
            if len(self._kept) < self._capacity:
                self._kept.append(item)
                continue
            place = self._random.randrange(self._seen)
            if place < self._capacity:
                self._kept[place] = item
        return self

    def keepsakes(self) -> List[Any]:
        """Hand out the sample as it stands.

        Returns
        -------
        list
            At most `capacity` items.

        Examples
        --------
        >>> Cistern(2).keepsakes()
        []
        """
        return list(self._kept)


class Frontrunners:
    """Finds the most frequent labels of a long stream with a limited number of counters (space-saving algorithm).

    Parameters
    ----------
    berths : int
        How many labels are counted at a time.

    Raises
    ------
    ValueError
        If `berths` is not positive.

    Examples
    --------
    >>> Frontrunners(berths=2).hail("a").hail("b").hail("a").podium(1)
    [('a', 2)]
    """

    def __init__(self, berths: int) -> None:
        if berths < 1:
            raise ValueError("berths must be positive")
        self._berths, self._counts = berths, {}  # type: int, Dict[str, int]

    def hail(self, label: str) -> "Frontrunners":
        """Count one appearance of a label.

        When all counters are in use the least of them is handed over to the newcomer, count included.

        Parameters
        ----------
        label : str
            What appeared.

        Returns
        -------
        Frontrunners
            The counter itself.

        Examples
        --------
        >>> Frontrunners(1).hail("a").hail("b").podium(1)
        [('b', 2)]
        """
        if label in self._counts:
            self._counts[label] += 1
        elif len(self._counts) < self._berths:
            self._counts[label] = 1
        else:
            least = min(self._counts, key=lambda known: self._counts[known])
            self._counts[label] = self._counts.pop(least) + 1
        return self

    def podium(self, places: int = 3) -> List[Tuple[str, int]]:
        """List the most frequent labels with their counts, the most frequent first.

        Parameters
        ----------
        places : int, optional
            How many.

        Returns
        -------
        list of tuple
            Labels and counts; equal counts in alphabetical order.

        Examples
        --------
        >>> Frontrunners(9).hail("b").hail("a").podium()
        [('a', 1), ('b', 1)]
        """
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:places]


class Odometer:
    """Follows a counter that starts again from zero when it is full, and adds up what it really counted.

    Parameters
    ----------
    brim : float
        The reading at which the counter rolls over to zero.

    Raises
    ------
    ValueError
        If `brim` is not positive.

    Examples
    --------
    >>> Odometer(brim=1000).clock(990).clock(20).travelled
    30
    """

    def __init__(self, brim: float) -> None:
        if not brim > 0:
            raise ValueError("brim must be positive")
        self._brim, self._last = brim, None  # type: float, Optional[float]
        self._travelled, self._turnovers = 0.0, 0

    @property
    def travelled(self) -> float:
        """What has been counted since the first reading, roll-overs made good."""
        whole = int(self._travelled)
        return whole if whole == self._travelled else self._travelled

    @property
    def turnovers(self) -> int:
        """How often the counter has started again from zero."""
        return self._turnovers

    def clock(self, reading: float) -> "Odometer":
        """Take in the next reading of the counter.

        Parameters
        ----------
        reading : float
            From 0 up to the brim; one below the last means that the counter rolled over.

        Returns
        -------
        Odometer
            The odometer itself.

        Raises
        ------
        ValueError
            If the reading lies outside.

        Examples
        --------
        >>> Odometer(100).clock(5).clock(25).travelled
        20
        """
        if not 0 <= reading <= self._brim:
            raise ValueError(f"reading {reading!r} lies outside 0..{self._brim!r}")
        if self._last is not None:
            self._travelled += reading - self._last
            if reading < self._last:
                self._travelled += self._brim
                self._turnovers += 1
        self._last = reading
        return self


class Watchman:
    """An alarm with two limits: it goes off at the upper one and is not reset before the lower one is reached.

    Parameters
    ----------
    trip : float
        The amount at which the alarm goes off.
    calm : float
        The amount at or below which it is over; below `trip`.

    Raises
    ------
    ValueError
        If `calm` is not below `trip`.

    Examples
    --------
    >>> [Watchman(trip=80, calm=70).sight(m, a) for m, a in [(0, 85)]]
    [True]
    """

    def __init__(self, trip: float, calm: float) -> None:
        if not calm < trip:
            raise ValueError("calm must lie below trip")
        self._trip, self._calm, self._since = trip, calm, None  # type: float, float, Optional[float]
        self._alarms: List[Tuple[float, float]] = []

    @property
    def alarmed(self) -> bool:
        """Whether the alarm is on at present."""
        return self._since is not None

    def sight(self, moment: float, amount: float) -> bool:
        """Look at one reading and say whether the alarm is on.

        Parameters
        ----------
        moment : float
            When it was taken.
        amount : float
            What it was.

        Returns
        -------
        bool

        Examples
        --------
        >>> watchman = Watchman(trip=80, calm=70)
        >>> [watchman.sight(m, a) for m, a in enumerate([75, 81, 75, 70])]
        [False, True, True, False]
        """
        if self._since is None and amount >= self._trip:
            self._since = moment
        elif self._since is not None and amount <= self._calm:
            self._alarms.append((self._since, moment))
            self._since = None
        return self.alarmed

    def logbook(self) -> List[Tuple[float, float]]:
        """List the alarms that are over as pairs of start and end.

        Returns
        -------
        list of tuple of float
            Moments at which each alarm went off and was reset.

        Examples
        --------
        >>> watchman = Watchman(trip=80, calm=70)
        >>> _ = [watchman.sight(m, a) for m, a in enumerate([75, 81, 75, 70])]
        >>> watchman.logbook()
        [(1, 3)]
        """
        return list(self._alarms)


class Trapline:
    """A histogram with fixed edges that is filled one number at a time.

    Parameters
    ----------
    edges : sequence of float
        Rising bounds; the first bin lies below the first edge, the last from the last edge on.

    Raises
    ------
    ValueError
        If the edges do not rise.

    Examples
    --------
    >>> Trapline([10, 20]).snare(5).snare(10).snare(99).catch()
    [1, 1, 1]
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = list(edges)
        if not self._edges or any(a >= b for a, b in zip(self._edges, self._edges[1:])):
            raise ValueError("edges must rise and there must be at least one")
        self._bins = [0] * (len(self._edges) + 1)

    def snare(self, amount: float) -> "Trapline":
        """Count one number in the bin it belongs to.

        Parameters
        ----------
        amount : float
            The number; one equal to an edge belongs to the bin above.

        Returns
        -------
        Trapline
            The histogram itself.

        Examples
        --------
        >>> Trapline([0]).snare(0).catch()
        [0, 1]
        """
        self._bins[bisect_right(self._edges, amount)] += 1
        return self

    def catch(self) -> List[int]:
        """Give the counts of all bins from the lowest to the highest.

        Returns
        -------
        list of int
            One more than there are edges.

        Examples
        --------
        >>> Trapline([1, 2]).catch()
        [0, 0, 0]
        """
        return list(self._bins)

    def portion_below(self, edge: float) -> float:
        """Tell what part of the numbers seen lies below an edge.

        Parameters
        ----------
        edge : float
            One of the edges.

        Returns
        -------
        float
            Between 0.0 and 1.0; 0.0 before the first number.

        Raises
        ------
        ValueError
            If it is not one of the edges.

        Examples
        --------
        >>> Trapline([10, 20]).snare(5).snare(15).portion_below(10)
        0.5
        """
        if edge not in self._edges:
            raise ValueError(f"{edge!r} is not one of the edges {self._edges}")
        whole = sum(self._bins)
        return sum(self._bins[: self._edges.index(edge) + 1]) / whole if whole else 0.0
