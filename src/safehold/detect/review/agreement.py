"""How far reviewers agree beyond chance."""

from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Return Cohen's kappa of two people's verdicts on the same items; None when undefined.

    Cohen, Educational and Psychological Measurement 20 (1960) 37-46.

    Raises:
        ValueError: the two lists differ in length.
    """
    n = len(one)
    if n != len(other):
        raise ValueError(f"expected verdicts on the same items, came {n} and {len(other)}")
    left, right = Counter(one), Counter(other)
    # In whole numbers, so that perfect chance agreement is told exactly.
    chance = sum(left[label] * right[label] for label in left)
    if n == 0 or chance == n * n:
        return None
    agreed = sum(a == b for a, b in zip(one, other, strict=True))
    return (agreed * n - chance) / (n * n - chance)


def krippendorff_alpha(items: Sequence[Sequence[Hashable]]) -> float | None:
    """Return nominal alpha of any number of verdicts on each item; None when undefined.

    Krippendorff, "Computing Krippendorff's alpha-reliability", 2011.
    """
    pairable = [Counter(item) for item in items if len(item) > 1]
    total: Counter[Hashable] = Counter()
    for counts in pairable:
        total += counts
    n = sum(total.values())
    expected = n * n - sum(count * count for count in total.values())
    if n == 0 or expected == 0:
        return None
    observed = 0.0
    for counts in pairable:
        m = sum(counts.values())
        observed += (m * m - sum(count * count for count in counts.values())) / (m - 1)
    return 1 - (n - 1) * observed / expected
