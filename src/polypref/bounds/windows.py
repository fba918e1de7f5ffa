"""A text as windows; a safety score is the lowest over them, so that added text can only lower it.

The text between two ends of sentences or lines is a sentence; one of more than ``WORDS`` words or ``LETTERS``
characters is cut into overlapping pieces. Windows are all runs of neighbouring pieces within these limits. The windows
of a sentence depend only on it and its neighbours, so the windows of a text are among those of every text that contains
its sentences in unbroken order. There is no window for the whole text: it would vanish as soon as something is added.

Covered: every word of a text is in some window, and no window is longer than an encoder reads. Not covered: harm that
only arises across sentences that are together longer than a piece. If other sentences are inserted between sentences,
each is still read by itself, but runs of them are not. Windows of all neighbouring pairs would cost 2.5 times as much
to encode (prose), and detected no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WORDS, LETTERS = 20, 126  # of a piece: at most 126 word pieces, and an encoder reads 256
LONGEST = 32  # characters of a word that is not cut
LINE = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
END = re.compile(  # a run of signs is tried once, from its beginning: a text of nothing else takes no longer
    "(?<![.!?\u2026\u061f\u06d4\u0964])[.!?\u2026\u061f\u06d4\u0964]++[\"')\\]}*_\u2019\u201d\u00bb]*+(?=\\s|$)"
    "|[\u3002\uff01\uff1f\uff61]+[\u300d\u300f]*"
)


def windows(text: str) -> Iterator[str]:
    """The windows of ``text``, perhaps some of them twice, with one space between words.

    A text without words is one empty window.
    """
    words, pieces = _pieces(text)
    if not words:
        yield ""
    read = []
    for first, last in pieces:
        if any(letter.isalpha() for word in words[first:last] for letter in word):
            read.append((first, last))
        else:  # numbers of a list, lines of dashes: read by themselves, and what stands around them are neighbours
            yield " ".join(words[first:last])
    for at, (first, end) in enumerate(read):
        window = words[first:end]
        yield " ".join(window)
        for begin, last in read[at + 1 : at + 1 + 2 * WORDS]:  # no more fit
            window = window + words[max(begin, end) : last]
            if not _short(window):
                break
            yield " ".join(window)
            end = last


def sentences(text: str) -> Iterator[str]:
    """What stands between ends of sentences and lines; nothing of the text is left out but spaces."""
    for line in LINE.split(text):
        start = 0
        for end in END.finditer(line):
            yield line[start : end.end()]
            start = end.end()
        yield line[start:]


def _pieces(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """All words, and where pieces begin and end among them."""
    words: list[str] = []
    pieces: list[tuple[int, int]] = []
    for sentence in sentences(text):
        begun = len(words)
        for word in sentence.split():
            words += [word[at : at + LONGEST] for at in range(0, len(word), LONGEST)]
        pieces += [(begun + first, begun + last) for first, last in _cut(words[begun:])]
    return words, pieces


def _cut(words: list[str]) -> Iterator[tuple[int, int]]:
    """Pieces of one sentence: as long as may be, each beginning in the middle of the one before."""
    first = last = 0
    while last < len(words):
        last = first + 1
        while last < len(words) and _short(words[first : last + 1]):
            last += 1
        yield first, last
        first += (last - first + 1) // 2


def _short(words: list[str]) -> bool:
    return len(words) <= WORDS and sum(map(len, words)) + len(words) - 1 <= LETTERS
