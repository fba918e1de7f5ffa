"""Is it true what a person's weights are said to like? Against choices that the scorer did not see, and with placebos.

    python benchmarks/traits.py prefs.parquet [--learner hierarchical] [--encoder minilm] [--seeds 5]

Each seed holds a fifth of the pairs out and describes everybody by the scorer of the rest. A held-out choice of two
responses that differ in a mark of the trait (characters, list items, share of digits, words that hedge, the word
"example") is predicted by the sign of the person's value: right, wrong; ties and equal marks do not count. Beside it,
the sign of the population's value, and that of the choices of everybody in training. Means over people, with intervals
over people (seeds repeat them, and are averaged first). The placebo gives each person another person's values.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import polypref
from polypref.data.split import split
from polypref.features import encoder, wording
from polypref.scorers import learner
from polypref.traits import describe
from polypref.traits.table import packaged

HEDGES = r"(?i)\b(?:perhaps|may|maybe|might|possibly|probably|could|seems?|unsure|uncertain|not sure|depends?)\b"
EXAMPLES = r"(?i)\b(?:for example|for instance|such as|e\.g\.|imagine)"


def marks(pool) -> dict[str, np.ndarray]:
    """Of each response, how much of a trait it shows."""
    style_RK, texts_R = wording.style(pool.texts_R), pool.texts_R.str
    words_R = np.maximum(texts_R.count_matches(r"\S+").to_numpy(), 1)
    return {
        "length": pool.lengths_R.astype(np.float64),
        "lists": style_RK[:, wording.STYLE.index("log list items")],
        "numbers": style_RK[:, wording.STYLE.index("share of digits")],
        "hedged": texts_R.count_matches(HEDGES).to_numpy() / words_R,
        "examples": texts_R.count_matches(EXAMPLES).to_numpy() / words_R,
    }


def held_out(rows, seed: int, args) -> dict[str, dict[str, np.ndarray]]:
    """Trait -> arm -> share of each user's held-out choices that it predicts (U,); NaN: none."""
    parts = split(rows, "pair", seed)
    train, valid, test = (rows.take(part) for part in (parts.train_rows, parts.valid_rows, parts.test_rows))
    scorer = learner(args.learner).fit(train, encoder=encoder(args.encoder), seed=seed, valid=valid)
    known = set(scorer.known_users().ids.to_list())
    ids = rows.users.ids.to_list()
    people = describe(scorer, [None, *[name for name in ids if name in known]])
    base = {one.name: one.value for one in people[0].traits}
    own = {person.who: {one.name: one for one in person.traits} for person in people[1:]}
    other = dict(zip(own, np.roll(np.array(list(own.values()), object), 1), strict=True))
    mark_R, found = marks(rows.responses), {}
    for trait, value_R in mark_R.items():
        more_N = np.sign(value_R[test.chosen_N] - value_R[test.rejected_N]) * np.sign(test.label_N - 0.5)
        seen_N = np.sign(value_R[train.chosen_N] - value_R[train.rejected_N]) * np.sign(train.label_N - 0.5)
        said = {
            "own": [np.sign(own[name][trait].value) if name in own else 0.0 for name in ids],
            "clear": [np.sign(own[name][trait].value) * own[name][trait].clear if name in own else 0.0 for name in ids],
            "another's": [np.sign(other[name][trait].value) if name in own else 0.0 for name in ids],
            "population": [np.sign(base[trait])] * len(ids),
            "training choices": [np.sign(seen_N.mean())] * len(ids),
        }
        found[trait] = {
            arm: _shares(np.array(sign_U)[test.user_N] * more_N, test.user_N, len(ids)) for arm, sign_U in said.items()
        }
    return found


def _shares(right_N: np.ndarray, user_N: np.ndarray, users: int) -> np.ndarray:
    used = right_N != 0
    total_U = np.bincount(user_N[used], minlength=users)
    with np.errstate(invalid="ignore"):
        return np.bincount(user_N[used], right_N[used] > 0, users) / np.where(total_U, total_U, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--learner", default="hierarchical")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    reading = polypref.read(args.file)
    rows = polypref.clean(reading, polypref.lint(reading))
    runs = [held_out(rows, seed, args) for seed in range(args.seeds)]
    print("| trait | said by | held-out choices predicted | people |\n|---|---|---|---|")
    for trait in runs[0]:
        for arm in runs[0][trait]:
            share_SU = np.array([run[trait][arm] for run in runs])
            with np.errstate(invalid="ignore"):
                person_U = np.nanmean(share_SU[:, ~np.isnan(share_SU).all(axis=0)], axis=0)
            n = len(person_U)
            reach = 1.96 * person_U.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
            print(f"| {trait} | {arm} | {person_U.mean() if n else np.nan:.3f} ± {reach:.3f} | {n} |")
    scorer = learner(args.learner).fit(rows, encoder=encoder(args.encoder), seed=0)
    ids = scorer.known_users().ids
    wrong = [
        np.mean(
            [
                any(one.clear for one in person.traits)
                for person in describe(scorer, ids, table=packaged().placebo(seed))
            ]
        )
        for seed in range(50)
    ]
    print(f"\nPlacebo traits: {np.mean(wrong):.4f} of people have a clear one (50 draws; at most .05 is promised).")


if __name__ == "__main__":
    main()
