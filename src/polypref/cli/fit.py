"""``polypref fit``: one learner on all judgements of some files, saved as a folder that ``polypref score`` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from polypref.cli.shared import Columns, EncoderName, Files, Ties

FACTS = "fit.json"  # beside the scorer's own files: what was fitted, on what, with which encoder
VALID_SHARE = 0.1


@dataclass(frozen=True)
class Fit:
    """Fit one learner on all judgements and save the scorer.

    A tenth of the judgements chooses the learner's hyper-parameters and then joins the fit. It is cut by the rule that
    suits the data, as in compare; cutting by response leaves out judgements between a held-out and another text.
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
        from polypref.artifact import write_json
        from polypref.data.layouts import parse_columns
        from polypref.data.lint import clean, lint
        from polypref.data.read import ReadOptions, read
        from polypref.data.split import choose_rule, holdout
        from polypref.errors import CacheError, SettingsError
        from polypref.features import encoder
        from polypref.learners import learner, save

        if not self.files:
            raise SettingsError("fit needs at least one preference file: polypref fit FILE --out DIR.")
        chosen = learner(self.learner)
        encode = encoder(self.encoder)
        reading = read(self.files, ReadOptions(columns=parse_columns(self.columns), ties=self.ties))
        comparisons = clean(reading, lint(reading))
        rule, why = choose_rule(comparisons)
        train, valid = (comparisons.take(rows) for rows in holdout(comparisons, rule, self.seed, VALID_SHARE))
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
            "judgements_read": reading.rows_read,
            "users": len(comparisons.users),
            "selection": dict(scorer.selection),
        }
        try:
            write_json(self.out / FACTS, facts)
        except OSError as error:
            raise CacheError(f"cannot write {self.out / FACTS}: {error.strerror}. Free the space.") from error
        print(
            f"{self.learner} on {len(train) + len(valid):,} of {reading.rows_read:,} judgements by "
            f"{len(comparisons.users):,} users, features from {self.encoder}"
        )
        print(f"hyper-parameters chosen on {len(valid):,} of them, cut by {rule}: {why}")
        for name, value in scorer.selection.items():
            print(f"  {name}: {value if isinstance(value, str) else f'{value:.4g}'}")
        print(f"saved to {self.out}")
        return 0


def read_facts(folder: Path) -> dict[str, object]:
    """What ``fit`` wrote down beside a scorer; empty when the folder was made by ``polypref.save``.

    Raises ArtifactError when it is there and unreadable.
    """
    from polypref.errors import ArtifactError

    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / FACTS} cannot be read ({error}); fit and save it again.") from error
