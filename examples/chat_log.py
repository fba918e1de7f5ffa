"""A chat product's log with known truth: 24 people, three in four of one taste, every fourth of the opposite one.

python examples/chat_log.py log.csv

Each row is a question that was answered twice, and which answer the person preferred: 1 or 2. No two people
saw the same pair.
"""

from __future__ import annotations

import sys

import polars as pl

import polypref


def rows() -> pl.DataFrame:
    """One row per judgement; the preferred answer stands first in half of them."""
    comparisons = polypref.simulate("two-tastes", users=24, judgements=40, judges=1, seed=0).comparisons
    responses = comparisons.responses
    chosen, rejected = (responses.texts_R.gather(n) for n in (comparisons.chosen_N, comparisons.rejected_N))
    first = pl.Series([n % 2 == 0 for n in range(len(comparisons))])
    return pl.DataFrame(
        {
            "annotator": comparisons.users.ids.gather(comparisons.user_N),
            "question": responses.prompts.gather(responses.prompt_R[comparisons.chosen_N]),
            "answer_1": chosen.zip_with(first, rejected),
            "answer_2": rejected.zip_with(first, chosen),
            "preferred": first.replace_strict({True: 1, False: 2}, return_dtype=pl.Int64),
        }
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected one file to write: python examples/chat_log.py log.csv")
    table = rows()
    table.write_csv(sys.argv[1])
    print(f"{len(table)} judgements written to {sys.argv[1]}")
