"""What a text says once its spelling is decoded: readings that are added to the text and never replace it.

``seen``      what is displayed, in plain letters (``shown``); the only reading of a whole text
``decoded``   base64, base32, hex and binary digits, and lists of the numbers of characters, where they decode to words
``unleeted``  d1g1ts and $igns among letters as the letters that they look like
``joined``    s p a c e d letters, l-i-k-e-w-i-s-e, whatever stands between them
``in_order``  what is shown from right to left; ``upright``: letters that stand upside down
``turned``    letters of another alphabet (rot13, any other shift, atbash), where that makes words
``reversed``  a sentence, or each of its words, read backwards, where that makes words

Each maps single sentences, and the reading of a sentence depends on nothing else, so added sentences remove no reading.
Two of them may be nested, such as base64 of rot13.

Whether letters form words is decided by how often each follows another in English (counted over the responses of three
public sets of preferences, 1.1 million letters); other languages that use the Latin alphabet are alike enough.

Covered: texts written whole in these ways, sentence by sentence. Not covered: paraphrase, other languages, other
ciphers, and single words that are hidden in a sentence.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polypref.bounds.shown import in_order, seen, upright
from polypref.bounds.windows import sentences, windows

DEPTH, MOST_READINGS, MOST_SENTENCES = 3, 32, 4096  # sentences that differ, of all readings
MOST_LETTERS = 262_144  # characters of a text, and of each reading
# FOLLOWS[i][j]: how often letter j follows letter i (0: a word begins or ends), in ninths of 8.5 nats, from -5 on,
# against letters by lot
FOLLOWS = (
    "066655555634555653567446150", "605550442524657050667453252", "563118000530721700643620060",
    "572407007605600700646500040", "851147232610323600450531040", "863565433401556442765253440",
    "860006600600500700625500040", "861007036600415600642500040", "673008002600223600425400040",
    "654656550104557642577153203", "561127111512211821241811111", "741018221703436300161500033",
    "761267410603621640155543060", "774007200600253660050501050", "751576371524334610166330040",
    "734453642424567550756755230", "661217315500730760755500030", "621112411511411111113911111",
    "762457351604445632466432050", "852506205603443651157503040", "761306107600411620554523041",
    "655555253500656250776000332", "562008000700000510130030032", "770027107701405700552103020",
    "760625002700000273006500540", "833325000401332740254002011", "663228242625522622232452266",
)  # fmt: skip
NATS_AA = np.array([[int(digit) for digit in row] for row in FOLLOWS]) / 9 * 8.5 - 5
CODES = bytes(code - 96 if 97 <= code <= 122 else 0 for code in range(256))
MADE_WORDS = 0.6  # nats a letter: English has about 1.4, letters by lot have -1.5
LIKELIER, SURER = 4.0, 8.0  # nats in all, by which another reading, or the best of 26 alphabets, has to be likelier
REMEMBERED = 512  # characters of a sentence whose readings are kept, since sentences recur
SHORTEST = 16  # characters of an encoded text
FEWEST_SPELT = 4  # letters of a sentence that stand alone
MOST_OPEN = 6  # signs of a word that may be either of two letters

SIGNS = {
    "0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g", "@": "a",
    "$": "s", "!": "i", "|": "li", "+": "t", "(": "c", "\u20ac": "e", "\u00a3": "l",
}  # fmt: skip
ENCODED = re.compile(r"[A-Za-z0-9+/=_,:;\\-]{2,}(?:[ \t]+[A-Za-z0-9+/=_,:;\\-]{2,})*")
NUMBERS = re.compile(r"(?<!\d)\d{2,8}(\D{1,9})\d{2,8}(?:\1\d{2,8}){6,}(?!\d)")  # equally far apart
WORDS = re.compile(r"[^\W_]+")
WIDEST = 8  # characters between two letters that stand alone
# of each of these a run is tried once, from its beginning, so that a text of nothing else takes no longer
SIGN_WITHIN = re.compile(r"(?<!\S)(?:[^\w\s]|[\d_])*+[^\W\d_]\S*[0-9@$!|+(]")  # after a letter
SIGN_AFTER = re.compile(r"(?<!\S)(?:[^\w\s]|[\d_])*+[^\W\d_]\S*[0-9@$|+]")
SIGN_BEFORE = re.compile(r"(?<!\S)[^\s0-9@$!|+(]*+[0-9@$!|+(]\S*[^\W\d_]")
AT_END = "!?.,;:)"  # of a word, where these are signs of punctuation
AZ = "abcdefghijklmnopqrstuvwxyz"
ALPHABETS = [
    str.maketrans(AZ + AZ.upper(), order + order.upper())
    for order in (AZ[::-1], *(AZ[by:] + AZ[:by] for by in range(1, 26)))
]


def _for_short(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function, with a cache of its results for short texts."""
    remembered = lru_cache(maxsize=65536)(function)
    return lambda text: remembered(text) if len(text) <= REMEMBERED else function(text)


def readings(text: str) -> list[str] | None:
    """``text`` and its other readings, each once; None where they exceed the limits above in number or length."""
    found = list(_one_by_one(text))
    return None if None in found else [read for read in found if read is not None]


def _one_by_one(text: str) -> Iterator[str | None]:
    """The same, each as soon as it is found; None, and nothing after it, where it is too much."""
    yield text
    found, known, new = {text}, set[str](), [text]
    for _ in range(DEPTH):
        made = []
        for one in new:
            parts = [part.strip() for part in sentences(one)]  # spaces around a sentence change no reading of it
            known.update(parts)
            if len(known) > MOST_SENTENCES:
                yield None
                return
            for read in _others(one, parts):
                if read in found:
                    continue
                if len(found) >= MOST_READINGS or len(read) > MOST_LETTERS:
                    yield None
                    return
                found.add(read)
                made.append(read)
                yield read
        new = made


def windows_read(text: str, most: int) -> list[str] | None:
    """The distinct windows of all readings of ``text``; None if more than ``most``, so not all are read."""
    found: dict[str, None] = {}
    for read in _one_by_one(text):
        if read is None:
            return None
        for window in windows(read):
            found[window] = None
            if len(found) > most:
                return None
    return list(found)


def _others(text: str, parts: list[str]) -> Iterator[str]:
    """Each other reading of ``text``, sentence by sentence: where it says nothing else of one, that stays."""
    if (shown := seen(text)) != text:
        yield shown
    for new in zip(*map(_readings_of, parts), strict=True):
        if list(new) != parts:
            yield "\n".join(new)


@_for_short
def _readings_of(sentence: str) -> tuple[str, ...]:
    """The sentence in each other reading."""
    found = decoded(sentence), unleeted(sentence), unleeted_plainly(sentence), joined(sentence)
    found = *found, upright(in_order(sentence))
    if is_words(sentence):  # what is words is not turned or reversed
        return *found, sentence, sentence, sentence
    return *found, turned(sentence), reversed_whole(sentence), reversed_words(sentence)


def nats(letters: str) -> tuple[float, int]:
    """How much likelier the words of an ASCII text are as English than as random letters, and its letters."""
    code = _codes(letters)
    pair = code[:-1] * 27 + code[1:]
    return float(NATS_AA.ravel()[pair[pair > 0]].sum()), int(np.count_nonzero(code))


def _codes(letters: str) -> NDArray[np.int16]:
    """1 to 26 for the letters of an ASCII text, 0 for what is between words."""
    coded = f" {letters} ".lower().encode("ascii", "replace").translate(CODES)
    return np.frombuffer(coded, np.uint8).astype(np.int16)


def is_words(text: str) -> bool:
    """Whether a text is made of words."""
    value, letters = nats(text)
    return letters * 3 >= len(text) * 2 and value >= MADE_WORDS * letters


def decoded(sentence: str) -> str:
    """Digits of some base, and numbers of characters, as the words that they stand for."""
    return ENCODED.sub(lambda run: _of_digits(run[0]), NUMBERS.sub(lambda run: _of_numbers(run[0]), sentence))


def _of_numbers(run: str) -> str:
    """A list of the numbers of ASCII characters, in one of three bases, where that makes words."""
    numbers = re.findall(r"\d+", run)
    for base in (10, 8, 2):
        try:
            codes = [int(number, base) for number in numbers]
        except ValueError:
            continue
        if all(32 <= code < 127 or code in (9, 10, 13) for code in codes) and is_words(text := bytes(codes).decode()):
            return text
    return run


def _of_digits(run: str) -> str:
    """Each word of a line by itself, or all of them as one."""
    words = run.split()
    alone = [_words_of(word) or word for word in words]
    return " ".join(alone) if alone != words else _words_of("".join(words)) or run


@_for_short
def _words_of(digits: str) -> str:
    """What digits decode to; nothing where these are no words."""
    digits = re.sub(r"[,:;]|\\x|0x", "", digits)
    for decode in (_base64, _base32, bytes.fromhex, _binary) if len(digits) >= SHORTEST else ():
        try:
            text = decode(digits).replace(b"\0", b"").decode()  # UTF-16, too
        except ValueError:
            continue
        kinds = [unicodedata.category(one) for one in text]
        if kinds.count("Cc") + kinds.count("Cn") + kinds.count("Co") <= text.count("\n") + text.count(
            "\t"
        ) + text.count("\r"):
            shown = [kind for kind in kinds if kind != "Cf"]
            return text if sum(kind[0] in "LZ" for kind in shown) * 4 >= len(shown) * 3 else ""
    return ""


def _base64(digits: str) -> bytes:
    digits = digits.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)


def _base32(digits: str) -> bytes:
    digits = digits.rstrip("=")
    return base64.b32decode(digits + "=" * (-len(digits) % 8), casefold=True)


def _binary(digits: str) -> bytes:
    if len(digits) % 8 or set(digits) - {"0", "1"}:
        raise ValueError("no binary digits")
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def unleeted(sentence: str) -> str:
    """Digits and signs as the likeliest letters they look like, where that makes words of those with letters too."""
    return _unleeted(sentence, _likeliest)


def unleeted_plainly(sentence: str) -> str:
    """The same with the commonest letter for each."""
    return _unleeted(sentence, _commonest)


def _unleeted(sentence: str, letters: Callable[[str], str]) -> str:
    words = sentence.split(" ")
    mixed = [word for word in words if is_mixed(word)]
    old, new = " ".join(mixed), " ".join(map(letters, mixed))
    return " ".join(map(letters, words)) if _if_likelier(new, old) != old else sentence


def is_mixed(word: str) -> bool:
    """Whether a word has letters and signs that may be letters, not only a sign of punctuation at its end."""
    core = word.rstrip(AT_END)
    return any((SIGN_WITHIN.search(core[:-1]), SIGN_AFTER.search(word), SIGN_BEFORE.search(word)))


@_for_short
def _likeliest(word: str) -> str:
    if len(word) > REMEMBERED:  # no word; of all its signs, few would be chosen
        return _commonest(word)
    core = word.rstrip(AT_END)
    choices = [SIGNS.get(one, one) for one in core]
    for at in [at for at, some in enumerate(choices) if len(some) > 1][MOST_OPEN:]:
        choices[at] = choices[at][0]
    tried = ["".join(some) for some in product(*choices)]
    code = np.stack([_codes(one) for one in tried])
    pair = code[:, :-1] * 27 + code[:, 1:]
    value = np.ascontiguousarray(NATS_AA.ravel()[pair[:, pair[0] > 0]]).sum(1)  # signs become letters, in each
    return tried[int(value.argmax())] + word[len(core) :]


def _commonest(word: str) -> str:
    core = word.rstrip(AT_END)
    return "".join(SIGNS.get(one, one)[0] for one in core) + word[len(core) :]


def joined(sentence: str) -> str:
    """Letters that stand alone as words: without the signs that recur between them, or else what is most often."""
    word = [(one.start(), one.end()) for one in WORDS.finditer(sentence)]
    is_letter = [end - start == 1 and sentence[start].isalpha() for start, end in word]
    gap = [
        sentence[one[1] : other[0]] if first and second and other[0] - one[1] <= WIDEST else ""
        for one, other, first, second in zip(word, word[1:], is_letter, is_letter[1:], strict=False)
    ]
    beside = zip(gap, ["", *gap], [*gap[1:], ""], strict=False)
    between = {one for one, left, right in beside if one.strip() and one in (left, right)}
    if not between and (counts := Counter(filter(None, gap))):
        between = {min(counts, key=lambda one: (-counts[one], len(one), one))}
    joins = [one in between for one in gap]
    spelt = sum(joins) + sum(joins[at] and not (at and joins[at - 1]) for at in range(len(joins)))
    if spelt < FEWEST_SPELT:
        return sentence
    parts, at = [], 0
    for (_, end), (start, _), joins_here in zip(word, word[1:], joins, strict=False):
        if joins_here:
            parts.append(sentence[at:end])
            at = start
    return "".join([*parts, sentence[at:]])


def turned(sentence: str) -> str:
    """Letters read in another order of the alphabet, where that makes words."""
    if is_words(sentence):
        return sentence
    best = max((sentence.translate(table) for table in ALPHABETS), key=lambda read: nats(read)[0])
    return _if_likelier(best, sentence, SURER)


def reversed_whole(sentence: str) -> str:
    """The sentence read backwards, where that makes words."""
    return sentence if is_words(sentence) else _if_likelier(sentence[::-1], sentence, LIKELIER)


def reversed_words(sentence: str) -> str:
    """Each word read backwards, where that makes words."""
    if is_words(sentence):
        return sentence
    return _if_likelier(" ".join(word[::-1] for word in sentence.split(" ")), sentence, LIKELIER)


def _if_likelier(new: str, old: str, by: float = 0.0) -> str:
    return new if new != old and nats(new)[0] > nats(old)[0] + by and is_words(new) else old
