"""The metric ``code_eval`` of Hugging Face's evaluate, judged by evald: the same call, the same shapes.

>>> from evald import code_eval
>>> pass_at_k, results = code_eval.compute(
...     references=["assert add(2, 3) == 5"],
...     predictions=[["def add(a, b): return a * b", "def add(a, b): return a + b"]], k=[1, 2])
>>> pass_at_k
{'pass@1': 0.5, 'pass@2': 1.0}
"""

from collections import defaultdict
from typing import Any, DefaultDict, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from .client import Client, default_client
from .outcome import check_workers, describe, in_flight, limits_for
from .pass_at_k import check_ks, summarize
from .wire import Job, LimitsLike

#: Per problem: ``(completion_id, {"task_id", "passed", "result", "completion_id"})``, in the order of the predictions.
Results = DefaultDict[int, List[Tuple[int, Dict[str, Any]]]]


def compute(
    references: Sequence[str],
    predictions: Sequence[Sequence[str]],
    k: Union[int, Sequence[int]] = (1, 10, 100),
    num_workers: int = 4,
    timeout: Optional[float] = 3.0,
    *,
    trust: str = "auto",
    limits: LimitsLike = None,
    client: Optional[Client] = None,
) -> Tuple[Dict[str, float], Results]:
    """pass@k of candidates, and how each of them ended.

    :param references: one test per problem: Python that raises where a candidate is wrong.
    :param predictions: the candidates of each problem.
    :param k: the values of k; those that a problem has too few candidates for are left out.
    :param num_workers: candidates side by side.
    :param timeout: seconds of CPU time, and of time since its start, that a candidate has; ``limits`` that name a time go first.
    :param trust: see :func:`evald.run`.
    :param limits: further limits, as in :func:`evald.run`.
    :param client: a client to use; default: one with ``num_workers`` slots (or ``EVALD_SOCKET``), kept for the next call.
    :returns: ``({"pass@1": ...}, results)``. A test that asserted nothing is no pass (``failed: no_test``); what ended in
        ``infra_error`` says nothing about the candidate and is not counted.
    :raises ValueError: the lengths differ, or an argument is of no use.
    :raises evald.EvaldError: the daemon cannot be started, is gone, or refuses.
    """
    ks = check_ks(k)
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references, but predictions for {len(predictions)} problems")
    for problem, (reference, candidates) in enumerate(zip(references, predictions)):
        if not isinstance(reference, str):
            raise ValueError(f"reference {problem} is {type(reference).__name__}, not a string")
        # A string is a sequence of strings as well: its letters would be run as programs.
        if isinstance(candidates, str) or not all(isinstance(candidate, str) for candidate in candidates):
            raise ValueError(f"predictions of problem {problem} are not a list of strings")
    allowed = limits_for(timeout, limits)
    places = [(problem, number) for problem, candidates in enumerate(predictions) for number in range(len(candidates))]

    def jobs() -> Iterator[Job]:
        for problem, number in places:
            yield Job(predictions[problem][number], references[problem], trust=trust, limits=allowed,
                      id=f"problem {problem}, candidate {number}")  # fmt: skip

    results: Results = defaultdict(list)
    counted: Dict[int, List[bool]] = {problem: [] for problem in range(len(references))}
    # Harnesses call this once a problem: the daemon is kept for the next call.
    connection = client or default_client(check_workers(num_workers))
    for result in connection.run_all(jobs(), in_flight=in_flight(connection, num_workers)):
        problem, number = places[result.index]
        row = {"task_id": problem, "passed": result.passed, "result": describe(result), "completion_id": number}
        results[problem].append((number, row))
        if result.verdict != "infra_error":
            counted[problem].append(result.passed)
    for rows in results.values():
        rows.sort(key=lambda pair: pair[0])
    return summarize(((len(passed), sum(passed)) for passed in counted.values()), ks), results
