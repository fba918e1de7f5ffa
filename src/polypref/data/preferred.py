"""Which of a person's answers to one prompt are preferred to which others, where each was valued by itself.

The one rule for thumbs and ratings of several answers to one prompt, in files of feedback and in ``polypref serve``: an
answer is preferred to each one that the same person gave a lower value, in the same kind of value. The last value of an
answer counts. Equal values say nothing: two answers that are both liked need not be equally good.

The pairs of one list share values, so they are not independent: ten ratings give 45 pairs. Were the values in random
order, the score of Bradley and Terry's model would vary by sum (below - above)^2 / 2 where as many independent pairs
would make it vary by their number, ``below`` and ``above`` being how many values of the list are below and above each.
``worth`` is the ratio, the weight with which a list's pairs say as much as they know: 3 / (k + 1) for k different
values, 2 / (m + n) for m likes and n dislikes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping


def preferred(value_of: Mapping[str, float]) -> list[tuple[str, str]]:
    """``(preferred, other)`` for every two answers with different values."""
    return [(text, other) for text, value in value_of.items() for other, less in value_of.items() if less < value]


def worth(value_of: Mapping[str, float]) -> float:
    """The weight of each pair of ``preferred``, at most 1."""
    values = sorted(value_of.values())
    below = [bisect_left(values, one) for one in values]
    above = [len(values) - bisect_right(values, one) for one in values]
    varies = sum((low - high) ** 2 for low, high in zip(below, above, strict=True))
    return 2 * sum(below) / varies if varies else 1.0
