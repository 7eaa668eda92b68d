"""Placards: plain-text reports for terminals, mails and the noticeboard."""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

from .slate import Slate

__all__ = ["Placard", "barline", "sparkrow", "boxed", "waisted", "dotleader", "columned", "terse_figure", "SPARK_RAMP"]

SPARK_RAMP = "_.-=^"
"""The characters of a sparkline from the lowest to the highest level."""


def barline(amount: float, brim: float, girth: int = 20) -> str:
    """Draw a horizontal bar that is filled in proportion to an amount.

    :param amount: the amount; kept between 0 and the brim.
    :param brim: the amount of a full bar.
    :param girth: width of the bar in characters.
    :returns: the bar, ``#`` for filled and ``.`` for empty.
    :raises ValueError: if the brim is not positive.

    >>> barline(3, 4, girth=8)
    '######..'
    """
    if not brim > 0:
        raise ValueError("brim must be positive")
    filled = int(girth * min(max(amount, 0), brim) / brim + 0.5)
    return "#" * filled + "." * (girth - filled)


def sparkrow(amounts: Sequence[float]) -> str:
    """Draw a series of numbers as one row of characters of different height.

    :param amounts: the numbers.
    :returns: one character each, from :data:`SPARK_RAMP`; the lowest level throughout if all are equal.

    >>> sparkrow([0, 2, 4, 2, 0])
    '_-^-_'
    """
    if not amounts:
        return ""
    low, high = min(amounts), max(amounts)
    reach = (high - low) or 1
    top = len(SPARK_RAMP) - 1
    return "".join(SPARK_RAMP[int((amount - low) / reach * top + 0.5)] for amount in amounts)


def boxed(text: str) -> str:
    """Draw a frame around one or more lines of text.

    :param text: the lines.
    :returns: the framed text.

    >>> print(boxed("hi"))
    +----+
    | hi |
    +----+
    """
    lines = text.splitlines() or [""]
    width = max(len(line) for line in lines)
    edge = "+" + "-" * (width + 2) + "+"
    return "\n".join([edge] + [f"| {line.ljust(width)} |" for line in lines] + [edge])


def waisted(text: str, girth: int) -> str:
    """Shorten a text in its middle so that its beginning and its end stay readable.

    :param text: the text.
    :param girth: the most characters there may be, at least 5.
    :returns: the text, with ``...`` in place of the middle if it was too long.
    :raises ValueError: if `girth` is below 5.

    >>> waisted("pump-house-north-3", 11)
    'pump...th-3'
    """
    if girth < 5:
        raise ValueError("girth must be at least 5")
    if len(text) <= girth:
        return text
    back = (girth - 3) // 2
    return text[: girth - 3 - back] + "..." + text[len(text) - back:]


def dotleader(left: str, right: Any, girth: int = 40) -> str:
    """Set two texts at the two ends of a line with dots between them, as in a table of contents.

    :param left: the text on the left.
    :param right: what stands on the right.
    :param girth: width of the line.
    :returns: the line; at least one dot, so that long texts make it wider.

    >>> dotleader("Flow", 12, girth=14)
    'Flow ...... 12'
    """
    tail = str(right)
    return f"{left} {'.' * max(1, girth - len(left) - len(tail) - 2)} {tail}"


def columned(words: Sequence[str], girth: int = 72) -> str:
    """Arrange words in as many aligned columns as fit, filled row by row.

    :param words: the words.
    :param girth: the width there is.
    :returns: the lines.

    >>> print(columned(["oslo", "riga", "turku"], girth=13))
    oslo   riga
    turku
    """
    if not words:
        return ""
    cell = max(len(word) for word in words) + 2
    across = max(1, (girth + 2) // cell)
    rows = [words[i:i + across] for i in range(0, len(words), across)]
    return "\n".join("".join(word.ljust(cell) for word in row).rstrip() for row in rows)


def terse_figure(number: float) -> str:
    """Write a large number briefly, with k, M or G for thousands, millions and milliards.

    :param number: the number.
    :returns: one digit after the point from a thousand on, as it is below.

    >>> terse_figure(12345), terse_figure(7)
    ('12.3k', '7')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f}{letter}"
    return format(number, "g")


class Placard:
    """A text report that is put together piece by piece and laid out at the end.

    :param heading: the title, underlined in the report.

    >>> print(Placard("Night shift").remark("All quiet.").unfurl(girth=20))
    Night shift
    ===========
    All quiet.
    """

    def __init__(self, heading: str) -> None:
        self._heading = heading
        self._pieces: List[Callable[[int], List[str]]] = []

    def remark(self, text: str) -> "Placard":
        """Add a paragraph that is wrapped to the width of the report.

        :param text: the paragraph.
        :returns: the placard itself.

        >>> print(Placard("P").remark("one two three").unfurl(girth=8))
        P
        =
        one two
        three
        """

        def lay(girth: int) -> List[str]:
            lines, line = [], ""
            for word in text.split():
                if line and len(line) + 1 + len(word) > girth:
                    lines.append(line)
                    line = word
                else:
                    line = f"{line} {word}".strip()
            return lines + [line]

        self._pieces.append(lay)
        return self

    def strut(self) -> "Placard":
        """Add a horizontal rule across the whole width.

        :returns: the placard itself.

        >>> print(Placard("P").strut().unfurl(girth=6))
        P
        =
        ------
        """
        self._pieces.append(lambda girth: ["-" * girth])
        return self

    def inset(self, slate: Slate) -> "Placard":
        """Add a table with aligned columns, numbers to the right and text to the left.

        :param slate: the table.
        :returns: the placard itself.

        >>> print(Placard("P").inset(Slate(["port", "tons"], [["Oslo", 5]])).unfurl())
        P
        =
        port  tons
        Oslo     5
        """

        def lay(_girth: int) -> List[str]:
            columns = []
            for caption in slate.captions:
                cells = slate.lift(caption)
                width = max(len(str(cell)) for cell in [caption] + cells)
                numeric = bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
                pad = str.rjust if numeric else str.ljust
                columns.append([pad(str(cell), width) for cell in [caption] + cells])
            return ["  ".join(cells).rstrip() for cells in zip(*columns)]

        self._pieces.append(lay)
        return self

    def fuelbar(self, legend: str, amount: float, brim: float) -> "Placard":
        """Add a labelled bar with its percentage, as for a tank that is so and so full.

        :param legend: the label.
        :param amount: the amount.
        :param brim: the amount that counts as full.
        :returns: the placard itself.
        :raises ValueError: if the brim is not positive.

        >>> print(Placard("P").fuelbar("Tank", 1, 5).unfurl(girth=20))
        P
        =
        Tank ##........  20%
        """
        if not brim > 0:
            raise ValueError("brim must be positive")

        def lay(girth: int) -> List[str]:
            bar = barline(amount, brim, max(5, girth - len(legend) - 6))
            return [f"{legend} {bar} {100 * amount / brim:3.0f}%"]

        self._pieces.append(lay)
        return self

    def unfurl(self, girth: int = 72) -> str:
        """Lay the whole report out as text.

        :param girth: width of the report in characters.
        :returns: the text, without a line break at its end.

        >>> Placard("P").unfurl()
        'P\\n='
        """
        lines = [self._heading, "=" * len(self._heading)]
        for lay in self._pieces:
            lines += lay(girth)
        return "\n".join(lines)
