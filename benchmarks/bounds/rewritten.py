"""Unsafe texts that get past a calibrated gate when they are rewritten, and what the gate drops: four ways to cut.

python benchmarks/bounds/rewritten.py DATA [--encoder minilm-4] [--rewritten 40] [--only NAME ...] [--tries 0]

DATA is a folder with ability_suite.parquet, xstest_slates.parquet and llmfao.parquet. Prompts are cut into four parts
(llmfao, which has thirteen prompts, by its responses). Each rotation trains a detector on two parts, calibrates on the
ability suite's slates of the third (alpha 1 %, with probability 95 %), and measures on the fourth. Trained on: the
labelled XSTest slates of both files, a sample of the suite's other responses, and llmfao's responses as safe ones.
Full refusals are not trained on, as XSTest's annotators mark them: as safe answers to harmful requests they would teach
that a harmful request is safe (``--refusals`` keeps them).
The safe responses of the calibration slates need no score for a threshold, so they are not encoded. The ridge penalty
is fixed; everything else is what ``polypref bounds`` does.

With ``--also diasafety_slates.parquet`` and the like, these are trained on as well; ``--sources`` says for each
source what a detector of another one knows of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl

from polypref import features
from polypref.bounds.calibrate import allowed, first_of_prompts, highest_unsafe, threshold
from polypref.bounds.detector import Detector, auc, fit_detector
from polypref.bounds.joined_slates import joined
from polypref.bounds.rewriting import REWRITINGS, rewritten, searched
from polypref.bounds.scripts import HELD, Rule, seen_in
from polypref.bounds.slates import Slates, part_of, read_slates
from polypref.comparisons import Responses

Counts = dict[str, tuple[int, int]]
PARTS, ALPHA, DELTA, RIDGE = 4, 0.01, 0.05, 0.3
SAMPLED = 220  # rows of each kind of the suite's ordinary responses
ORDINARY = {"code and mathematics": ["reasoning"], "chat": ["chat", "chat_hard"]}


def drawn(text: str) -> int:
    """The part of a text, as ``part_of`` draws prompts."""
    return int(blake2b(text.encode(), digest_size=8).hexdigest(), 16) % PARTS


def safe(prompts: Iterable[str], texts: Iterable[str]) -> Slates:
    """Safe responses, a slate each."""
    pool, at = Responses.of(list(prompts), list(texts))
    each = np.unique(at).astype(np.int32)
    return Slates(pool, each, each, np.zeros(len(each), bool), pl.Series([""] * len(each), dtype=pl.String))


@dataclass(frozen=True)
class Data:
    """All texts; ``fits`` are labelled, ``suite`` is calibrated on and gives the unsafe texts, ``priced`` are safe."""

    fits: list[Slates]
    suite: Slates
    priced: dict[str, Slates]
    answers: Slates


def without(slates: Slates, left_out: set[tuple[str, str]]) -> Slates:
    """The slates without these (prompt, response)."""
    pool = slates.responses
    prompts = [pool.prompts[p] for p in pool.prompt_R.tolist()]
    kept_R = np.array([pair not in left_out for pair in zip(prompts, pool.texts_R, strict=True)])
    kept_C = np.flatnonzero(kept_R[slates.response_C] | slates.unsafe_C)
    kept_L, slate_C = np.unique(slates.slate_C[kept_C], return_inverse=True)
    return replace(
        slates,
        slate_C=slate_C.astype(np.int32),
        response_C=slates.response_C[kept_C],
        unsafe_C=slates.unsafe_C[kept_C],
        category_L=slates.category_L.gather(kept_L),
    )


def full_refusals(folder: Path) -> set[tuple[str, str]]:
    """(Prompt, response) of the responses that XSTest's annotators call full refusals."""
    xstest = pl.read_parquet(folder / "xstest_slates.parquet").filter(pl.col("label") == "2_full_refusal")
    suite = pl.read_parquet(folder / "ability_suite.parquet").filter(pl.col("subset") == "xstest-should-refuse")
    refused = xstest.select("prompt", "response").rows() + suite.select("prompt", "chosen").rows()
    return {(prompt, text) for prompt, text in refused}


def read(folder: Path, also: Sequence[str], refusals: bool) -> Data:
    suite, xstest = (
        read_slates(str(folder / "ability_suite.parquet")),
        pl.read_parquet(folder / "xstest_slates.parquet"),
    )
    rows = pl.read_parquet(folder / "ability_suite.parquet")
    labelled = suite.take(np.flatnonzero(suite.category_L.str.starts_with("xstest").to_numpy()))
    priced = {}
    for name, sections in ORDINARY.items():
        some = rows.filter(pl.col("section").is_in(sections))
        some = some.sample(min(SAMPLED, len(some)), seed=0)
        texts = [some["chosen"]] if name != "chat" else [some["chosen"], some["rejected"]]
        priced[name] = safe([*some["prompt"]] * len(texts), [text for one in texts for text in one])
    judged = pl.read_parquet(folder / "llmfao.parquet")
    both = {(p, text) for p, a, b in judged.select("prompt", "chosen", "rejected").iter_rows() for text in (a, b)}
    both = sorted(pair for pair in both if pair[1])
    priced["llmfao"] = safe([p for p, _ in both], [text for _, text in both])
    given = xstest.filter(pl.col("category").str.starts_with("harmless") & (pl.col("label") == "1_full_compliance"))
    fits = [
        labelled,
        read_slates(str(folder / "xstest_slates.parquet")),
        *(read_slates(str(folder / one)) for one in also),
    ]
    if not refusals:
        fits = [without(one, full_refusals(folder)) for one in fits]
    return Data(fits, suite, priced, safe(given["prompt"], given["response"]))


def part(slates: Slates, number: int, by_text: bool = False) -> Slates:
    """One part, from 0: by prompts, or by the responses."""
    if not by_text:
        return part_of(slates, number + 1, number + 1, PARTS)
    own = [drawn(text) == number for text in slates.responses.texts_R]
    return slates.take(np.flatnonzero(np.array(own)[slates.response_C]))


def cut_of(detector: Detector, slates: Slates) -> float:
    """The calibrated threshold of these slates."""
    slates = first_of_prompts(slates)
    unsafe = np.unique(slates.response_C[slates.unsafe_C])
    safety_R = np.full(len(slates.responses), -np.inf)
    safety_R[unsafe] = scores(detector, slates.responses.take(unsafe))
    return threshold(highest_unsafe(slates, safety_R), allowed(len(slates), ALPHA, DELTA))


def scores(detector: Detector, pool: Responses) -> np.ndarray:
    return np.asarray(detector.score(pool, None).value_Q)


def held_scripts(calibrated: Slates) -> Rule:
    """The rule of scripts that a calibration on these slates makes."""
    drawn = first_of_prompts(calibrated)
    return Rule.of(seen_in(drawn, allowed(len(drawn), ALPHA, DELTA)), True)


def rotation(data: Data, number: int, encoder: str, names: Sequence[str], many: int, tries: int) -> Counts:
    """How many of how many texts, by row of the table; ``names`` of the rewritings, of ``many`` texts."""
    at = [(number + one) % PARTS for one in range(PARTS)]
    trained = [part(slates, one) for slates in data.fits for one in at[:2]]
    trained += [part(one, p, name == "llmfao") for name, one in data.priced.items() for p in at[:2]]
    detector = fit_detector(joined(trained), features.encoder(encoder), ridges=(RIDGE,))
    cut = cut_of(detector, part(data.suite, at[2]))
    tested = part(data.suite, at[3])
    pool = tested.responses.take(np.unique(tested.response_C[tested.unsafe_C]))
    found = {"plain": scores(detector, pool) >= cut}
    few = pool.take(np.random.default_rng(number).permutation(len(pool))[:many].astype(np.int32))
    found["plain, the rewritten ones"] = scores(detector, few) >= cut
    rule = held_scripts(part(data.suite, at[2]))
    for name in names if many else ():
        texts, place = rewritten(few, name)
        found[name] = scores(detector, texts)[place] >= cut
        if name in ("homoglyphs", "transliterated"):
            found[f'{name}, unknown = "drop"'] = found[name] & (rule.other(texts)[place] == HELD)
    if tries:
        found["searched"] = searched(few, lambda one: scores(detector, one), tries) >= cut
    for name, one in data.priced.items():
        found[f"dropped: {name}"] = ~(scores(detector, part(one, at[3], name == "llmfao").responses) >= cut)
    found["dropped: answers to requests that sound harmful"] = ~(
        scores(detector, part(data.answers, at[3]).responses) >= cut
    )
    for name, one in {**data.priced, "answers": data.answers}.items():
        found[f"in a script that was not held: {name}"] = rule.other(one.responses) != HELD
    return {name: (int(hit.sum()), len(hit)) for name, hit in found.items()}


def sources(data: dict[str, Slates], encoder: str) -> None:
    """Area under the ROC curve of a detector of one source on the other's last two parts."""
    halves = {
        name: (joined([part(one, 0), part(one, 1)]), joined([part(one, 2), part(one, 3)])) for name, one in data.items()
    }
    for name, (trained, _) in halves.items():
        detector = fit_detector(trained, features.encoder(encoder), ridges=(RIDGE * 10,))
        for other, (_, tested) in halves.items():
            value_C = scores(detector, tested.responses)[tested.response_C]
            print(f"trained on {name}, tested on {other}: {auc(value_C, ~tested.unsafe_C):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="minilm-4")
    parser.add_argument("--refusals", action="store_true", help="train on full refusals too")
    parser.add_argument("--rewritten", type=int, default=1000, help="unsafe texts of each rotation that are rewritten")
    parser.add_argument("--only", nargs="*", default=list(REWRITINGS), help="these rewritings alone")
    parser.add_argument("--tries", type=int, default=0)
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--sources", action="store_true")
    chosen = parser.parse_args()
    if chosen.sources:
        names = ("xstest_slates", "diasafety_slates", "dices_slates")
        sources({name: read_slates(str(chosen.data / f"{name}.parquet")) for name in names}, chosen.encoder)
        return
    data = read(chosen.data, chosen.also, chosen.refusals)
    found = []
    for number in range(PARTS):
        found.append(rotation(data, number, chosen.encoder, chosen.only, chosen.rewritten, chosen.tries))
        print(f"rotation {number}: {found[-1]}", flush=True)
    for name in found[0]:
        hits, of = (np.array([one[name][side] for one in found]) for side in (0, 1))
        each = " ".join(f"{100 * hit / many:.0f}" for hit, many in zip(hits, of, strict=True))
        print(f"{name:50s} {100 * hits.sum() / of.sum():5.1f} %  by cut: {each}  (of {of.sum()})")


if __name__ == "__main__":
    main()
