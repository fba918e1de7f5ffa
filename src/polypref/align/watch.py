"""Has the policy collapsed? Distinct words of each logged step, and when to stop.

The trainer logs two signs (``policy.distinct``): the share of distinct words within a completion, and how many of a
batch's completions differ. A step is bad if the first is below ``floor``, or if all completions are equal; ``patience``
bad logged steps in a row are a collapse. Ordinary English has .8 and more in 30 words, .6 in 200.

Decided from the log alone, so a resumed run stops at the same step. Covered: repeated words and phrases, one answer for
everything. Not covered: nonsense of ever new words (watch KL), one answer for each group, languages without spaces
between words (there only equal completions are seen).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polypref.policy.distinct import COMPLETIONS, WORDS


def _is_bad(logged: Mapping[str, Any], floor: float) -> bool:
    """Whether the completions of a logged step hardly differ, within themselves or from each other."""
    words, many = logged.get(WORDS), logged.get(COMPLETIONS)
    return many == 0.0 or (words is not None and words < floor)


def collapsed_at(log: Sequence[Mapping[str, Any]], floor: float, patience: int) -> int | None:
    """The step at which the policy had collapsed; None: it has not, or ``patience`` is 0."""
    in_a_row = 0
    for one in log:
        if COMPLETIONS not in one:
            continue
        in_a_row = in_a_row + 1 if _is_bad(one, floor) else 0
        if patience and in_a_row >= patience:
            return int(one["step"])
    return None


def callback(floor: float, patience: int) -> Any:
    """A callback of transformers' Trainer that stops at a collapse, and saves that step."""
    from transformers import TrainerCallback

    class StopsAtCollapse(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if collapsed_at(state.log_history, floor, patience) is not None:
                control.should_training_stop = control.should_save = True
            return control

    return StopsAtCollapse()
