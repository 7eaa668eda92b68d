"""What can go wrong outside of a sample. What a sample does wrong is a verdict, never an exception."""

from typing import Optional


class EvaldError(Exception):
    """The base of all errors of this package."""


class StartError(EvaldError):
    """No daemon can be started or reached; the message says why and what to do."""


class ConnectionLost(EvaldError, ConnectionError):
    """The daemon is gone while jobs were under way. A new :class:`evald.Client` is needed."""


class AnswerTimeout(EvaldError, TimeoutError):
    """The daemon has not answered within the time that the caller gave it."""


class Refused(EvaldError, ValueError):
    """The daemon refuses a request; the connection goes on.

    ``code`` is for programs: ``unknown_env``, ``bad_limits``, ``stopping``, ``forbidden``, ``busy``, ...
    ``job`` is the id that the caller gave the job, or ``None``.
    """

    def __init__(self, code: str, message: str, job: Optional[str] = None) -> None:
        about = "" if job is None else f"job {job!r}: "
        super().__init__(f"evald refuses: {about}{message}")
        self.code = code
        self.job = job


class DataError(EvaldError, ValueError):
    """A file of problems or samples cannot be used as a whole; names the file, and the line where there is one."""
