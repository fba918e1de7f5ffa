"""Exports of products that collect feedback, as the products write them, for the tests of ``polypref convert``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def saved(path: Path, content: Any, lines: bool = False) -> str:
    """Write one JSON document, or one JSON value on each line."""
    texts = [json.dumps(one, ensure_ascii=False) for one in content] if lines else [json.dumps(content, indent=2)]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def as_csv(path: Path, rows: list[Row]) -> str:
    """Rows as a CSV file: objects and lists as JSON, null as nothing."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(one) if isinstance(one, dict | list) else one for name, one in row.items()})
    path.write_text(buffer.getvalue(), encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------------------------------------------------- Open WebUI


def message(key: str, parent: str | None, children: list[str], role: str, content: Any, **more: Any) -> Row:
    return {
        "id": key, "parentId": parent, "childrenIds": children, "role": role, "content": content,
        "timestamp": 1_760_000_000, **more,
    }  # fmt: skip


def chat(user: str | None = "u1", answers: tuple[str, ...] = ("Boil it.", "Ask a cook."), key: str = "c1") -> Row:
    """A chat with one earlier turn, and several answers to the second question."""
    answer_ids = [f"a{at}" for at in range(len(answers))]
    messages = {
        "q0": message("q0", None, ["a"], "user", "Hello"),
        "a": message("a", "q0", ["q1"], "assistant", "Hi there", model="llama"),
        "q1": message("q1", "a", answer_ids, "user", "How do I boil an egg?"),
    }
    for at, (name, text) in enumerate(zip(answer_ids, answers, strict=True)):
        messages[name] = message(
            name, "q1", [], "assistant", text, model="arena-model", selectedModelId=f"m{at}", arena=True, done=True
        )
    inner = {"id": "", "title": "Eggs", "models": ["arena-model"], "history": {"messages": messages, "currentId": "a0"}}
    return {
        "id": key, "user_id": user, "title": "Eggs", "chat": inner, "updated_at": 1_760_000_100, "created_at": 1,
        "share_id": None, "archived": False, "pinned": False, "meta": {}, "folder_id": None,
    }  # fmt: skip


def rating(key: str, about: Row, message_id: str, value: Any, user: str | None = "u1", **more: Any) -> Row:
    """A record of the export of all feedback."""
    data = {
        "rating": value, "model_id": "m0", "sibling_model_ids": ["m1"], "reason": "accurate_information",
        "comment": "", "tags": ["cooking"],
    }  # fmt: skip
    data |= more.pop("data", {})
    record = {
        "id": key, "user_id": user, "version": 0, "type": "rating", "data": data,
        "meta": {"arena": True, "model_id": "arena-model", "message_id": message_id, "message_index": 4,
                 "chat_id": about["id"], "base_models": {"m0": None}},
        "snapshot": {"chat": about}, "created_at": 1_760_000_200, "updated_at": 1_760_000_200,
    }  # fmt: skip
    return record | more


# ------------------------------------------------------------------------------------------------------------ Langfuse


def trace(key: str, user: str | None, prompt: Any, answer: Any, **more: Any) -> Row:
    return {
        "id": key, "projectId": "p", "timestamp": "2026-10-01T10:00:00.000Z", "name": "chat", "userId": user,
        "sessionId": None, "input": prompt, "output": answer, "metadata": {"x": 1}, "tags": [], "release": None,
        "version": None, "public": False, "environment": "default", "latency": 1.2, "totalCost": 0.001,
        "observations": ["o-of-" + key], "scores": ["s-of-" + key], "htmlPath": "/project/p/traces/" + key,
    } | more  # fmt: skip


def score(key: str, about: str | None, value: Any, **more: Any) -> Row:
    return {
        "id": key, "projectId": "p", "traceId": about, "observationId": None, "sessionId": None, "datasetRunId": None,
        "name": "user-thumb", "value": value, "dataType": "BOOLEAN", "stringValue": None, "source": "API",
        "authorUserId": None, "comment": None, "metadata": {}, "configId": None, "queueId": None,
        "environment": "default", "timestamp": "2026-10-01T10:01:00.000Z", "createdAt": "2026-10-01T10:01:00.000Z",
        "updatedAt": "2026-10-01T10:01:00.000Z",
    } | more  # fmt: skip


def page(rows: list[Row], number: int = 1) -> Row:
    return {"data": rows, "meta": {"page": number, "limit": 50, "totalItems": len(rows), "totalPages": 2}}


# ----------------------------------------------------------------------------------------------------------- LangSmith


def run(key: str, user: str | None, question: Any, answer: Any, **more: Any) -> Row:
    inputs = question if isinstance(question, dict) else {"question": question}
    outputs = answer if isinstance(answer, dict) else {"output": answer}
    return {
        "id": key, "trace_id": key, "name": "chain", "run_type": "chain", "start_time": "2026-10-01T10:00:00.000000",
        "inputs": inputs, "outputs": outputs, "extra": {"metadata": {"user_id": user, "revision": "r"}, "runtime": {}},
        "session_id": "s", "tags": None, "feedback_stats": {"thumbs": {"n": 1, "avg": 1.0}}, "error": None,
    } | more  # fmt: skip


def feedback(number: str, about: str | None, value: Any, kind: str = "api", **more: Any) -> Row:
    source = {"type": kind, "metadata": None, "user_id": "account-7" if kind == "app" else None, "user_name": None}
    return {
        "id": number, "run_id": about, "trace_id": about, "session_id": "s", "key": "thumbs", "score": value,
        "value": None, "comment": None, "correction": None, "feedback_source": source, "feedback_group_id": None,
        "comparative_experiment_id": None, "created_at": "2026-10-01T11:00:00.000000",
        "modified_at": "2026-10-01T11:00:00.000000", "is_root": True, "extra": None,
    } | more  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- Phoenix


def span(key: str, user: str | None, prompt: Any, answer: Any, **more: Any) -> Row:
    attributes = {
        "openinference.span.kind": "LLM", "input.value": prompt, "input.mime_type": "text/plain",
        "output.value": answer, "llm.model_name": "m", "user.id": user,
    }  # fmt: skip
    return {
        "id": "node-" + key, "name": "completion", "context": {"trace_id": "t" + key, "span_id": key},
        "span_kind": "LLM", "parent_id": None, "start_time": "2026-10-01T10:00:00+00:00",
        "end_time": "2026-10-01T10:00:02+00:00", "status_code": "OK", "attributes": attributes, "events": [],
    } | more  # fmt: skip


def annotation(key: str, about: str, label: str | None, value: Any, kind: str = "HUMAN", **more: Any) -> Row:
    return {
        "id": key, "span_id": about, "name": "user feedback", "annotator_kind": kind, "source": "API",
        "result": {"label": label, "score": value, "explanation": None}, "metadata": {}, "identifier": "",
        "user_id": None, "created_at": "2026-10-01T11:00:00+00:00", "updated_at": "2026-10-01T11:00:00+00:00",
    } | more  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ Helicone


def request(key: str, user: str | None, prompt: Any, answer: Any, value: Any, **more: Any) -> Row:
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    choices = [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]
    scores = {} if value is None else {"helicone-score-feedback": value}
    return {
        "response_id": "r" + key, "response_created_at": "2026-10-01T10:00:02Z", "response_status": 200,
        "response_body": {"id": "chatcmpl", "object": "chat.completion", "choices": choices, "usage": {}},
        "request_id": key, "request_created_at": "2026-10-01T10:00:00Z", "request_path": "/v1/chat/completions",
        "request_body": {"model": "gpt", "messages": messages, "temperature": 0.2}, "request_user_id": user,
        "request_properties": {"App": "x"}, "helicone_user": "org-account", "provider": "OPENAI", "scores": scores,
        "feedback_rating": None, "signed_body_url": None, "llmSchema": None,
    } | more  # fmt: skip


# -------------------------------------------------------------------------------------------------------- Label Studio


def task(key: int, left: Any, right: Any, *annotations: Row, prompt: Any = "Which is better?", **more: Any) -> Row:
    return {
        "id": key, "annotations": list(annotations), "drafts": [], "predictions": [], "file_upload": "x.json",
        "data": {"prompt": prompt, "answer1": left, "answer2": right}, "meta": {}, "project": 3,
        "created_at": "2026-10-01T10:00:00Z", "updated_at": "2026-10-01T10:00:00Z", "inner_id": key,
        "total_annotations": len(annotations), "cancelled_annotations": 0, "comment_authors": [],
    } | more  # fmt: skip


def chosen(key: int, side: str | None, who: Any = 7, **more: Any) -> Row:
    item = {
        "id": "Kx2", "type": "pairwise", "value": {"selected": side}, "origin": "manual", "from_name": "pw",
        "to_name": "answer1,answer2",
    }  # fmt: skip
    return {
        "id": key, "completed_by": who, "result": [item] if side else [], "was_cancelled": False,
        "ground_truth": False, "created_at": "2026-10-01T10:05:00Z", "updated_at": "2026-10-01T10:05:00Z",
        "draft_created_at": None, "lead_time": 12.5, "prediction": {}, "result_count": 1, "task": 1,
    } | more  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- Argilla


def ranked(*names: str) -> list[Row]:
    return [{"value": name, "rank": rank} for rank, name in enumerate(names, 1)]


def response(user: str | None, status: str = "submitted", **values: Any) -> Row:
    return {
        "user_id": user, "status": status,
        "values": {name.replace("__", "-"): {"value": value} for name, value in values.items()},
        "inserted_at": "2026-10-01T10:00:00", "updated_at": "2026-10-01T10:00:00",
    }  # fmt: skip


def record(key: str, *responses: Row, **fields: Any) -> Row:
    given = {"prompt": "Why is the sky blue?", "response-1": "Scattering.", "response-2": "Because."}
    return {
        "id": key, "external_id": None, "status": "completed", "metadata": {}, "responses": list(responses),
        "suggestions": [], "fields": given | fields, "vectors": {}, "updated_at": "2026-10-01T10:00:00",
    }  # fmt: skip


AGAIN = "the same record again"


def pairs(found):
    """Users, prompts and both texts of what was converted."""
    return found.table.select("user_id", "prompt", "chosen", "rejected").rows()
