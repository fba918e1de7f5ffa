"""Conversations written in a model's chat template, as trainers send them: read back as messages.

Known marks: ChatML (Qwen and others), Llama 3, Gemma, Zephyr and Phi, DeepSeek, Llama 2 and Mistral (``[INST]``).

Not covered: a response that itself contains marks of turns cannot be told from further turns when only the whole text
is known. ``Cut.within`` therefore has everything from the first answer on, for the gate to read; clients that send
prompt and response separately avoid the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from polypref.content import Message
from polypref.errors import InputError

ROLES = {"model": "assistant", "human": "user", "gpt": "assistant", "bot": "assistant"}
MOST_CHARACTERS = 1_000_000  # of one request
OPENED = ("", "<think>")  # an assistant's turn that has only begun
TURN = re.compile(
    r"<\|im_start\|>(?P<chatml>\w+)\n?"
    r"|<\|start_header_id\|>(?P<llama3>\w+)<\|end_header_id\|>(?:\n\n)?"
    r"|<start_of_turn>(?P<gemma>\w+)\n?"
    r"|<\|(?P<zephyr>system|user|assistant)\|>\n?"
    r"|<｜(?P<deepseek>User|Assistant)｜>"
    r"|\[(?P<inst>/?)INST\] ?"
)
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>", "<eos>", "</s>", "<|end|>",
    "<｜end▁of▁sentence｜>", "<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]",
)  # fmt: skip
BEGINS = ("<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>", *ENDS)
FIRST, LAST = {one[0] for one in BEGINS}, {one[-1] for one in ENDS}


@dataclass(frozen=True)
class Cut:
    """A conversation's prompt and last response; ``within``: all from the first answer on."""

    prompt: str | Sequence[Message]
    text: str
    within: str


def without_ends(text: str) -> str:
    """The text without the marks that end a sequence, and padding behind them."""
    kept = end = len(text)
    while end:
        if text[end - 1].isspace():
            end -= 1
        elif text[end - 1] in LAST and (mark := next((one for one in ENDS if text.endswith(one, 0, end)), None)):
            kept = end = end - len(mark)
        else:
            break
    return text[:kept]


def without_begins(text: str) -> str:
    """The text without the marks that begin a sequence, and padding before them."""
    kept = begin = 0
    while begin < len(text):
        if text[begin].isspace():
            begin += 1
        elif text[begin] in FIRST and (mark := next((one for one in BEGINS if text.startswith(one, begin)), None)):
            kept = begin = begin + len(mark)
        else:
            break
    return text[kept:]


def refuse_long(texts: Sequence[str]) -> None:
    """Raise InputError for texts that are too long together; those that are taken apart are limited before that."""
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise InputError(f"the texts have more than {MOST_CHARACTERS:,} characters; give fewer.")


def prompt_of(text: str) -> str | Sequence[Message]:
    """A prompt that may be in a template: its messages, a single user's message as a text, or the text as it is."""
    messages = [message for _, message in _turns(text)]
    if messages and messages[-1]["role"] == "assistant" and messages[-1]["content"] in OPENED:
        messages.pop()
    return plain(messages) if messages else text


def plain(messages: Sequence[Message]) -> str | Sequence[Message]:
    """The prompt of a conversation: one message of a user is a text, as in most data; others stay messages."""
    if len(messages) == 1 and messages[0].get("role") == "user":
        content = messages[0].get("content")
        return content if isinstance(content, str) else messages
    return messages


def cut(text: str) -> Cut:
    """The prompt and the response of a whole conversation in a template.

    Everything behind the last turn that is not the assistant's is the response. Raises InputError where there is none.
    """
    turns = _turns(text)
    asked = max((at for at, (_, message) in enumerate(turns) if message["role"] != "assistant"), default=None)
    if asked is None or asked + 1 == len(turns):
        raise InputError(
            "no prompt and response found in the text: it has no marks of turns that are known, or no answer behind "
            "the last question. Send messages, or prompt and text separately."
        )
    first = next(at for at, (_, message) in enumerate(turns) if message["role"] == "assistant")
    own, within = (without_ends(text[turns[at][0] :]) for at in (asked + 1, first))
    return Cut(plain([message for _, message in turns[: asked + 1]]), own, within)


def _turns(text: str) -> list[tuple[int, Message]]:
    """Each turn: where its content begins, and the message."""
    marks = list(TURN.finditer(text))
    found: list[tuple[int, Message]] = []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        content = text[mark.end() : end]
        found.append((mark.end(), {"role": _role(mark), "content": without_ends(content).strip()}))
    return found


def _role(mark: re.Match[str]) -> str:
    if mark["inst"] is not None:
        return "assistant" if mark["inst"] else "user"
    said = next(name for name in mark.groups() if name).lower()
    return ROLES.get(said, said)
