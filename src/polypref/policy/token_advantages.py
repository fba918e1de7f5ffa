"""Token-level advantages for trajectories that the engine names ``<prompt>_<session>_<output>``, as verl does.

A session answers a prompt once and may leave several outputs (an agent's turns); they share one advantage, that of the
session's last output, whose reward is the session's. Rows that only pad a batch have no advantage and enter no history.

Covered: rewards at any token (they are summed), sessions without output, rewards that are not finite (advantage 0).
Not covered: outputs of one session with rewards of their own.

Suffixes here: ``_C`` sessions, ``_L`` levels of groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polypref.policy.advantages import Advantages, Key, Normalizer
from polypref.policy.history import Floats


def token_advantages(
    normalizer: Normalizer,
    reward_BT: Floats,
    mask_BT: NDArray[np.bool_],
    name_B: Sequence[str],
    key_LB: Sequence[Sequence[Key]],
    filler_B: NDArray[np.bool_],
) -> tuple[Floats, Advantages]:
    """Advantages at the tokens of ``mask_BT``, 0 elsewhere, (B, T); and those of the sessions, which enter the history.

    ``name_B``    of each row: prompt, session and the output's place in it, joined by "_".
    ``key_LB``    for each level of groups, the row's.
    ``filler_B``  rows that only pad the batch.
    Raises SettingsError when sessions of one prompt belong to different groups.
    """
    last: dict[str, tuple[int, int]] = {}  # of each session, the place and the row of its last output
    for b in np.flatnonzero(~filler_B).tolist():
        session, _, place = name_B[b].rpartition("_")
        last[session] = max(last.get(session, (-1, -1)), (int(place), b))
    sessions = sorted(last)  # engines balance rows among their workers: the history does not depend on how
    row_C = np.array([last[session][1] for session in sessions], np.int64)
    prompts = [session.rpartition("_")[0] for session in sessions]
    number = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompts))}
    prompt_C = np.array([number[prompt] for prompt in prompts], np.int64)
    key_LC = [[key_B[b] for b in row_C.tolist()] for key_B in key_LB]
    found = normalizer(reward_BT[row_C].sum(axis=1), prompt_C, key_LC)
    value = dict(zip(sessions, found.value_B.tolist(), strict=True))
    value_B = np.array([value.get(name.rpartition("_")[0], 0.0) for name in name_B])
    return np.where(mask_BT, value_B[:, None], 0.0), found
