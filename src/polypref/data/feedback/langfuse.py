"""Langfuse: scores, joined to traces and observations.

Files of the API (``/api/public/scores``, ``/api/public/v3/scores``, ``/traces``, ``/observations``; pages one after
another), of the export of a table (JSON or CSV), and of the export to blob storage (``scores/``, ``traces/``,
``observations/``, ``observations_v2/``). The end user is the trace's ``userId``; ``authorUserId`` is the account of an
annotator, of whom the export of a table has only the name. A score of source EVAL is a model's. A score of type
CORRECTION holds a better answer, which is preferred to the one that it corrects. A score about an observation needs
that observation; its user may come from the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from polypref.data.feedback.joined import Joined, Judge, Said, Text, named
from polypref.data.feedback.judgements import time_of
from polypref.data.feedback.records import Record, get, id_of
from polypref.data.feedback.signs import is_kind
from polypref.data.feedback.texts import answer_of

NO_ANSWER = "about a session or a run of a data set, not about an answer"
NO_SUBJECT = "it does not say which trace it is about; the API tells with fields=subject"
JUDGES: dict[str, Judge] = {"API": "users", "ANNOTATION": "annotators", "EVAL": "models"}


@dataclass(frozen=True, kw_only=True)
class Langfuse(Joined):
    """Scores of end users. ``names`` of scores; ``judges`` users, annotators or models; ``form`` pairs or single."""

    product: ClassVar[str] = "langfuse"
    title: ClassVar[str] = "Langfuse"
    feedback: ClassVar[str] = "scores"
    texts: ClassVar[str] = "traces"
    users: ClassVar[tuple[str, ...]] = ("userId", "user_id")

    def said(self, record: Record) -> list[Said] | None:
        """A score, or the scores within a trace."""
        if _is_score(record):
            return [self._score(record, None)]
        inner = record.get("scores")
        if isinstance(inner, list) and inner and all(isinstance(one, dict) and _is_score(one) for one in inner):
            return [self._score(one, id_of(record.get("id"))) for one in inner]
        return None

    def _score(self, record: Record, within: str | None) -> Said:
        subject = {
            f"{get(record, 'subject.kind')}": id_of(get(record, "subject.id"))
        }  # of the third version of the API
        trace = id_of(get(record, "traceId", "trace_id", "subject.traceId")) or subject.get("trace") or within
        observation = id_of(get(record, "observationId", "observation_id")) or subject.get("observation")
        elsewhere = get(record, "subject", "sessionId", "session_id", "datasetRunId", "dataset_run_id")
        about = f"o {observation}" if observation else f"t {trace}" if trace else None
        kind = str(get(record, "dataType", "data_type") or "").upper()
        text = get(record, "stringValue", "string_value", "longStringValue", "long_string_value")
        value = get(record, "value")
        if kind == "CATEGORICAL" or value is None:
            value = text if text is not None else value
        corrected = (text if text is not None else value) if kind == "CORRECTION" else None
        return Said(
            id=id_of(get(record, "id")),
            about=about,
            name=named([get(record, "name")], "score"),
            judge=JUDGES.get(str(get(record, "source") or "API").upper(), "users"),
            value=None if kind in ("CORRECTION", "TEXT") else value,
            account=id_of(get(record, "authorUserId", "author_user_id", "annotation.authorUserId", "authorUserName"))
            or (named([get(record, "name")], "") if str(get(record, "source")).upper() == "EVAL" else None),
            user=id_of(get(record, "userId", "user_id", "trace.userId")),
            person=f"t {trace}" if trace else None,
            correction=None if corrected is None else answer_of(corrected) or "",
            time=time_of(get(record, "updatedAt", "updated_at", "timestamp", "createdAt", "created_at")),
            no_text=None if about else NO_ANSWER if elsewhere else NO_SUBJECT,
        )

    def text(self, record: Record) -> Iterator[tuple[str, Text, bool]]:
        """A trace, or an observation, which stands for its trace where nothing is above it and no trace is given."""
        if _is_score(record):
            return
        own, trace = id_of(record.get("id")), id_of(get(record, "traceId", "trace_id"))
        found = self.as_text(record, ("input",), ("output",))
        if trace is None and own is not None and any(name in record for name in ("input", "output", *self.users)):
            yield f"t {own}", found, False
        elif trace is not None and own is not None and any(name in record for name in ("input", "output")):
            yield f"o {own}", found, False
            if get(record, "parentObservationId", "parent_observation_id") is None:
                yield f"t {trace}", found, True
        inner = record.get("observations")
        for one in inner if isinstance(inner, list) else ():
            if isinstance(one, dict):
                yield from self.text({"traceId": own, **one})


def _is_score(record: Record) -> bool:
    return is_kind(record, "langfuse", "scores") and not any(name in record for name in ("input", "output"))
