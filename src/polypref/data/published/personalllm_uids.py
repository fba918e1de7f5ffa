"""The evaluation paper's own file of PersonalLLM: judgements of eight numbered people, and which models they are.

RiverDong/Personal-LLM-DPO has the columns of its P-SOUPS (uid, prompt, chosen, rejected). Neither paper nor code says
which eight of the ten reward models the uids are. Given together with the scored answers of namkoong-lab/PersonalLLM,
each uid's choices are compared with every model's scores of the same two answers: an agreement near 1 names the model.

Suffixes here: ``_M`` reward models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import polars as pl

from polypref.data.published.rows import Converted, File, Selection, per_cent, stack, typed
from polypref.wording import counted

COLUMNS = ("uid", "prompt", "chosen", "rejected")
SURE = 0.95  # agreement from which a uid is a model


def of_uids(files: Sequence[File], scored: pl.DataFrame | None, models: Sequence[str]) -> Converted:
    """The judgements in ``files``; with ``scored`` answers (prompt, response_i, response_i_{model}) also who is who."""
    whole = stack([typed(file, file.need("PersonalLLM", *COLUMNS), dict.fromkeys(COLUMNS, "text")) for file in files])
    selection = Selection(whole.rename({"uid": "user_id"}))
    selection.drop("no uid", pl.col.user_id.is_null())
    remarks = ["simulated people: the labels follow reward models' scores and never contradict themselves"]
    columns: tuple[str, ...] = ()
    if scored is None:
        remarks.append(
            "which reward model a uid is, is not published: give the scored answers (namkoong-lab/PersonalLLM) too, "
            "and each uid's choices are compared with every model's scores"
        )
    else:
        lines, model_of = who_is_who(selection.frame, scored, models)
        remarks += lines
        told = {user: json.dumps({"model": model}) for user, model in model_of.items()}
        selection.frame = selection.frame.with_columns(
            attributes=pl.col.user_id.replace_strict(told, default=None, return_dtype=pl.String)
        )
        columns = ("attributes",)
    title = f"PersonalLLM, {counted(selection.frame['user_id'].n_unique(), 'numbered people')} of the evaluation paper"
    return selection.finish(title, whole.height, remarks, columns)


def who_is_who(judged: pl.DataFrame, scored: pl.DataFrame, models: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """A sentence for each uid, and the model of each uid whose choices agree with it."""
    both = _with_scores(judged, scored, models)
    if both.is_empty():
        return ["none of the judged pairs is among the scored answers: which model a uid is cannot be told"], {}
    lines, model_of = [], {}
    for (user,), rows in both.group_by("user_id", maintain_order=True):
        gap_NM = rows.select(pl.col(f"{name}_chosen") - pl.col(f"{name}_rejected") for name in models).to_numpy()
        agreed_M = np.where(gap_NM == 0, 0.5, gap_NM > 0).mean(axis=0)
        best, second = np.argsort(-agreed_M)[:2]
        pairs = counted(rows.height, "pairs")
        share = f"its scores agree with {per_cent(agreed_M[best], 1)} of {pairs}"
        rest = f"next {models[second]} {per_cent(agreed_M[second], 1)}"
        if agreed_M[second] >= SURE:
            verdict = f"is {models[best]} or {models[second]}: {share}"
        elif agreed_M[best] >= SURE:
            model_of[str(user)] = models[best]
            verdict = f"is {models[best]}: {share}"
        else:
            least = int(agreed_M.argmin())
            verdict = f"is none of the models; of {models[best]} {share}"
            rest = f"least {models[least]} {per_cent(agreed_M[least], 1)}"  # a cost of the other sign is near 0 %
        lines.append(f"uid {user} {verdict} ({rest})")
    left = judged.height - both.height
    if left:
        lines.append(f"{left:,} of {judged.height:,} judged pairs are not among the scored answers")
    return sorted(lines), model_of


def _with_scores(judged: pl.DataFrame, scored: pl.DataFrame, models: Sequence[str]) -> pl.DataFrame:
    """The judgements whose two answers are scored, with {model}_chosen and {model}_rejected."""
    answers = sorted(name for name in scored.columns if name.removeprefix("response_").isdigit())
    long = pl.concat(
        scored.select(
            pl.col.prompt.str.strip_chars(),
            pl.col(answer).str.strip_chars().alias("text"),
            *(pl.col(f"{answer}_{name}").cast(pl.Float64).alias(name) for name in models),
        )
        for answer in answers
    ).unique(["prompt", "text"], keep="first", maintain_order=True)
    found = judged.with_columns(pl.col("prompt", "chosen", "rejected").str.strip_chars())
    for side in ("chosen", "rejected"):
        named = long.rename({"text": side, **{name: f"{name}_{side}" for name in models}})
        found = found.join(named, on=["prompt", side], how="inner", maintain_order="left")
    return found.drop_nulls()
