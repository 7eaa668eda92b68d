"""The unbiased estimator of pass@k (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.1)."""

from math import fsum
from typing import Dict, Iterable, List, Sequence, Tuple, Union


def estimate_pass_at_k(
    num_samples: Union[int, Sequence[int]], num_correct: Sequence[int], k: int
) -> List[float]:
    """The probability, per problem, that one of ``k`` samples is correct, where ``num_correct`` of ``num_samples`` are.

    That is ``1 - C(n - c, k) / C(n, k)``, as a product, so that nothing overflows. ``num_samples`` is one number for all
    problems or one for each; ``ValueError`` where the lengths differ.
    """
    totals = [num_samples] * len(num_correct) if isinstance(num_samples, int) else list(num_samples)
    if len(totals) != len(num_correct):
        raise ValueError(f"{len(totals)} numbers of samples, but {len(num_correct)} of correct ones")
    return [_one(int(total), int(correct), k) for total, correct in zip(totals, num_correct)]


def _one(total: int, correct: int, k: int) -> float:
    if total - correct < k:
        return 1.0
    none_correct = 1.0
    for number in range(total - correct + 1, total + 1):
        none_correct *= 1.0 - k / number
    return 1.0 - none_correct


def summarize(counts: Iterable[Tuple[int, int]], ks: Iterable[int]) -> Dict[str, float]:
    """``{"pass@1": ..., ...}``: the mean over problems of ``(samples, correct)``, for each ``k`` that all have samples for."""
    pairs = list(counts)
    totals, correct = [total for total, _ in pairs], [good for _, good in pairs]
    return {
        f"pass@{k}": fsum(estimate_pass_at_k(totals, correct, k)) / len(pairs)
        for k in ks
        if pairs and min(totals) >= k
    }


def check_ks(k: Union[int, Iterable[int]]) -> List[int]:
    """The list of ``k``; ``ValueError`` for one that is not a positive whole number."""
    ks = [k] if isinstance(k, int) else list(k)
    for one in ks:
        if isinstance(one, bool) or not isinstance(one, int) or one < 1:
            raise ValueError(f"k is {one!r}; it is a whole number from 1 on")
    return ks
