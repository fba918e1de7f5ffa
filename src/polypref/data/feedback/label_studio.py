"""Label Studio: pairwise projects, exported as JSON, JSON-MIN or CSV.

An annotation is one comparison: ``selected`` left or right of a Pairwise tag, or a choice that names a side or a tie.
``completed_by`` (a number or an account) is the user; cancelled annotations are left out; ``lead_time`` is kept as the
seconds that it took. The two answers stand under names that the project's label config gives: ``label_config`` names a
file with it. Without one they are the fields that the Pairwise tag names, or two fields of usual names (``answer1`` and
``answer2``, ``response_a`` and ``response_b``, ``text1`` and ``text2``). Predictions are models' (``judges="models"``).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polypref.data.feedback.judgements import SAME, Judgements, as_value, finished, time_of
from polypref.data.feedback.records import Export, Record, get, id_of, objects
from polypref.data.feedback.signs import is_kind, refusal
from polypref.data.feedback.texts import answer_of, prompt_of
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of
from polypref.data.rows.roles import ALIASES, ENDINGS, PAIRED
from polypref.data.rows.words import Said, meaning
from polypref.errors import InputError
from polypref.regular_files import content_of

NO_SIDES = "the two answers are not found; --label-config FILE says under which names they are"
NO_CHOICE = "no side was chosen"
PAIRS = (
    *(
        (f"{name}{gap}{one}", f"{name}{gap}{other}")
        for name in ("text", "item")
        for gap in ("", "_")
        for one, other in ENDINGS
    ),
    *(("left", "right"), ("a", "b"), *PAIRED),
)
LEFT = {
    "annotators": "a model's prediction; --judges models writes these",
    "models": "by an annotator; --judges annotators writes these",
}


@dataclass(frozen=True)
class Names:
    """Where the texts of a task are: from the label config, as far as it says."""

    sides: tuple[str, str] | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class One:
    """An annotation with the data that it is about."""

    id: str | None
    user: str | None
    data: Mapping[str, Any]
    result: Any
    task: str | None
    seconds: float | None
    time: str | None
    cancelled: bool
    by_model: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """Comparisons of annotators. ``label_config``: a file with the project's; ``judges`` annotators or models."""

    judges: str = "annotators"
    label_config: str = ""
    prompt_field: str = ""

    def __post_init__(self) -> None:
        one_of("judges of label-studio", self.judges, tuple(LEFT))

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another product or a label config without a Pairwise tag, NotEnoughData."""
        names = _names_in(self.label_config) if self.label_config else Names()
        export = Export(paths, limits)
        found = Judgements()
        last: dict[str, tuple[int, One]] = {}
        seen = False
        for record in export:
            members = None if record is None else _annotations(record)
            if members is None:
                found.next()
                found.leave("not a task with annotations")
                continue
            seen = True
            if not members:
                found.next()
                found.leave("a task without annotations")
            for one in members:
                _keep(found.next(), one, last, found)
        if not seen:
            raise refusal(export, "label-studio", "tasks")
        for number, one in last.values():
            self._pair(number, one, names, found)
        return finished(f"Label Studio, {self.judges}", found, "pairs")

    def _pair(self, number: int, one: One, names: Names, found: Judgements) -> None:
        reasons = {LEFT[self.judges]: one.by_model == (self.judges == "annotators"), "cancelled": one.cancelled}
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        chosen, told = _chosen(one.result)
        sides = names.sides or _sides(one.data, told)
        reason = reason or (None if chosen else NO_CHOICE) or (None if sides else NO_SIDES)
        if reason is not None or chosen is None or sides is None:
            found.leave(reason or NO_SIDES)
            return
        asked = self.prompt_field or names.prompt or next((name for name in ALIASES["prompt"] if name in one.data), "")
        prompt = prompt_of(get(one.data, asked))
        left, right = (answer_of(get(one.data, name)) for name in sides)
        if found.lacking(one.user, prompt, left, right):
            return
        better, worse = (right, left) if chosen == "B" else (left, right)
        more = {"tie": chosen == "tie", "pair_id": one.task, "timestamp": one.time, "seconds": one.seconds}
        more["shown_first"] = "rejected" if chosen == "B" else "chosen"  # the first one is shown on the left
        if not found.pair(number, str(one.user), str(prompt), str(better), str(worse), **more):
            found.leave(SAME)


def _annotations(record: Record) -> list[One] | None:
    """The annotations of a task, or of a row of JSON-MIN or CSV; None where a record is neither."""
    if is_kind(record, "label-studio", "tasks") and isinstance(record.get("data"), Mapping):
        return [
            _one(record, one, model)
            for name, model in (("annotations", False), ("completions", False), ("predictions", True))
            for one in objects(record.get(name))
        ]
    if is_kind(record, "label-studio", "rows of JSON-MIN or CSV"):
        one = {**record, "completed_by": record.get("annotator"), "id": record.get("annotation_id")}
        return [_one({"id": record.get("id"), "data": record}, one, False)]
    return None


def _one(task: Record, one: Mapping[str, Any], by_model: bool) -> One:
    who = get(one, "completed_by", "model_version")
    user = get(who, "email", "id", "username") if isinstance(who, Mapping) else who
    number = id_of(get(one, "id"))
    return One(
        id=None if number is None else f"{'p' if by_model else 'a'} {number}",
        user=id_of(user) if user is not None or not by_model else "model",
        data=task["data"],
        result=one["result"] if isinstance(one.get("result"), list) else one,
        task=id_of(get(task, "id")),
        seconds=None if by_model else as_value(get(one, "lead_time")),
        time=time_of(get(one, "updated_at", "created_at")),
        cancelled=str(get(one, "was_cancelled")).lower() == "true",
        by_model=by_model,
    )


def _keep(number: int, one: One, last: dict[str, tuple[int, One]], found: Judgements) -> None:
    """Keep the latest of the records of one annotation: pages of an API may repeat."""
    key = one.id or f"record {number}"
    if key in last:
        before = last[key][1]
        found.replaced(same=before == one)
        if before.time is not None and one.time is not None and one.time < before.time:
            return
        del last[key]
    last[key] = (number, one)


def _chosen(result: Any) -> tuple[str | None, tuple[str, ...]]:
    """The side (A, B or tie) that a result chooses, and the names of what was compared, if it says them."""
    sides: list[tuple[str, tuple[str, ...]]] = []
    for item in _items(result):
        value = item.get("value") if isinstance(item.get("value"), Mapping) else item
        assert isinstance(value, Mapping)
        choices = value.get("choices")
        said = value.get("selected") or (choices[0] if isinstance(choices, list) and len(choices) == 1 else choices)
        found = meaning(said) if isinstance(said, str) else None
        if isinstance(found, Said):
            told = item.get("to_name")
            sides.append((found.side, tuple(map(str.strip, told.split(","))) if isinstance(told, str) else ()))
    return sides[0] if len(sides) == 1 else (None, ())


def _items(result: Any) -> Iterator[Mapping[str, Any]]:
    """The items of a result; in JSON-MIN each stands under the name of its tag, as a text, an object or a list."""
    if isinstance(result, list):
        yield from (one for one in result if isinstance(one, Mapping))
        return
    for name, value in result.items():
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, Mapping) and ("selected" in one or "choices" in one):
                yield one
            elif name not in ("id", "annotator", "prompt") and isinstance(one, str) and one in ("left", "right"):
                yield {"selected": one}


def _sides(data: Mapping[str, Any], told: tuple[str, ...]) -> tuple[str, str] | None:
    """The fields of the two answers: those that the result names, or the only two of usual names."""
    if len(told) == 2 and all(name in data for name in told):
        return told[0], told[1]
    return next((pair for pair in PAIRS if all(name in data for name in pair)), None)


def _names_in(path: str) -> Names:
    """The fields that a label config's Pairwise tag compares. Raises InputError where it has none."""
    try:
        root = ET.fromstring(content_of(path, 1 << 20))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except ET.ParseError as error:
        raise InputError(f"{path} is not XML ({error}); expected the project's label config.") from error
    field_of = {
        one.get("name", ""): one.get("value", "")[1:] for one in root.iter() if one.get("value", "").startswith("$")
    }
    tag = next((one for one in root.iter() if one.tag.lower() == "pairwise"), None)
    compared = [] if tag is None else [name.strip() for name in tag.get("toName", "").split(",")]
    if len(compared) != 2 or not all(name in field_of for name in compared):
        raise InputError(f"{path} has no Pairwise tag that compares two fields; expected the project's label config.")
    others = [name for tag_name, name in field_of.items() if tag_name not in compared]
    usual = [name for name in others if name in ALIASES["prompt"]]
    prompt = next(iter(usual), others[0] if len(others) == 1 else None)
    return Names((field_of[compared[0]], field_of[compared[1]]), prompt)
