"""TRL's preference formats: chat prompts stay chat, chat responses become text, implicit prompts are found.

https://huggingface.co/docs/trl/dataset_formats: prompt, chosen and rejected are texts ("standard") or lists of messages
("conversational"); without a prompt column ("implicit") the prompt is the common start of chosen and rejected. Chats
arrive as JSON text; each is parsed once, and plain texts are not parsed.

Difference to TRL: a text prompt ends after the last ``Assistant:`` turn if there is one, else at a word boundary, so
that a response is cut equally in all its pairs; TRL cuts at the first character that differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.content import canonical_chat
from polypref.data.rows.messages import (
    READ,
    Messages,
    NotMessages,
    Turns,
    join_prompt,
    messages_of,
    said_by,
    shared,
    text_of,
)
from polypref.data.rows.rows import Rows
from polypref.wording import shown

IMPLICIT_RULE = (
    "no prompt column (--columns prompt=NAME names one): the common start of the two responses (turns, or words) "
    "is the prompt"
)
TURN = r"(?s)^(.*(?:^|\n)\s*(?:Assistant|ASSISTANT|assistant|<\|assistant\|>|\[/INST\])\s*:?)"
MESSAGES = "a text, an object with a text, or a JSON list of messages with a role and a text as content"
SHAPE = re.compile(r"\s*\[\s*\{")  # the start of a chat
JSON = re.compile(r"\s*[\[{]")  # the start of a list or an object
TURNS_RULE = "a list of texts is a conversation: user and assistant take turns, and the last text is the response."
IN_TURN = ("user", "assistant")
SLICE = 10_000  # rows whose texts are in Python's memory at a time
HELD = 64 << 20  # characters of chats that are kept parsed


def read_chats(rows: Rows, sides: Sequence[str]) -> None:
    """Set ``prompt`` (text or canonical chat JSON) and ``chat``; turn the response columns ``sides`` into text."""
    implicit = not rows.has("prompt")
    if implicit:
        rows.set(prompt=pl.Series([None] * rows.frame.height, dtype=pl.String))
    columns = ["prompt", *sides]
    shaped = rows.frame.select(
        pl.any_horizontal(
            pl.col(role).str.contains(f"^{(JSON if role in rows.nested else SHAPE).pattern}").fill_null(False)
            for role in columns
        )
    ).to_series()
    rows.set(chat=pl.Series(np.zeros(rows.frame.height, bool)), _talk=pl.Series(np.zeros(rows.frame.height, bool)))
    if shaped.any():
        _split_chats(rows, columns, shaped.arg_true().to_numpy())
    plain = ~rows.frame["_talk"].to_numpy()
    if implicit and len(sides) == 2 and plain.any():
        _split_texts(rows, sides, plain)


@dataclass
class _Talks:
    """Chats parsed once each, while they fit, and what they contain besides text."""

    depth: int
    parsed: dict[tuple[str, bool], _Said] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    held: int = 0

    def parse(self, text: str, nested: bool) -> _Said:
        """What a text says; one of a ``nested`` column must be read, and in one of texts a list may be the answer."""
        found = self.parsed.get((text, nested))
        if found is None:
            unread: set[str] = set()
            try:
                said = said_by(text, self.depth, unread) if nested else messages_of(text, self.depth)
                found = _Said(said, frozenset(unread))
            except NotMessages as error:
                found = _Said(error.with_traceback(None))
            self.held += len(text) + 1000
            if self.held > HELD:
                self.parsed, self.prompts, self.held = {}, {}, 0
            self.parsed[text, nested] = found
        return found

    def prompt(self, text: str, messages: Messages) -> str:
        """A prompt that is a chat in canonical form."""
        found = self.prompts.get(text)
        if found is None:
            found = self.prompts[text] = canonical_chat(messages)
        return found


class _Said(NamedTuple):
    """What the JSON in a column says, and the keys that were not used for it."""

    value: Messages | Turns | str | NotMessages
    unread: frozenset[str] = frozenset()


def _split_chats(rows: Rows, columns: Sequence[str], at: NDArray[np.int64]) -> None:
    """Rows ``at``, whose texts may be chats: converts prompts to canonical chats, responses to text."""
    talks = _Talks(rows.limits.depth)
    nested = [role in rows.nested for role in columns]
    broken = {role: np.full(rows.frame.height, "", object) for role in columns}
    unread = np.full(rows.frame.height, "", object)
    turns = np.zeros(rows.frame.height, bool)
    parts = []
    for start in range(0, len(at), SLICE):
        part = at[start : start + SLICE]
        found = [_Row(talks, nested, texts) for texts in rows.frame[part].select(columns).iter_rows()]
        for place, row in zip(part.tolist(), found, strict=True):
            turns[place] = row.turns
            if row.broken:
                broken[columns[row.broken[0]]][place] = row.broken[1]
            if row.unread:
                unread[place] = row.unread
        new = {role: pl.Series([row.texts[k] for row in found], dtype=pl.String) for k, role in enumerate(columns)}
        flags = {"chat": [row.chat for row in found], "_talk": [row.talk for row in found]}
        parts.append(pl.DataFrame(new | flags))
    whole = pl.concat(parts)
    rows.set(**{name: rows.frame[name].scatter(at, whole[name]) for name in whole.columns})
    rows.set(_unread=pl.Series(unread.tolist(), dtype=pl.String), _turns=pl.Series(turns), **{
        f"_broken_{role}": pl.Series(why.tolist(), dtype=pl.String) for role, why in broken.items()
    })  # fmt: skip
    for role in columns:
        why = rows.frame[f"_broken_{role}"]
        rows.drop("broken chat", why != "", role, f"{MESSAGES} ({next(filter(None, why), '')})")
    keys = rows.frame["_unread"]
    contents = f"responses have the keys {shown(next(filter(None, keys), ''))}"
    rows.note("unread message keys", keys != "", f"{contents}; only their texts and calls of tools are read.")
    rows.note("lists of texts", rows.frame["_turns"], TURNS_RULE)


class _Row:
    """A prompt and its responses, chats or texts, in parts.

    ``texts``   the prompt and the responses as texts. ``chat``: the prompt is canonical chat JSON. ``talk``: a response
                was a chat. ``broken``: the number of a column that looks like a chat but is not, and why.
    ``unread``  the keys of responses that are not used for text. ``turns``: a list of texts was read.
    """

    def __init__(self, talks: _Talks, nested: Sequence[bool], texts: tuple[str | None, ...]) -> None:
        self.texts: list[str | None] = list(texts)
        self.chat = self.talk = self.turns = False
        self.broken: tuple[int, str] | None = None
        self.unread = ""
        lists: dict[int, Messages] = {}
        keys: set[str] = set()
        turns: dict[int, Turns] = {}
        for k, text in enumerate(texts):
            if text is None or not (JSON if nested[k] else SHAPE).match(text):
                continue
            found, unread = talks.parse(text, nested[k])
            keys |= unread if k else set()
            if isinstance(found, Turns):
                turns[k] = found
            elif isinstance(found, list):
                lists[k] = found
            elif isinstance(found, str):
                self.texts[k] = found
            elif found.chat:
                self.broken = self.broken or (k, str(found))
        if turns and not self.broken:
            self._name_speakers(lists, turns)
        if lists and not self.broken:
            self._take_apart(talks, lists, keys)
        self.unread = ", ".join(sorted(keys))

    def _name_speakers(self, lists: dict[int, Messages], turns: dict[int, Turns]) -> None:
        """Add lists of texts to ``lists``: users and assistants take turns, and the assistant gives the response."""
        self.turns = True
        asked = turns.pop(0, None)
        sizes = {len(one) for one in turns.values()}
        if asked is not None and len(asked) > 1 and len(turns) == len(self.texts) - 1 and sizes == {len(asked)}:
            for k, answers in turns.items():  # the user's turns in one column, the assistant's in the others
                lists[k] = _alternating(chain.from_iterable(zip(asked, answers, strict=True)))
            self.texts[0] = None
            return
        if asked is not None and len(asked) == 1:
            self.texts[0] = asked[0]
        elif asked is not None:
            lists[0] = _alternating(asked)
            if len(asked) % 2 == 0:
                self.broken = 0, f"a list of {len(asked)} texts, the last of which would be the assistant's"
        opening = text_of(lists[0][:1]) if 0 in lists else self.texts[0]
        for k, said in turns.items():
            if len(said) == 1:
                self.texts[k] = said[0]
                continue
            whole = not opening or said[0] == opening  # the list starts with the prompt
            if len(said) % 2 == whole:
                self.broken = k, f"a list of {len(said)} texts: who says which is not clear"
            lists[k] = _alternating(said if whole else ["", *said])[not whole :]

    def _take_apart(self, talks: _Talks, lists: dict[int, Messages], keys: set[str]) -> None:
        before = lists.pop(0, None)
        prefix: Messages = []
        if lists:
            self.talk = True
            count = shared(list(lists.values())) if len(lists) == len(self.texts) - 1 else 0
            prefix = next(iter(lists.values()))[:count]
            for k, messages in lists.items():
                rest = messages[count:] if count else messages
                self.texts[k] = text_of(rest)
                keys.update(*rest)
            keys -= READ
        if before is not None and not prefix:
            self.texts[0], self.chat = self._prompt(talks, before), True
        elif prefix:
            self.texts[0], self.chat = join_prompt(self.texts[0], before, prefix)

    def _prompt(self, talks: _Talks, before: Messages) -> str:
        return canonical_chat(before) if self.turns else talks.prompt(self.texts[0] or "", before)


def _alternating(texts: Iterable[str]) -> Messages:
    """Messages of a user and an assistant who take turns."""
    return [{"role": IN_TURN[k % 2], "content": text} for k, text in enumerate(texts)]


def _split_texts(rows: Rows, sides: Sequence[str], plain: NDArray[np.bool_]) -> None:
    """Implicit prompts of texts: cuts off the common start of both responses."""
    at = np.flatnonzero(plain)
    a, b = (rows.frame[role][at].fill_null("") for role in sides)
    shared_N = shared_start(a, b)
    frame = pl.DataFrame({"a": a, "b": b, "head": a.str.head(pl.Series(shared_N))}).with_columns(
        turn=pl.col.head.str.extract(TURN), words=pl.col.head.str.extract(r"(?s)^(.*\S)\s")
    )
    whole = pl.col.head.str.len_chars() == pl.min_horizontal(pl.col.a.str.len_chars(), pl.col.b.str.len_chars())
    next_is_space = pl.col.a.str.slice(pl.col.head.str.len_chars(), 1).str.contains(r"^\s")
    words = pl.when(next_is_space & ~whole).then("head").otherwise("words")
    prompt = pl.when(pl.col.a == pl.col.b).then(None).otherwise(pl.coalesce("turn", words)).fill_null("")
    frame = frame.with_columns(prompt=prompt)
    rows.set(prompt=rows.frame["prompt"].scatter(at, frame["prompt"]))
    for role, side in zip(sides, ("a", "b"), strict=True):
        rest = frame.select(pl.col(side).str.slice(pl.col.prompt.str.len_chars())).to_series()
        rows.set(**{role: rows.frame[role].scatter(at, rest)})


def shared_start(a: pl.Series, b: pl.Series) -> NDArray[np.int64]:
    """Number of characters that each two texts share at the start, by bisection over all rows at once."""
    low = np.zeros(len(a), np.int64)
    high = np.minimum(a.str.len_chars().to_numpy(), b.str.len_chars().to_numpy()).astype(np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        same = (a.str.head(pl.Series(middle)) == b.str.head(pl.Series(middle))).to_numpy()
        low, high = np.where(same, middle, low), np.where(same, high, middle - 1)
    return low
