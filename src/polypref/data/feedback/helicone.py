"""Helicone: requests with a rating, a like or a dislike.

Files of the export of requests (JSON, JSON lines or CSV) and of ``/v1/request/query`` and its ``query-clickhouse``, as
pages one after another. The end user is the header ``Helicone-User-Id``, which stands under ``request_user_id``; the
rating is ``feedback_rating`` or the score ``helicone-score-feedback``. Other scores are programs' own and are not read.
A request whose body is stored elsewhere (``signed_body_url``) has no texts and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polypref.data.feedback.joined import FORMS
from polypref.data.feedback.judgements import Judgements, Value, finished, time_of
from polypref.data.feedback.records import Export, Record, get, id_of
from polypref.data.feedback.signs import is_kind, refusal
from polypref.data.feedback.texts import answer_of, prompt_of
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of

RATING = ("feedback_rating", "feedback.rating", "scores.helicone-score-feedback", "rating")
USER = ("request_user_id", "user_id", "userId", "request.userId", "helicone_user_id")


@dataclass(frozen=True, kw_only=True)
class Helicone:
    """Likes and dislikes of end users; ``form`` pairs or single."""

    form: str = ""
    user_field: str = ""
    prompt_field: str = ""
    answer_field: str = ""

    def __post_init__(self) -> None:
        one_of("form of feedback", self.form, FORMS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another product, NotEnoughData if nothing is left."""
        export = Export(paths, limits)
        found = Judgements()
        last: dict[str, tuple[int, Any, Value | None]] = {}
        seen = False
        for record in export:
            number = found.next()
            if record is None or not is_kind(record, "helicone", "requests"):
                found.leave("not a request")
                continue
            seen = True
            key = id_of(get(record, "request_id", "id")) or f"record {number}"
            value, reason = self._value(number, record)
            content = (value and (value.user, value.prompt, value.answer, value.value, value.time), reason)
            if key in last:
                before = last.pop(key)
                found.replaced(same=before[1] == content)
            last[key] = (number, content, value)
        if not seen:
            raise refusal(export, "helicone", "requests")
        for _, (_, reason), value in last.values():
            if value is None:
                found.leave(reason)
            else:
                found.values.append(value)
        return finished("Helicone, end users", found, self.form)

    def _value(self, number: int, record: Record) -> tuple[Value | None, str]:
        """The rating of a request, or why there is none."""
        probe = Judgements()
        rating = get(record, *RATING)
        if rating is None or not isinstance(rating, str | int | float):
            return None, "no rating"
        user = id_of(get(record, *([self.user_field] if self.user_field else USER)))
        prompt = prompt_of(get(record, *([self.prompt_field] if self.prompt_field else ("request_body", "request"))))
        answer = answer_of(get(record, *([self.answer_field] if self.answer_field else ("response_body", "response"))))
        if probe.lacking(user, prompt, answer):
            return None, next(iter(probe.left_out))
        time = time_of(get(record, "feedback_created_at", "request_created_at", "created_at"))
        return Value(number, str(user), str(prompt), str(answer), "feedback", rating, time), ""
