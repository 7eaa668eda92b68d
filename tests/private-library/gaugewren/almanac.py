"""Almanacs: the hours at which a plant is manned, and arithmetic with calendars."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from math import ceil, floor
from typing import Dict, Iterable, List, Sequence, Tuple

__all__ = ["Almanac", "Chime", "weekday_rota", "snap_back", "snap_ahead", "quarter_tag", "week_tag", "month_edges",
           "nth_weekday", "WEEKDAYS"]

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Short names of the days of the week, Monday first."""

_SEARCH_DAYS = 3660


def _day(moment: float) -> date:
    return datetime.fromtimestamp(moment, timezone.utc).date()


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp())


def _clock(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600 + int(minutes or 0) * 60


def weekday_rota(opening: str = "08:00", closing: str = "17:00") -> Dict[str, List[Tuple[str, str]]]:
    """Make the plan of a plant that is manned at the same hours from Monday to Friday.

    Parameters
    ----------
    opening, closing : str
        Hours and minutes, ``"08:00"``.

    Returns
    -------
    dict
        Lists of manned stretches by day, as :class:`Almanac` takes them.

    Examples
    --------
    >>> weekday_rota("06:00", "14:00")["fri"]
    [('06:00', '14:00')]
    """
    return {day: [(opening, closing)] for day in WEEKDAYS[:5]}


class Almanac:
    """A working calendar that knows when a plant is manned: a weekly plan, less the days on which it is shut.

    Parameters
    ----------
    rota : dict
        Lists of ``(from, to)`` clock times by short day name; days left out are not manned.
    closures : iterable of str, optional
        ISO dates on which nobody is there.

    Raises
    ------
    ValueError
        If a day name is unknown or a stretch ends before it begins.

    Examples
    --------
    >>> Almanac({"mon": [("08:00", "12:00")]}).manned_hours_of("1970-01-05")
    4.0
    """

    def __init__(self, rota: Dict[str, Sequence[Tuple[str, str]]], closures: Iterable[str] = ()) -> None:
        self._rota: Dict[int, List[Tuple[int, int]]] = {}
        for name, stretches in rota.items():
            if name not in WEEKDAYS:
                raise ValueError(f"no weekday {name!r}; expected one of {WEEKDAYS}")
            spans = sorted((_clock(start), _clock(end)) for start, end in stretches)
            if any(start >= end for start, end in spans):
                raise ValueError(f"a stretch of {name!r} ends before it begins")
            self._rota[WEEKDAYS.index(name)] = spans
        self._closures = {date.fromisoformat(day) for day in closures}

    def _stretches(self, day: date) -> List[Tuple[int, int]]:
        if day in self._closures:
            return []
        base = _midnight(day)
        return [(base + start, base + end) for start, end in self._rota.get(day.weekday(), [])]

    def _from(self, moment: float):
        day = _day(moment)
        for _ in range(_SEARCH_DAYS):
            yield from self._stretches(day)
            day += timedelta(days=1)

    def shut(self, *days: str) -> None:
        """Declare further days on which nobody is there.

        Parameters
        ----------
        *days : str
            ISO dates.

        Examples
        --------
        >>> almanac = Almanac(weekday_rota())
        >>> almanac.shut("2024-05-01")
        >>> almanac.manned_hours_of("2024-05-01")
        0.0
        """
        self._closures.update(date.fromisoformat(day) for day in days)

    def is_manned(self, moment: float) -> bool:
        """Tell whether somebody is there at a moment.

        Parameters
        ----------
        moment : float
            Seconds since the epoch.

        Returns
        -------
        bool

        Examples
        --------
        >>> Almanac(weekday_rota()).is_manned(9 * 3600)  # 1970-01-01 was a Thursday
        True
        """
        return any(start <= moment < end for start, end in self._stretches(_day(moment)))

    def next_manning(self, moment: float) -> float:
        """Find the first moment, not before the given one, at which somebody is there.

        Parameters
        ----------
        moment : float
            Where to begin.

        Returns
        -------
        float
            The moment itself if it is manned.

        Raises
        ------
        ValueError
            If nobody comes within ten years.

        Examples
        --------
        >>> Almanac(weekday_rota()).next_manning(0)
        28800
        """
        for start, end in self._from(moment):
            if end > moment:
                return max(start, moment)
        raise ValueError("never manned again")

    def manned_span(self, opening: float, closing: float) -> float:
        """Count the manned seconds between two moments.

        Parameters
        ----------
        opening, closing : float
            The two moments.

        Returns
        -------
        float
            Seconds, 0 if `closing` is not later.

        Examples
        --------
        >>> Almanac(weekday_rota()).manned_span(0, 9 * 3600)
        3600
        """
        total, day = 0, _day(opening)
        while _midnight(day) < closing:
            for start, end in self._stretches(day):
                total += max(0, min(end, closing) - max(start, opening))
            day += timedelta(days=1)
        return total

    def manned_hours_of(self, day: str) -> float:
        """Tell for how many hours a day is manned.

        Parameters
        ----------
        day : str
            An ISO date.

        Returns
        -------
        float
            Hours.

        Examples
        --------
        >>> Almanac(weekday_rota("08:00", "12:30")).manned_hours_of("1970-01-01")
        4.5
        """
        return sum(end - start for start, end in self._stretches(date.fromisoformat(day))) / 3600

    def pushed_on(self, moment: float, seconds: float) -> float:
        """Find the deadline in working hours: the moment at which a given amount of manned time has been used up.

        Parameters
        ----------
        moment : float
            When the clock starts.
        seconds : float
            Manned seconds to use up.

        Returns
        -------
        float
            The deadline.

        Raises
        ------
        ValueError
            If `seconds` is negative or never used up.

        Examples
        --------
        >>> Almanac(weekday_rota()).pushed_on(16 * 3600, 7200) == 86400 + 9 * 3600
        True
        """
        if seconds < 0:
            raise ValueError("seconds must not be negative")
        for start, end in self._from(moment):
            start = max(start, moment)
            if end <= start:
                continue
            if end - start >= seconds:
                return start + seconds
            seconds -= end - start
        raise ValueError("not enough manned time")

    def manned_days(self, first: str, last: str) -> List[str]:
        """List the dates from one day to another, both included, on which somebody is there.

        Parameters
        ----------
        first, last : str
            ISO dates.

        Returns
        -------
        list of str
            ISO dates.

        Examples
        --------
        >>> Almanac(weekday_rota()).manned_days("1970-01-02", "1970-01-06")
        ['1970-01-02', '1970-01-05', '1970-01-06']
        """
        day, end, days = date.fromisoformat(first), date.fromisoformat(last), []
        while day <= end:
            if self._stretches(day):
                days.append(day.isoformat())
            day += timedelta(days=1)
        return days


class Chime:
    """Something that recurs at a fixed interval, such as a calibration every six hours.

    Parameters
    ----------
    period : float
        Seconds from one stroke to the next.
    phase : float, optional
        Moment of any one stroke.

    Raises
    ------
    ValueError
        If `period` is not positive.

    Examples
    --------
    >>> Chime(3600, phase=600).next_stroke(1000)
    4200
    """

    def __init__(self, period: float, phase: float = 0) -> None:
        if not period > 0:
            raise ValueError("period must be positive")
        self.period, self.phase = period, phase

    def next_stroke(self, moment: float) -> float:
        """Give the first stroke that is later than a moment.

        Parameters
        ----------
        moment : float
            The moment, whose own stroke does not count.

        Returns
        -------
        float

        Examples
        --------
        >>> Chime(10).next_stroke(20)
        30
        """
        return self.phase + (floor((moment - self.phase) / self.period) + 1) * self.period

    def strokes(self, opening: float, closing: float) -> List[float]:
        """List all strokes from one moment up to, but not including, another.

        Parameters
        ----------
        opening, closing : float
            The two moments.

        Returns
        -------
        list of float

        Examples
        --------
        >>> Chime(10, phase=3).strokes(0, 30)
        [3, 13, 23]
        """
        count = ceil((opening - self.phase) / self.period)
        found = []
        while self.phase + count * self.period < closing:
            found.append(self.phase + count * self.period)
            count += 1
        return found


def snap_back(moment: float, cadence: float) -> float:
    """Round a moment down to a multiple of an interval.

    Parameters
    ----------
    moment : float
        Seconds since the epoch.
    cadence : float
        The interval in seconds.

    Returns
    -------
    float

    Examples
    --------
    >>> snap_back(3725, 900)
    3600
    """
    return floor(moment / cadence) * cadence


def snap_ahead(moment: float, cadence: float) -> float:
    """Round a moment up to a multiple of an interval.

    Parameters
    ----------
    moment : float
        Seconds since the epoch; one that is a multiple already stays.
    cadence : float
        The interval in seconds.

    Returns
    -------
    float

    Examples
    --------
    >>> snap_ahead(3725, 900)
    4500
    """
    return ceil(moment / cadence) * cadence


def quarter_tag(moment: float, kickoff: int = 1) -> str:
    """Name the quarter of the business year in which a moment lies.

    Parameters
    ----------
    moment : float
        Seconds since the epoch.
    kickoff : int, optional
        The month in which the business year begins; the year is named after the one it begins in.

    Returns
    -------
    str
        Such as ``"2024Q3"``.

    Examples
    --------
    >>> quarter_tag(0), quarter_tag(0, kickoff=4)
    ('1970Q1', '1969Q4')
    """
    day = _day(moment)
    year = day.year if day.month >= kickoff else day.year - 1
    return f"{year}Q{(day.month - kickoff) % 12 // 3 + 1}"


def week_tag(moment: float) -> str:
    """Name the ISO week in which a moment lies.

    Parameters
    ----------
    moment : float
        Seconds since the epoch.

    Returns
    -------
    str
        Such as ``"2024-W09"``.

    Examples
    --------
    >>> week_tag(0)
    '1970-W01'
    """
    year, week, _ = _day(moment).isocalendar()
    return f"{year}-W{week:02d}"


def month_edges(moment: float) -> Tuple[int, int]:
    """Give the moments at which the month around a moment begins and ends.

    Parameters
    ----------
    moment : float
        Seconds since the epoch.

    Returns
    -------
    tuple of int
        Midnight of the first day of this month and of the next.

    Examples
    --------
    >>> month_edges(1000)
    (0, 2678400)
    """
    first = _day(moment).replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return _midnight(first), _midnight(following)


def nth_weekday(year: int, month: int, weekday: str, ordinal: int) -> str:
    """Find a date such as the second Tuesday of a month.

    Parameters
    ----------
    year, month : int
        The month.
    weekday : str
        One of :data:`WEEKDAYS`.
    ordinal : int
        1 for the first; negative counts from the end, -1 being the last.

    Returns
    -------
    str
        An ISO date.

    Raises
    ------
    ValueError
        If the weekday is unknown or the month has no such day.

    Examples
    --------
    >>> nth_weekday(2024, 2, "thu", -1)
    '2024-02-29'
    """
    if weekday not in WEEKDAYS:
        raise ValueError(f"no weekday {weekday!r}; expected one of {WEEKDAYS}")
    day, days = date(year, month, 1), []
    while day.month == month:
        if day.weekday() == WEEKDAYS.index(weekday):
            days.append(day.isoformat())
        day += timedelta(days=1)
    place = ordinal - 1 if ordinal > 0 else len(days) + ordinal
    if ordinal == 0 or not 0 <= place < len(days):
        raise ValueError(f"{year}-{month:02d} has no {weekday} number {ordinal}")
    return days[place]
