"""How a response is written and what it shares with its prompt: numbers that need words alone, no network.

Words are runs of letters and digits in lower case; a Han, Hiragana, Katakana or Thai letter is a word by itself, since
these scripts write no spaces. Content words are those that are not in ``COMMON``. A text without words has shares of 0.

Suffixes here: ``_W`` words of X texts in their order, ``_E`` distinct words of each text.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

OVERLAP = (
    "prompt words in response",
    "response words in prompt",
    "prompt bigrams in response",
    "response bigrams in prompt",
)
STYLE = (
    "word variety",
    "repeated trigrams",
    "ends with punctuation",
    "log newlines",
    "log list items",
    "share of digits",
    "share of capitals",
    "words a sentence",
    "letters a word",
    "question marks",
    "refusal word",
    "share of content words",
)

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"
WORD = rf"[{ALONE}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{ALONE}]]+(?:['\u2019][[\p{{L}}]--[{ALONE}]]+)*"
LIST_ITEM = r"(?m)^[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]"
SENTENCE = r"[.!?\u3002\uff01\uff1f]+(?:\s|$)|[\u3002\uff01\uff1f]|\n+"
END = r"[.!?:;)\]\"'\u201d\u2019\u3002\uff01\uff1f`]\s*$"
REFUSAL = (
    r"(?i)\b(?:sorry|apologi[sz]e|unable to|not able to|cannot|can['\u2019]?t|won['\u2019]?t|"
    r"as an ai|language model|not (?:appropriate|comfortable)|decline)\b"
)
FUNCTION_WORDS = """
    a about above after again against all also am an and any are aren't as at be because been before being below
    between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each
    even ever every few for from further get give go had has have haven't having he her here hers herself him
    himself his how i i'd i'll i'm i've if in into is isn't it it's its itself just let like made make many may
    me might more most much must my myself no nor not now of off on once one only or other our ours ourselves
    out over own please same shall she should so some such than that that's the their theirs them themselves
    then there these they they're this those through to too under until up upon us very was wasn't we well were
    what what's when where which while who whom whose why will with within without won't would you you'd you'll
    you're you've your yours yourself yourselves
"""
COMMON = frozenset(FUNCTION_WORDS.split())


class Words:
    """The words of X texts: ``code_W`` is equal for equal words, ``text_W`` says whose each is, in order."""

    def __init__(self, texts_X: pl.Series) -> None:
        found = texts_X.str.to_lowercase().str.extract_all(WORD)
        self.words_X: Ints = found.list.len().to_numpy().astype(np.int64)
        self.text_W: Ints = np.repeat(np.arange(len(texts_X)), self.words_X)
        words = found.explode(empty_as_null=False)
        self.code_W: Ints = words.rank("dense").to_numpy().astype(np.int64)
        self.letters_W: Ints = words.str.len_chars().to_numpy().astype(np.int64)
        self.content_W: NDArray[np.bool_] = ~words.is_in(list(COMMON)).to_numpy()

    def runs(self, size: int) -> tuple[Ints, Ints]:
        """Runs of ``size`` words within one text: whose each is, and a code that is equal for equal runs."""
        starts = np.flatnonzero(self.text_W[: len(self.text_W) - size + 1] == self.text_W[size - 1 :])
        many, code = int(self.code_W.max(initial=0)) + 1, np.zeros(len(starts), np.int64)
        for step in range(size):
            _, code = np.unique(code * many + self.code_W[starts + step], return_inverse=True)
        return self.text_W[starts], code


def overlap(texts_R: pl.Series, prompts_P: pl.Series, prompt_R: NDArray[np.integer]) -> Floats:
    """The columns ``OVERLAP`` (R, 4): shares of the distinct content words, and of the bigrams, that both have.

    ``prompt_R`` is the number of each text's prompt.
    """
    words = Words(pl.concat([texts_R.rename("text"), prompts_P.rename("text")]))
    content = words.text_W[words.content_W], words.code_W[words.content_W]
    return np.concatenate([_shares(*found, prompt_R) for found in (content, words.runs(2))], axis=1)


def _shares(text_W: Ints, code_W: Ints, prompt_R: NDArray[np.integer]) -> Floats:
    """How much of its prompt's a response has, and how much of the response's its prompt has, (R, 2)."""
    r = len(prompt_R)
    many = int(code_W.max(initial=0)) + 1
    key_E = np.unique(text_W * many + code_W)
    size_X = np.bincount(key_E // many, minlength=r + int(prompt_R.max(initial=-1)) + 1)
    text_E, code_E = np.divmod(key_E[key_E < r * many], many)
    both_E = np.isin((r + prompt_R[text_E]) * many + code_E, key_E)
    both_R = np.bincount(text_E, both_E, minlength=r)
    sizes_R2 = np.stack([size_X[r + prompt_R], size_X[:r]], axis=1)
    return both_R[:, None] / np.maximum(sizes_R2, 1)


def style(texts_R: pl.Series) -> Floats:
    """The columns ``STYLE`` (R, 12) of texts."""
    r = len(texts_R)
    words = Words(texts_R)
    many_R = np.maximum(words.words_X, 1)
    letters_R = np.maximum(texts_R.str.len_chars().to_numpy(), 1)

    def matches(pattern: str) -> Floats:
        return texts_R.str.count_matches(pattern).to_numpy().astype(np.float64)

    def distinct(text_W: Ints, code_W: Ints) -> Ints:
        many = int(code_W.max(initial=0)) + 1
        return np.bincount(np.unique(text_W * many + code_W) // many, minlength=r)

    trigrams = words.runs(3)
    runs_R = np.bincount(trigrams[0], minlength=r)
    columns = {
        "word variety": distinct(words.text_W, words.code_W) / many_R,
        "repeated trigrams": (runs_R - distinct(*trigrams)) / np.maximum(runs_R, 1),
        "ends with punctuation": texts_R.str.contains(END).to_numpy().astype(np.float64),
        "log newlines": np.log1p(matches("\n")),
        "log list items": np.log1p(matches(LIST_ITEM)),
        "share of digits": matches(r"\p{Nd}") / letters_R,
        "share of capitals": matches(r"\p{Lu}") / letters_R,
        "words a sentence": np.log1p(words.words_X / np.maximum(matches(SENTENCE), 1)),
        "letters a word": np.bincount(words.text_W, words.letters_W, minlength=r) / many_R,
        "question marks": np.log1p(matches("[?\uff1f]")),
        "refusal word": texts_R.str.contains(REFUSAL).to_numpy().astype(np.float64),
        "share of content words": np.bincount(words.text_W, words.content_W, minlength=r) / many_R,
    }
    assert tuple(columns) == STYLE
    return np.stack(list(columns.values()), axis=1)
