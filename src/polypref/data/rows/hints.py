"""A next step for a file without a needed column: a ``--columns`` that was tried on the file and reads it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import polars as pl

from polypref.data.feedback.signs import kind_of
from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source
from polypref.data.linting.problems import ProblemLog
from polypref.data.published import PUBLISHED
from polypref.data.rows import words
from polypref.data.rows.formats import canonical
from polypref.data.rows.labels import UnknownLabels
from polypref.data.rows.layouts import MissingColumn, find_layout, listed
from polypref.data.rows.roles import ENDINGS
from polypref.data.rows.survey import Survey
from polypref.data.rows.vocabulary import Told, told
from polypref.errors import PolyprefError

# Role -> what is in the names of columns that may play it.
NAMED: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("user", "annotator", "worker", "rater", "judge", "person", "participant", "labeler", "labeller", "reviewer"),
        *("author", "account", "customer", "evaluator", "completed", "distinct", "session", "email", "subject"),
        *("member", "name", "id"),
    ),
    "label": (
        "winner",
        "prefer",
        "label",
        "choice",
        "better",
        "best",
        "vote",
        "verdict",
        "select",
        "pick",
        "result",
        "won",
        "comparison",
        "overall",
        "safer",
    ),
    "prompt": ("prompt", "question", "query", "instruction", "input", "context", "request", "ask", "task", "message"),
    "chosen": ("chosen", "better", "prefer", "winner", "accept", "win", "best", "good"),
    "rejected": ("reject", "worse", "loser", "lose", "dispreferred", "worst", "bad", "other"),
    "response": ("response", "answer", "output", "completion", "reply", "text", "message"),
    "ranking": ("rank", "order"),
    "rating": (
        *("rating", "score", "star", "grade", "points", "quality", "csat", "nps", "satisf", "overall", "helpful"),
        *("value",),
    ),
}
THUMB = ("thumb", "like", "feedback", "helpful", "positive", "vote", "reaction", "sentiment", "event", "safe")
ENDS = {frozenset(ends) for ends in (*ENDINGS, ("x", "y"), ("one", "two"), ("l", "r"))}
NO_TEXT = ("id", "name", "score", "rating", "rank", "length", "tokens", "time", "generator", "system")
COLUMNS_OF = {  # published sets that are not read as they are, and columns that only they have
    "psoups": ("user_input", "completion_a", "completion_b"),
    "tldr": ("info", "summaries", "choice", "worker", "split"),
    "prism": ("user_prompt", "model_response", "within_turn_id", "if_chosen"),
    "personalllm": ("prompt", "response_8", "response_8_gemma_2b"),
    "community-alignment": ("annotator_id", "first_turn_prompt", "first_turn_preferred_response"),
    "helpsteer3": ("context", "response1", "response2", "overall_preference", "individual_preference"),
    "multipref": ("comparison_id", "normal_worker_annotations", "expert_worker_annotations"),
}
MOST_ROLES = 4
FEW_ROWS = 4  # from so many rows on, a column of ids that never repeat numbers rows and not people
MOST_TRIED = 20


def with_hint(
    error: MissingColumn, source: Source, columns: Mapping[str, str], said: Told, limits: Limits
) -> MissingColumn:
    """The same error with a ``--columns`` that works on the file, or the ``convert`` that reads it, if one is found."""
    product = kind_of(source.types)
    if (known := product[0] if product else _published(source, limits)) is not None:
        out = Path(source.path).with_suffix("").name + ".prefs.jsonl"
        command = f"polypref convert {known} {shlex.quote(source.path)} --out {shlex.quote(out)}"
        what = f"looks like {product[1]} of {product[0]}" if product else "is a published set"
        return error.advising(f"It {what}: {command}.")
    without = {role: name for role, name in columns.items() if role not in ("chosen", "rejected")}
    if without != columns and _works(source, without, said, limits):
        gone = " ".join(f"{role}={name}" for role, name in columns.items() if role not in without)
        advice = f"Leave {gone} out of --columns: the file says by a label who was chosen."
        return error.advising(advice)
    unclear: tuple[dict[str, str], str] | None = None
    for whole in (*_candidates(source, columns, error), *_candidates(source, without, error)):
        with_prompt = _with_prompt(source, whole)
        try:
            if _read(source, with_prompt, said, limits):
                return error.advising(f"Use --columns to map yours: --columns {_flags(with_prompt)}.")
        except UnknownLabels as unknown:
            offer = next((shlex.split(one)[1] for one in unknown.offers if "=" in one), "")
            if offer and not unclear and not said.text and _works(source, with_prompt, told(offer), limits):
                unclear = with_prompt, offer
        except (PolyprefError, StopIteration):
            continue
    if unclear is None:
        objects = [name for name in error.free if {"object", "list"} & set(source.types[name].split(" and "))]
        inside = f" Values within {listed(objects, 3)} are not looked into: write them to columns of their own."
        return error.advising(error.advice + inside * bool(objects))
    flags = f"--columns {_flags(unclear[0])} --labels {shlex.quote(unclear[1])}"
    return error.advising(f"Use --columns to map yours: {flags}, with the sides that are right.")


def _published(source: Source, limits: Limits) -> str | None:
    """The published set whose columns the file has, if it can be converted."""
    for name, columns in COLUMNS_OF.items():
        if set(columns) <= set(source.types):
            try:
                PUBLISHED[name]().convert([source.path], limits)
            except (PolyprefError, pl.exceptions.PolarsError):
                continue
            return name
    return None


def _flags(columns: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{role}={' '.join(name.split())}") for role, name in columns.items())


def _with_prompt(source: Source, columns: dict[str, str]) -> dict[str, str]:
    """The mapping with a column of prompts as well, if the file has one that is not found by itself."""
    layout = find_layout(source.path, source.types, columns)
    if "prompt" in columns or {"prompt", "chosen"} & set(layout.names):
        return columns
    prompts = [name for part in NAMED["prompt"] for name in layout.unused if _has(part, name) and _is_text(name)]
    return {**columns, "prompt": prompts[0]} if prompts else columns


def _candidates(source: Source, columns: Mapping[str, str], error: MissingColumn) -> Iterator[dict[str, str]]:
    """Mappings with which the file has a layout, the likeliest first."""
    tries: list[dict[str, str]] = [{}]
    if error.lacking == "ranking":
        tries += _for_role(error.lacking, list(error.free))
    tried = 0
    while tries and tried < MOST_TRIED:
        added = tries.pop(0)
        tried += 1
        try:
            find_layout(source.path, source.types, {**columns, **added})
        except MissingColumn as missing:
            if len(added) < MOST_ROLES:
                lacking = [missing.lacking, *(["response"] if missing.lacking == "chosen" and not added else [])]
                tries += [{**added, **more} for role in lacking for more in _for_role(role, list(missing.free))]
            continue
        except PolyprefError:
            continue
        if added:
            yield {**columns, **added}


def _for_role(lacking: str, free: list[str]) -> list[dict[str, str]]:
    """Columns that may play a role by their names: two responses go together."""
    texts = [name for name in free if _is_text(name)]
    pairs = [
        {"response_a": one, "response_b": other} for one, other in combinations(texts, 2) if _are_sides(one, other)
    ]
    if not pairs:
        pairs = _by_model(texts)
    if lacking in ("response_a", "response_b"):
        return pairs
    found = [{lacking: name} for part in NAMED.get(lacking, ()) for name in free if _has(part, name)]
    if lacking == "ranking":
        found += [{"label": name} for part in NAMED["label"] for name in free if _has(part, name)]
        found += [{"ratings": name} for part in NAMED["rating"] for name in free if _has(part, name)]
    if lacking == "rating":
        found += [{"thumb": name} for part in THUMB for name in free if _has(part, name)]
    if len(free) == 1 and not found:
        found = [{lacking: free[0]}]
    return pairs + found if lacking == "chosen" else found


def _by_model(texts: list[str]) -> list[dict[str, str]]:
    """gpt_response and claude_response: the only two names with a word for responses, of one form."""
    found = [name for name in texts if set(words.parts(name)) & set(NAMED["response"])]
    if len(found) != 2:
        return []
    one, other = map(words.parts, found)
    differ = sum(a != b for a, b in zip(one, other, strict=False))
    return [{"response_a": found[0], "response_b": found[1]}] if len(one) == len(other) > 1 and differ == 1 else []


def _is_text(name: str) -> bool:
    """Whether a column may hold texts by its name: model_1_response, but not model_1 or response_1_score."""
    parts = words.parts(name)
    only_model = any(part in ("model", "generator", "system") for part in parts) and not set(parts) & set(
        NAMED["response"]
    )
    return not only_model and not any(part in NO_TEXT for part in parts)


def _has(part: str, name: str) -> bool:
    parts = words.parts(name)
    return part in parts if len(part) < 4 else any(part in one for one in parts)


def _are_sides(one: str, other: str) -> bool:
    """answer_1 and answer_2: names that differ in one place, by the endings of sides."""
    left, right = words.parts(one), words.parts(other)
    differ = [ends for ends in zip(left, right, strict=False) if ends[0] != ends[1]]
    return len(left) == len(right) and len(left) > 1 and len(differ) == 1 and frozenset(differ[0]) in ENDS


def _works(source: Source, columns: Mapping[str, str], said: Told, limits: Limits) -> bool:
    """Whether ``_read`` says so, with a certain meaning of the labels."""
    try:
        return _read(source, columns, said, limits)
    except (PolyprefError, StopIteration):
        return False


def _read(source: Source, columns: Mapping[str, str], said: Told, limits: Limits) -> bool:
    """Whether most of the file's first rows can be read so, and not each of them is of another user.

    Raises PolyprefError where the file is refused, StopIteration where it is empty.
    """
    layout = find_layout(source.path, source.types, columns)
    layout, meanings = Survey(source, layout, said, columns, limits).decide()
    log = ProblemLog()
    batch = next(iter(source.batches(list(layout.names.values()), log)))
    rows = canonical(batch, layout, source.path, log, limits, meanings)
    counted_up = "user_id" in columns and FEW_ROWS <= rows.height == rows["user_id"].n_unique()
    return 2 * rows.height > batch.rows and not counted_up
