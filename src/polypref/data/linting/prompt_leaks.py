"""Prompts that reveal the preference: questions with instructions that say what the user wants.

In P-SOUPS (Jang et al. 2023, arXiv 2310.11564) each simulated user's prompts end in that user's preference, as in
"Generate a response that can be easily understood by an elementary school student.": a model can read it in the prompt
and need not know the user. The check searches for opening or closing sentences that recur with other prompts: at least
two of them, and either each user has mostly one of them, or they request a kind of response and recur on the same
question. Not covered: instructions paraphrased from prompt to prompt.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from polypref.data.linting.findings import Inspection
from polypref.data.rows.messages import text_of
from polypref.wording import shown

CLOSING = r"(?s)^(.*?[.?!:\n。？！])\s*([^.?!\n。？！]+[.?!。？！]*)\s*$"
OPENING = r"(?s)^\s*([^.?!\n。？！]+[.?!\n。？！]+)(.+)$"
ASKS = (
    r"(?i)\b(respon[ds]\w*|answer\w*|repl\w+|generate|explain\w*|write|use|be|in) "
    r".*\b(that|as|like|style|manner|tone|to)\b"
)
LEAST_WORDS = 3
ONE_EACH = 0.9  # share of a user's prompts with their most frequent instruction


def look(job: Inspection) -> None:
    """Add a finding if prompts contain instructions that depend on the user or vary over one question."""
    d = job.data
    prompts = d.responses.prompts
    if d.responses.chat_P is not None and d.responses.chat_P.any():
        chat = pl.Series(d.responses.chat_P)
        contents = [text_of(json.loads(prompt)) for prompt in prompts.filter(chat)]
        # scatter writes into its series
        prompts = prompts.clone().scatter(np.flatnonzero(d.responses.chat_P), pl.Series(contents, dtype=pl.String))
    used = np.unique(d.responses.prompt_R[d.chosen_N[~job.dropped_N]]).astype(np.int32)
    prompts = prompts.gather(used)
    for pattern, stem, instruction in ((CLOSING, 1, 2), (OPENING, 2, 1)):
        parts = pl.DataFrame({"p": used}).with_columns(
            stem=prompts.str.extract(pattern, stem).str.strip_chars(),
            said=prompts.str.extract(pattern, instruction).str.strip_chars(),
        )
        if _leaks(job, parts):
            return


def _leaks(job: Inspection, parts: pl.DataFrame) -> bool:
    d = job.data
    parts = parts.drop_nulls().filter(pl.col.said.str.count_matches(r"\S+") >= LEAST_WORDS, pl.col.stem != "")
    parts = parts.filter(pl.col.stem.n_unique().over("said") >= 2)
    if parts["said"].n_unique() < 2:
        return False
    varied = parts.filter(pl.col.said.n_unique().over("stem") >= 2)
    asking = varied.filter(pl.col.said.str.contains(ASKS))
    if _goes_with_users(job, parts):
        found, text = parts, "each user's prompts have one instruction, so the prompt reveals the user"
    elif asking["said"].n_unique() >= 2:
        found, text = asking, "the same question has different instructions, so the prompt reveals what is wanted"
    else:
        return False
    leaky_P = np.zeros(len(d.responses.prompts), bool)
    leaky_P[found["p"].to_numpy()] = True
    prompt_N = d.responses.prompt_R[d.chosen_N]
    leaky_N = leaky_P[prompt_N] & ~job.dropped_N
    if not leaky_N.any():
        return False
    row = int(np.argmax(leaky_N))
    said = found.filter(pl.col.p == prompt_N[row])["said"][0]
    example = f"the prompt says {shown(said, 90)}"
    seen = (int(leaky_P.sum()), len(np.unique(prompt_N[~job.dropped_N])), "prompts")
    job.note("preference in the prompt", seen, "counted", text, row, example)
    return True


def _goes_with_users(job: Inspection, parts: pl.DataFrame) -> bool:
    """Whether nearly all prompts of nearly every user have one instruction, but several over all users."""
    d = job.data
    prompt_N = d.responses.prompt_R[d.chosen_N]
    seen = pl.DataFrame({"user": d.user_N, "p": prompt_N}).filter(~pl.Series(job.dropped_N)).unique()
    total = seen.group_by("user").len()
    said = seen.join(parts.select("p", "said"), on="p")
    per_user = said.group_by("user", "said").len("most").group_by("user").agg(pl.col.most.max())
    users = total.join(per_user, on="user", how="left").filter(pl.col.len >= 2)
    if users.height < 2:
        return False
    pure = users.select((pl.col.most.fill_null(0) / pl.col.len >= ONE_EACH).mean()).item()
    largest = said["said"].value_counts(normalize=True)["proportion"].max()
    return pure >= ONE_EACH and float(largest) <= ONE_EACH  # type: ignore[arg-type]
