"""A conversation as a prompt: what a dialect's messages say, as texts that can be ranked, judged and stored.

Only texts are read. Parts that are no text (images, sounds, files) are refused: neither the scorer nor the bounds see
them. Messages without any text, such as calls of tools, are left out. A single message of a user is a plain prompt, so
that a question is the same one for rerank clients, chats and judgements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from polypref import content
from polypref.errors import InputError
from polypref.serve.core import MOST_CHARACTERS, Prompt

MOST_MESSAGES = 2_000  # of one prompt
TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}  # kind of part: its field


def prompt_of(given: str | Sequence[Mapping[str, Any]], what: str = "message") -> Prompt:
    """The prompt that a text or messages with ``role`` and ``content`` stand for. Raises InputError."""
    if isinstance(given, str):
        return _short(content.texts([given], "prompt")[0])
    if len(given) > MOST_MESSAGES:
        raise InputError(f"there are {len(given):,} {what}s; expected at most {MOST_MESSAGES:,}.")
    messages = []
    for number, one in enumerate(given, 1):
        where = f"{what} number {number} of {len(given)}"
        role = one.get("role")
        if not isinstance(role, str) or not role:
            kind = one.get("type", "an object")
            raise InputError(f"{where} ({content.excerpt(kind)}) has no role; expected a message of a role with text.")
        if text := text_of(one.get("content"), where):
            messages.append({"role": role, "content": text})
    if not messages:
        raise InputError(f"the {what}s have no text; give at least one with text.")
    for name in ("role", "content"):
        content.texts([one[name] for one in messages], f"{what}'s {name}")
    if len(messages) == 1 and messages[0]["role"] == "user":
        return _short(messages[0]["content"])
    return _short(tuple(messages))


def _short(prompt: Prompt) -> Prompt:
    if length(prompt) > MOST_CHARACTERS:
        raise InputError(f"the prompt has more than {MOST_CHARACTERS:,} characters; give a shorter one.")
    return prompt


def text_of(given: object, where: str) -> str:
    """The text of a message's content: a text, or parts that each have one; "" for none. Raises InputError."""
    if given is None or isinstance(given, str):
        return given or ""
    if not isinstance(given, list) or not all(isinstance(part, dict) for part in given):
        raise InputError(f"{where} has the content {content.excerpt(given)}; expected a text or a list of parts.")
    return "\n".join(_part(part, where) for part in given)


def _part(part: Mapping[str, Any], where: str) -> str:
    kind = part.get("type")
    if kind == "input_json":
        return json.dumps(part.get("data"), ensure_ascii=False)
    text = part.get(TEXTS.get(kind, "")) if isinstance(kind, str) else None
    if not isinstance(text, str):
        raise InputError(
            f"{where} has a part of the type {content.excerpt(kind)}; only texts can be ranked and bounded. "
            "Leave it out, or ask the model without polypref."
        )
    return text


def after(prompt: Prompt, instructions: str) -> Prompt:
    """The prompt followed by instructions; itself if there are none."""
    if not instructions.strip():
        return prompt
    if isinstance(prompt, str):
        return f"{prompt}\n\n{instructions}" if prompt else instructions
    return (*prompt, {"role": "user", "content": instructions})


def length(prompt: Prompt) -> int:
    """Characters of a prompt."""
    return len(prompt) if isinstance(prompt, str) else sum(len(str(one.get("content"))) for one in prompt)
