"""What profiles in words are worth: a scripted judge, a null world, and a real judge on llmfao.

    python benchmarks/lm/personas.py [--only scripted null real] [--people 60] [--seed 0]
    python benchmarks/lm/personas.py --only real --model FOLDER [--data ../shared/data] [--people 20]

``scripted``  accuracy on later choices for each method with the person's own profile and with each placebo, mean over
              people with a 95 % interval over people; gain of the own over each placebo, paired by person; precision
              and recall of the traits that hypotheses state, with exact intervals.
``null``      choices are coin flips: the share of people about whom any hypothesis is kept, with an exact interval.
``real``      ``fermi``'s first profile from templates, which a local model reads, on llmfao's people with the most
              judgements. Texts are cut short, since a small model on a CPU reads slowly.

Prints Markdown. Answers are cached, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from persona_cases import Scripted, liked, persona, stated, world  # pyright: ignore[reportMissingImports]
from polypref.comparisons import Comparisons, from_columns
from polypref.learners import margins
from polypref.learners.persona import Persona, PersonaScorer
from polypref.learners.personas.traits import sentences
from polypref.stats import binomial
from polypref.testing import Words

PLACEBOS = ("own", "other", "everybody", "none")
BEFORE, AFTER = 60, 20
METHODS: dict[str, dict[str, Any]] = {
    "history, 3": {"method": "history"},
    "history, 12": {"method": "history", "neighbours": 12},
    "hypotheses": {"method": "hypotheses"},
    "fermi": {"method": "fermi"},
    "fermi, no rounds": {"method": "fermi", "rounds": 0},
    "fermi, no retrieval": {"method": "fermi", "neighbours": 0},
    "synthesize, persona": {"method": "synthesize", "parts": "persona"},
    "synthesize, demonstrations": {"method": "synthesize", "parts": "demonstrations"},
    "synthesize, both": {"method": "synthesize", "parts": "both"},
}
Floats = NDArray[np.float64]


def accuracy_U(scorer: PersonaScorer, rows: Comparisons) -> tuple[Floats, float]:
    """Each person's share of choices foretold, ties one half, and the share of requests without an answer."""
    scores = margins(scorer, rows)
    right_N = 0.5 + 0.5 * np.sign(scores.value_Q)
    assert scores.unanswered_Q is not None
    return np.bincount(rows.user_N, right_N) / np.bincount(rows.user_N), float(scores.unanswered_Q.mean())


def shown(value_U: Floats) -> str:
    """Mean over people with its 95 % interval."""
    half = 1.96 * value_U.std(ddof=1) / np.sqrt(len(value_U))
    return f"{value_U.mean():.3f} ({value_U.mean() - half:.3f} to {value_U.mean() + half:.3f})"


def arms(made: Any, train: Comparisons, test: Comparisons, name: str) -> PersonaScorer:
    """Prints a line of figures; returns the scorer of the people's own profiles. ``made`` gives the settings."""
    fitted = {of: made(of).fit(train, encoder=Words(), seed=0) for of in PLACEBOS}
    found = {of: accuracy_U(scorer, test) for of, scorer in fitted.items()}
    own_U = found["own"][0]
    gains = [shown(own_U - found[of][0]) for of in PLACEBOS[1:]]
    cost = fitted["own"].selection
    calls, tokens = (f"{cost.get(f'{what}_a_person', 0):,.0f}" for what in ("calls", "tokens"))
    cells = [name, *(shown(found[of][0]) for of in PLACEBOS), *gains, calls, tokens]
    print(f"| {' | '.join(cells)} |", flush=True)
    if unanswered := {of: f"{share:.3f}" for of, (_, share) in found.items() if share}:
        print(f"\nwithout an answer: {unanswered}\n", flush=True)
    return fitted["own"]


def head() -> None:
    gains = [f"own - {of}" for of in PLACEBOS[1:]]
    print(f"| {' | '.join(['method', *PLACEBOS, *gains, 'calls', 'tokens'])} |\n|{'---|' * 10}")


def scripted(people: int, seed: int) -> None:
    truth = world(people, BEFORE + AFTER, seed)
    train, test = truth.part(0, BEFORE), truth.part(BEFORE, BEFORE + AFTER)
    judge = Scripted(truth.styles, skill=0.9)
    print(f"\n{people} people, {BEFORE} judgements each, {AFTER} later ones; the judge follows 9 of 10 profiles.\n")
    head()
    fitted = {
        name: arms(lambda of, s=settings: persona(judge, profile_of=of, **s), train, test, name)
        for name, settings in METHODS.items()
    }
    recovered = fitted["hypotheses"]
    found = [stated(sentences(one.texts[-1])) for one in recovered.profiles]
    wanted = [liked(truth, int(user.split()[-1])) for user in recovered.users.ids]
    hits, said = sum(len(a & b) for a, b in zip(found, wanted, strict=True)), sum(map(len, found))
    for what, of in (("precision", said), ("recall", 2 * people)):
        low, high = binomial.interval(hits, of)
        print(f"\nhypotheses: {what} {hits} of {of}, {hits / of:.3f} ({low:.3f} to {high:.3f})")
    silent = sum(one.silent for one in recovered.profiles)
    print(f"\nhypotheses: nothing is said about {silent} of {people} people", flush=True)


def null(people: int, seed: int) -> None:
    for judgements in (20, 60):
        truth = world(people, judgements, seed, null=True)
        scorer = persona(Scripted(truth.styles)).fit(truth.rows, encoder=Words(), seed=0)
        kept = sum(not one.silent for one in scorer.profiles)
        low, high = binomial.interval(kept, people)
        print(
            f"\nnull, {judgements} judgements: {kept} of {people} people have one, "
            f"{kept / people:.3f} ({low:.3f} to {high:.3f})"
        )


def real(model: str, data: Path, people: int) -> None:
    table = pl.read_parquet(data / "llmfao.parquet").filter(pl.col("chosen").ne("") & pl.col("rejected").ne(""))
    most = table.group_by("user_id").len().sort("len", "user_id", descending=True)["user_id"][:people]
    table = table.filter(pl.col("user_id").is_in(most.to_list())).sample(fraction=1, shuffle=True, seed=0)
    number = table.select(pl.int_range(pl.len()).over("user_id"))["literal"].to_numpy()
    train, test = (
        from_columns(*(part[name] for name in ("user_id", "prompt", "chosen", "rejected")))
        for part in (table.filter(pl.Series(number >= 6)), table.filter(pl.Series(number < 6)))
    )
    print(
        f"\n{people} people of llmfao, 8 judgements read, 6 later ones each; "
        f"{Path(model).name}, texts of 150 characters.\n"
    )
    head()
    how: dict[str, Any] = {"method": "fermi", "rounds": 0, "neighbours": 0, "judgements": 8}
    how |= {"characters": 150, "dtype": "bfloat16"}
    arms(lambda of: Persona(model, profile_of=of, **how), train, test, "fermi, no rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["scripted", "null"], choices=["scripted", "null", "real"])
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    if "scripted" in given.only:
        scripted(given.people, given.seed)
    if "null" in given.only:
        null(10 * given.people, given.seed)
    if "real" in given.only:
        if not given.model:
            parser.error("--only real needs --model, a folder or hub name")
        real(given.model, given.data, given.people)


if __name__ == "__main__":
    main()
