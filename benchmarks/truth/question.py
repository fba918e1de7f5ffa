"""What reading the question is worth on real judgements: accuracy, answers swapped between questions, ability.

    python benchmarks/truth/question.py [--seeds 3] [--learners pooled hierarchical] [--items 250]
        [--parts sets swaps ability] [--features response pair]

``sets``     accuracy on held-out judgements of each set, with ``--features response`` and ``pair``.
``swaps``    fitted on one set and on all three together: of two questions that the fit has not seen, with an answer
             each, how often is the right assignment worth more than the swapped one? Random and nearest questions.
``ability``  the same fits on the ability suite: the mean of its four sections; ``--items`` of each section (0: all).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from polypref.comparisons import Comparisons, Responses, from_columns
from polypref.data.linting.lint import clean, lint
from polypref.data.read import read
from polypref.data.split import split
from polypref.evaluation.cohorts import keep_users
from polypref.features import encoder
from polypref.features.prompts import encoded
from polypref.features.protocol import Read
from polypref.learners import LEARNERS
from polypref.learners.protocol import margins

DRAWS = 2000


@dataclass(frozen=True, eq=False)
class ByText:
    """MiniLM, remembering the vector of each text whatever its prompt."""

    features: Read
    known: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = "minilm"

    @property
    def identity(self) -> str:
        return encoder("minilm").identity

    def encode(self, responses: Responses) -> np.ndarray:
        texts = responses.texts_R.to_list()
        new_R = np.array([r for r, text in enumerate(texts) if text not in self.known], np.int32)
        if len(new_R):
            vectors = encoder("minilm").encode(responses.take(new_R))
            self.known.update({texts[r]: vector for r, vector in zip(new_R, vectors, strict=True)})
        return np.stack([self.known[text] for text in texts])


def rows_of(data: Path, name: str, least: int = 1, most: int | None = None) -> Comparisons:
    """The judgements of the users with at least ``least`` of them, or of the ``most`` users with most."""
    reading = read([str(data / f"{name}.parquet")])
    rows = keep_users(clean(reading, lint(reading)), least).comparisons
    count_U = np.bincount(rows.user_N, minlength=len(rows.users))
    kept_U = np.isin(np.arange(len(count_U)), np.argsort(-count_U, kind="stable")[:most])
    return rows.take(kept_U[rows.user_N])


def together(sets: dict[str, Comparisons]) -> Comparisons:
    """All sets as one, whose users are different."""
    parts = []
    for name, rows in sets.items():
        pool = rows.responses
        users = pl.Series([f"{name} {user}" for user in rows.users.ids.gather(rows.user_N)])
        sides = [pool.texts_R.gather(side) for side in (rows.chosen_N, rows.rejected_N)]
        prompts = pool.prompts.gather(pool.prompt_R[rows.chosen_N])
        parts.append((*(one.rename("") for one in (users, prompts, *sides)), rows.label_N == 0.5))
    users, prompts, chosen, rejected, tie = zip(*parts, strict=True)
    return from_columns(*map(pl.concat, (users, prompts, chosen, rejected)), tie_N=np.concatenate(tie))


def fitted(name: str, rows: Comparisons, rule: str, seed: int, encode: ByText):
    """The scorer, and the held-out judgements."""
    parts = split(rows, rule, seed)
    train, valid, test = (rows.take(part) for part in (parts.train_rows, parts.valid_rows, parts.test_rows))
    return LEARNERS[name].fit(train, valid=valid, encoder=encode, seed=seed), train, test


def won(margin: np.ndarray) -> np.ndarray:
    """1 for a win, one half for a tie, up to rounding."""
    return np.where(np.abs(margin) < 1e-6, 0.5, margin > 0)


def swapped(scorer, everything: Comparisons, train: Comparisons, seed: int, encode: ByText) -> list[float]:
    """How often two answers are worth more under their own questions than swapped: random, nearest questions."""
    pool, rng = everything.responses, np.random.default_rng(seed)
    seen = set(train.responses.prompts.gather(np.unique(train.responses.prompt_R[train.chosen_N])))
    unseen_R = np.flatnonzero([pool.prompts[p] not in seen for p in pool.prompt_R.tolist()]).astype(np.int32)
    vector_PD, at = encoded(encode, pool.take(unseen_R))
    by_P = [unseen_R[at == p] for p in range(len(vector_PD))]
    alike_PP = vector_PD @ vector_PD.T
    np.fill_diagonal(alike_PP, -2)
    one = rng.integers(0, len(by_P), DRAWS)
    found = []
    for other in ((one + rng.integers(1, len(by_P), DRAWS)) % len(by_P), alike_PP.argmax(axis=1)[one]):
        a, b = (np.array([rng.choice(by_P[p]) for p in side]) for side in (one, other))
        prompts = [pool.prompts.gather(pool.prompt_R[x]) for x in (a, b, a, b)]
        mixed, at_Q = Responses.of(pl.concat(prompts), pl.concat([pool.texts_R.gather(x) for x in (a, b, b, a)]))
        value_4 = scorer.score(mixed, None, at_Q).value_Q.reshape(4, -1)
        found.append(float(won(value_4[0] + value_4[1] - value_4[2] - value_4[3]).mean()))
    return found


def ability(scorer, suite: pl.DataFrame) -> float:
    """The mean of the sections' accuracies, of the population's reward."""
    both = [pl.concat([suite["prompt"], suite["prompt"]]), pl.concat([suite["chosen"], suite["rejected"]])]
    responses, at_Q = Responses.of(*both)
    right, wrong = np.split(scorer.score(responses, None, at_Q).value_Q, 2)
    return float(suite.with_columns(won=won(right - wrong)).group_by("section").agg(pl.mean("won"))["won"].mean())  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learners", nargs="+", default=["pooled", "hierarchical"])
    parser.add_argument("--parts", nargs="+", default=["sets", "swaps", "ability"])
    parser.add_argument("--features", nargs="+", default=["response", "pair"])
    parser.add_argument("--items", type=int, default=0)
    given = parser.parse_args()
    sets = {"llmfao": rows_of(given.data, "llmfao"), "pandalm": rows_of(given.data, "pandalm")}
    sets["ukpconvarg1, 40 users"] = rows_of(given.data, "ukpconvarg1", most=40)
    cases = [("pandalm", sets["pandalm"], "prompt"), ("llmfao", sets["llmfao"], "prompt")]
    cases += [("ukpconvarg1, 40 users", sets["ukpconvarg1, 40 users"], "pair")]
    cases += [("llmfao >= 40", rows_of(given.data, "llmfao", least=40), "pair")]
    suite = pl.read_parquet(given.data / "ability_suite.parquet")
    if given.items:
        parts = sorted(suite.group_by("section", maintain_order=True), key=lambda part: part[0])
        suite = pl.concat([part.sample(min(given.items, len(part)), seed=0) for _, part in parts])
    known: dict[str, np.ndarray] = {}
    for read_as in given.features:
        encode = ByText(read_as, known)
        for learner in given.learners:
            for name, rows, rule in cases if "sets" in given.parts else []:
                found = []
                for seed in range(given.seeds):
                    scorer, _, test = fitted(learner, rows, rule, seed, encode)
                    decided = test.label_N != 0.5
                    found.append(won(margins(scorer, test).value_Q[decided]).mean())
                print(f"{read_as:8} {learner:12} {name}, by {rule}: {np.mean(found):.3f}", flush=True)
            everything = together(sets)
            for name, rows in (
                {**sets, "all three": everything}.items() if {"swaps", "ability"} & set(given.parts) else ()
            ):
                found = []
                for seed in range(given.seeds):
                    scorer, train, _ = fitted(learner, rows, "prompt", seed, encode)
                    swaps = swapped(scorer, everything, train, seed, encode) if "swaps" in given.parts else [np.nan] * 2
                    found.append([*swaps, ability(scorer, suite) if "ability" in given.parts else np.nan])
                shown = " / ".join(f"{value:.3f}" for value in np.mean(found, axis=0))
                print(f"{read_as:8} {learner:12} fitted on {name}: swapped random / near / ability {shown}", flush=True)


if __name__ == "__main__":
    main()
