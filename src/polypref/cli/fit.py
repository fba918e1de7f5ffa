"""``polypref fit``: one learner on all judgements of some files, saved as a folder that ``polypref score`` reads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polypref.cli.shared import Columns, EncoderName, Files, Ties, cleaned, ensure_files, reading_of

if TYPE_CHECKING:
    from polypref.comparisons import Comparisons
    from polypref.data.split import Rule

VALID_SHARES = (0.1, 0.2, 0.3)  # of the pairs or texts; the first that leaves ENOUGH_VALID rows
ENOUGH_VALID = 20
FEWEST = 10  # decided judgements; with fewer, one or two of them would choose the hyper-parameters


@dataclass(frozen=True)
class Fit:
    """Fit one learner on all judgements and save the scorer.

    Some judgements, a tenth where there are many, choose the learner's hyper-parameters and then join the fit. They are
    cut by the rule that suits the data, as in compare; cutting by response leaves out judgements between a held-out and
    another text.
    """

    files: Files
    out: Path
    """Folder to save the scorer to; one that is there is replaced."""
    learner: str = "hierarchical"
    """Which learner; docs/learners.md lists them."""
    encoder: EncoderName = "minilm"
    seed: int = 0
    """Decides the validation rows and whatever the learner draws."""
    ties: Ties = ()
    columns: Columns = ()

    def run(self) -> int:
        """Read, drop what the linter drops, fit, save."""
        from polypref.artifact import ensure_replaceable
        from polypref.cli.check import remarks
        from polypref.data.linting.problems import counted
        from polypref.data.split import choose_rule
        from polypref.features import encoder
        from polypref.files import write_json
        from polypref.learners import save
        from polypref.learners.saved import FACTS
        from polypref.scorers import learner

        ensure_files(self, "fit FILE --out DIR")
        ensure_replaceable(self.out, "scorer")
        chosen = learner(self.learner)
        encode = encoder(self.encoder)
        reading = reading_of(self)
        comparisons = cleaned(reading)
        ensure_fittable(comparisons)
        rule, why = choose_rule(comparisons)
        train, valid = cut(comparisons, rule, self.seed)
        scorer = chosen.fit(train, encoder=encode, seed=self.seed, valid=valid)
        save(scorer, self.out)
        facts = {
            "learner": self.learner,
            "encoder": self.encoder,
            "encoder_identity": encode.identity,
            "seed": self.seed,
            "split": rule,
            "data": comparisons.content_hash,
            "judgements": len(train) + len(valid),
            "judgements_read": len(reading.comparisons),
            "rows_read": reading.rows_read,
            "users": len(comparisons.users),
            "selection": dict(scorer.selection),
        }
        write_json(self.out / FACTS, facts)
        judged, rows = counted(len(reading.comparisons), "judgements"), counted(reading.rows_read, "rows")
        print(
            f"{self.learner} on {len(train) + len(valid):,} of {judged} by {counted(len(comparisons.users), 'users')} "
            f"({rows} read), features from {self.encoder}"
        )
        print(f"hyper-parameters chosen on {len(valid):,} of them, cut by {rule}: {why}")
        for name, value in scorer.selection.items():
            print(f"  {name}: {value if isinstance(value, str) else f'{value:.4g}'}")
        for line in remarks(reading):
            print(line)
        if len(valid) < ENOUGH_VALID:
            chose = counted(len(valid), "judgements")
            print(f"polypref: warning: only {chose} chose the hyper-parameters; do not rely on them.", file=sys.stderr)
        print(f"saved to {self.out}")
        return 0


def ensure_fittable(comparisons: Comparisons) -> None:
    """Raise NotEnoughData for judgements that no learner can learn from."""
    from polypref.data.linting.lint import ensure_learnable
    from polypref.errors import NotEnoughData

    ensure_learnable(comparisons)
    decided = len(comparisons) if comparisons.tie_N is None else int((~comparisons.tie_N).sum())
    if decided < FEWEST:
        raise NotEnoughData(f"{decided} judgements that are no ties; fit needs at least {FEWEST}. Give more data.")


def cut(comparisons: Comparisons, rule: Rule, seed: int) -> tuple[Comparisons, Comparisons]:
    """Training and validation judgements. Raises NotEnoughData when no share leaves rows on both sides.

    By response a tenth of the texts is a hundredth of the judgements, so small data need a larger share.
    """
    from polypref.data.split import holdout
    from polypref.errors import NotEnoughData

    parts = None
    for share in VALID_SHARES:
        try:
            parts = holdout(comparisons, rule, seed, share)
        except NotEnoughData:
            if parts is None and share == VALID_SHARES[-1]:
                raise
            continue
        if len(parts[1]) >= ENOUGH_VALID:
            break
    assert parts is not None
    return comparisons.take(parts[0]), comparisons.take(parts[1])
