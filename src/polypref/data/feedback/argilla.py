"""Argilla: responses of annotators to rankings, ratings and choices, of versions 1 and 2.

Records of the API and of ``dataset.records.to_json`` or ``to_list`` (nested or flat), and data sets (``to_datasets``,
``FeedbackDataset.format_as("datasets")``) as JSON lines, CSV or Parquet. Read are submitted responses only; nested
records of version 2 do not say which those are, and a note says so. A ranking compares its answers, equal ranks are a
tie; a rating is of the field that its question's name holds (``response-1`` of ``response-1-rating``), or of the only
answer; a choice names a field, a side or a tie. Suggestions are models'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from polypref.data.feedback.joined import FORMS
from polypref.data.feedback.judgements import SAME, Judgements, as_value, finished, one_name, time_of
from polypref.data.feedback.records import Export, Record, get, id_of, objects
from polypref.data.feedback.signs import is_kind, refusal
from polypref.data.feedback.texts import answer_of, prompt_of
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of
from polypref.data.rows.roles import ALIASES
from polypref.data.rows.words import Said, meaning
from polypref.wording import counted

UNKNOWN = "unknown"  # the status of a response that says none
STATUSES = ("draft", "discarded", "pending")
UNSURE = "not known to be submitted: {}, which may be drafts; to_datasets() and to_list(flatten=True) export the status"
NOT_COMPARING = "an answer to a question that ranks, rates or chooses no answer"
NO_FIELDS = "a ranking or choice of names that are no fields"
LEFT = {
    "annotators": "a model's suggestion; --judges models writes these",
    "models": "by an annotator; --judges annotators writes these",
}
ENDINGS = (
    *(".responses", ".responses.users", ".responses.status", ".suggestion", ".suggestion.score", ".suggestion.agent"),
    *("-suggestion", "-suggestion-metadata"),
)
NO_FIELD = ("id", "status", "_server_id", "external_id", "metadata", "inserted_at", "updated_at", "vectors")


@dataclass(frozen=True)
class Response:
    """One person's answer to one question of a record."""

    record: str | None
    user: str | None
    question: str
    value: Any
    status: str
    fields: Mapping[str, Any]
    time: str | None = None
    by_model: bool = False


@dataclass(frozen=True, kw_only=True)
class Argilla:
    """Responses of annotators. ``names`` of the questions of ratings; ``judges`` annotators or models; ``form``."""

    judges: str = "annotators"
    names: tuple[str, ...] = ()
    form: str = ""
    prompt_field: str = ""

    def __post_init__(self) -> None:
        one_of("judges of argilla", self.judges, tuple(LEFT))
        one_of("form of feedback", self.form, FORMS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another product, NotEnoughData if nothing is left."""
        export = Export(paths, limits)
        found = Judgements()
        last: dict[tuple[str | None, ...] | int, tuple[int, Response]] = {}
        seen = False
        for record in export:
            responses = None if record is None else _responses(record)
            if responses is None:
                found.next()
                found.leave("not a record with fields")
                continue
            seen = True
            if not responses:
                found.next()
                found.leave("a record without responses")
            for one in responses:
                number = found.next()
                key = number if one.record is None else (one.record, one.user, one.question, str(one.by_model))
                if key in last:
                    before = last.pop(key)[1]
                    found.replaced(same=before == one)
                last[key] = (number, one)
        if not seen:
            raise refusal(export, "argilla", "records")
        for number, one in last.values():
            self._judged(number, one, found)
        one_name(found.values, self.names, "Argilla: ratings")
        unsure = sum(one.status == UNKNOWN for _, one in last.values())
        remarks = [UNSURE.format(counted(unsure, "responses"))] * bool(unsure)
        return finished(f"Argilla, {self.judges}", found, self.form, remarks)

    def _judged(self, number: int, one: Response, found: Judgements) -> None:
        answers = self._answers(one)
        prompt = self._prompt(one)
        reasons = {
            LEFT[self.judges]: one.by_model == (self.judges == "annotators"),
            f"{one.status if one.status in STATUSES else 'of another status'}, not submitted": one.status
            not in ("submitted", UNKNOWN),
            "of another name": bool(self.names) and one.question not in self.names,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is not None:
            found.leave(reason)
            return
        if isinstance(one.value, int | float) and not isinstance(one.value, bool):
            self._rating(number, one, prompt, answers, found)
            return
        compared = _compared(one.value, list(answers))
        if not compared:
            found.leave(NOT_COMPARING if compared is None else NO_FIELDS)
        elif not found.lacking(one.user, prompt):
            more = {"pair_id": one.record, "timestamp": one.time}
            used = False
            for better, worse, tie in compared:
                texts = str(answers[better]), str(answers[worse])
                used |= found.pair(number, str(one.user), str(prompt), *texts, tie=tie, **more)
            if not used:
                found.leave(SAME)

    def _rating(
        self, number: int, one: Response, prompt: str | None, answers: Mapping[str, str], found: Judgements
    ) -> None:
        """A rating of the answer in its question's name; ratings of several answers have one name but for theirs."""
        name = _rated(one.question, list(answers))
        if name is None:
            found.leave(NOT_COMPARING)
        elif not found.lacking(one.user, prompt):
            what = one.question.replace(name, "*")
            found.value(number, (str(one.user), str(prompt), answers[name]), what, float(one.value), one.time)

    def _prompt(self, one: Response) -> str | None:
        name = self.prompt_field or next((name for name in ALIASES["prompt"] if name in one.fields), "")
        return prompt_of(get(one.fields, name))

    def _answers(self, one: Response) -> dict[str, str]:
        asked = {self.prompt_field or next((name for name in ALIASES["prompt"] if name in one.fields), "")}
        found = {name: answer_of(value) for name, value in one.fields.items() if name not in asked}
        return {name: text for name, text in found.items() if text is not None and text.strip()}


def _responses(record: Record) -> list[Response] | None:
    """The responses and suggestions in a record of any version; None where it is no record."""
    own, time = id_of(get(record, "_server_id", "id", "external_id")), time_of(get(record, "updated_at"))
    if isinstance(fields := record.get("fields"), Mapping):
        told = [*_nested(record.get("responses")), *_suggested(record.get("suggestions"))]
    else:
        ends = (".responses", ".suggestion")
        questions = sorted({name[: -len(end)] for name in record for end in ends if name.endswith(end)})
        older = [name for name in record if _is_answers(record[name])]
        if not questions and not older and not is_kind(record, "argilla", "rows of a data set"):
            return None
        skipped = {*older, *NO_FIELD, *(f"{name}{ending}" for name in (*questions, *older) for ending in ENDINGS)}
        fields = {name: value for name, value in record.items() if name not in skipped and "suggestion" not in name}
        told = [*_flat(record, questions), *(found for name in older for found in _older(name, record[name]))]
    return [
        Response(own, user, question, value, status, fields, time, by_model)
        for question, user, value, status, by_model in told
    ]


Told = tuple[str, str | None, Any, str, bool]  # question, user, value, status, whether a model says it


def _nested(responses: Any) -> Iterator[Told]:
    """Version 1 and the API: one object for each person; version 2: a list of answers for each question."""
    for one in objects(responses):
        values = one.get("values")
        answered = values if isinstance(values, Mapping) and values else {"": None}
        for question, value in answered.items():
            inner = value.get("value") if isinstance(value, Mapping) else value
            yield question, id_of(get(one, "user_id", "user.id")), inner, _status(one), False
    if isinstance(responses, Mapping):
        for question, answers in responses.items():
            yield from _older(question, answers if isinstance(answers, list) else [answers])


def _older(question: str, answers: Any) -> Iterator[Told]:
    for one in objects(answers):
        yield question, id_of(get(one, "user_id", "user.id")), one.get("value"), _status(one), False


def _status(response: Mapping[str, Any]) -> str:
    """The status of a response; ``records.to_json`` of version 2 leaves it out."""
    return str(response.get("status") or UNKNOWN)


def _is_answers(value: Any) -> bool:
    """Whether a cell holds answers of people: objects with a user and a value."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and "user_id" in one and "value" in one for one in value)
    )


def _flat(record: Record, questions: Sequence[str]) -> Iterator[Told]:
    """Version 2 with flat names: three lists for each question."""
    for question in questions:
        values, users, status = (
            found if isinstance(found := record.get(f"{question}.responses{ending}"), list) else []
            for ending in ("", ".users", ".status")
        )
        for at, value in enumerate(values):
            user = id_of(users[at]) if at < len(users) else None
            yield question, user, value, str(status[at] if at < len(status) else UNKNOWN), False
        if (value := record.get(f"{question}.suggestion")) is not None:
            yield question, id_of(record.get(f"{question}.suggestion.agent")) or "model", value, "submitted", True


def _suggested(suggestions: Any) -> Iterator[Told]:
    """Suggestions of models, by question or as a list."""
    if isinstance(suggestions, Mapping):
        suggestions = [{"question_name": name, **one} for name, one in suggestions.items() if isinstance(one, Mapping)]
    for one in suggestions if isinstance(suggestions, list) else ():
        if isinstance(one, Mapping) and "value" in one:
            question = str(get(one, "question_name", "question_id") or "question")
            yield question, id_of(one.get("agent")) or "model", one["value"], "submitted", True


def _rated(question: str, answers: Sequence[str]) -> str | None:
    """The answer that a rating is of: the one in its question's name, or the only one."""
    within = sorted((name for name in answers if name in question), key=len)
    return within[-1] if within else answers[0] if len(answers) == 1 else None


def _compared(value: Any, answers: Sequence[str]) -> list[tuple[str, str, bool]] | None:
    """Answers as better, worse and whether they are level; empty where the names are no answers, None where the value
    is of another kind."""
    if isinstance(value, str):
        if value in answers:
            return [(value, other, False) for other in answers if other != value]
        said = meaning(value)
        if not isinstance(said, Said) or len(answers) != 2:
            return None
        better, worse = answers if said.side != "B" else answers[::-1]
        return [(better, worse, said.side == "tie")]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(one, Mapping) and "value" in one for one in value):
        ranks = [as_value(at if one.get("rank") is None else one["rank"]) for at, one in enumerate(value)]
        names = [str(one["value"]) for one in value]
    elif all(isinstance(one, str) for one in value):
        ranks, names = list(map(float, range(len(value)))), value
    else:
        return None
    if len(set(names)) < len(names) or not set(names) <= set(answers) or None in ranks:
        return []
    rows = sorted(zip(cast(list[float], ranks), names, strict=True))
    return [(better, worse, rank == other) for (rank, better), (other, worse) in combinations(rows, 2)]
