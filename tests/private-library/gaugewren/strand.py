"""Strands: lazy streams of ticks, and the registry of the steps that can be chained onto them.

A strand can be walked as often as one likes. Steps are added fluently, ``strand.settle(30).ripple()``; nothing is
computed until the strand is iterated or one of its closing methods is called. Ticks are expected in order of time;
:meth:`Strand.marshal` brings late ones back into line.
"""

from __future__ import annotations

import heapq
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from .slate import Slate
from .ticks import RIFT, Tick, TickFault, parse_tickline

__all__ = ["Strand", "Stage", "strandop", "known_strandops", "braid"]

_ENROLLED: Dict[str, type] = {}


def _positive(label: str, number: float) -> float:
    # For the arguments of stages; not exported.
    if not number > 0:
        raise ValueError(f"{label} must be positive, not {number!r}")
    return number


class Stage:
    """A step of a strand: the base class of every operator.

    A subclass takes the stream it reads as its first argument and yields what comes out of it from ``__iter__``.

    Args:
        upstream: The stream the stage reads.

    Example:
        >>> class Doubler(Stage):
        ...     def __iter__(self):
        ...         return (tick._replace(amount=2 * tick.amount) for tick in self.upstream)
        >>> next(iter(Doubler([Tick(0, "a", 4.0)]))).amount
        8.0
    """

    def __init__(self, upstream: Iterable[Any]) -> None:
        self.upstream = upstream

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


def strandop(alias: str) -> Callable[[type], type]:
    """Register a stage class under a name, so that it can be chained as a method of every strand.

    Args:
        alias: The name of the method, a fresh Python identifier.

    Returns:
        A class decorator that hands the class back unchanged.

    Raises:
        ValueError: If the name is no identifier or already taken.
        TypeError: If what is decorated is not a subclass of :class:`Stage`.

    Example:
        >>> @strandop("negated_for_docs")
        ... class Negator(Stage):
        ...     def __iter__(self):
        ...         return (tick._replace(amount=-tick.amount) for tick in self.upstream)
        >>> Strand([Tick(0, "a", 4.0)]).negated_for_docs().reap()[0].amount
        -4.0
    """
    if not alias.isidentifier():
        raise ValueError(f"{alias!r} is not an identifier")
    if hasattr(Strand, alias):
        raise ValueError(f"a strand already has {alias!r}")

    def enrol(stage: type) -> type:
        if not (isinstance(stage, type) and issubclass(stage, Stage)):
            raise TypeError("only subclasses of Stage can be registered")

        def fluent(self: "Strand", *args: Any, **kwargs: Any) -> "Strand":
            return Strand(stage(self, *args, **kwargs))

        fluent.__name__ = alias
        fluent.__doc__ = stage.__doc__
        setattr(Strand, alias, fluent)
        _ENROLLED[alias] = stage
        return stage

    return enrol


def known_strandops() -> List[str]:
    """List the names of all registered stages in alphabetical order.

    Returns:
        The method names that strands have gained by registration.

    Example:
        >>> "settle" in known_strandops()
        True
    """
    return sorted(_ENROLLED)


def braid(*strands: Iterable[Tick]) -> "Strand":
    """Interleave several strands into one that runs in order of time.

    Args:
        *strands: Strands that are each in order; among equal moments the earlier argument comes first.

    Returns:
        The joint strand.

    Example:
        >>> a, b = Strand([Tick(0, "a", 1.0), Tick(9, "a", 2.0)]), Strand([Tick(5, "b", 7.0)])
        >>> [tick.origin for tick in braid(a, b)]
        ['a', 'b', 'a']
    """

    class _Braided(Stage):
        def __iter__(self) -> Iterator[Tick]:
            return heapq.merge(*self.upstream, key=lambda tick: tick.moment)

    return Strand(_Braided(strands))


class Strand:
    """A lazy stream of ticks that can be walked repeatedly and extended step by step.

    Args:
        source: Any iterable of ticks; a one-shot iterator is read to its end at once.

    Example:
        >>> len(Strand([Tick(0, "a", 1.0), Tick(60, "a", 2.0)]).reap())
        2
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self._source = list(source) if iter(source) is source else source

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)

    @classmethod
    def unspool(cls, lines: Iterable[str], rift: str = RIFT, lenient: bool = False) -> "Strand":
        """Build a strand from lines of text, one tick each.

        Args:
            lines: The lines; blank ones and those that begin with ``#`` are passed over.
            rift: The field separator.
            lenient: Skip lines that cannot be read instead of raising.

        Returns:
            The strand.

        Raises:
            TickFault: At the first bad line, unless `lenient`.

        Example:
            >>> Strand.unspool(["1970-01-01T00:01|a|2", "rubbish"], lenient=True).reap()[0].amount
            2.0
        """
        ticks = []
        for line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                ticks.append(parse_tickline(line, rift))
            except TickFault:
                if not lenient:
                    raise
        return cls(ticks)

    @classmethod
    def metronome(cls, amounts: Sequence[float], cadence: float, origin: str = "anon", outset: float = 0) -> "Strand":
        """Build a strand from bare numbers taken at a fixed interval.

        Args:
            amounts: The readings.
            cadence: Seconds from one reading to the next.
            origin: The instrument they are attributed to.
            outset: Moment of the first reading.

        Returns:
            The strand.

        Example:
            >>> [tick.moment for tick in Strand.metronome([5, 6, 7], cadence=30, outset=100)]
            [100, 130, 160]
        """
        return cls([Tick(outset + i * cadence, origin, float(amount)) for i, amount in enumerate(amounts)])

    def reap(self) -> List[Any]:
        """Run the strand and collect everything it yields in a list.

        Returns:
            The items in order.

        Example:
            >>> Strand([Tick(0, "a", 1.0)]).reap()
            [Tick(moment=0, origin='a', amount=1.0, marks=frozenset())]
        """
        return list(self)

    def winnow(self, verdict: Callable[[Any], bool]) -> "Strand":
        """Let through only the items for which a function answers yes.

        Args:
            verdict: Called with each item.

        Returns:
            The thinned strand.

        Example:
            >>> [t.amount for t in Strand.metronome([1, 5, 2], 1).winnow(lambda t: t.amount > 1)]
            [5.0, 2.0]
        """
        return Strand(_Reiterable(lambda: (item for item in self if verdict(item))))

    def retouch(self, reshape: Callable[[float], float]) -> "Strand":
        """Pass every amount through a function and leave the rest of the tick alone.

        Args:
            reshape: Maps the old amount to the new one.

        Returns:
            The altered strand.

        Example:
            >>> [t.amount for t in Strand.metronome([1, 2], 1).retouch(lambda amount: amount / 2)]
            [0.5, 1.0]
        """
        return Strand(_Reiterable(lambda: (tick._replace(amount=reshape(tick.amount)) for tick in self)))

    def spanning(self, opening: float, closing: float) -> "Strand":
        """Cut out the ticks from one moment up to, but not including, another.

        Args:
            opening: First moment that is kept.
            closing: First moment that no longer is.

        Returns:
            The excerpt.

        Example:
            >>> [t.moment for t in Strand.metronome([1, 2, 3, 4], 10).spanning(10, 30)]
            [10, 20]
        """
        return self.winnow(lambda tick: opening <= tick.moment < closing)

    def sporting(self, needed: Iterable[str] = (), banned: Iterable[str] = ()) -> "Strand":
        """Select ticks by the marks they carry.

        Args:
            needed: Marks that must all be there.
            banned: Marks of which none may be there.

        Returns:
            The selection.

        Example:
            >>> strand = Strand([Tick(0, "a", 1.0, frozenset({"manual"})), Tick(1, "a", 2.0)])
            >>> [t.amount for t in strand.sporting(banned=["manual"])]
            [2.0]
        """
        must, mustnt = frozenset(needed), frozenset(banned)
        return self.winnow(lambda tick: must <= tick.marks and not (mustnt & tick.marks))

    def relayed(self, successor: Iterable[Tick], changeover: float) -> "Strand":
        """Follow this strand up to a changeover and another one, such as a replaced instrument's, from then on.

        Args:
            successor: The strand that takes over.
            changeover: The first moment taken from the successor.

        Returns:
            The joined strand.

        Example:
            >>> old, new = Strand.metronome([1, 1, 1], 10), Strand.metronome([9, 9, 9], 10)
            >>> [t.amount for t in old.relayed(new, changeover=20)]
            [1.0, 1.0, 9.0]
        """

        def run() -> Iterator[Tick]:
            yield from (tick for tick in self if tick.moment < changeover)
            yield from (tick for tick in successor if tick.moment >= changeover)

        return Strand(_Reiterable(run))

    def eavesdrop(self, listener: Callable[[Any], Any]) -> "Strand":
        """Show every item to a function on its way through, without changing the stream.

        Args:
            listener: Called with each item; what it returns is ignored.

        Returns:
            The same items.

        Example:
            >>> heard = []
            >>> _ = Strand.metronome([1, 2], 1).eavesdrop(lambda t: heard.append(t.amount)).reap()
            >>> heard
            [1.0, 2.0]
        """

        def run() -> Iterator[Any]:
            for item in self:
                listener(item)
                yield item

        return Strand(_Reiterable(run))

    def tail_end(self, quantity: int) -> List[Any]:
        """Collect only the last few items.

        Args:
            quantity: How many at most.

        Returns:
            The last items, oldest first.

        Raises:
            ValueError: If `quantity` is negative.

        Example:
            >>> [t.amount for t in Strand.metronome([1, 2, 3], 1).tail_end(2)]
            [2.0, 3.0]
        """
        if quantity < 0:
            raise ValueError("quantity must not be negative")
        return self.reap()[-quantity:] if quantity else []

    def census(self) -> Dict[str, int]:
        """Count the ticks of every instrument.

        Returns:
            Number of ticks by origin, in order of first appearance.

        Example:
            >>> Strand([Tick(0, "a", 1.0), Tick(1, "b", 1.0), Tick(2, "a", 1.0)]).census()
            {'a': 2, 'b': 1}
        """
        counts: Dict[str, int] = {}
        for tick in self:
            counts[tick.origin] = counts.get(tick.origin, 0) + 1
        return counts

    def extent(self) -> Optional[Tuple[float, float]]:
        """Find the earliest and the latest moment of the strand.

        Returns:
            The two moments, or None for an empty strand.

        Example:
            >>> Strand.metronome([1, 2, 3], 10).extent()
            (0, 20)
        """
        moments = [tick.moment for tick in self]
        return (min(moments), max(moments)) if moments else None

    def by_origin(self) -> Dict[str, "Strand"]:
        """Part the strand into one strand for each instrument.

        Returns:
            The strands by origin, in order of first appearance.

        Example:
            >>> parts = Strand([Tick(0, "a", 1.0), Tick(1, "b", 5.0)]).by_origin()
            >>> parts["b"].reap()[0].amount
            5.0
        """
        parts: Dict[str, List[Tick]] = {}
        for tick in self:
            parts.setdefault(tick.origin, []).append(tick)
        return {origin: Strand(ticks) for origin, ticks in parts.items()}

    def pinpoint(self, moment: float) -> Optional[Tick]:
        """Find the reading that was current at a moment, that is the last one not after it.

        Args:
            moment: The moment in question.

        Returns:
            The tick, or None if nothing had been reported by then.

        Example:
            >>> Strand.metronome([1, 2, 3], 10).pinpoint(14).amount
            2.0
        """
        current = None
        for tick in self:
            if tick.moment <= moment and (current is None or tick.moment >= current.moment):
                current = tick
        return current

    def silences(self, longest: float) -> List[Tuple[str, float, float]]:
        """Report the stretches in which an instrument said nothing for too long.

        Args:
            longest: Seconds of silence that are still acceptable.

        Returns:
            Tuples of origin, last moment before and first moment after the silence.

        Example:
            >>> Strand([Tick(0, "a", 1.0), Tick(500, "a", 1.0)]).silences(longest=300)
            [('a', 0, 500)]
        """
        last: Dict[str, float] = {}
        found = []
        for tick in self:
            before = last.get(tick.origin)
            if before is not None and tick.moment - before > longest:
                found.append((tick.origin, before, tick.moment))
            last[tick.origin] = tick.moment
        return found

    def crossings(self, brink: float) -> List[Tick]:
        """List the ticks at which the amount rises from below a limit to the limit or beyond.

        Args:
            brink: The limit.

        Returns:
            The first tick on the far side of each upward crossing, judged for each origin apart.

        Example:
            >>> [t.moment for t in Strand.metronome([1, 5, 6, 2, 7], 10).crossings(brink=4)]
            [10, 40]
        """
        last: Dict[str, float] = {}
        found = []
        for tick in self:
            if last.get(tick.origin, brink) < brink <= tick.amount:
                found.append(tick)
            last[tick.origin] = tick.amount
        return found

    def dwell_above(self, brink: float) -> float:
        """Add up the seconds during which the amount stayed over a limit.

        Each amount counts as standing until the next tick of its origin; the last one of an origin counts for nothing.

        Args:
            brink: The limit, itself not counted as over.

        Returns:
            Seconds.

        Example:
            >>> Strand.metronome([1, 9, 9, 1], 10).dwell_above(brink=5)
            20
        """
        last: Dict[str, Tick] = {}
        seconds = 0.0
        for tick in self:
            before = last.get(tick.origin)
            if before is not None and before.amount > brink:
                seconds += tick.moment - before.moment
            last[tick.origin] = tick
        return int(seconds) if seconds == int(seconds) else seconds

    def busiest(self, breadth: float) -> Tuple[float, int]:
        """Find the stretch of a given length into which most ticks fall.

        Args:
            breadth: Length of the stretch in seconds.

        Returns:
            The moment at which the earliest such stretch begins and how many ticks it holds.

        Raises:
            ValueError: If the strand is empty or `breadth` is not positive.

        Example:
            >>> Strand([Tick(m, "a", 1.0) for m in (0, 50, 52, 55, 90)]).busiest(10)
            (50, 3)
        """
        moments = sorted(tick.moment for tick in self)
        if not moments or breadth <= 0:
            raise ValueError("busiest needs at least one tick and a positive breadth")
        best, head = (moments[0], 0), 0
        for i, start in enumerate(moments):
            while head < len(moments) and moments[head] < start + breadth:
                head += 1
            if head - i > best[1]:
                best = (start, head - i)
        return best

    def to_slate(self) -> Slate:
        """Lay the ticks out as a table with the captions ``moment``, ``origin`` and ``amount``.

        Returns:
            A slate with one row for each tick.

        Example:
            >>> Strand([Tick(0, "a", 1.0)]).to_slate().lift("origin")
            ['a']
        """
        return Slate(["moment", "origin", "amount"], [tick[:3] for tick in self])


class _Reiterable:
    """Calls a generator function anew for each walk."""

    def __init__(self, run: Callable[[], Iterator[Any]]) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        return self._run()
