"""Prompts and answers as products log them: texts, messages, and the requests and answers of models' interfaces.

Read are a text; a list of messages; an object with such a list; answers of OpenAI (``choices``, ``output``), Anthropic
(``content``) and Google (``candidates``), and of LangChain (``generations``, ``kwargs``); an object with exactly one
text under a usual name, or exactly one text at all. Anything else is not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from polypref.content import canonical_chat
from polypref.data.rows.messages import Messages, NotMessages, Turns, said_by, text_of

DEPTH = 64  # levels of lists and objects in a text's JSON
ASKED = ("question", "query", "prompt", "input", "user_input", "message", "text", "instruction", "content")
ANSWERED = ("answer", "output", "response", "completion", "text", "content", "result", "message", "generated_text")
CHATS = ("messages", "chat_history", "history")
REQUESTS = (*CHATS, "choices", "candidates", "contents", "generations")
LABELS = ("id", "model", "object", "type", "role", "name")  # of which none is what was said
TYPES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}  # of LangChain's messages


def prompt_of(value: Any) -> str | None:
    """A prompt: a text, or the JSON of a chat of more than one message; None where that is not clear."""
    value = _unwrapped(value)
    if isinstance(value, str):
        return _from_json(value, prompt_of) or value
    found = value if isinstance(value, list) else None
    if isinstance(value, Mapping):
        chat = next((value[name] for name in CHATS if isinstance(value.get(name), list) and value[name]), None)
        if chat is not None:
            question = next((value[name] for name in ASKED if isinstance(value.get(name), str) and value[name]), None)
            found = chat if question is None else [*chat, {"role": "user", "content": question}]
            if isinstance(value.get("system"), str):
                found = [{"role": "system", "content": value["system"]}, *found]
        elif "role" in value:
            found = [value]
        elif isinstance(value.get("contents"), list):
            found = value["contents"]
    if found is not None:
        return _chat(_messages(_unwrapped(found)))
    return _only_text(value, ASKED) if isinstance(value, Mapping) else None


def answer_of(value: Any) -> str | None:
    """An answer's text; None where that is not clear."""
    value = _unwrapped(value)
    if isinstance(value, str):
        return _from_json(value, answer_of) or value
    if isinstance(value, list):
        if not value:
            return None
        if all(isinstance(one, Mapping) and one.get("type") in ("text", "output_text") for one in value):
            return "".join(str(one.get("text", "")) for one in value)
        return answer_of(value[-1]) if len(value) == 1 or _messages(value) else None
    if not isinstance(value, Mapping):
        return None
    for name in ("choices", "generations", "candidates"):
        if isinstance(value.get(name), list):
            return answer_of(value[name][0]) if len(value[name]) == 1 else None
    if isinstance(value.get("output"), list):  # of OpenAI's Responses
        said = [one for one in value["output"] if isinstance(one, Mapping) and one.get("type") == "message"]
        return answer_of(said[-1]) if said else answer_of(value["output"])
    if "parts" in value or "content" in value:
        found = _messages([{"role": "assistant", **value}])
        return (text_of(found[-1:]) or None) if found else None
    for name in ("message", *CHATS):
        if isinstance(value.get(name), Mapping | list):
            return answer_of(value[name][-1] if isinstance(value[name], list) and value[name] else value[name])
    return _only_text(value, ANSWERED)


def _from_json(text: str, read: Any) -> str | None:
    """What the JSON of an object or of messages says that is written as a text; None where the text is no such JSON."""
    if text[:1] not in "{[" or text[-1:] not in "}]":
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    is_chat = isinstance(value, list) and bool(_messages(value))
    return read(value) if isinstance(value, dict) or is_chat else None


def _unwrapped(value: Any) -> Any:
    """The value itself in place of LangChain's description of it."""
    if isinstance(value, Mapping) and isinstance(value.get("kwargs"), Mapping) and "lc" in value:
        return _message(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        return value[0]  # LangChain's batch of one chat
    return value


def _message(value: Any) -> Any:
    """One message with a role: LangChain's are named by their type or class."""
    if not isinstance(value, Mapping) or "role" in value:
        return value
    inner = value.get("kwargs") if isinstance(value.get("kwargs"), Mapping) else value
    assert isinstance(inner, Mapping)
    kind = inner.get("type")
    if kind is None and isinstance(value.get("id"), list) and value["id"]:
        kind = str(value["id"][-1]).removesuffix("Chunk").removesuffix("Message").lower()
    if kind in TYPES and "content" in inner:
        return {"role": TYPES[kind], "content": inner["content"]}
    return value


def _messages(values: list[Any]) -> Messages:
    """Messages with a role and a content; none where one is something else."""
    kept = [_message(one) for one in values]
    if not kept or not all(isinstance(one, Mapping) and "role" in one for one in kept):
        return []
    try:
        found = said_by(json.dumps([_plain(one) for one in kept], ensure_ascii=False), DEPTH, set())
    except (NotMessages, RecursionError, ValueError):
        return []
    return [] if isinstance(found, str | Turns) else found


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without ids, times and other things that are not said; parts of text as they are."""
    return {
        name: one
        for name, one in message.items()
        if name in ("role", "content", "parts", "tool_calls", "function_call") and one is not None
    }


def _chat(messages: Messages) -> str | None:
    if not messages:
        return None
    plain = [{"role": one["role"], "content": text_of([one])} for one in messages]
    if len(plain) == 1 and plain[0]["role"] == "user":
        return plain[0]["content"]
    return canonical_chat(plain)


def _only_text(value: Mapping[str, Any], usual: tuple[str, ...]) -> str | None:
    """The one text that an object holds: under a usual name, or the only one. A request without messages has none."""
    if any(name in value for name in REQUESTS):
        return None
    named = [value[name] for name in usual if isinstance(value.get(name), str) and value[name]]
    texts = named or [one for name, one in value.items() if isinstance(one, str) and one and name not in LABELS]
    return texts[0] if len(texts) == 1 else None
