"""The evaluation paper's protocol on its three sets: which judgements take part, and what measuring them will cost.

Dong, Hu, Liu, Üstün & Collier 2025: P-SOUPS, TL;DR (protocol S) and PersonalLLM, each at three numbers of training
comparisons of all people together, new people on PersonalLLM, and the tax on RewardBench. Changed: whole prompts are
held out, with all answers and whoever judged them (one prompt of PersonalLLM makes four pairs for each of eight people,
and people of P-SOUPS judge the same pairs); rows are drawn at random under several seeds; and of a set that is larger
than its largest size needs, whole prompts are left out, in the order of a hash of their text.

Covered: rows, texts, cells and seconds before anything is measured, from a sample that is really encoded and fitted.
Not covered: the reports' own time, and learners whose time does not grow in step with the rows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.published import PUBLISHED, Adapter
from polypref.data.published.tldr import TLDR
from polypref.data.read import read
from polypref.errors import PolyprefError
from polypref.features.encode_once import encode_once
from polypref.features.protocol import Encoder
from polypref.files import temporary, write_table
from polypref.learners.protocol import Learner, log_odds
from polypref.progress import duration
from polypref.wording import counted

TRAIN_SHARE = 0.8  # of the prompts, give or take
SAMPLE = 400  # rows that are fitted to see what a learner costs


@dataclass(frozen=True)
class PaperSet:
    """How a set of the paper is converted, and the hub's own Parquet copy of it."""

    adapter: Adapter
    hub: tuple[str, ...]


SETS: dict[str, PaperSet] = {
    "psoups": PaperSet(
        PUBLISHED["psoups"](), ("hf://datasets/RiverDong/psoups@refs/convert/parquet/default/*/*.parquet",)
    ),
    "tldr": PaperSet(
        TLDR("S"),
        ("hf://datasets/openai/summarize_from_feedback@refs/convert/parquet/comparisons/*/*.parquet",),
    ),
    "personalllm": PaperSet(
        PUBLISHED["personalllm"](),
        ("hf://datasets/RiverDong/Personal-LLM-DPO@refs/convert/parquet/default/*/*.parquet",),
    ),
}
SUITE = "hf://datasets/allenai/reward-bench@refs/convert/parquet/default/filtered/*.parquet"
METHODS = ("pooled", "conditional", "individual", "vpl", "gpo", "personalized")
ROUTES = ("individual", "similar-user-accuracy", "similar-user-agreement", "further-fine-tuning", "gpo")
TAXED = ("individual", "conditional")


def cut(table: pl.DataFrame, sizes: Sequence[int]) -> tuple[pl.DataFrame, tuple[int, ...]]:
    """The rows of as many prompts as training on the largest size needs, and the sizes that they can give.

    Prompts come in the order of a hash of their text, so that a smaller cut is a part of a larger one.
    """
    count_P = table.group_by("prompt").len("rows")
    keys = [hashlib.sha256(prompt.encode()).digest() for prompt in count_P["prompt"]]
    ordered = count_P.with_columns(key=pl.Series(keys, dtype=pl.Binary)).sort("key")
    each_P = ordered["rows"].to_numpy().astype(np.int64)
    total_P = each_P.cumsum()
    least_P = _at_least(total_P, (each_P**2).sum() / total_P[-1])
    enough_P = np.flatnonzero(least_P >= max(sizes))
    last = int(enough_P[0]) if len(enough_P) else len(each_P) - 1
    rows = table.join(ordered[: last + 1].select("prompt"), on="prompt", how="semi", maintain_order="left")
    return rows, tuple(size for size in sizes if size <= least_P[last])


def _at_least(rows_P: NDArray[np.int64], together: float) -> NDArray[np.int64]:
    """Training rows that a split by prompt leaves of so many rows, less four standard deviations.

    ``together``  rows that go to one side together, on average over rows.
    """
    spread_P = (TRAIN_SHARE * (1 - TRAIN_SHARE) * rows_P * together) ** 0.5
    return (TRAIN_SHARE * rows_P - 4 * spread_P).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Work:
    """What is measured on one set: ``sizes`` and all the data, ``routes`` for new people (none: not measured)."""

    name: str
    table: pl.DataFrame
    sizes: tuple[int, ...]
    learners: Mapping[str, Learner]
    routes: Mapping[str, Learner]
    taxed: Sequence[str]
    seeds: int


@dataclass
class Estimate:
    """The cost of one set: counts, and seconds of one core where they could be measured."""

    name: str
    rows: int
    texts: int
    people: int
    cells: int = 0
    encoding: float = 0.0
    fitting: float = 0.0
    unmeasured: list[str] = field(default_factory=list)

    def sentence(self, cores: int) -> str:
        """The estimate in one line."""
        took = f"about {duration(self.encoding)} to encode and {duration(self.fitting)} of one core to fit"
        whole = duration(self.encoding + self.fitting / cores)
        unknown = f"; not known for {', '.join(self.unmeasured)}" if self.unmeasured else ""
        return (
            f"{self.name}: {counted(self.rows, 'judgements')} of {counted(self.people, 'people')}, "
            f"{counted(self.texts, 'texts')}, {counted(self.cells, 'cells')}; {took}, {whole} with "
            f"{counted(cores, 'cores')}{unknown}"
        )


def estimate(work: Work, encoder: Encoder) -> Estimate:
    """What ``work`` costs, from a sample that is encoded and fitted; time is taken to grow with the rows.

    That is too much for learners with a bound on their steps, and too little where the sample's texts were known.
    """
    table = work.table
    texts = pl.concat([table[side].alias("text") for side in ("chosen", "rejected")])
    found = Estimate(work.name, table.height, texts.n_unique(), table["user_id"].n_unique())
    train = round(TRAIN_SHARE * table.height)
    with temporary() as folder:
        sampled = table.sample(min(SAMPLE, table.height), seed=0, shuffle=True)
        write_table(folder / "sample.parquet", sampled)
        comparisons = read([folder / "sample.parquet"]).comparisons
        started = time.perf_counter()
        encoded = encode_once(encoder, comparisons.responses, folder)
        per_text = (time.perf_counter() - started) / len(comparisons.responses)
        found.encoding = per_text * found.texts
        row_N = np.random.default_rng(0).permutation(len(comparisons))
        parts = [comparisons.take(rows) for rows in np.split(row_N, [int(0.7 * len(row_N)), int(0.85 * len(row_N))])]
        for name, learner in {**work.learners, **work.routes}.items():
            grid = [*work.sizes, train] if name in work.learners else []
            try:
                started = time.perf_counter()
                scorer = learner.fit(parts[0], encoder=encoded, seed=0, valid=parts[1])
                log_odds(scorer, parts[2])
                took = time.perf_counter() - started
            except PolyprefError:
                found.unmeasured.append(name)
                found.cells += len(grid) * work.seeds
                continue
            grid += [train] * (bool(grid) and scorer.serves != "population")  # on shuffled users
            grid += [train] * (name in work.routes)
            found.cells += len(grid) * work.seeds
            grid_runs = work.seeds * sum(max(1.0, size / len(parts[0])) for size in grid)
            tax_runs = 3 * max(1.0, table.height / len(parts[0])) * (name in work.taxed)
            found.fitting += took * (grid_runs + tax_runs)
    return found
