"""A next step for a file without a needed column: a ``--columns`` that was tried on the file and reads it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from itertools import combinations

from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source
from polypref.data.linting.problems import ProblemLog
from polypref.data.rows import words
from polypref.data.rows.formats import canonical
from polypref.data.rows.layouts import ENDINGS, MissingColumn, find_layout
from polypref.data.rows.survey import Survey
from polypref.data.rows.vocabulary import Told
from polypref.errors import PolyprefError

# Role -> what is in the names of columns that may play it.
NAMED: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("user", "annotator", "worker", "rater", "judge", "person", "participant", "labeler", "labeller", "reviewer"),
        *("author", "account", "customer", "evaluator", "session", "email", "subject", "member", "name", "id"),
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
    ),
    "chosen": ("chosen", "better", "prefer", "winner", "accept", "win", "best", "good"),
    "rejected": ("reject", "worse", "loser", "lose", "dispreferred", "worst", "bad", "other"),
    "response": ("response", "answer", "output", "completion", "reply", "text", "message"),
    "rating": ("rating", "score", "star", "grade", "points", "quality", "thumb", "like"),
}
ENDS = {frozenset(ends) for ends in (*ENDINGS, ("x", "y"), ("one", "two"), ("l", "r"))}
NO_TEXT = ("model", "id", "name", "score", "rating", "rank", "length", "tokens", "time", "generator", "system")
MOST_ROLES = 4
MOST_TRIED = 20


def with_hint(
    error: MissingColumn, source: Source, columns: Mapping[str, str], said: Told, limits: Limits
) -> MissingColumn:
    """The same error with a ``--columns`` that works on the file, if one is found."""
    without = {role: name for role, name in columns.items() if role not in ("chosen", "rejected")}
    if without != columns and _works(source, without, said, limits):
        gone = " ".join(f"{role}={name}" for role, name in columns.items() if role not in without)
        advice = f"Leave {gone} out of --columns: the file says by a label who was chosen."
        return error.advising(advice)
    for whole in (*_candidates(source, columns, MOST_TRIED), *_candidates(source, without, MOST_TRIED)):
        if _works(source, whole, said, limits):
            flags = " ".join(shlex.quote(f"{role}={' '.join(name.split())}") for role, name in whole.items())
            return error.advising(f"Use --columns to map yours: --columns {flags}.")
    return error


def _candidates(source: Source, columns: Mapping[str, str], most: int) -> Iterator[dict[str, str]]:
    """Mappings with which the file has a layout, the likeliest first."""
    tries: list[dict[str, str]] = [{}]
    tried = 0
    while tries and tried < most:
        added = tries.pop(0)
        tried += 1
        try:
            find_layout(source.path, source.types, {**columns, **added})
        except MissingColumn as missing:
            if len(added) < MOST_ROLES:
                tries += [{**added, **more} for more in _for_role(missing.lacking, list(missing.free))]
            continue
        except PolyprefError:
            continue
        if added:
            yield {**columns, **added}


def _for_role(lacking: str, free: list[str]) -> list[dict[str, str]]:
    """Columns that may play a role by their names: two responses go together."""
    texts = [name for name in free if not any(part in NO_TEXT for part in words.parts(name))]
    pairs = [
        {"response_a": one, "response_b": other} for one, other in combinations(texts, 2) if _are_sides(one, other)
    ]
    if lacking in ("response_a", "response_b"):
        return pairs
    found = [{lacking: name} for part in NAMED.get(lacking, ()) for name in free if _has(part, name)]
    if len(free) == 1 and not found:
        found = [{lacking: free[0]}]
    return pairs + found if lacking == "chosen" else found


def _has(part: str, name: str) -> bool:
    parts = words.parts(name)
    return part in parts if len(part) < 4 else any(part in one for one in parts)


def _are_sides(one: str, other: str) -> bool:
    """answer_1 and answer_2: names that differ in one place, by the endings of sides."""
    left, right = words.parts(one), words.parts(other)
    differ = [ends for ends in zip(left, right, strict=False) if ends[0] != ends[1]]
    return len(left) == len(right) and len(left) > 1 and len(differ) == 1 and frozenset(differ[0]) in ENDS


def _works(source: Source, columns: Mapping[str, str], said: Told, limits: Limits) -> bool:
    """Whether most of the file's first rows can be read so, with a certain meaning of its labels."""
    try:
        layout = find_layout(source.path, source.types, columns)
        layout, meanings = Survey(source, layout, said, columns, limits).decide()
        log = ProblemLog()
        batch = next(iter(source.batches(list(layout.names.values()), log)))
        rows = canonical(batch, layout, source.path, log, limits, meanings).height
    except (PolyprefError, StopIteration):
        return False
    return 2 * rows > batch.rows
