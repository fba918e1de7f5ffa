"""Chat messages: JSON to messages, and messages to the text of a response.

A message is an object with a role; its content is a text, a list of text parts, or absent. Tool calls are in a
response's text as JSON, after its content. Messages of other libraries are brought to this form: ``from`` and ``value``
(ShareGPT), ``speaker`` and ``text``, ``role`` and ``parts``.

Columns that hold lists and objects as such are read by ``said_by``, which guesses nothing: what it cannot read is an
error, never text. Columns of text are read by ``messages_of``: JSON in a text may be the answer itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from polypref.content import canonical_chat
from polypref.data.files.jsonlines import what_is_wrong
from polypref.data.files.nested import from_python

Messages = list[dict[str, Any]]
READ = frozenset({"role", "content", "tool_calls", "function_call"})  # the keys that a response's text is made of
CALLS = ("tool_calls", "function_call")
ROLES = ("role", "from", "speaker", "sender")  # the keys of who speaks, and what is said, the usual ones first
CONTENTS = ("content", "value", "text", "parts")
SPEAKERS = {  # where the key is not "role"
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "ai", "function_call"), "assistant"),
    "observation": "tool",
}
HOLDERS = ("messages", "conversations", "conversation", "message")  # keys of objects whose value is a chat
FIELDS = (
    "text",
    "content",
    "response",
    "completion",
    "answer",
    "output",
    "value",
    "generated_text",
    "full_text",
    "post",
)
NUL = "\\u0000"  # as JSON writes it

_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


class NotMessages(Exception):
    """A text that is no list of messages; ``chat``: whether it was meant to be one; the message is the reason."""

    def __init__(self, why: str, chat: bool) -> None:
        super().__init__(why)
        self.chat = chat


class Turns(list[str]):
    """The texts of a conversation whose speakers are not named."""


def messages_of(text: str, depth: int) -> Messages:
    """The messages in a text. Raises NotMessages."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        meant = text.rstrip().endswith("]") and any(f"{q}{key}{q}" in text for q in "\"'" for key in ROLES[:2])
        told = _from_python(text) if meant else None
        if told is None:
            raise NotMessages(what_is_wrong(text.encode(), error), meant) from error
        text, found = told, _decode(told)
    if not any(map(_is_message, found)):
        raise NotMessages("no message has a role", False)
    return _checked([_without_nulls(message) for message in found], text, depth)


def text_in(value: Any, depth: int, unread: set[str]) -> str:
    """The text of one of several responses: a text, a message, or an object with a text. Raises NotMessages."""
    said = value if isinstance(value, str) else said_by(written(value), depth, unread)
    if isinstance(said, str):
        return said
    if isinstance(said, Turns):
        raise NotMessages("a list of texts within the list", True)
    unread.update(key for message in said for key in message if key not in READ)
    return text_of(said)


def said_by(text: str, depth: int, unread: set[str]) -> Messages | Turns | str:
    """What the JSON of a list or an object says; keys of an object that were not used are added to ``unread``.

    Raises NotMessages if that is not clear.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotMessages(what_is_wrong(text.encode(), error), True) from error
    if text.count("[") + text.count("{") > depth and depth_of(value) > depth:
        raise NotMessages(f"nested deeper than {depth} levels", True)
    if NUL in text and holds_nul(value):
        raise NotMessages("a NUL character", True)
    return _said(value, text, depth, unread)


def _said(value: Any, text: str, depth: int, unread: set[str]) -> Messages | Turns | str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = _without_nulls(value)
        if _is_message(value):
            return _checked([value], text, depth)
        held = [key for key in (*HOLDERS, *FIELDS) if isinstance(value.get(key), list | dict | str)]
        if len(held) != 1:
            both = f"both {held[0]} and {held[1]}" if held else f"none of {', '.join(FIELDS)}"
            raise NotMessages(f"an object with {both}: which text counts is not clear", True)
        unread.update(value.keys() - held)
        return _said(value[held[0]], text, depth, unread)
    if not isinstance(value, list) or not value:
        raise NotMessages("an empty list" if isinstance(value, list) else f"{json.dumps(value)} is not a text", True)
    if all(one is None or isinstance(one, str) for one in value):
        return Turns(one or "" for one in value)
    if all(isinstance(one, dict) for one in value) and any(map(_is_message, value)):
        return _checked([_without_nulls(message) for message in value], text, depth)
    _ensure_texts(value)
    return joined(value)


def _is_message(value: dict[str, Any]) -> bool:
    """Whether an object says who speaks; under another key than "role" also what is said."""
    role = next((key for key in ROLES if key in value), None)
    return role == "role" or (role is not None and any(key in value for key in CONTENTS))


def _from_python(text: str) -> str | None:
    """A list of messages in Python's own notation, as pandas writes it to CSV, as JSON; None if it is not one."""
    told = from_python(text)
    try:
        _decode(told or "")
    except (RecursionError, msgspec.DecodeError):
        return None
    return told


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _usual(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the keys ``role`` and ``content``."""
    if "role" in message and ("content" in message or not any(key in message for key in CONTENTS)):
        return message
    role = next((key for key in ROLES if key in message), None)
    content = next((key for key in CONTENTS if key in message), None)
    if role is None or content is None:
        return message
    speaker = message[role]
    if role != "role" and _is_text(speaker):
        speaker = SPEAKERS.get(speaker.lower(), speaker.lower())
    others = {key: value for key, value in message.items() if key not in (role, content)}
    return {"role": speaker, "content": message[content]} | others


def _checked(messages: Messages, text: str, depth: int) -> Messages:
    messages = [_usual(message) for message in messages]
    for message in messages:
        if not _is_text(message.get("role")):
            raise NotMessages("a message has no role", True)
        content = message.get("content")
        if isinstance(content, list):
            _ensure_texts(content)
            message["content"] = joined(content)
        elif content is not None and not _is_text(content):
            raise NotMessages("a content is not text", True)
    if text.count("[") + text.count("{") > depth and depth_of(messages) > depth:
        raise NotMessages(f"nested deeper than {depth} levels", True)
    if NUL in text and holds_nul(messages):
        raise NotMessages("a NUL character", True)
    return messages


def _ensure_texts(parts: list[Any]) -> None:
    """Raise NotMessages unless all parts of a content are texts, or objects with a text."""
    for part in parts:
        if not _is_text(part) and not (isinstance(part, dict) and _is_text(part.get("text"))):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise NotMessages(f"a part of type {kind} is not text", True)


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
    if isinstance(content, list):  # a prompt that was not read by ``messages_of``
        content = joined(content)
    calls = [written(message[key]) for key in CALLS if message.get(key)]
    return "\n".join([content, *calls] if content else calls) if calls else content or ""


def joined(parts: list[Any]) -> str:
    """The text of a content in parts."""
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in parts)


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
