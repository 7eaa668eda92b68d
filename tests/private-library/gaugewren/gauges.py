"""Gauges: units of measurement, amounts that carry one, and spans of time in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, NamedTuple

__all__ = [
    "Gauge", "Quanta", "GaugeClash", "mint_gauge", "find_gauge", "kinfolk", "parse_quanta", "regauge",
    "spell_span", "read_span", "ABSOLUTE_COLD",
]

ABSOLUTE_COLD = -273.15
"""The lowest possible temperature in degrees Celsius."""


class GaugeClash(ValueError):
    """Raised when a unit is unknown, taken, or of another kind than the one it meets.

    >>> issubclass(GaugeClash, ValueError)
    True
    """


@dataclass(frozen=True)
class Gauge:
    """A unit of measurement, described by how it converts to the base unit of its kind.

    :param symbol: how the unit is written, for example ``"bar"``.
    :param kin: the kind of quantity it measures, for example ``"pressure"``.
    :param factor: how many base units one of it is.
    :param offset: what is added after multiplying, for scales with another zero.

    >>> Gauge("ft", "length", 0.3048).factor
    0.3048
    """

    symbol: str
    kin: str
    factor: float
    offset: float = 0.0

    def to_base(self, amount: float) -> float:
        """Express an amount of this unit in the base unit of its kind.

        :param amount: the number in this unit.
        :returns: the number in the base unit.

        >>> find_gauge("km").to_base(2)
        2000.0
        """
        return amount * self.factor + self.offset

    def from_base(self, amount: float) -> float:
        """Express an amount of the base unit in this unit.

        :param amount: the number in the base unit.
        :returns: the number in this unit.

        >>> find_gauge("km").from_base(500)
        0.5
        """
        return (amount - self.offset) / self.factor


_GAUGES: Dict[str, Gauge] = {}


def mint_gauge(symbol: str, kin: str, factor: float, offset: float = 0.0) -> Gauge:
    """Define a new unit and make it known to all conversions.

    :param symbol: how it is written; must be free.
    :param kin: the kind of quantity it measures.
    :param factor: how many base units one of it is, not zero.
    :param offset: what is added after multiplying.
    :returns: the unit.
    :raises GaugeClash: if the symbol is taken or the factor is zero.

    >>> mint_gauge("furlong", "length", 201.168).kin
    'length'
    """
    if symbol in _GAUGES:
        raise GaugeClash(f"the gauge {symbol!r} exists already")
    if not factor:
        raise GaugeClash("a factor of zero cannot be converted back")
    _GAUGES[symbol] = Gauge(symbol, kin, factor, offset)
    return _GAUGES[symbol]


for _symbol, _kin, _factor, _offset in [
    ("m", "length", 1.0, 0.0), ("km", "length", 1000.0, 0.0), ("cm", "length", 0.01, 0.0), ("mm", "length", 0.001, 0.0),
    ("kg", "mass", 1.0, 0.0), ("g", "mass", 0.001, 0.0), ("t", "mass", 1000.0, 0.0), ("lb", "mass", 0.45359237, 0.0),
    ("Pa", "pressure", 1.0, 0.0), ("kPa", "pressure", 1000.0, 0.0), ("bar", "pressure", 100_000.0, 0.0),
    ("psi", "pressure", 6894.757293168, 0.0),
    ("K", "temperature", 1.0, 0.0), ("degC", "temperature", 1.0, 273.15),
    ("degF", "temperature", 5 / 9, 273.15 - 32 * 5 / 9),
    ("L", "volume", 1.0, 0.0), ("mL", "volume", 0.001, 0.0), ("m3", "volume", 1000.0, 0.0),
    ("Wh", "energy", 1.0, 0.0), ("kWh", "energy", 1000.0, 0.0), ("MWh", "energy", 1_000_000.0, 0.0),
]:
    mint_gauge(_symbol, _kin, _factor, _offset)


def find_gauge(symbol: str) -> Gauge:
    """Look a unit up by its symbol.

    :param symbol: how it is written; capitals matter.
    :returns: the unit.
    :raises GaugeClash: if nobody has defined it.

    >>> find_gauge("psi").kin
    'pressure'
    """
    try:
        return _GAUGES[symbol]
    except KeyError:
        raise GaugeClash(f"no gauge {symbol!r}") from None


def kinfolk(symbol: str) -> List[str]:
    """List all units into which a unit can be converted, itself included.

    :param symbol: any unit of the kind.
    :returns: the symbols from the smallest unit to the largest.
    :raises GaugeClash: if the unit is unknown.

    >>> kinfolk("g")
    ['g', 'lb', 'kg', 't']
    """
    kin = find_gauge(symbol).kin
    return [gauge.symbol for gauge in sorted(_GAUGES.values(), key=lambda gauge: gauge.factor) if gauge.kin == kin]


def regauge(amount: float, symbol: str, target: str) -> float:
    """Convert a bare number from one unit to another.

    :param amount: the number.
    :param symbol: the unit it is in.
    :param target: the unit wanted.
    :returns: the converted number.
    :raises GaugeClash: if a unit is unknown or the two measure different things.

    >>> regauge(2.5, "bar", "kPa")
    250.0
    """
    old, new = find_gauge(symbol), find_gauge(target)
    if old.kin != new.kin:
        raise GaugeClash(f"{symbol} measures {old.kin}, {target} measures {new.kin}")
    return new.from_base(old.to_base(amount))


class Quanta(NamedTuple):
    """An amount together with the symbol of its unit.

    :param amount: the number.
    :param symbol: the unit, as known to :func:`find_gauge`.

    >>> Quanta(2.5, "bar").symbol
    'bar'
    """

    amount: float
    symbol: str

    def recast(self, target: str) -> "Quanta":
        """Return the same quantity measured in another unit.

        :param target: the unit wanted.
        :returns: the converted quantity.
        :raises GaugeClash: if the units measure different things.

        >>> Quanta(3, "km").recast("m")
        Quanta(amount=3000.0, symbol='m')
        """
        return Quanta(regauge(self.amount, self.symbol, target), target)

    def tidied(self) -> "Quanta":
        """Return the same quantity in the largest unit of its kind in which the number is still at least one.

        :returns: the quantity, in the smallest unit if it is below one everywhere.

        >>> Quanta(2500, "Wh").tidied()
        Quanta(amount=2.5, symbol='kWh')
        """
        candidates = [self.recast(symbol) for symbol in kinfolk(self.symbol)]
        return next((quanta for quanta in reversed(candidates) if abs(quanta.amount) >= 1), candidates[0])

    def pooled(self, other: "Quanta") -> "Quanta":
        """Add two quantities, whatever units of one kind they are in.

        :param other: the quantity to add.
        :returns: the sum, in the unit of this one.
        :raises GaugeClash: if the two measure different things.

        >>> Quanta(1, "kg").pooled(Quanta(500, "g"))
        Quanta(amount=1.5, symbol='kg')
        """
        return Quanta(self.amount + other.recast(self.symbol).amount, self.symbol)

    def agrees(self, other: "Quanta", slack: float = 0.0) -> bool:
        """Tell whether two quantities are equal up to a permitted difference.

        :param other: the quantity to compare with, in any unit of the kind.
        :param slack: the permitted difference, in the unit of this one.
        :returns: whether they are that close.
        :raises GaugeClash: if the two measure different things.

        >>> Quanta(1, "bar").agrees(Quanta(101, "kPa"), slack=0.02)
        True
        """
        return abs(self.amount - other.recast(self.symbol).amount) <= slack + 1e-9

    def worded(self, places: int = 1) -> str:
        """Write the quantity for people: the rounded number, a space, the unit.

        :param places: digits after the point.
        :returns: the text.

        >>> Quanta(2.456, "bar").worded(2)
        '2.46 bar'
        """
        return f"{self.amount:.{places}f} {self.symbol}"


def parse_quanta(text: str) -> Quanta:
    """Read an amount with its unit from text such as ``"3.5 bar"``.

    :param text: a number and a known unit, with or without a space between.
    :returns: the quantity.
    :raises GaugeClash: if the text is anything else.

    >>> parse_quanta("-4degC")
    Quanta(amount=-4.0, symbol='degC')
    """
    match = re.fullmatch(r"\s*([-+]?\d+(?:\.\d+)?)\s*([A-Za-z]\w*)\s*", text)
    if not match:
        raise GaugeClash(f"{text!r} is not an amount with a unit")
    return Quanta(float(match.group(1)), find_gauge(match.group(2)).symbol)


_SPANS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def spell_span(seconds: float) -> str:
    """Write a number of seconds as days, hours, minutes and seconds.

    :param seconds: the span; fractions are cut off.
    :returns: text such as ``"1h 5m"``, ``"0s"`` for nothing.

    >>> spell_span(93784)
    '1d 2h 3m 4s'
    """
    rest = int(abs(seconds))
    words = []
    for letter, size in _SPANS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count}{letter}")
    return ("-" if seconds < 0 and words else "") + (" ".join(words) or "0s")


def read_span(text: str) -> int:
    """Work out the seconds in a span written like ``"1h 30m"``.

    :param text: numbers followed by d, h, m or s, in any order.
    :returns: the seconds.
    :raises GaugeClash: if there is anything else in the text.

    >>> read_span("1h 30m")
    5400
    """
    if not re.fullmatch(r"\s*(\d+\s*[dhms]\s*)+", text):
        raise GaugeClash(f"{text!r} is not a span such as '1h 30m'")
    sizes = dict(_SPANS)
    return sum(int(count) * sizes[letter] for count, letter in re.findall(r"(\d+)\s*([dhms])", text))
