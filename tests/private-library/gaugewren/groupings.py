"""The stages that ship with gaugewren and put ticks together: windows, sessions, lots and pairs.

As with the other stages each class is also a method of every :class:`~gaugewren.strand.Strand`.
"""

from __future__ import annotations

from math import floor
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from .panes import Pane
from .strand import Stage, _positive, strandop
from .ticks import Tick

__all__ = ["Yoker", "PaneCutter", "BoutSplitter", "HandfulGrouper"]


@strandop("yoke")
class Yoker(Stage):
    """Pair every tick with the most recent tick of another stream at or before its moment (an as-of join).

    Args:
        upstream: The stream whose ticks all come out, as the first of each pair.
        partner: The stream in which the counterpart is looked for, in order of time.
        slack: How many seconds old the counterpart may be; any age by default.

    Returns:
        Pairs of a tick and its counterpart, or None where there is none.

    Example:
        >>> from gaugewren import Strand
        >>> flow, heat = Strand.metronome([1, 2], 60, outset=30), Strand.metronome([70, 80], 60)
        >>> [(f.amount, h.amount) for f, h in flow.yoke(heat)]
        [(1.0, 70.0), (2.0, 80.0)]
    """

    def __init__(self, upstream: Iterable[Tick], partner: Iterable[Tick], slack: Optional[float] = None) -> None:
        super().__init__(upstream)
        self.partner = partner
        self.slack = slack

    def __iter__(self) -> Iterator[Tuple[Tick, Optional[Tick]]]:
        others = iter(self.partner)
        coming = next(others, None)
        current: Optional[Tick] = None
        for tick in self.upstream:
            while coming is not None and coming.moment <= tick.moment:
                current, coming = coming, next(others, None)
            fresh = current is not None and (self.slack is None or tick.moment - current.moment <= self.slack)
            yield tick, current if fresh else None


@strandop("panes")
class PaneCutter(Stage):
    """Cut the stream into windows of equal length, side by side or overlapping.

    Windows begin at multiples of the stride; those into which nothing falls are left out. All origins go together.

    Args:
        upstream: The stream of ticks.
        breadth: Length of a window in seconds.
        stride: Seconds from the start of one window to the next; the breadth by default.

    Returns:
        :class:`~gaugewren.panes.Pane` objects in order of opening.

    Raises:
        ValueError: If `breadth` or `stride` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [pane.amassed() for pane in Strand.metronome([1, 2, 3, 4], 30).panes(breadth=60)]
        [3.0, 7.0]
    """

    def __init__(self, upstream: Iterable[Tick], breadth: float, stride: Optional[float] = None) -> None:
        super().__init__(upstream)
        self.breadth = _positive("breadth", breadth)
        self.stride = _positive("stride", breadth if stride is None else stride)

    def __iter__(self) -> Iterator[Pane]:
        held: Dict[int, List[Tick]] = {}
        for tick in self.upstream:
            slot = floor(tick.moment / self.stride)
            while slot * self.stride + self.breadth > tick.moment:
                held.setdefault(slot, []).append(tick)
                slot -= 1
        for slot in sorted(held):
            opening = slot * self.stride
            yield Pane(opening, opening + self.breadth, tuple(held[slot]))


@strandop("bouts")
class BoutSplitter(Stage):
    """Group the ticks of each origin into sessions that end when nothing comes for a while.

    Args:
        upstream: The stream of ticks.
        idle: Seconds without a tick after which a session is over.

    Returns:
        :class:`~gaugewren.panes.Pane` objects from first to last tick of a session, in order of opening.

    Raises:
        ValueError: If `idle` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [p.breadth for p in Strand([Tick(m, "a", 1.0) for m in (0, 5, 9, 100)]).bouts(idle=30)]
        [9, 0]
    """

    def __init__(self, upstream: Iterable[Tick], idle: float) -> None:
        super().__init__(upstream)
        self.idle = _positive("idle", idle)

    def __iter__(self) -> Iterator[Pane]:
        running: Dict[str, List[Tick]] = {}
        ended: List[List[Tick]] = []
        for tick in self.upstream:
            bout = running.get(tick.origin)
            if bout is None or tick.moment - bout[-1].moment > self.idle:
                running[tick.origin] = bout = []
                ended.append(bout)
            bout.append(tick)
        for bout in sorted(ended, key=lambda ticks: ticks[0].moment):
            yield Pane(bout[0].moment, bout[-1].moment, tuple(bout))


@strandop("handfuls")
class HandfulGrouper(Stage):
    """Group the stream into lots of a fixed number of ticks, whatever their moments.

    Args:
        upstream: The stream of ticks.
        quantity: Ticks in a lot.
        ragged: Whether a last lot that is not full comes out too.

    Returns:
        :class:`~gaugewren.panes.Pane` objects.

    Raises:
        ValueError: If `quantity` is not positive.

    Example:
        >>> from gaugewren import Strand
        >>> [len(p.ticks) for p in Strand.metronome([1, 2, 3, 4, 5], 1).handfuls(2, ragged=False)]
        [2, 2]
    """

    def __init__(self, upstream: Iterable[Tick], quantity: int, ragged: bool = True) -> None:
        super().__init__(upstream)
        self.quantity = int(_positive("quantity", quantity))
        self.ragged = ragged

    def __iter__(self) -> Iterator[Pane]:
        lot: List[Tick] = []
        for tick in self.upstream:
            lot.append(tick)
            if len(lot) == self.quantity:
                yield Pane(lot[0].moment, lot[-1].moment, tuple(lot))
                lot = []
        if lot and self.ragged:
            yield Pane(lot[0].moment, lot[-1].moment, tuple(lot))
