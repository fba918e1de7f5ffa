"""The scripts in which a text is written, and the scripts that a calibration held.

The script of a character is its Unicode property Script (Unicode Standard Annex 24). Digits, punctuation, symbols and
emoji (Common) and most accents (Inherited) belong to none; characters that are unassigned or of private use, to
``Unknown``. The scripts of a response are those of all characters of all its windows and its prompt's, in any reading
(``windowed``), so added text removes none.

A calibration holds a script if more of its slates have an unsafe response in it, or to a prompt in it, than the
calibration may lose: with fewer, all of them might pass, and the threshold would be the same.

Covered: each single character, also where it is encoded. Not covered: languages. Two that share a script, such as
English and Swahili, are not told apart, nor is one that is written in another's letters. Identifying the language of a
single sentence is wrong too often to drop texts by it (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from polypref.bounds.slates import Slates
from polypref.bounds.windowed import read_prompts, read_responses
from polypref.comparisons import IntArray, Responses

Scripts = tuple[str, ...]  # in the order of the alphabet

UNKNOWN = "Unknown"
OF_NONE = r"[\p{Common}\p{Inherited}]"
FREQUENT = ("Latin", "Han", "Cyrillic", "Greek", "Arabic", "Hangul")  # looked for first
LISTED = """
Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo
Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Coptic
Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan
Elymaic Ethiopic Garay Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Gurung_Khema Han
Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inscriptional_Pahlavi Inscriptional_Parthian
Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Kirat_Rai Lao
Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen
Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro
Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki
Ol_Onal Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic
Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic
Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar
Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan
Tifinagh Tirhuta Todhri Toto Tulu_Tigalari Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
"""
SCRIPTS = tuple(LISTED.split())


NAMES, HELD = (*SCRIPTS, UNKNOWN), -1  # the place of a script, and what stands for none


@dataclass(frozen=True)
class Seen:
    """How many ``slates`` of a calibration have a script, ``unsafe`` of them in an unsafe response or its prompt, and
    whether the calibration holds it: whether these are more than it may lose."""

    slates: int
    unsafe: int
    held: bool


def script_of(characters: set[str]) -> dict[str, str]:
    """The script of each character; those that belong to none are left out."""
    left = pl.Series("character", sorted(characters), dtype=pl.String)
    left = left.filter(~left.str.contains(OF_NONE))
    found: dict[str, str] = {}
    for name in dict.fromkeys((*FREQUENT, *SCRIPTS)):
        if not len(left):
            break
        of_it = left.str.contains(rf"\p{{Script={name}}}")
        found |= dict.fromkeys(left.filter(of_it), name)
        left = left.filter(~of_it)
    return found | dict.fromkeys(left, UNKNOWN)


def scripts_of(responses: Responses) -> list[Scripts]:
    """Of each response with its prompt; none for texts that are too long to be read."""
    texts, (prompts, at_R) = read_responses(responses), read_prompts(responses)
    of_text = [set("".join(texts.windows[w] for w in texts.of_text(r))) for r in range(len(responses))]
    of_prompt = [set("".join(prompts.windows[w] for w in prompts.of_text(p))) for p in range(len(prompts.many_T))]
    script = script_of(set().union(*of_text, *of_prompt))
    named_P = [{script[one] for one in some if one in script} for some in of_prompt]
    named_R = [{script[one] for one in some if one in script} for some in of_text]
    return [tuple(sorted(own | named_P[p])) for own, p in zip(named_R, at_R.tolist(), strict=True)]


def seen_in(slates: Slates, may_lose: int) -> dict[str, Seen]:
    """The scripts of slates, the most frequent first; ``may_lose`` as in ``calibrate.allowed``."""
    scripts_R = scripts_of(slates.responses)
    places: dict[str, list[int]] = {}
    for c, r in enumerate(slates.response_C.tolist()):
        for name in scripts_R[r]:
            places.setdefault(name, []).append(c)
    found = {}
    for name, of_it in places.items():
        of_it_C = np.array(of_it)
        unsafe = len(np.unique(slates.slate_C[of_it_C[slates.unsafe_C[of_it_C]]]))
        held = name != UNKNOWN and unsafe > max(may_lose, 0)
        found[name] = Seen(len(np.unique(slates.slate_C[of_it_C])), unsafe, held)
    return dict(sorted(found.items(), key=lambda one: (-one[1].slates, one[0])))


@dataclass(frozen=True)
class Rule:
    """Scripts that a calibration held, and whether texts in others are dropped; they are named in any case."""

    held: frozenset[str]
    drops: bool = True

    @classmethod
    def of(cls, seen: Mapping[str, Seen], drops: bool) -> Rule:
        """The rule by what was seen."""
        return cls(frozenset(name for name, one in seen.items() if one.held), drops)

    def other(self, responses: Responses) -> IntArray:
        """The place in ``NAMES`` of a script of each response or its prompt that was not held (R,), or HELD."""
        others = ([name for name in some if name not in self.held] for some in scripts_of(responses))
        return np.array([NAMES.index(some[0]) if some else HELD for some in others], np.int32)
