"""Slates: small tables for the last step before a report.

A slate never changes; every method that alters something returns a new one.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

__all__ = ["Slate", "SlateFault"]


class SlateFault(ValueError):
    """Raised when a caption is unknown or rows do not fit their captions.

    Example:
        >>> Slate(["a"], [[1]]).lift("b")
        Traceback (most recent call last):
        ...
        gaugewren.slate.SlateFault: no caption 'b' among ['a']
    """


class Slate:
    """An immutable little table of captioned columns.

    Args:
        captions: The column headings, all different.
        rows: The rows, each as long as the captions.

    Raises:
        SlateFault: If captions repeat or a row has the wrong length.

    Example:
        >>> Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7]]).height
        2
    """

    def __init__(self, captions: Sequence[str], rows: Iterable[Sequence[Any]] = ()) -> None:
        self._captions = list(captions)
        self._rows: List[Tuple[Any, ...]] = [tuple(row) for row in rows]
        if len(set(self._captions)) != len(self._captions):
            raise SlateFault(f"captions repeat: {self._captions}")
        for row in self._rows:
            if len(row) != len(self._captions):
                raise SlateFault(f"row {row!r} has {len(row)} cells for {len(self._captions)} captions")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slate) and (self._captions, self._rows) == (other._captions, other._rows)

    def __iter__(self):
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"Slate({self._captions!r}, {self._rows!r})"

    def _at(self, caption: str) -> int:
        try:
            return self._captions.index(caption)
        except ValueError:
            raise SlateFault(f"no caption {caption!r} among {self._captions}") from None

    @property
    def captions(self) -> List[str]:
        """The column headings from left to right."""
        return list(self._captions)

    @property
    def height(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @classmethod
    def from_pipetext(cls, text: str) -> "Slate":
        """Read a slate from a Markdown table, every cell as text.

        Args:
            text: The table: captions, a line of dashes, rows.

        Returns:
            The slate.

        Raises:
            SlateFault: If there is no table in the text.

        Example:
            >>> Slate.from_pipetext("| port | tons |\\n|---|---|\\n| Oslo | 5 |").lift("tons")
            ['5']
        """
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        if len(lines) < 2 or not set(lines[1]) <= set("|-: "):
            raise SlateFault("not a table: expected captions and a line of dashes")
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return cls(cells[0], cells[2:])

    def to_pipetext(self) -> str:
        """Write the slate as a Markdown table.

        Returns:
            The text, without a line break at its end.

        Example:
            >>> print(Slate(["port", "tons"], [["Oslo", 5]]).to_pipetext())
            | port | tons |
            |---|---|
            | Oslo | 5 |
        """
        lines = ["| " + " | ".join(self._captions) + " |", "|" + "---|" * len(self._captions)]
        lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in self._rows]
        return "\n".join(lines)

    def lift(self, caption: str) -> List[Any]:
        """Take one column out as a list.

        Args:
            caption: Which column.

        Returns:
            Its cells from top to bottom.

        Raises:
            SlateFault: If there is no such column.

        Example:
            >>> Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7]]).lift("tons")
            [5, 7]
        """
        place = self._at(caption)
        return [row[place] for row in self._rows]

    def annex(self, caption: str, recipe: Callable[[Dict[str, Any]], Any]) -> "Slate":
        """Add a column on the right whose cells are computed from each row.

        Args:
            caption: Heading of the new column.
            recipe: Called with the row as a dictionary.

        Returns:
            The wider slate.

        Raises:
            SlateFault: If the heading is taken.

        Example:
            >>> Slate(["a", "b"], [[1, 2]]).annex("sum", lambda row: row["a"] + row["b"]).lift("sum")
            [3]
        """
        rows = [row + (recipe(dict(zip(self._captions, row))),) for row in self._rows]
        return Slate(self._captions + [caption], rows)

    def recaptioned(self, fresh: Mapping[str, str]) -> "Slate":
        """Give columns new headings.

        Args:
            fresh: New headings by old ones.

        Returns:
            The slate with its new headings.

        Raises:
            SlateFault: If an old heading is unknown, or the new ones collide.

        Example:
            >>> Slate(["a", "b"]).recaptioned({"a": "port"}).captions
            ['port', 'b']
        """
        for caption in fresh:
            self._at(caption)
        return Slate([fresh.get(caption, caption) for caption in self._captions], self._rows)

    def pared(self, *captions: str) -> "Slate":
        """Keep only the named columns, in the order in which they are named.

        Args:
            *captions: What to keep.

        Returns:
            The narrower slate.

        Raises:
            SlateFault: If one of them is unknown.

        Example:
            >>> Slate(["a", "b", "c"], [[1, 2, 3]]).pared("c", "a")
            Slate(['c', 'a'], [(3, 1)])
        """
        places = [self._at(caption) for caption in captions]
        return Slate(captions, [[row[place] for place in places] for row in self._rows])

    def laddered(self, *captions: str, downhill: bool = False) -> "Slate":
        """Put the rows in order of one or more columns.

        Args:
            *captions: Columns to order by, the most important first.
            downhill: Largest first.

        Returns:
            The ordered slate; rows that compare equal keep their order.

        Raises:
            SlateFault: If a column is unknown.

        Example:
            >>> Slate(["tons"], [[5], [9], [7]]).laddered("tons", downhill=True).lift("tons")
            [9, 7, 5]
        """
        places = [self._at(caption) for caption in captions]
        rows = sorted(self._rows, key=lambda row: [row[place] for place in places], reverse=downhill)
        return Slate(self._captions, rows)

    def toted(self, caption: str, by: str, rollup: Callable[[List[Any]], Any] = sum) -> "Slate":
        """Summarise a column: condense the rows that share a value of another one into one row with a sum or the like.

        Args:
            caption: The column to summarise.
            by: The column whose equal values belong together.
            rollup: Turns the list of gathered cells into one figure.

        Returns:
            A slate of two columns, in order of first appearance.

        Raises:
            SlateFault: If a column is unknown.

        Example:
            >>> Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7], ["Oslo", 1]]).toted("tons", by="port")
            Slate(['port', 'tons'], [('Oslo', 6), ('Riga', 7)])
        """
        gathered: Dict[Any, List[Any]] = {}
        for label, cell in zip(self.lift(by), self.lift(caption)):
            gathered.setdefault(label, []).append(cell)
        return Slate([by, caption], [(label, rollup(cells)) for label, cells in gathered.items()])

    def crosscut(self, down: str, across: str, figure: str, blank: Any = 0) -> "Slate":
        """Turn a long list into a grid: one column's values run down, another's across, a third fills the cells.

        Args:
            down: Column whose values become the row labels.
            across: Column whose values become captions.
            figure: Column that is added up in the cells.
            blank: What stands where the two never meet.

        Returns:
            The grid; labels and captions in order of first appearance.

        Raises:
            SlateFault: If a column is unknown.

        Example:
            >>> Slate(["day", "port", "tons"], [[1, "Oslo", 5], [2, "Riga", 7]]).crosscut("day", "port", "tons")
            Slate(['day', 'Oslo', 'Riga'], [(1, 5, 0), (2, 0, 7)])
        """
        sums: Dict[Tuple[Any, Any], Any] = {}
        for label, head, cell in zip(self.lift(down), self.lift(across), self.lift(figure)):
            sums[label, head] = sums[label, head] + cell if (label, head) in sums else cell
        labels = list(dict.fromkeys(self.lift(down)))
        heads = list(dict.fromkeys(self.lift(across)))
        rows = [[label] + [sums.get((label, head), blank) for head in heads] for label in labels]
        return Slate([down] + [str(head) for head in heads], rows)

    def welded(self, other: "Slate", on: str, blank: Any = None) -> "Slate":
        """Look rows up in another slate by a column both have, and append its other columns.

        Args:
            other: The slate to look the rows up in; the first row that agrees is used.
            on: The column both have.
            blank: What is put where the other slate has no such row.

        Returns:
            A slate with all rows of this one.

        Raises:
            SlateFault: If a column is missing, or headings collide.

        Example:
            >>> tons, flags = Slate(["port", "tons"], [["Oslo", 5]]), Slate(["port", "land"], [["Oslo", "NO"]])
            >>> tons.welded(flags, on="port")
            Slate(['port', 'tons', 'land'], [('Oslo', 5, 'NO')])
        """
        key = other._at(on)
        rest = [place for place in range(len(other._captions)) if place != key]
        found: Dict[Any, Tuple[Any, ...]] = {}
        for row in other._rows:
            found.setdefault(row[key], tuple(row[place] for place in rest))
        missing = (blank,) * len(rest)
        rows = [row + found.get(label, missing) for row, label in zip(self._rows, self.lift(on))]
        return Slate(self._captions + [other._captions[place] for place in rest], rows)

    def footed(self, legend: str = "total") -> "Slate":
        """Add a bottom row with the sums of all columns of numbers.

        Args:
            legend: The text in the first column of the new row.

        Returns:
            The slate with one row more; columns that hold anything but numbers get an empty cell.

        Example:
            >>> Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7]]).footed().reaped_row(-1)
            ('total', 12)
        """
        foot: List[Any] = []
        for column in zip(*self._rows):
            numeric = all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in column)
            foot.append(sum(column) if numeric else "")
        return Slate(self._captions, self._rows + [tuple([legend] + foot[1:])]) if foot else self

    def reaped_row(self, place: int) -> Tuple[Any, ...]:
        """Hand out one row by its number.

        Args:
            place: Counted from 0, or from the bottom when negative.

        Returns:
            The cells of the row.

        Raises:
            SlateFault: If there is no such row.

        Example:
            >>> Slate(["a"], [[1], [2]]).reaped_row(0)
            (1,)
        """
        try:
            return self._rows[place]
        except IndexError:
            raise SlateFault(f"no row {place} among {self.height}") from None

    def portioned(self, caption: str, into: str = "share") -> "Slate":
        """Add a column that says what percentage of a column's total each row makes up.

        Args:
            caption: The column of numbers.
            into: Heading of the new column.

        Returns:
            The wider slate; percentages are rounded to one place and are 0.0 if the total is zero.

        Raises:
            SlateFault: If the column is unknown or the heading taken.

        Example:
            >>> Slate(["tons"], [[5], [15]]).portioned("tons").lift("share")
            [25.0, 75.0]
        """
        whole = sum(self.lift(caption))
        return self.annex(into, lambda row: round(100.0 * row[caption] / whole, 1) if whole else 0.0)

    def placed(self, caption: str, into: str = "place") -> "Slate":
        """Add a column with each row's competition rank, 1 for the largest; equal rows share a rank.

        Args:
            caption: The column of numbers.
            into: Heading of the new column.

        Returns:
            The wider slate, its rows in their old order.

        Raises:
            SlateFault: If the column is unknown or the heading taken.

        Example:
            >>> Slate(["tons"], [[5], [9], [9], [1]]).placed("tons").lift("place")
            [3, 1, 1, 4]
        """
        column = self.lift(caption)
        return self.annex(into, lambda row: 1 + sum(cell > row[caption] for cell in column))
