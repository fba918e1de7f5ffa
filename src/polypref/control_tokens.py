"""Control tokens that somebody spells out in a text: they stay text, and open or close no message of a chat.

Tokenizers read ``<|im_end|>`` as the end of a message wherever it stands, so a question could end its own message and
speak as the system. A space behind the first character keeps it readable, and no token.

Covered: every token that the tokenizer cuts out of a text before it reads the rest, also those that come about by
breaking another. Not covered: templates that mark roles by ordinary words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The messages as the tokenizer's chat template puts them before an answer; control tokens in them stay text.

    Raises what the template raises: it is a program of the model's makers.
    """
    texts = spelled_out(tokenizer, [one["content"] for one in messages])
    safe = [{**one, "content": text} for one, text in zip(messages, texts, strict=True)]
    return tokenizer.apply_chat_template(safe, tokenize=False, add_generation_prompt=True)


def spelled_out(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """The texts without control tokens of ``tokenizer``; one that has none comes back as it is."""
    known = set(map(str, getattr(tokenizer, "all_special_tokens", ())))
    known |= {str(one) for one in getattr(tokenizer, "added_tokens_decoder", {}).values() if one.special}
    tokens = sorted((one for one in known if one.strip()), key=lambda one: (-len(one), one))
    return [_without(tokens, text) for text in texts]


def _without(tokens: list[str], text: str) -> str:
    while found := [one for one in tokens if one in text]:
        text = re.sub("|".join(map(re.escape, found)), _broken, text)
    return text


def _broken(found: re.Match[str]) -> str:
    token = found[0]
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "
