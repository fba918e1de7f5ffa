"""The arms that ``bench-policy`` compares, and how long each of them learns.

Every method that can learn from one completion runs with 1, 2, 4 and 8, the others with 2, 4 and 8, each with group
weights 0, .5 and 1, in every setting. The controls are two settings (identical groups, and groups that differ only in
taste) and two arms (groups shuffled among prompts, and groups assigned to users at random).
"""

from __future__ import annotations

from polypref.studies.policy import bandit
from polypref.studies.policy.measure import Arm, Learner, Plan

PLANS: dict[Learner, Plan] = {
    "bandit": Plan((0.005, 0.01, 0.02, 0.04, 0.08, 0.15), 8, 300),
    "language model": Plan((0.0015, 0.003, 0.006), 4, 200, most=12),
}
QUICK: dict[Learner, Plan] = {
    "bandit": Plan((0.04, 0.08), 8, 60),
    "language model": Plan((0.0015,), 1, 20, most=2),
}


REFERENCE = ("GRPO", 8)
OURS = ("P-GRPO shrunken", 2)
NO_HISTORY = ("Dr. GRPO", 2)  # the control for history: as many completions, compared only with each other
WEIGHTS = (0.0, 0.5, 1.0)
COMPARING = ("GRPO", "Dr. GRPO", "RLOO", "batch", "P-GRPO prompt")  # a prompt's completions: two at least
ALONE = ("REINFORCE++", "P-GRPO paper", "P-GRPO shrunken")  # one is enough
CONTROLLED = ("5 groups", "minority scale 0.1", "other tastes alone")


def sizes(method: str) -> tuple[int, ...]:
    """Completions per prompt that a method is run with."""
    return (1, 2, 4, 8) if method in ALONE else (2, 4, 8)


def bandit_arms(quick: bool) -> list[Arm]:
    """What is compared on bandits; ``quick``: two settings and a few methods, as a check that it works."""
    if quick:
        chosen = [(*REFERENCE, 0.0), ("Dr. GRPO", 2, 0.0), (*OURS, 0.0), (*OURS, 1.0)]
        return [Arm(setting, *one) for setting in ("minority scale 0.1", "identical groups") for one in chosen]
    found = []
    for setting in bandit.SETTINGS:
        for method in (*COMPARING, *ALONE):
            found += [Arm(setting, method, size, weight) for size in sizes(method) for weight in WEIGHTS]
        found += [Arm(setting, "MaxMin", size) for size in sizes("MaxMin")]  # it has its own group weights
    found += [
        Arm("drift", method, size) for method in ("P-GRPO half-life", "P-GRPO shrunken half-life") for size in (2, 8)
    ]
    for setting in CONTROLLED:
        for labels in ("shuffled", "random"):
            found += [Arm(setting, *OURS, weight, labels) for weight in WEIGHTS]
            found += [Arm(setting, *REFERENCE, weight, labels) for weight in (0.5, 1.0)]
    return found


def language_arms(quick: bool) -> list[Arm]:
    """What is compared on the language model."""
    if quick:
        return [Arm("minority scale 0.1", *one, learner="language model") for one in (REFERENCE, OURS)]
    weighed = [(*who, weight) for who in (REFERENCE, OURS) for weight in WEIGHTS]
    chosen = [*weighed, ("GRPO", 2, 0.0), ("Dr. GRPO", 2, 0.0), ("P-GRPO paper", 2, 0.0)]
    settings = ("minority scale 0.1", "identical groups")
    found = [Arm(setting, *one, learner="language model") for setting in settings for one in chosen]
    shuffled = [Arm("minority scale 0.1", *OURS, weight, "shuffled", "language model") for weight in (0.0, 1.0)]
    return [*found, *shuffled]
