"""How much the completions of a batch differ: within themselves by words, and from each other.

A policy that is pushed too hard ends in one repeated word, or in one answer to everything, while its rewards may still
rise. Distinct words per text after Li et al. (2016), arXiv 1510.03055 (distinct-1), here within each completion, since
the figure for a whole batch falls as the batch grows. Words are what stands between spaces, whatever their case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polypref import content

WORDS, COMPLETIONS = "pgrpo/distinct_words", "pgrpo/distinct_completions"
Text = str | Sequence[Mapping[str, Any]]
Seen = tuple[float, str]
"""Of one completion: its share of distinct words (NaN without words), and a name of its text."""


def text_of(completion: Text) -> str:
    """A completion's text: itself, or the texts of its messages, concatenated."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_completion_text(message["content"]) for message in completion if message.get("content"))


def _completion_text(found: Any) -> str:
    """A message's text: itself, or the text among its parts."""
    return found if isinstance(found, str) else "\n".join(part["text"] for part in found if "text" in part)


def seen(completions: Sequence[Text]) -> list[Seen]:
    """What ``shares`` needs of each completion."""
    texts = [text_of(completion) for completion in completions]
    words = [text.lower().split() for text in texts]
    shares = [len(set(one)) / len(one) if one else float("nan") for one in words]
    return [(share, content.hexdigest(text)) for share, text in zip(shares, texts, strict=True)]


def shares(batch: Sequence[Seen]) -> dict[str, float]:
    """Mean share of distinct words within a completion, and how many completions differ: 0 if all are equal, 1 if all
    are different. NaN where there is nothing to compare.
    """
    share_B = np.array([share for share, _ in batch])
    some = np.isfinite(share_B).any()
    differ = (len({name for _, name in batch}) - 1) / (len(batch) - 1) if len(batch) > 1 else float("nan")
    return {WORDS: float(np.nanmean(share_B)) if some else float("nan"), COMPLETIONS: differ}
