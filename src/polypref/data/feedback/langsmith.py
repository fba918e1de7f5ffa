"""LangSmith: feedback, joined to runs.

Files of ``/api/v1/feedback`` and ``/api/v1/runs/query``, of ``Client.list_feedback`` and ``Client.list_runs`` as JSON
lines, and CSV. The end user is ``user_id`` of a run's metadata (``extra.metadata``), or else of its trace's root;
``feedback_source.user_id`` is an account. Feedback of source api is an end user's, of app an annotator's, of model or
auto_eval a model's. Records with one ``feedback_group_id`` compare their runs: the higher score is preferred, equal
ones are a tie. A ``correction`` that holds one text is preferred to the run's output.
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

JUDGES: dict[str, Judge] = {"api": "users", "app": "annotators", "model": "models", "auto_eval": "models"}


@dataclass(frozen=True, kw_only=True)
class LangSmith(Joined):
    """Feedback of end users. ``names`` of keys; ``judges`` users, annotators or models; ``form`` pairs or single."""

    product: ClassVar[str] = "langsmith"
    title: ClassVar[str] = "LangSmith"
    feedback: ClassVar[str] = "feedback"
    texts: ClassVar[str] = "runs"
    users: ClassVar[tuple[str, ...]] = tuple(
        f"{place}.{name}" for place in ("extra.metadata", "metadata") for name in ("user_id", "userId", "user")
    )

    def said(self, record: Record) -> list[Said] | None:
        """A record of feedback."""
        if not is_kind(record, "langsmith", "feedback"):
            return None
        run = id_of(get(record, "run_id"))
        score, value, correction = (get(record, name) for name in ("score", "value", "correction"))
        better = None if correction is None else answer_of(correction)
        kind = str(get(record, "feedback_source.type") or "api")
        plain = score if score is not None else value
        return [
            Said(
                id=id_of(get(record, "id")),
                about=run,
                name=named([get(record, "key")], "feedback"),
                judge=JUDGES.get(kind, "users"),
                value=plain if isinstance(plain, str | int | float) else None,
                account=id_of(get(record, "feedback_source.user_id", "feedback_source.ls_user_id"))
                or (named([get(record, "key")], "model") if JUDGES.get(kind) == "models" else None),
                person=id_of(get(record, "trace_id")),
                group=id_of(get(record, "feedback_group_id")),
                correction=better,
                time=time_of(get(record, "modified_at", "created_at")),
                no_text="about a session, not about a run" if run is None else None,
            )
        ]

    def text(self, record: Record) -> Iterator[tuple[str, Text, bool]]:
        """A run."""
        own = id_of(get(record, "id", "run_id"))
        if own is not None and not is_kind(record, "langsmith", "feedback") and "inputs" in record:
            yield own, self.as_text(record, ("inputs",), ("outputs",)), False
