"""Chat messages: JSON to messages, and messages to the text of a response.

A message is an object with a role; its content is a text, a list of text parts, or absent. Tool calls are in a
response's text as JSON, after its content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from polypref.content import canonical_chat
from polypref.data.files.jsonlines import what_is_wrong

Messages = list[dict[str, Any]]
READ = frozenset({"role", "content", "tool_calls", "function_call"})  # the keys that a response's text is made of
CALLS = ("tool_calls", "function_call")
NUL = "\\u0000"  # as JSON writes it

_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


class NotMessages(Exception):
    """A text that is no list of messages; ``chat``: whether it was meant to be one; the message is the reason."""

    def __init__(self, why: str, chat: bool) -> None:
        super().__init__(why)
        self.chat = chat


def messages_of(text: str, depth: int) -> Messages:
    """The messages of a JSON text. Raises NotMessages."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotMessages(
            what_is_wrong(text.encode(), error), '"role"' in text and text.rstrip().endswith("]")
        ) from error
    if not any("role" in message for message in found):
        raise NotMessages("no message has a role", False)
    return _checked([_without_nulls(message) for message in found], text, depth)


def _checked(messages: Messages, text: str, depth: int) -> Messages:
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise NotMessages("a message has no role", True)
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, str) and not (isinstance(part, dict) and isinstance(part.get("text"), str)):
                    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                    raise NotMessages(f"a part of type {kind} is not text", True)
        elif content is not None and not isinstance(content, str):
            raise NotMessages("a content is not text", True)
    if text.count("[") + text.count("{") > depth and depth_of(messages) > depth:
        raise NotMessages(f"nested deeper than {depth} levels", True)
    if NUL in text and holds_nul(messages):
        raise NotMessages("a NUL character", True)
    return messages


def _without_nulls(value: Any) -> Any:
    """Objects without keys whose value is null: Parquet fills absent keys with null, JSON does not."""
    if isinstance(value, dict):
        return {
            key: one if one.__class__ is str else _without_nulls(one) for key, one in value.items() if one is not None
        }
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def depth_of(value: Any) -> int:
    """Levels of lists and objects, including the outermost."""
    deep, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        deep += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return deep


def holds_nul(value: Any) -> bool:
    """Whether a text anywhere within has a NUL character."""
    if isinstance(value, dict):
        return any(holds_nul(one) for pair in value.items() for one in pair)
    return any(map(holds_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def text_of(messages: Messages) -> str:
    """The content of a single message, ``role: content`` lines of several."""
    if len(messages) == 1:
        return message_text(messages[0])
    return "\n".join(f"{message.get('role')}: {message_text(message)}" for message in messages)


def message_text(message: dict[str, Any]) -> str:
    """A message's content and its tool calls."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
    calls = [written(message[key]) for key in CALLS if message.get(key)]
    return "\n".join([content, *calls] if content else calls) if calls else content or ""


def written(value: Any) -> str:
    """A list or object as JSON with its keys in order, as ``canonical_chat`` writes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def shared(lists: Sequence[Messages]) -> int:
    """Number of leading messages that the lists share, leaving each at least one; of a single list: all but one."""
    most = min(len(messages) for messages in lists) - 1
    if len(lists) == 1:
        return most
    first, second = lists
    return next((k for k in range(most) if first[k] != second[k]), most)


def join_prompt(prompt: str | None, before: Messages | None, prefix: Messages) -> tuple[str, bool]:
    """One prompt from an explicit one (a text, or ``before``) and the messages that the responses share.

    Gives ``(text, is it chat?)``. A prefix that repeats the explicit prompt, as in sets whose responses are whole
    conversations, is not added again.
    """
    if prompt and before is None:
        if not prefix or (len(prefix) == 1 and prefix[0].get("content") == prompt):
            return prompt, False
        before = []
        if all(message.get("content") != prompt for message in prefix):
            before = [{"role": "user", "content": prompt}]
    before = before or []
    if prefix[: len(before)] == before:
        before = []
    return (canonical_chat([*before, *prefix]), True) if before or prefix else ("", False)
