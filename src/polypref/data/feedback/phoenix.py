"""Arize Phoenix: annotations of spans, joined to spans.

Files of ``/v1/projects/{project}/span_annotations`` and ``/v1/projects/{project}/spans``, and of the client's data
frames (``get_span_annotations_dataframe``, ``get_spans_dataframe``) as JSON lines, CSV or Parquet. The end user is the
span's attribute ``user.id`` (OpenInference); the annotation's ``user_id`` is an account. Annotations by HUMAN count as
an end user's, or as an annotator's if they were made in Phoenix (source APP); those by LLM or CODE are a model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from polypref.data.feedback.joined import Joined, Judge, Said, Text, named
from polypref.data.feedback.judgements import time_of
from polypref.data.feedback.records import Record, get, id_of
from polypref.data.feedback.signs import is_kind

INPUT = ("attributes.llm.input_messages", "attributes.input.value", "attributes.input")
OUTPUT = ("attributes.output.value", "attributes.llm.output_messages", "attributes.output")


@dataclass(frozen=True, kw_only=True)
class Phoenix(Joined):
    """Annotations of end users. ``names`` of annotations; ``judges`` users, annotators or models; ``form``."""

    product: ClassVar[str] = "phoenix"
    title: ClassVar[str] = "Phoenix"
    feedback: ClassVar[str] = "annotations"
    texts: ClassVar[str] = "spans"
    users: ClassVar[tuple[str, ...]] = ("attributes.user.id", "attributes.enduser.id")

    def said(self, record: Record) -> list[Said] | None:
        """An annotation of a span, or of a document, which is none of an answer."""
        if not is_kind(record, "phoenix", "annotations"):
            return None
        span, name = id_of(get(record, "span_id")), named([get(record, "name", "annotation_name")], "annotation")
        human = str(get(record, "annotator_kind")).upper() == "HUMAN"
        judge: Judge = "models" if not human else "annotators" if get(record, "source") == "APP" else "users"
        score = get(record, "result.score", "score")
        label = get(record, "result.label", "label")
        value = score if score is not None else label
        own = id_of(get(record, "id")) or f"{span} {name} {get(record, 'identifier') or ''}"
        return [
            Said(
                id=own,
                about=span,
                name=name,
                judge=judge,
                value=value if isinstance(value, str | int | float) else None,
                account=id_of(get(record, "user_id", "metadata.user_id")) or (name if judge == "models" else None),
                time=time_of(get(record, "updated_at", "created_at")),
                no_text="about a document, not about an answer" if "document_position" in record else None,
            )
        ]

    def text(self, record: Record) -> Iterator[tuple[str, Text, bool]]:
        """A span."""
        own = id_of(get(record, "context.span_id", "span_id"))
        is_span = any(name.startswith("attributes") for name in record)
        if own is not None and is_span and "annotator_kind" not in record:
            yield own, self.as_text(record, INPUT, OUTPUT), False
