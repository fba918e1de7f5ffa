"""Feedback that is kept apart from the texts: scores and traces, feedback and runs, annotations and spans.

The files are read twice: first what was said, then the texts that it is about, so no other texts are kept in memory. Of
records with one id the latest counts: products change a score by sending it again, and pages of an API may repeat.

Who judged is one of users (the product's end users, who are named by the trace), annotators (accounts of the product,
who look at other people's traces) and models (evaluators and programs).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, cast

from polypref.data.feedback.judgements import (
    NO_ANSWER,
    SAME,
    Judgements,
    as_value,
    finished,
    one_name,
)
from polypref.data.feedback.records import Export, Record, get, id_of
from polypref.data.feedback.signs import refusal
from polypref.data.feedback.texts import answer_of, prompt_of
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of

Judge = Literal["users", "annotators", "models"]
LEFT: dict[str, str] = {
    "users": "by an end user; --judges users writes these",
    "annotators": "by an annotator of the product, who is no end user; --judges annotators writes these",
    "models": "a model's or program's own evaluation; --judges models writes these",
}
FORMS = ("", "pairs", "single")


@dataclass(frozen=True, slots=True)
class Said:
    """What one record says. ``about`` is the key of the text, ``person`` that of the text that names the user.

    ``group``       records of one group compare the answers that they are about. ``correction``: a better answer.
    ``account``     who judged, where that is no end user. ``no_text``: why there is none to judge.
    """

    id: str | None
    about: str | None
    name: str
    judge: Judge
    value: float | str | None = None
    account: str | None = None
    user: str | None = None
    person: str | None = None
    group: str | None = None
    correction: str | None = None
    time: str | None = None
    no_text: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt, its answer and who asked, as far as a record says."""

    user: str | None
    prompt: str | None
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Settings that the products share. ``names`` of feedback that count (none: there may be only one)."""

    judges: str = "users"
    names: tuple[str, ...] = ()
    form: str = ""
    user_field: str = ""
    prompt_field: str = ""
    answer_field: str = ""

    product: ClassVar[str] = ""
    title: ClassVar[str] = ""
    feedback: ClassVar[str] = ""
    texts: ClassVar[str] = ""
    users: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        one_of(f"judges of {self.product}", self.judges, tuple(LEFT))
        one_of("form of feedback", self.form, FORMS)

    def said(self, record: Record) -> list[Said] | None:
        """What a record says; None if it is no feedback."""
        raise AssertionError(record)

    def text(self, record: Record) -> Iterator[tuple[str, Text, bool]]:
        """Keys and texts in a record, and whether one stands in where a record of that key says nothing."""
        raise AssertionError(record)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another product, or with feedback of several names, NotEnoughData."""
        export = Export(paths, limits)
        found = Judgements()
        kept = self._first(export, found)
        texts = self._second(export, {key for one in kept.values() for key in (one.about, one.person) if key})
        compared: defaultdict[tuple[str, str], list[tuple[int, Said]]] = defaultdict(list)
        for number, one in kept.items():
            if self._counts(one, found):
                if one.group is not None:
                    compared[one.group, one.name].append((number, one))
                else:
                    self._judged(number, one, texts, found)
        for members in compared.values():
            self._compared(members, texts, found)
        one_name(found.values, self.names, f"{self.title}: {self.feedback}")
        who = {"users": "end users", "annotators": "annotators", "models": "models"}[self.judges]
        return finished(f"{self.title}, {who}", found, self.form)

    def person_of(self, record: Record) -> str | None:
        """The end user whom a record of texts names."""
        return id_of(get(record, *([self.user_field] if self.user_field else self.users)))

    def as_text(self, record: Record, prompt: tuple[str, ...], answer: tuple[str, ...]) -> Text:
        """The texts under the fields that the settings name, or else under these."""
        asked = get(record, *([self.prompt_field] if self.prompt_field else prompt))
        told = get(record, *([self.answer_field] if self.answer_field else answer))
        return Text(self.person_of(record), prompt_of(asked), answer_of(told))

    def _first(self, export: Export, found: Judgements) -> dict[int, Said]:
        """What was said, by the numbers of the records, without earlier versions of the same record."""
        kept: dict[int, Said] = {}
        number_of: dict[str, int] = {}
        for record in export:
            said = None if record is None else self.said(record)
            if said is None:
                if record is None or not any(True for _ in self.text(record)):
                    found.next()
                    found.leave(f"not {self.feedback}, and no {self.texts}")
                continue
            for one in said:
                number = found.next()
                before = None if one.id is None else number_of.get(one.id)
                if before is not None:
                    old = kept[before]
                    found.replaced(same=old == one)
                    if old == one or (old.time is not None and one.time is not None and one.time < old.time):
                        continue
                    del kept[before]
                kept[number] = one
                if one.id is not None:
                    number_of[one.id] = number
        if not kept:
            raise refusal(export, self.product, self.feedback)
        return kept

    def _second(self, export: Export, wanted: set[str]) -> dict[str, Text]:
        """The texts under the keys that are wanted; what a record does not say is taken from those that stand in."""
        firm: dict[str, Text] = {}
        in_place: dict[str, Text] = {}
        for record in export:
            for key, text, stands_in in () if record is None else self.text(record):
                if key in wanted:
                    (in_place if stands_in else firm)[key] = text
        return in_place | {key: _filled(text, in_place.get(key)) for key, text in firm.items()}

    def _counts(self, one: Said, found: Judgements) -> bool:
        """Whether the record's judge and name are asked for, and it is about an answer."""
        reasons = {
            LEFT[one.judge]: one.judge != self.judges,
            "of another name": bool(self.names) and one.name not in self.names and one.correction is None,
            one.no_text or "": one.no_text is not None,
            "no score": as_value(one.value) is None and one.correction is None and not isinstance(one.value, str),
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is not None:
            found.leave(reason)
        return reason is None

    def _told(self, one: Said, texts: Mapping[str, Text], found: Judgements) -> tuple[str, str, str] | None:
        """User, prompt and answer; None where the record was left out for want of one."""
        text = texts.get(one.about or "")
        if text is None:
            found.leave(f"its {self.texts} are in no file")
            return None
        owner = texts.get(one.person or "")
        user = one.account if self.judges != "users" else text.user or (owner.user if owner else None) or one.user
        if found.lacking(user, text.prompt, text.answer):
            return None
        return cast(tuple[str, str, str], (user, text.prompt, text.answer))

    def _judged(self, number: int, one: Said, texts: Mapping[str, Text], found: Judgements) -> None:
        if (told := self._told(one, texts, found)) is None:
            return
        user, prompt, answer = told
        if one.correction is not None:
            more = {"pair_id": one.id, "timestamp": one.time}
            if not one.correction.strip():
                found.leave(NO_ANSWER)
            elif not found.pair(number, user, prompt, one.correction, answer, **more):
                found.leave(SAME)
            return
        found.value(number, told, one.name, one.value, one.time)

    def _compared(self, members: list[tuple[int, Said]], texts: Mapping[str, Text], found: Judgements) -> None:
        """Answers that were compared: the one with the higher value is preferred, equal values are a tie."""
        rows = [(number, one, told) for number, one in members if (told := self._told(one, texts, found))]
        used: set[int] = set()
        for (a, first, one), (b, second, other) in combinations(rows, 2):
            values = as_value(first.value), as_value(second.value)
            if one[:2] != other[:2] or None in values:
                continue
            (better, worse) = (one, other) if values[0] >= values[1] else (other, one)  # type: ignore[operator]
            more = {"tie": values[0] == values[1], "pair_id": first.group, "timestamp": first.time or second.time}
            if found.pair(a, one[0], one[1], better[2], worse[2], **more):
                found.partners.add(b)
                used |= {a, b}
        for number, _, _ in rows:
            if number not in used:
                found.leave("compared with no other answer of this person to the same prompt")


def _filled(text: Text, other: Text | None) -> Text:
    """A text, with what only the other one says."""
    if other is None:
        return text
    return Text(text.user or other.user, text.prompt or other.prompt, text.answer or other.answer)


def named(values: Iterable[object], fallback: str) -> str:
    """The first of the values that is a name."""
    return next((name for one in values if (name := id_of(one)) is not None), fallback)
