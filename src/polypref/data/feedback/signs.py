"""Which product a record comes from, by its keys: for a file that is given to the wrong reader, or to ``check``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from polypref.data.feedback.records import Export
from polypref.errors import InputError
from polypref.wording import shown

# Product -> what it exports -> the keys that tell; one of those with a bar between them is enough. Keys that a log of
# anybody's own may have (context, inputs, user_id, chat) tell nothing without another one.
SIGNS: dict[str, dict[str, tuple[str, ...]]] = {
    "open-webui": {
        "feedback": ("user_id", "data", "snapshot|meta", "type"),
        "chats": ("chat", "user_id", "share_id|archived|pinned"),
    },
    "langfuse": {
        "scores": ("name", "source", "dataType|data_type|traceId|trace_id"),
        "observations": ("traceId|trace_id", "startTime|start_time", "parentObservationId|parent_observation_id|type"),
        "traces": ("id", "input|output", "public|bookmarked|htmlPath", "release|version|projectId|project_id"),
    },
    "langsmith": {
        "feedback": ("run_id", "key", "score|value|comment|feedback_source"),
        "runs": ("id", "inputs", "run_type|dotted_order"),
    },
    "phoenix": {
        "annotations": ("span_id", "annotator_kind", "name|annotation_name"),
        "spans": ("context|context.span_id", "span_kind|status_code"),
    },
    "helicone": {"requests": ("request_id", "response_id|response_status|response_body")},
    "label-studio": {
        "tasks": ("data", "annotations|completions"),
        "rows of JSON-MIN or CSV": ("annotation_id", "annotator", "lead_time|created_at"),
    },
    "argilla": {
        "records": ("fields", "responses|suggestions"),
        "rows of a data set": ("_server_id", "status|metadata"),
    },
    "portkey": {"feedback": ("trace_id", "value", "weight|metadata")},
}
OF_ARGILLA = (".responses.users", ".responses.status", "-suggestion-metadata")  # ends of the names of columns
LOOKED_AT = 50  # records


def kind_of(keys: Collection[str]) -> tuple[str, str] | None:
    """The product and what of it a record with these keys is."""
    for product, kinds in SIGNS.items():
        for what, needed in kinds.items():
            if all(any(name in keys for name in one.split("|")) for one in needed):
                return product, what
    if any(name.endswith(OF_ARGILLA) for name in keys):
        return "argilla", "rows of a data set"
    return None


def is_kind(keys: Collection[str], product: str, what: str) -> bool:
    """Whether a record with these keys may be one of a product."""
    return all(any(name in keys for name in one.split("|")) for one in SIGNS[product][what])


def refusal(export: Export, product: str, expected: str) -> InputError:
    """The error for files without a judgement of ``product``: what they are, and the command that reads them."""
    for path in export.files:
        heads = list(islice(_heads(export, path), LOOKED_AT))
        counts = Counter(found for keys in heads if (found := kind_of(keys)) is not None)
        others = Counter({found: count for found, count in counts.items() if found[0] != product})
        if others:
            other, what = others.most_common(1)[0][0]
            out = Path(path).with_suffix("").name + ".prefs.jsonl"
            return InputError(
                f"{path} looks like {what} of {other}, not like {expected} of {product}: "
                f"polypref convert {other} {shlex.quote(path)} --out {shlex.quote(out)}."
            )
        if heads and heads[0] and not counts:
            told = ", ".join(list(heads[0])[:12])
            return InputError(
                f"{path} holds no {expected} of {product}; its first record has the keys {shown(told, 200)}."
            )
    return InputError(f"{', '.join(export.files)}: no {expected} of {product}; give a file of these too.")


def _heads(export: Export, path: str) -> Iterator[list[str]]:
    for record in export.of(path):
        if record is not None:
            yield list(record)
