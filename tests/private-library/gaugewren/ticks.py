"""Ticks: the single timed readings that everything else in gaugewren is built from.

Moments are plain numbers, seconds since 1970-01-01T00:00 UTC, so that they can be compared, subtracted and stored
without a time zone getting in the way.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import FrozenSet, NamedTuple

__all__ = ["Tick", "TickFault", "parse_tickline", "render_tickline", "moment_of", "RIFT", "DAY_SPAN"]

RIFT = "|"
"""The character that parts the fields of a tick line when no other is asked for."""

DAY_SPAN = 86_400
"""How many seconds a civil day lasts."""


class TickFault(ValueError):
    """Raised when a line of text cannot be understood as a tick.

    Parameters
    ----------
    excerpt : str
        The offending text.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> TickFault("x|y", "two fields").reason
    'two fields'
    """

    def __init__(self, excerpt: str, reason: str) -> None:
        super().__init__(f"{reason}: {excerpt!r}")
        self.excerpt = excerpt
        self.reason = reason


def moment_of(stamp: str) -> float:
    """Turn an ISO 8601 date or date-time into seconds since the epoch.

    Parameters
    ----------
    stamp : str
        Such as ``"2024-03-01"`` or ``"2024-03-01T08:30"``; UTC unless it carries an offset.

    Returns
    -------
    float
        The moment.

    Raises
    ------
    TickFault
        If the text is no ISO date.

    Examples
    --------
    >>> moment_of("1970-01-02T00:00:30")
    86430.0
    """
    try:
        parsed = datetime.fromisoformat(stamp.strip().replace("Z", "+00:00"))
    except ValueError:
        raise TickFault(stamp, "not an ISO date or date-time") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return parsed.timestamp()


class Tick(NamedTuple):
    """One reading: who reported which amount at what moment.

    Parameters
    ----------
    moment : float
        Seconds since the epoch.
    origin : str
        The instrument that reported, for example ``"pump-3"``.
    amount : float
        What it reported.
    marks : frozenset of str, optional
        Free labels, such as ``"manual"`` or ``"suspect"``.

    Examples
    --------
    >>> Tick(60, "pump-3", 1.5).origin
    'pump-3'
    """

    moment: float
    origin: str
    amount: float
    marks: FrozenSet[str] = frozenset()

    @property
    def clockface(self) -> str:
        """The moment as ISO 8601 text in UTC, to the second.

        Examples
        --------
        >>> Tick(90061, "a", 0.0).clockface
        '1970-01-02T01:01:01'
        """
        return datetime.fromtimestamp(self.moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")

    @property
    def dayfrac(self) -> float:
        """How much of its UTC day has gone by, from 0.0 at midnight up to 1.0.

        Examples
        --------
        >>> Tick(43200, "a", 0.0).dayfrac
        0.5
        """
        return (self.moment % DAY_SPAN) / DAY_SPAN

    def nudged(self, lag: float) -> "Tick":
        """Return the same tick some seconds later, or earlier when `lag` is negative.

        Parameters
        ----------
        lag : float
            Seconds to add to the moment; corrects an instrument whose clock is off.

        Returns
        -------
        Tick

        Examples
        --------
        >>> Tick(60, "a", 1.0).nudged(-10).moment
        50
        """
        return self._replace(moment=self.moment + lag)

    def rebadged(self, origin: str) -> "Tick":
        """Return the same tick attributed to another instrument.

        Parameters
        ----------
        origin : str
            The new origin.

        Returns
        -------
        Tick

        Examples
        --------
        >>> Tick(60, "a", 1.0).rebadged("b").origin
        'b'
        """
        return self._replace(origin=origin)

    def daubed(self, *labels: str) -> "Tick":
        """Return a copy that carries further marks beside the ones it has.

        Parameters
        ----------
        *labels : str
            The marks to add.

        Returns
        -------
        Tick

        Examples
        --------
        >>> sorted(Tick(0, "a", 1.0, frozenset({"x"})).daubed("y").marks)
        ['x', 'y']
        """
        return self._replace(marks=self.marks | frozenset(labels))

    def scrubbed(self, *labels: str) -> "Tick":
        """Return a copy rid of the given marks, or of every mark when none is given.

        Parameters
        ----------
        *labels : str
            The marks to take off; those it does not carry are passed over.

        Returns
        -------
        Tick

        Examples
        --------
        >>> Tick(0, "a", 1.0, frozenset({"x"})).scrubbed().marks
        frozenset()
        """
        return self._replace(marks=self.marks - frozenset(labels) if labels else frozenset())

    def bears(self, *labels: str) -> bool:
        """Tell whether every one of the given marks is on the tick.

        Parameters
        ----------
        *labels : str
            The marks to look for.

        Returns
        -------
        bool

        Examples
        --------
        >>> Tick(0, "a", 1.0, frozenset({"x"})).bears("x", "y")
        False
        """
        return self.marks.issuperset(labels)


def parse_tickline(line: str, rift: str = RIFT) -> Tick:
    """Read one tick from a line ``stamp|origin|amount|mark,mark``.

    Parameters
    ----------
    line : str
        The text; the marks and their separator may be left out.
    rift : str, optional
        The field separator.

    Returns
    -------
    Tick

    Raises
    ------
    TickFault
        If fields are missing, or the stamp or the amount cannot be read.

    Examples
    --------
    >>> parse_tickline("1970-01-01T00:01|pump|2.5|cold")
    Tick(moment=60.0, origin='pump', amount=2.5, marks=frozenset({'cold'}))
    """
    fields = [field.strip() for field in line.split(rift)]
    if not 3 <= len(fields) <= 4:
        raise TickFault(line, f"expected 3 or 4 fields, found {len(fields)}")
    try:
        amount = float(fields[2])
    except ValueError:
        raise TickFault(line, "the amount is not a number") from None
    marks = fields[3].split(",") if len(fields) == 4 else []
    return Tick(moment_of(fields[0]), fields[1], amount, frozenset(mark.strip() for mark in marks if mark.strip()))


def render_tickline(tick: Tick, rift: str = RIFT) -> str:
    """Write a tick as one line of text that can be read back.

    Parameters
    ----------
    tick : Tick
        What to write; marks come out in alphabetical order.
    rift : str, optional
        The field separator.

    Returns
    -------
    str

    Examples
    --------
    >>> render_tickline(Tick(60, "pump", 2.5), rift=";")
    '1970-01-01T00:01:00;pump;2.5'
    """
    fields = [tick.clockface, tick.origin, format(tick.amount, "g")]
    if tick.marks:
        fields.append(",".join(sorted(tick.marks)))
    return rift.join(fields)
