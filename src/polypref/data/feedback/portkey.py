"""Portkey: feedback, joined to logs.

Feedback as it was sent to ``/v1/feedback`` (trace_id, value from -10 to 10, weight, metadata), and logs with request,
response, trace_id and metadata; both as JSON lines or lists. The end user is ``_user`` of the metadata. The weight is
not read: it says how reliable a source is to the one who sent it, not what the person preferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from polypref.data.feedback.joined import Joined, Said, Text
from polypref.data.feedback.judgements import time_of
from polypref.data.feedback.records import Record, get, id_of
from polypref.data.feedback.signs import is_kind


@dataclass(frozen=True, kw_only=True)
class Portkey(Joined):
    """Ratings of end users; ``form`` pairs or single."""

    product: ClassVar[str] = "portkey"
    title: ClassVar[str] = "Portkey"
    feedback: ClassVar[str] = "feedback"
    texts: ClassVar[str] = "logs"
    users: ClassVar[tuple[str, ...]] = ("metadata._user", "user")

    def said(self, record: Record) -> list[Said] | None:
        """A record of feedback."""
        if not is_kind(record, "portkey", "feedback") or "response" in record:
            return None
        trace, value = id_of(get(record, "trace_id")), get(record, "value")
        return [
            Said(
                id=id_of(get(record, "id")),
                about=trace,
                name="feedback",
                judge="users",
                value=value if isinstance(value, str | int | float) else None,
                user=self.person_of(record),
                time=time_of(get(record, "last_updated_at", "created_at")),
            )
        ]

    def text(self, record: Record) -> Iterator[tuple[str, Text, bool]]:
        """A log."""
        own = id_of(get(record, "trace_id"))
        if own is not None and "response" in record:
            yield own, self.as_text(record, ("request.body", "request"), ("response.body", "response")), False
