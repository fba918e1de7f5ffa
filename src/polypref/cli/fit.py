"""``polypref fit``: fits one learner on all judgements and saves the scorer for ``polypref score``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from polypref.cli.shared import Reads, ReadsQuestion, Seeded, WritesFolder, cleaned, ensure_files, reading_of
from polypref.terminal import out, say


@dataclass(frozen=True, kw_only=True)
class Fit(WritesFolder, Reads, ReadsQuestion, Seeded):
    """Fit one learner on all judgements and save the scorer.

    Some judgements, a tenth of large data, choose the learner's hyper-parameters and then join the fit. They are split
    off by the rule that suits the data, as in compare; splitting by response leaves out judgements between a held-out
    and another text.
    """

    out: Path
    """Folder to save the scorer to; an existing scorer is replaced."""
    learner: str = "hierarchical"
    """Which learner; docs/learners.md lists them."""

    def run(self) -> int:
        """Read, drop what the linter drops, fit, save."""
        from polypref.artifact import ensure_replaceable
        from polypref.cli.check import remarks
        from polypref.data.split import choose_rule
        from polypref.data.thumbs import VALID, bar_N
        from polypref.learners.provenance import fitted_on
        from polypref.scorers import ENOUGH_VALID, KIND, cut, ensure_fittable, learner, save
        from polypref.wording import code, counted

        ensure_files(self, self.files, "fit FILE --out DIR")
        ensure_replaceable(self.out, KIND)
        chosen = learner(self.learner)
        encode = self.text_encoder()
        reading = reading_of(self, self.files)
        comparisons = cleaned(reading)
        ensure_fittable(comparisons)
        rule, why = choose_rule(comparisons, lambda rule: cut(comparisons, rule, self.seed))
        train, valid = cut(comparisons, rule, self.seed)
        scorer = chosen.fit(train, encoder=encode, seed=self.seed, valid=valid)
        fitted = fitted_on(scorer)
        assert fitted is not None, f"{self.learner} does not record its fits"
        data = [comparisons.content_hash, *fitted.data]
        read = {"judgements": len(reading.comparisons), "rows": reading.rows_read}
        save(scorer, self.out, replace(fitted, learner=self.learner, data=data, split=rule, read=read))
        judged, rows = counted(len(reading.comparisons), "judgements"), counted(reading.rows_read, "rows")
        people = counted(len(comparisons.users), "users")
        out(
            f"{code(self.learner)} on {len(train) + len(valid):,} of {judged} by {people} ({rows} read), features from "
            f"{code(self.encoder)}"
        )
        out(f"hyper-parameters chosen on {len(valid):,} of them, split by {rule}: {why}")
        for name, value in scorer.selection.items():
            out(f"  {name}: {value if isinstance(value, str) else f'{value:.4g}'}")
        if bar_N(valid).any():
            out(f"  ({VALID})")
        for line in remarks(reading):
            out(line)
        if len(valid) < ENOUGH_VALID:
            chose = counted(len(valid), "judgements")
            say(f"warning: only {chose} chose the hyper-parameters; do not rely on them.")
        out(f"saved to {self.out}")
        return 0
