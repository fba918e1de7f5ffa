"""Can what people like be told from what they are asked? Not if each answers prompts of their own.

A learner that knows the user knows the user's prompts, too. If everybody judged the same prompts, that gives nothing
away. If a prompt has one judge, or a user one prompt, the effect of a prompt on what is preferred looks like a taste,
also against shuffled users, who lose both.
"""

from __future__ import annotations

import numpy as np

from polypref.comparisons import Comparisons
from polypref.wording import share

MOST = 0.5  # of the judgements


def caveat(comparisons: Comparisons) -> str:
    """One sentence if most judgements answer prompts with one judge, or come from users with one prompt; else empty.

    With a single prompt in all, or without prompts, nobody differs in what they are asked.
    """
    prompt_N = comparisons.responses.prompt_R[comparisons.chosen_N].astype(np.int64)
    used, prompt_N = np.unique(prompt_N, return_inverse=True)
    if len(used) < 2:
        return ""
    users = len(comparisons.users)
    user_Y, prompt_Y = np.divmod(np.unique(comparisons.user_N.astype(np.int64) * len(used) + prompt_N), len(used))
    alone = float((np.bincount(prompt_Y)[prompt_N] == 1).mean())
    single = float((np.bincount(user_Y, minlength=users)[comparisons.user_N] == 1).mean())
    if max(alone, single) <= MOST:
        return ""
    what = (
        f"{share(alone)} of the judgements answer prompts that nobody else judged"
        if alone >= single
        else f"{share(single)} of the judgements are by users who judged one prompt"
    )
    return f"But {what}, so part of the gain may come from what people are asked, not from what they like."
