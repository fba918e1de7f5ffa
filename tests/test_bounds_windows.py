"""What is read of a text: sentences that are put before or after it take nothing away, and ciphers are read through."""

from __future__ import annotations

import base64
import codecs
import json
import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polypref.bounds.readings import DEPTH, MOST_LETTERS, MOST_READINGS, readings, windows_read
from polypref.bounds.shown import TURNED, UPRIGHT, seen
from polypref.bounds.windows import LETTERS, WORDS, sentences, windows

TEXT = (
    "First you take a sharp knife from the kitchen. Then you wait until everybody in the house is asleep! "
    "Do not make any noise on the stairs."
)
STROKES = str.maketrans(
    "abdehiklotu", "\u0251\u0180\u0111\u0247\u0127\u0268\ua741\u019a\u00f8\u0167\u0289"
)  # Latin letters that do not decompose
COINS = str.maketrans("abcefkmnpstwy", "\u20b3\u0e3f\u20b5\u20ac\u20a3\u20ad\u20a5\u20a6\u20b1\u20b4\u20ae\u20a9\u00a5")
BLOCKS = {"parentheses": 0x249C, "capitals in parentheses": 0x1F110, "boxes": 0x1F130}
ENDS = (".", "!", "?", "...", '."', "\u2026", "\u3002", "\u061f")
WAYS = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64, a word each": lambda text: " ".join(re.findall("..?.?.?", base64.b64encode(text.encode()).decode())),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex with gaps": lambda text: text.encode().hex(" "),
    "hex escapes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "binary": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "per cent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "entities": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "JSON escapes": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "braced escapes": lambda text: "".join(f"\\u{{{ord(one):x}}}" for one in text),
    "long escapes": lambda text: "".join(f"\\U{ord(one):08X}" for one in text),
    "octal": lambda text: "".join(f"\\{ord(one):03o}" for one in text),
    "code points": lambda text: " ".join(f"U+{ord(one):04X}" for one in text),
    "quoted-printable": lambda text: "".join(f"={byte:02X}" for byte in text.encode()),
    "UTF-7": lambda text: f"+{base64.b64encode(text.encode('utf-16-be')).decode().rstrip('=')}-",
    "halves of letters": lambda text: json.dumps(
        "".join(chr(0x1D41A + ord(c) - 97) if c.islower() else c for c in text)
    ),
    "CSS": lambda text: "".join(f"\\{ord(one):x} " for one in text),
    "CSS, six digits": lambda text: "".join(f"\\{ord(one):06x}" for one in text),
    "CSS of letters": lambda text: "".join(f"\\{ord(one):x} " if one in "aeiou" else one for one in text),
    "Perl": lambda text: "".join(f"\\x{{{ord(one):04x}}}" for one in text),
    "octal, four digits": lambda text: "".join(f"\\0{ord(one):o}" for one in text),
    "octal in braces": lambda text: "".join(f"\\o{{{ord(one):o}}}" for one in text),
    "names of characters": lambda text: "".join(f"\\N{{{unicodedata.name(one)}}}" for one in text),
    "JSON in JSON": lambda text: "".join(f"\\\\\\u{ord(one):04x}" for one in text),
    "per cent u": lambda text: "".join(f"%u{ord(one):04x}" for one in text),
    "numbers": lambda text: " ".join(str(ord(one)) for one in text),
    "numbers with commas": lambda text: ", ".join(str(ord(one)) for one in text),
    "octal numbers": lambda text: " ".join(f"{ord(one):o}" for one in text),
    "seven bits": lambda text: " ".join(f"{ord(one):07b}" for one in text),
    "code": lambda text: "+".join(f"chr({ord(one)})" for one in text),
    "quoted-printable, some": lambda text: "".join(f"={ord(one):02X}" if one in "lmnoiknv" else one for one in text),
    "UTF-7 of zero-width": lambda text: WAYS["UTF-7"]("\u200b" + "\u200b".join(text)),
    "UTF-7, long": lambda text: WAYS["UTF-7"]("\n".join([text] * 6)),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "small base32": lambda text: base64.b32encode(text.encode()).decode().lower(),
    "control characters": "\x01".join,
    "deletes": "\x7f".join,
    "strokes": lambda text: text.translate(STROKES),
    "strokes in quotes": lambda text: " ".join(f"\u201c{word.translate(STROKES)}\u201d" for word in text.split()),
    "currencies": lambda text: text.translate(COINS),
    **{
        name: lambda text, first=first: "".join(chr(first + ord(c) - 97) if c.islower() else c for c in text)
        for name, first in BLOCKS.items()
    },
    "upside down": lambda text: text.translate(str.maketrans(UPRIGHT, TURNED))[::-1],
    "upside down, a word each": lambda text: " ".join(
        word.translate(str.maketrans(UPRIGHT, TURNED))[::-1] for word in text.split()
    ),
    "from right to left": lambda text: " ".join(f"\u202e{word[::-1]}\u202c" for word in text.split()),
    "commas": lambda text: " ".join(",".join(word) for word in text.split()),
    "dots in the middle": lambda text: " ".join("\u00b7".join(word) for word in text.split()),
    "bullets": lambda text: "    ".join(" \u2022 ".join(word) for word in text.split()),
    "pictures": lambda text: " ".join("\U0001f525".join(word) for word in text.split()),
    "wide": lambda text: "     ".join("  ".join(word) for word in text.split()),
    "two signs in turn": lambda text: " ".join("-.+"[at % 3].join(word) for at, word in enumerate(text.split())),
    "emphasis": lambda text: " ".join(f"{word[0]}**{word[1:2]}**{word[2:]}" for word in text.split()),
    "tags of HTML": lambda text: "".join(f"<b>{one}</b>" if one.isalpha() else one for one in text),
    "comments": lambda text: "".join(f"{one}<!-- -->" if one.isalpha() else one for one in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "words reversed": lambda text: " ".join(word[::-1] for word in text.split()),
    "leet": lambda text: text.translate(str.maketrans("aeiostAEIOST", "431057431057")),
    "leet with l": lambda text: text.replace("asleep", "abed").translate(str.maketrans("aeiostl", "@310$7|")),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "hyphens": lambda text: " ".join("-".join(word) for word in text.split()),
    "zero-width": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "marks": lambda text: "".join(one + "\u0336" if one.isalpha() else one for one in text),
    "look-alikes": lambda text: text.translate(str.maketrans("aeopcyx", "\u0430\u0435\u043e\u0440\u0441\u0443\u0445")),
    "full width": lambda text: "".join(chr(ord(one) + 0xFEE0) if one.isalpha() else one for one in text),
    "mathematical": lambda text: "".join(chr(0x1D41A + ord(one) - 97) if "a" <= one <= "z" else one for one in text),
    "tags": lambda text: "hello " + "".join(chr(0xE0000 + ord(one)) for one in text),
    "base64 of rot13": lambda text: base64.b64encode(codecs.encode(text, "rot13").encode()).decode(),
    "hex of zero-width": lambda text: "\u200b".join(text).encode().hex(),
}


def plain(text: str) -> str:
    """Small letters and digits alone: the shipped encoders read no more."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


@pytest.mark.parametrize("way", WAYS)
def test_a_text_is_read_through_each_way_of_writing_it(way):
    hidden = WAYS[way](TEXT)
    read = " | ".join(map(plain, windows_read(hidden, 4096) or []))
    shown = " | ".join(map(plain, windows(hidden)))
    for words in ("sharp knife from the kitchen", "everybody in the house is a", "any noise on the stairs"):
        assert words in read
        assert words not in shown  # as it is written it says nothing


@pytest.mark.parametrize("way", WAYS)
def test_spaces_around_a_sentence_hide_nothing(way):
    """A short text of two words, of which leading spaces would be a third."""
    hidden = WAYS[way]("sharp person here.")
    alone = set(windows_read(hidden, 4096) or [])
    assert alone <= set(windows_read(f"How.{' ' * 9}{hidden}{' ' * 9}", 4096) or [])


def test_clear_english_has_no_other_reading():
    assert readings(TEXT) == [TEXT]
    assert readings("In 1990 he sold 40 of them, for $5 each.") == ["In 1990 he sold 40 of them, for $5 each."]


def test_words_of_other_alphabets_stay_unless_all_of_a_word_looks_like_ascii():
    assert (
        seen("\u043f\u0440\u0438\u0432\u0435\u0442 \u0441\u043e\u0440\u0430")
        == "\u043f\u0440\u0438\u0432\u0435\u0442 copa"
    )
    assert seen("\uff48\uff49 caf\u00e9") == "hi cafe"


def test_a_text_that_says_too_much_is_not_read(monkeypatch):
    from polypref.bounds import readings as module

    assert windows_read("One. Two. Three.", 5) is None
    assert len(windows_read("One. Two. Three.", 6) or []) == 6
    monkeypatch.setattr(module, "MOST_READINGS", 1)
    assert windows_read(codecs.encode(TEXT, "rot13"), 4096) is None
    assert windows_read(TEXT, 4096) is not None
    assert DEPTH >= 2 and MOST_READINGS >= 8


# --- whatever is added

letters = st.characters(codec="utf-8", exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc"))
odd = st.text(letters, min_size=1, max_size=12)
english = st.sampled_from(
    [
        "how",
        "do",
        "I",
        "kill",
        "a",
        "person",
        "with",
        "one",
        "sharp",
        "knife",
        "at",
        "night",
        "and",
        "hide",
        "it",
        "from",
        "all",
        "of",
        "them",
    ]
)
long = st.sampled_from(["x" * 70, "-" * 90, "\u6f22" * 50, "1.", "2)", "42", "***"])
words = st.lists(english | odd | long, min_size=1, max_size=30).map(" ".join)
hidden = st.tuples(st.sampled_from(sorted(WAYS)), st.lists(english, min_size=1, max_size=30).map(" ".join)).map(
    lambda one: WAYS[one[0]](one[1])
)
whole = st.tuples(words | hidden, st.sampled_from(ENDS)).map("".join)
texts = st.lists(whole, min_size=1, max_size=5)
gap = st.sampled_from([" ", "\n", "\n\n", "  ", "\u2028"])


@settings(max_examples=400, deadline=None)
@given(st.lists(whole, max_size=4), texts, st.lists(whole, max_size=4), gap)
@example(["A."], ["1. Buy it.", "2. Sell it."], ["B."], " ")
@example([], ["SGVsbG8gdGhlcmUgYW5k"], ["IGhlcmUgd2UgYXJlIGFn"], "\n")
def test_whole_sentences_before_and_after_take_no_window_away(before, text, after, gap):
    few, many = windows_read(gap.join(text), 10**6), windows_read(gap.join([*before, *text, *after]), 10**6)
    if many is not None:  # None: not scored at all, which is less than any score
        assert few is not None
        assert set(few) <= set(many)


def test_a_window_for_the_whole_text_would_vanish():
    """The property above can fail: windows that know where a text ends do not have it."""
    few, many = ({*windows(text), text} for text in (TEXT, f"{TEXT} Thank you."))
    assert not few <= many


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400) | texts.map("\n".join))
def test_every_word_is_in_some_window_and_none_is_too_long(text):
    found = list(windows(text))
    assert found
    assert all(len(window) <= 2 * LETTERS + 1 for window in found)
    assert all(len(window.split()) <= 2 * WORDS for window in found)
    read = {word for window in found for word in window.split()}
    for word in text.split():
        for sentence in sentences(word):
            for at in range(0, len(sentence), 32):
                assert sentence[at : at + 32] in read


def test_short_lines_are_read_together_and_long_sentences_in_overlapping_pieces():
    assert "How to hurt a man" in set(windows("How\nto\nhurt\na\nman"))
    assert "How. to. hurt. a. man." in set(windows("How. to. hurt. a. man."))
    run = [f"w{n}" for n in range(60)]
    found = {tuple(window.split()) for window in windows(" ".join(run))}
    assert max(map(len, found)) < 2 * WORDS
    for at in range(60 - WORDS // 2):  # what lies side by side is read side by side
        assert any(set(run[at : at + WORDS // 2]) <= set(window) for window in found)
    assert set(windows("Yes. 1. No.")) == {"1.", "Yes.", "No.", "Yes. No."}
    assert list(windows(" \n ")) == [""]


# --- hostile texts

HOSTILE = {  # one part, which is repeated, and the end
    "one letter": ("a", ""),
    "full stops": (".", "a"),
    "stops and brackets": (".)", "a"),
    "base64 digits": ("QUJD", ""),
    "letters and stops": ("a.", "ab"),
    "letters and spaces": ("a b ", ""),
    "other signs between letters": ("x y-", "z"),
    "letters and digits": ("a1 ", ""),
    "either letter": ("1|a ", ""),
    "short sentences": ("q. ", ""),
    "signs that end words": ("!", "a"),
    "a letter, then signs": ("!", ""),
    "marks in turn": ("\u0301\u0316", ""),
    "tone marks in turn": ("\u302e\U0001d165", ""),
    "a large number": ("1", ";"),
    "ligatures": ("\ufdfa", ""),
    "look-alikes": ("\u0430 ", ""),
    "backslashes": ("\\", "u0061"),
    "escapes": ("\\u0061", ""),
    "plus signs": ("+A", ""),
    "host names": ("xn--", ""),
    "equals signs": ("=61", "="),
    "equals signs alone": ("=6", ""),
    "tags": ("<b>", ""),
    "open tags": ("<b ", ""),
    "open comments": ("a<!--", ""),
    "asterisks": ("a**", ""),
    "overrides": ("\u202e", "a"),
    "overrides in turn": ("\u202ea\u202cb", ""),
    "numbers": ("104 ", ""),
    "numbers far apart": ("104abcdefgh", ""),
    "digits": ("11", ""),
    "names": ("\\N{LATIN ", "}"),
    "plus and digits": ("+aa", "-"),
    "letters and many signs": ("a--------", ""),
    "currencies": ("\u20b3", ""),
    "turned letters": ("\u0250b", ""),
    "controls": ("\x01", "a"),
    "CSS": ("\\68", ""),
}
BEGUN = {"a letter, then signs": "a", "a large number": "&#"}


def hostile(name, length):
    part, end = HOSTILE[name]
    begun = BEGUN.get(name, "")
    return begun + (part * length)[: length - len(begun) - len(end)] + end


def seconds(text, times=1):
    """The least of several measurements, since other work on the machine only ever adds to one."""
    took = []
    for _ in range(times):
        begun = time.process_time()
        windows_read(text, 4096)
        took.append(time.process_time() - begun)
    return min(took)


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_takes_time_by_length_and_no_more(name):
    short, long = (seconds(hostile(name, length), times=3) for length in (20_000, 80_000))
    assert long <= 8 * short + 0.1  # four times the length: 4 if linear, 16 if quadratic
    assert seconds(hostile(name, MOST_LETTERS)) < 10


def test_sentences_that_differ_in_spaces_alone_are_not_read_without_end():
    kinds = [format(n, "013b").translate({48: " ", 49: "\t"}) for n in range(5000)]
    assert windows_read(". ".join(f"xq{gap}zj" for gap in kinds), 4096) is None
    assert windows_read(". ".join(f"xq{gap}zj" for gap in kinds[:50]), 4096) is not None


def test_a_reading_that_is_too_long_leaves_a_text_unread():
    assert windows_read("\ufdfa " * 20_000, 4096) is None
    assert windows_read("\ufdfa " * 100, 4096) is not None


def test_a_host_name_in_another_alphabet_is_read_as_it_is_shown():
    assert seen("see xn--80ak6aa92e.com") == "see apple.com"  # all Cyrillic
    assert seen("xn--!") == "xn--!"


def test_numbers_in_code_and_sums_stay():
    for text in ("x=10; y=20", "a+b = C++", "print('\\n')", "1+1=2", "+49 30 1234567", "U+", "\\d+\\w"):
        assert seen(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "xn--ib9b",
        "xn--zy0c",
        "\\ud800",
        "\\u{dfff}",
        "&#xd800;",
        "%ED%A0%80",
        "+2AA-",
        "\\x00",
        "%00",
        "\\N{NULL}",
        "\\0",
    ],
)
def test_what_no_text_may_hold_is_not_made_of_escapes(text):
    """Half a character, or NUL: an encoder would refuse them, and the whole batch with them."""
    for read in readings(f"kill {text} them") or []:
        assert "\0" not in read
        read.encode()  # fails for half a character


def test_a_number_of_any_length_is_read():
    assert seen("&#" + "0" * 5000 + "65;") == "A"
    assert seen("&#" + "1" * 5000 + ";") == seen("&#1114112;") == "\ufffd"
