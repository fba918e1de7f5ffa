"""Which of a person's answers to one prompt are preferred to which others, where each was valued by itself.

The one rule for thumbs and ratings of several answers to one prompt, in files of feedback and in ``polypref serve``: an
answer is preferred to each one that the same person gave a lower value, in the same kind of value. The last value of an
answer counts. Equal values say nothing: two answers that are both liked need not be equally good.
"""

from __future__ import annotations

from collections.abc import Mapping


def preferred(value_of: Mapping[str, float]) -> list[tuple[str, str]]:
    """``(preferred, other)`` for every two answers with different values."""
    return [(text, other) for text, value in value_of.items() for other, less in value_of.items() if less < value]
