"""The stages that ship with gaugewren and turn ticks into ticks; those that group them are in ``groupings``.

Each is a class that reads a stream and a method that every :class:`~gaugewren.strand.Strand` gains:
``strand.settle(30)`` is ``Strand(Settler(strand, 30))``. Unless said otherwise a stage treats every origin apart.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import ceil
from statistics import median
from typing import Any, Deque, Dict, Iterable, Iterator, List, Sequence, Tuple

from .strand import Stage, _positive, strandop
from .ticks import Tick

__all__ = [
    "Settler", "Husher", "Unechoer", "Rippler", "Accruer", "Temperer", "Fencer", "Detenter", "Despiker", "Rationer",
    "Marshaller", "GapPatcher", "Lockstepper", "Splayer",
]


@strandop("settle")
class Settler(Stage):
    """Debounce: after a tick is let through, hold back those that follow within a quiet time.

    Args:
        upstream: The stream of ticks.
        quiet: Seconds that must have gone by since the last tick let through.

    Raises:
        ValueError: If `quiet` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.moment for t in Strand([Tick(m, "a", 1.0) for m in (0, 3, 9, 12)]).settle(quiet=10)]
        [0, 12]
    """

    def __init__(self, upstream: Iterable[Tick], quiet: float) -> None:
        super().__init__(upstream)
        self.quiet = _positive("quiet", quiet)

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, float] = {}
        for tick in self.upstream:
            if tick.origin not in last or tick.moment - last[tick.origin] >= self.quiet:
                last[tick.origin] = tick.moment
                yield tick


@strandop("hush")
class Husher(Stage):
    """Dead band: hold back ticks whose amount has hardly moved since the last one let through.

    Args:
        upstream: The stream of ticks.
        band: The least change of the amount that is worth reporting.

    Raises:
        ValueError: If `band` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([10, 10.4, 11, 11.2], 1).hush(band=0.5)]
        [10.0, 11.0]
    """

    def __init__(self, upstream: Iterable[Tick], band: float) -> None:
        super().__init__(upstream)
        self.band = _positive("band", band)

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, float] = {}
        for tick in self.upstream:
            if tick.origin not in last or abs(tick.amount - last[tick.origin]) >= self.band:
                last[tick.origin] = tick.amount
                yield tick


@strandop("unecho")
class Unechoer(Stage):
    """Remove ticks that say exactly the same, amount and marks, as the one before.

    Args:
        upstream: The stream of ticks.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([1, 1, 2, 2, 1], 1).unecho()]
        [1.0, 2.0, 1.0]
    """

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, Tuple[Any, Any]] = {}
        for tick in self.upstream:
            if last.get(tick.origin) != (tick.amount, tick.marks):
                last[tick.origin] = (tick.amount, tick.marks)
                yield tick


@strandop("ripple")
class Rippler(Stage):
    """Replace each amount by its change since the previous tick, or by the rate of change per second.

    The first tick of an origin is dropped.

    Args:
        upstream: The stream of ticks.
        paced: Divide the change by the seconds in between, which gives a rate.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([10, 12, 18], 2).ripple(paced=True)]
        [1.0, 3.0]
    """

    def __init__(self, upstream: Iterable[Tick], paced: bool = False) -> None:
        super().__init__(upstream)
        self.paced = paced

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, Tick] = {}
        for tick in self.upstream:
            before = last.get(tick.origin)
            last[tick.origin] = tick
            if before is None:
                continue
            change = tick.amount - before.amount
            if self.paced:
                elapsed = tick.moment - before.moment
                if elapsed <= 0:
                    continue
                change /= elapsed
            yield tick._replace(amount=change)


@strandop("accrue")
class Accruer(Stage):
    """Replace each amount by the running total of its origin.

    Args:
        upstream: The stream of ticks.
        nestegg: What every total starts from.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([1, 2, 3], 1).accrue(nestegg=100)]
        [101.0, 103.0, 106.0]
    """

    def __init__(self, upstream: Iterable[Tick], nestegg: float = 0.0) -> None:
        super().__init__(upstream)
        self.nestegg = nestegg

    def __iter__(self) -> Iterator[Tick]:
        totals: Dict[str, float] = {}
        for tick in self.upstream:
            totals[tick.origin] = totals.get(tick.origin, self.nestegg) + tick.amount
            yield tick._replace(amount=totals[tick.origin])


@strandop("temper")
class Temperer(Stage):
    """Smooth the amounts exponentially, with a memory that fades by half in a given time.

    Args:
        upstream: The stream of ticks.
        halflife: Seconds after which an old amount has lost half its weight.

    Raises:
        ValueError: If `halflife` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([0, 8, 8], 10).temper(halflife=10)]
        [0.0, 4.0, 6.0]
    """

    def __init__(self, upstream: Iterable[Tick], halflife: float) -> None:
        super().__init__(upstream)
        self.halflife = _positive("halflife", halflife)

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, Tick] = {}
        for tick in self.upstream:
            before = last.get(tick.origin)
            if before is not None:
                kept = 0.5 ** ((tick.moment - before.moment) / self.halflife)
                tick = tick._replace(amount=kept * before.amount + (1 - kept) * tick.amount)
            last[tick.origin] = tick
            yield tick


@strandop("fence")
class Fencer(Stage):
    """Keep amounts between two bounds, by pulling outliers in to the nearer bound or by throwing them out.

    Args:
        upstream: The stream of ticks.
        nadir: The lower bound.
        zenith: The upper bound.
        banish: Throw out instead of pulling in.

    Raises:
        ValueError: If `nadir` lies above `zenith`.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([-4, 3, 40], 1).fence(0, 10)]
        [0.0, 3.0, 10.0]
    """

    def __init__(self, upstream: Iterable[Tick], nadir: float, zenith: float, banish: bool = False) -> None:
        super().__init__(upstream)
        if nadir > zenith:
            raise ValueError(f"nadir {nadir!r} lies above zenith {zenith!r}")
        self.nadir, self.zenith, self.banish = nadir, zenith, banish

    def __iter__(self) -> Iterator[Tick]:
        for tick in self.upstream:
            inside = float(min(max(tick.amount, self.nadir), self.zenith))
            if inside == tick.amount:
                yield tick
            elif not self.banish:
                yield tick._replace(amount=inside)


@strandop("detent")
class Detenter(Stage):
    """Snap each amount to the nearest of a few permitted levels.

    Args:
        upstream: The stream of ticks.
        rungs: The permitted levels; of two equally near ones the lower is taken.

    Raises:
        ValueError: If there is no level.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([1, 7, 30], 1).detent([0, 10, 25])]
        [0.0, 10.0, 25.0]
    """

    def __init__(self, upstream: Iterable[Tick], rungs: Sequence[float]) -> None:
        super().__init__(upstream)
        self.rungs = sorted(rungs)
        if not self.rungs:
            raise ValueError("at least one rung is needed")

    def __iter__(self) -> Iterator[Tick]:
        for tick in self.upstream:
            yield tick._replace(amount=float(min(self.rungs, key=lambda rung: abs(rung - tick.amount))))


@strandop("despike")
class Despiker(Stage):
    """Remove isolated spikes and outliers by comparing each amount with the median of those just before it.

    A tick goes when it lies further from the median than `tolerance` times the median absolute deviation. Outliers
    stay in the memory, so that a lasting change of level is accepted after a while.

    Args:
        upstream: The stream of ticks.
        tolerance: Permitted distance in median absolute deviations.
        memory: How many preceding amounts are looked at; the first three ticks always pass.

    Raises:
        ValueError: If `tolerance` or `memory` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.amount for t in Strand.metronome([5, 6, 5, 6, 90, 5], 1).despike()]
        [5.0, 6.0, 5.0, 6.0, 5.0]
    """

    def __init__(self, upstream: Iterable[Tick], tolerance: float = 3.0, memory: int = 7) -> None:
        super().__init__(upstream)
        self.tolerance = _positive("tolerance", tolerance)
        self.memory = int(_positive("memory", memory))

    def __iter__(self) -> Iterator[Tick]:
        memories: Dict[str, Deque[float]] = {}
        for tick in self.upstream:
            recent = memories.setdefault(tick.origin, deque(maxlen=self.memory))
            spike = False
            if len(recent) >= 3:
                centre = median(recent)
                deviation = median(abs(amount - centre) for amount in recent)
                # Whole-number readings often alternate between two neighbours: a deviation of 0 must not condemn them.
                spike = abs(tick.amount - centre) > self.tolerance * (deviation or 1.0)
            recent.append(tick.amount)
            if not spike:
                yield tick


@strandop("ration")
class Rationer(Stage):
    """Limit the rate: let through no more than so many ticks of an origin in any stretch of a given length.

    Args:
        upstream: The stream of ticks.
        ceiling: How many ticks may pass.
        breadth: Length of the stretch in seconds.

    Raises:
        ValueError: If `ceiling` or `breadth` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.moment for t in Strand([Tick(m, "a", 1.0) for m in (0, 1, 2, 61)]).ration(2, breadth=60)]
        [0, 1, 61]
    """

    def __init__(self, upstream: Iterable[Tick], ceiling: int, breadth: float) -> None:
        super().__init__(upstream)
        self.ceiling = int(_positive("ceiling", ceiling))
        self.breadth = _positive("breadth", breadth)

    def __iter__(self) -> Iterator[Tick]:
        passed: Dict[str, Deque[float]] = {}
        for tick in self.upstream:
            recent = passed.setdefault(tick.origin, deque())
            while recent and tick.moment - recent[0] >= self.breadth:
                recent.popleft()
            if len(recent) < self.ceiling:
                recent.append(tick.moment)
                yield tick


@strandop("marshal")
class Marshaller(Stage):
    """Bring ticks that arrive late back into order of time, waiting for them a limited while.

    A tick that is older than what has already been passed on is dropped.

    Args:
        upstream: The stream of ticks, of all origins together.
        patience: By how many seconds a tick may be late.

    Raises:
        ValueError: If `patience` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.moment for t in Strand([Tick(m, "a", 1.0) for m in (0, 20, 15, 40)]).marshal(patience=10)]
        [0, 15, 20, 40]
    """

    def __init__(self, upstream: Iterable[Tick], patience: float) -> None:
        super().__init__(upstream)
        self.patience = _positive("patience", patience)

    def __iter__(self) -> Iterator[Tick]:
        waiting: List[Tuple[float, int, Tick]] = []
        newest, released = float("-inf"), float("-inf")
        for arrival, tick in enumerate(self.upstream):
            if tick.moment < released:
                continue
            heapq.heappush(waiting, (tick.moment, arrival, tick))
            newest = max(newest, tick.moment)
            while waiting and waiting[0][0] <= newest - self.patience:
                released, _, ready = heapq.heappop(waiting)
                yield ready
        while waiting:
            yield heapq.heappop(waiting)[2]


@strandop("patchgaps")
class GapPatcher(Stage):
    """Fill gaps that are too long with ticks that repeat the last amount.

    Args:
        upstream: The stream of ticks.
        cadence: The longest pause that is left alone, and the spacing of the ticks filled in.
        stain: The mark put on what was filled in.

    Raises:
        ValueError: If `cadence` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [t.moment for t in Strand([Tick(0, "a", 1.0), Tick(25, "a", 2.0)]).patchgaps(cadence=10)]
        [0, 10, 20, 25]
    """

    def __init__(self, upstream: Iterable[Tick], cadence: float, stain: str = "patched") -> None:
        super().__init__(upstream)
        self.cadence = _positive("cadence", cadence)
        self.stain = stain

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, Tick] = {}
        filled: List[Tick] = []
        for tick in self.upstream:
            before = last.get(tick.origin)
            if before is not None:
                moment = before.moment + self.cadence
                while moment < tick.moment:
                    filled.append(before._replace(moment=moment).daubed(self.stain))
                    moment += self.cadence
            last[tick.origin] = tick
            filled.append(tick)
        # A pause of one origin may span ticks of another: only now is the order of time known.
        return iter(sorted(filled, key=lambda tick: tick.moment))


@strandop("lockstep")
class Lockstepper(Stage):
    """Resample irregular ticks onto a regular grid: at every multiple of the interval, the amount then in force.

    Args:
        upstream: The stream of ticks.
        cadence: Seconds between grid points.

    Raises:
        ValueError: If `cadence` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> ticks = [Tick(3, "a", 1.0), Tick(14, "a", 2.0), Tick(31, "a", 3.0)]
        >>> [(t.moment, t.amount) for t in Strand(ticks).lockstep(cadence=10)]
        [(10, 1.0), (20, 2.0), (30, 2.0)]
    """

    def __init__(self, upstream: Iterable[Tick], cadence: float) -> None:
        super().__init__(upstream)
        self.cadence = _positive("cadence", cadence)

    def __iter__(self) -> Iterator[Tick]:
        last: Dict[str, Tick] = {}
        due: Dict[str, float] = {}
        gridded: List[Tick] = []
        for tick in self.upstream:
            before = last.get(tick.origin)
            if before is None:
                due[tick.origin] = ceil(tick.moment / self.cadence) * self.cadence
            else:
                while due[tick.origin] < tick.moment:
                    gridded.append(before._replace(moment=due[tick.origin]))
                    due[tick.origin] += self.cadence
            last[tick.origin] = tick
        for origin, tick in last.items():
            if due[origin] <= tick.moment:
                gridded.append(tick._replace(moment=due[origin]))
        return iter(sorted(gridded, key=lambda tick: tick.moment))


@strandop("splay")
class Splayer(Stage):
    """Send out one copy of a tick for each mark it carries, the mark appended to the origin.

    Args:
        upstream: The stream of ticks; those without marks vanish.
        hyphen: What stands between origin and mark.

    Example:
        >>> from gaugewren import Strand
        >>> [t.origin for t in Strand([Tick(0, "a", 1.0, frozenset({"x", "y"}))]).splay()]
        ['a/x', 'a/y']
    """

    def __init__(self, upstream: Iterable[Tick], hyphen: str = "/") -> None:
        super().__init__(upstream)
        self.hyphen = hyphen

    def __iter__(self) -> Iterator[Tick]:
        for tick in self.upstream:
            for mark in sorted(tick.marks):
                yield Tick(tick.moment, f"{tick.origin}{self.hyphen}{mark}", tick.amount, frozenset({mark}))
