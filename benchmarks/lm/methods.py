"""The evaluation paper's eight methods on one language model: its three sets' worlds, real people, RAG, and the tax.

    python benchmarks/lm/methods.py --out runs/methods --model smollm2 [--size full] [--sets llmfao] [--parts table]

``judge``    RAG through HTTP against a scripted judge of known skill (``scripted_judge.py``).
``compare``  every method on every set: the ``finetune:`` learners with LoRA (rank 16, alpha 32), GPO and learners on
             frozen features on the model's last hidden states, RAG and the pre-trained row by its own answers.
``placebo``  the personal methods again on shuffled people, for --placebo-sets alone: it doubles their cost.
``tax``      base, pooled, individual, shuffled on an ability suite; the fits are those of ``compare`` and ``placebo``.
``table``    the paper's tables with its figures beside, from what is there.

Every cell and every fit is stored under --out, so a killed run goes on where it was. ``small`` shows that every method
runs and what it costs, and nothing about which is best: on a core shared with other work the four sets took 13, 37, 17
and 5 minutes, and all but psoups-like are left with one to eight questions in the test rows. ``full`` has the paper's
smallest size, 1,000 comparisons, and is meant for two quiet cores and three hours, which was not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import scripted_judge

from polypref import clean, compare, lint, read, simulate
from polypref.comparisons import Comparisons, from_columns
from polypref.data.benchmarks import Suite, read_suite
from polypref.evaluation.collect_results import collect
from polypref.evaluation.results_table import ResultTable
from polypref.evaluation.settings import Settings
from polypref.features.hf import HuggingFace
from polypref.files import write, write_json, write_table
from polypref.finetune import LEARNERS as TUNED
from polypref.finetune import Recipe
from polypref.learners import LEARNERS
from polypref.learners.pretrained import Pretrained
from polypref.learners.protocol import Learner
from polypref.learners.retrieval_judge import RetrievalJudge
from polypref.report.paper import legend, tables
from polypref.report.table import markdown
from polypref.report.tax import page, summary
from polypref.tax.arms import Task, base_scorer, fit_arms
from polypref.tax.measure import measure
from polypref.testing import Words

SETS = ("psoups-like", "llmfao", "personalllm-like", "tldr-like")
METHODS = ("pooled", "conditional", "personalized", "vpl", "individual")
OWN_PART = {"conditional": 6, "personalized": 1}  # tokens of the person, on top of the text's, so that all read as much
FROZEN = ("length", "pooled", "individual", "hierarchical", "gpo")
SKILLS = (0.5, 0.7, 0.9, 1.0)
WORDS = (
    "warm",
    "cold",
    "long",
    "short",
    "plain",
    "rich",
    "kind",
    "dry",
    "tea",
    "soup",
)  # of the scripted judge's texts
ERRS = 0.1  # how often the people of the scripted judge miss their own taste
PARTS = ("judge", "compare", "placebo", "tax", "table")


@dataclass(frozen=True)
class Amount:
    """How much of a set: people, judgements in all, and steps of 8 comparisons of each fit."""

    people: int
    judgements: int
    steps: int


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    sets: Mapping[str, Amount]
    tokens: int
    """Of each response that is read; prompts are not."""
    characters: int
    """Of each prompt and response that RAG shows."""
    asked: int
    """Tokens of a question to the pre-trained row."""
    items: int
    """Of each section of the ability suite."""
    taxed: int
    """People whose tax is measured."""
    workers: int


SMALL = {"psoups-like": Amount(6, 300, 16), "llmfao": Amount(3, 150, 8)}
SMALL |= {"personalllm-like": Amount(4, 160, 8), "tldr-like": Amount(3, 150, 8)}
FULL = {"psoups-like": Amount(6, 1250, 60), "llmfao": Amount(6, 1250, 60)}
FULL |= {"personalllm-like": Amount(8, 1250, 60), "tldr-like": Amount(5, 1250, 60)}
SIZES = {
    "small": Size(SMALL, tokens=32, characters=80, asked=160, items=25, taxed=2, workers=1),
    "full": Size(FULL, tokens=48, characters=300, asked=256, items=100, taxed=6, workers=2),
}


@dataclass(frozen=True)
class Bench:
    """One run's settings."""

    model: str
    size: Size
    data: Path
    out: Path

    @property
    def short(self) -> str:
        """The model's name in tables."""
        return Path(self.model).name

    @property
    def encoder(self) -> HuggingFace:
        """The model's own features: the last hidden state of the response's last token."""
        return HuggingFace(self.model, text="response", max_length=self.size.tokens, dtype="bfloat16")

    def recipe(self, name: str, method: str) -> Recipe:
        """The paper's LoRA, at this size."""
        return Recipe(
            backbone=self.model,
            steps=self.size.sets[name].steps,
            batch=8,
            looks=2,
            text="response",
            max_length=self.size.tokens + OWN_PART.get(method, 0),
            bf16=True,
            checkpoints=str(self.out / "fits"),
        )

    def tuned(self, name: str, method: str) -> Learner:
        """``finetune:METHOD`` on the model; one soft token, as the evaluation paper has."""
        learner = replace(TUNED[f"finetune:{method}"], recipe=self.recipe(name, method))
        return replace(learner, tokens=1) if method == "personalized" else learner

    def learners(self, name: str) -> dict[str, Learner]:
        """Every method; the last ones are fitted first."""
        size = self.size
        found: dict[str, Learner] = {name: LEARNERS[name] for name in FROZEN}
        found[f"pretrained:{self.short}"] = Pretrained(self.model, ask=True, max_length=size.asked, dtype="bfloat16")
        found[f"retrieval-judge:{self.short}"] = RetrievalJudge(
            self.model, characters=size.characters, dtype="bfloat16"
        )
        found |= {f"finetune:{method}:{self.short}": self.tuned(name, method) for method in METHODS}
        return found

    def judgements(self, name: str) -> Comparisons:
        """A world's first people's, or those of llmfao's people with most judgements, drawn at random."""
        amount = self.size.sets[name]
        if name != "llmfao":
            rows = simulate(name, judgements=amount.judgements // amount.people).comparisons
            return rows.take(np.flatnonzero(rows.user_N < amount.people))
        reading = read([str(self.data / "llmfao.parquet")])
        rows = clean(reading, lint(reading))
        most_U = np.argsort(-np.bincount(rows.user_N, minlength=len(rows.users)), kind="stable")[: amount.people]
        theirs = np.flatnonzero(np.isin(rows.user_N, most_U))
        return rows.take(np.sort(np.random.default_rng(0).permutation(theirs)[: amount.judgements]))

    def compare(self, name: str, placebo: bool) -> None:
        """All methods on one set; what is stored is not computed again."""
        started, cpu = time.perf_counter(), time.process_time()
        settings = Settings(seeds=1, placebo=placebo, workers=self.size.workers)
        compare(self.judgements(name), self.learners(name), self.encoder, out=self.out / name, settings=settings)
        told(f"{name}: {time.perf_counter() - started:.0f} s ({time.process_time() - cpu:.0f} of this process)")

    def tax(self, name: str) -> str:
        """The tax of the individual models on a part of the ability suite, in Markdown."""
        known = ",".join(f"{key}={value}" for key, value in sorted(_changed(self.recipe(name, "individual")).items()))
        base = f"hf:{self.model},ask=true,max_length={self.size.asked},dtype=bfloat16"
        arms = fit_arms(
            self.judgements(name),
            f"finetune:individual:{self.model},{known}",
            self.encoder,
            0,
            base_scorer(base),
        )
        found = measure(self._suite(), arms, Task(users=self.size.taxed))
        write_json(self.out / f"tax-{name}" / "tax.json", found)
        write(self.out / f"tax-{name}" / "tax.html", page(found))
        return summary(found)

    def _suite(self) -> Suite:
        """The same number of items of each section, drawn at random."""
        file = self.out / "suite.parquet"
        whole = pl.read_parquet(self.data / "ability_suite.parquet")
        drawn = whole.filter(pl.int_range(pl.len()).shuffle(seed=0).over("section") < self.size.items)
        write_table(file, drawn)
        return read_suite(str(file))


def judged(skill: float, out: Path) -> str:
    """RAG by a scripted judge behind HTTP: what is expected of it, and what ``compare`` measured."""
    rng = np.random.default_rng(0)
    people, each = 8, 250
    ids, texts, longer = [], [], []
    for person in range(people):
        for _ in range(each):
            few, many = sorted(rng.choice(np.arange(2, 12), 2, replace=False).tolist())
            ids.append(f"person {person}")
            texts.append([" ".join(rng.choice(WORDS, count)) for count in (few, many)])
            longer.append((person % 2 == 0) == (rng.random() >= ERRS))
    chosen = [pair[own] for pair, own in zip(texts, longer, strict=True)]
    rejected = [pair[not own] for pair, own in zip(texts, longer, strict=True)]
    rows = from_columns(ids, [f"question {at}" for at in range(len(ids))], chosen, rejected)
    running = scripted_judge.server(skill)
    Thread(target=running.serve_forever, daemon=True).start()
    try:
        judge = RetrievalJudge(f"http://127.0.0.1:{running.server_port}/v1#scripted")
        settings = Settings(seeds=1, placebo=False, workers=1, split="pair")
        results = compare(rows, {"retrieval-judge": judge}, Words(), out=out, settings=settings)
    finally:
        running.shutdown()
    row = ResultTable.of(results.content["rows"]).at("retrieval-judge")
    assert row is not None
    hoped = scripted_judge.expected(skill, ERRS)
    return f"| {skill} | {hoped:.3f} | {row.value:.3f} ({row.lo:.3f} to {row.hi:.3f}) | {row.n_comparisons} |"


def _changed(recipe: Recipe) -> dict[str, str]:
    """The recipe's settings that are not the default's, as they stand in a learner's name."""
    plain = asdict(Recipe())
    changed = {key: value for key, value in asdict(recipe).items() if value != plain[key] and key != "backbone"}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in changed.items()}


def told(line: str) -> None:
    """To standard error: standard output has the tables."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2", help="a name that polypref knows, a folder, or a hub name")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--placebo-sets", nargs="*", choices=SETS, default=["llmfao"])
    parser.add_argument("--tax-set", choices=SETS, default="llmfao")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POLYPREF_DATA", "../shared/data")))
    args = parser.parse_args()
    bench = Bench(args.model, SIZES[args.size], args.data, args.out)
    if "judge" in args.parts:
        print("| skill | expected | measured (95 % interval) | judgements |\n|---|---|---|---|")
        for skill in SKILLS:
            print(judged(skill, args.out / "judge" / str(skill)), flush=True)
    for part, sets in (("compare", args.sets), ("placebo", args.placebo_sets)):
        for name in sets if part in args.parts else ():
            bench.compare(name, placebo=part == "placebo")
    if "tax" in args.parts:
        print(bench.tax(args.tax_set), flush=True)
    if "table" in args.parts:
        there = [f"{name}={args.out / name}" for name in SETS if (args.out / name / "results.json").exists()]
        text = markdown(tables(collect(there)), legend(True), True)
        write(args.out / "tables.md", text)
        print(text)


if __name__ == "__main__":
    main()
