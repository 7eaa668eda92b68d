"""Files with one JSON object a line, also compressed (``.gz``)."""

import gzip
import json
import os
from typing import Any, Dict, Iterable, Iterator, NamedTuple, Optional

from .errors import DataError

#: No row may be longer, in bytes.
MAX_ROW_BYTES = 64 << 20


class Row(NamedTuple):
    """One line of a file: its object, or why it has none."""

    line: int
    fields: Dict[str, Any]
    problem: Optional[str]


def read(path: str) -> Iterator[Row]:
    """The rows of a file; blank lines are passed over. A line that is no object is a row with its ``problem``.

    Raises :class:`evald.DataError` where the file cannot be read, or is cut off.
    """
    number = 0
    try:
        with (gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")) as file:
            while True:
                line = file.readline(MAX_ROW_BYTES + 1)
                if not line:
                    return
                number += 1
                if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_ROW_BYTES)
                    yield Row(number, {}, f"the row is over {MAX_ROW_BYTES >> 20} MiB")
                elif line.strip():
                    yield _row(number, line)
    except (OSError, EOFError) as error:
        where = f" after line {number}" if number else ""
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}{where}: {reason}") from error


def _row(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        return Row(number, {}, f"not UTF-8 (byte {error.start + 1})")
    except json.JSONDecodeError as error:
        return Row(number, {}, f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return Row(number, {}, "not JSON that can be read: too deep")
    if not isinstance(value, dict):
        return Row(number, {}, f"not a JSON object but {type(value).__name__}")
    return Row(number, value, None)


def text_field(fields: Dict[str, Any], name: str) -> str:
    """A field that is a string. Raises ``ValueError`` with the reason where it is none."""
    if name not in fields:
        raise ValueError(f"it has no {name!r}")
    value = fields[name]
    if not isinstance(value, str):
        raise ValueError(f"its {name!r} is {type(value).__name__}, not a string")
    return value


def write(path: str, rows: Iterable[Dict[str, Any]]) -> None:
    """Writes rows; the file is there as a whole or not at all. Raises ``OSError``."""
    temporary = f"{path}.{os.getpid()}.new"
    # Not tempfile's: that one's files are for this user alone.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for row in rows:
                # ASCII, so that half of a surrogate pair in a row stays what it was.
                file.write(json.dumps(row).encode("ascii") + b"\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
