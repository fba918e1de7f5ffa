"""A text as a person sees it, in plain letters.

Characters written as numbers are resolved (``escapes``); control characters, invisible characters, accents, and tags
and emphasis within a word are gone; compatibility forms, boxes and circles are letters. A letter of another alphabet, a
Latin one with a stroke or in another form, and a sign of a currency become the letter that they look like, where that
makes all letters of a word ASCII. ``in_order`` and ``upright`` undo what reverses a line or turns it upside down.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from polypref.bounds.escapes import resolved

BLANK = re.compile("[\u115f\u1160\u180e\u2800\u3164\uffa0]")
LOOK_ALIKES = {
    "a": "\u0430\u0251\u03b1\u1d00", "b": "\u042c\u044c\u0253\u0299\u0184\u0432", "c": "\u0441\u1d04",
    "d": "\u0501\u0257\u1d05\u0111", "e": "\u0435\u0454\u04bd\u0259\u1d07", "f": "\ua730\u0192",
    "g": "\u0261\u0262\u0581", "h": "\u04bb\u0570\u029c\u043d", "i": "\u0456\u0269\u0131\u03b9\u026a",
    "j": "\u0458\u03f3\u1d0a", "k": "\u043a\u03ba\u1d0b\u0199", "l": "\u029f\u0142\u04cf", "m": "\u043c\u1d0d",
    "n": "\u043f\u0578\u03b7\u0274", "o": "\u043e\u03bf\u0585\u1d0f\u00f8\u03c3", "p": "\u0440\u03c1\u1d18",
    "q": "\u051b\u0563", "r": "\u0433\u0280\u1d26", "s": "\u0455\ua731", "t": "\u0442\u03c4\u1d1b",
    "u": "\u03c5\u057d\u1d1c\u0446", "v": "\u0475\u03bd\u1d20", "w": "\u051d\u03c9\u1d21\u0448",
    "x": "\u0445\u03c7", "y": "\u0443\u04af\u03b3\u028f", "z": "\u1d22\u0290", "A": "\u0410\u0391",
    "B": "\u0412\u0392", "C": "\u0421", "E": "\u0415\u0395", "F": "\u03dc", "G": "\u050c", "H": "\u041d\u0397",
    "I": "\u0406\u0399\u04c0", "J": "\u0408", "K": "\u041a\u039a", "M": "\u041c\u039c", "N": "\u039d",
    "O": "\u041e\u039f\u0555\u00d8", "P": "\u0420\u03a1", "Q": "\u051a", "R": "\u01a6", "S": "\u0405",
    "T": "\u0422\u03a4", "U": "\u054d", "V": "\u0474", "W": "\u051c", "X": "\u0425\u03a7",
    "Y": "\u04ae\u03a5\u0423", "Z": "\u0396",
}  # fmt: skip
LATIN_FOR = {ord(other): letter for letter, others in LOOK_ALIKES.items() for other in others}
OF_CURRENCIES = str.maketrans(
    "\u20b3\u0e3f\u20b5\u20ac\u20a3\u20b2\u20ad\u20a5\u20a6\u20b1\u20b4\u20ae\u20a9\u00a5\u00a2\u00a3",
    "abcefgkmnpstwycl",
)
NAMED = re.compile(
    "LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL |SCRIPT |DOTLESS |INSULAR |OPEN |CLOSED |TURNED |REVERSED "
    "|INVERTED |BROKEN |TAILLESS )?([A-Z])(?: BAR| WITH .+)?"
)
BOXES = (  # first, last, the letter that the first is
    (0x249C, 0x24B5, "a"), (0x1F110, 0x1F129, "A"),
    (0x1F130, 0x1F149, "A"), (0x1F150, 0x1F169, "A"), (0x1F170, 0x1F189, "A"), (0x1F1E6, 0x1F1FF, "a"),
    (0xE0020, 0xE007E, " "),
)  # fmt: skip
CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # but for those that end a line or a word
TAG = (
    r"(?:</?(?:a|b|big|code|del|em|font|i|ins|kbd|mark|s|small|span|strong|sub|sup|tt|u|wbr)\b[^<>]{0,99}>"
    r"|<!--[^<>]{0,99}>)++"
)
TAGS = re.compile(rf"(?<=\w){TAG}|(?<!>){TAG}(?=\w)", re.IGNORECASE)
EMPHASIS = re.compile(r"(?<=[^\W\d_])(?:\*{1,3}|~~|`)(?=[^\W\d_])")
OVERRIDDEN = re.compile("\u202e([^\u202c]*)\u202c?")  # from right to left, whatever the letters
UPRIGHT, TURNED = (
    "abcdefghijklmnopqrstuvwxyzACEFGLTUVY",
    (
        "\u0250q\u0254p\u01dd\u025f\u0183\u0265\u1d09\u027e\u029el\u026fuodb\u0279s\u0287n\u028c\u028dx\u028ez"
        "\u2200\u0186\u018e\u2132\u2141\u02e5\u22a5\u2229\u039b\u2144"
    ),
)
OF_TURNED = str.maketrans(TURNED, UPRIGHT)
ONLY_TURNED = frozenset(one for one in TURNED if not one.isascii())


def seen(text: str) -> str:
    """``text`` as a person sees it, in plain letters."""
    text = CONTROLS.sub("", resolved(text))
    text = EMPHASIS.sub("", TAGS.sub("", text))
    if text.isascii():
        return text
    text = "".join(_decomposed(_lettered(one)) for one in BLANK.sub(" ", text))
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"\S+", lambda word: ascii_of(word[0]), text)


@lru_cache(maxsize=65536)
def _decomposed(one: str) -> str:
    """The compatibility form of a character without marks; by itself, since long runs of marks take long to sort."""
    some = unicodedata.normalize("NFKD", one)
    return "".join(
        one
        for one in some
        if unicodedata.category(one) not in ("Mn", "Me", "Cf") and unicodedata.combining(one) in (0, 9)
    )


def ascii_of(word: str) -> str:
    """The word with look-alikes folded, where that makes all of its letters ASCII."""
    if word.isascii():
        return word
    folded = "".join(map(_latin, word))
    if len(word) > 1 and not any(map(str.isdecimal, word)):  # a price stays
        folded = folded.translate(OF_CURRENCIES)
    return folded if all(one.isascii() or not one.isalpha() for one in folded) else word


@lru_cache(maxsize=65536)
def _latin(one: str) -> str:
    """The Latin letter that a letter looks like; itself where it looks like none."""
    if one.isascii() or ord(one) in LATIN_FOR:
        return one.translate(LATIN_FOR)
    found = NAMED.fullmatch(name := unicodedata.name(one, ""))
    if not found:
        return one
    return found[1] if name.startswith("LATIN CAPITAL") else found[1].lower()


def _lettered(one: str) -> str:
    """Letters in boxes, circles and brackets, flags' letters, and tags that nobody sees, as letters."""
    code = ord(one)
    for first, last, letter in BOXES:
        if first <= code <= last:
            return chr(ord(letter) + code - first)
    return one


def in_order(sentence: str) -> str:
    """What is shown from right to left by an override, in that order."""
    if "\u202e" not in sentence:
        return sentence
    return OVERRIDDEN.sub(lambda run: run[1][::-1], sentence)


def upright(sentence: str) -> str:
    """Letters that stand upside down the right way up, where some of them can be nothing else."""
    return sentence.translate(OF_TURNED) if not ONLY_TURNED.isdisjoint(sentence) else sentence
