"""What one value of a label column says by itself: a side, a tie, a number, nothing, or something unknown.

Only words that mean one thing in every file are known here: A, left, Response B, model_a, "A is slightly better",
[[A>>B]], tie (bothbad). Numbers say nothing by themselves; ``labels`` decides what they mean from the whole column.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Side = Literal["A", "B", "tie"]

SLIGHTLY, PLAINLY, STRONGLY = 1.0, 2.0, 3.0  # strengths of a preference in words
FIRST = frozenset(
    (
        *("a", "first", "1st", "left", "links", "erste", "erster", "erstes", "gauche", "premier", "première"),
        *("izquierda", "primera", "primero"),
    )
)
SECOND = frozenset(
    (
        *("b", "second", "2nd", "right", "rechts", "zweite", "zweiter", "zweites", "droite", "deuxième", "seconde"),
        *("derecha", "segunda", "segundo"),
    )
)
NOUNS = (
    *("response", "answer", "output", "model", "completion", "assistant", "option", "candidate", "reply", "text"),
    *("system", "choice", "side", "chatbot", "bot", "generation", "summary", "version", "variant", "sample", "player"),
    *("agent", "conversation", "antwort", "modell", "réponse", "modèle", "respuesta", "modelo", "opción"),
)
FILLERS = frozenset(
    (
        *NOUNS,
        *("the", "one", "is", "was", "are", "by", "it", "winner", "wins", "won", "preferred", "prefer", "prefers"),
        *("chosen", "choose", "chooses", "chose", "selected", "favored", "favoured", "better", "best", "die", "der"),
        *("das", "la", "le", "el", "ist", "gewinnt", "besser", "bevorzugt", "est", "gagne", "meilleur", "meilleure"),
        *("mieux", "es", "gana", "mejor"),
    )
)
PLURALS = frozenset(f"{noun}s" for noun in NOUNS)
AGAINST = ("than", "over", "to", "als", "que")
SLIGHT = ("slightly", "marginally", "somewhat", "weakly", "etwas", "leicht", "légèrement", "ligeramente")
STRONG = (
    *("much", "significantly", "far", "strongly", "clearly", "definitely", "considerably", "deutlich", "viel", "klar"),
    *("nettement", "mucho"),
)
STRENGTHS = dict.fromkeys(SLIGHT, SLIGHTLY) | dict.fromkeys(STRONG, STRONGLY)
TIED = frozenset(
    (
        *("tie", "ties", "tied", "a tie", "it s a tie", "draw", "a draw", "even", "equal", "equals", "equally good"),
        *("equally bad", "both", "both good", "both bad", "bothgood", "bothbad", "both are good", "both are bad"),
        *("both equal", "both are equal", "neither", "neither is better", "neither is good", "same", "the same"),
        *("about the same", "same quality", "similar", "tie bothbad", "tie both bad", "tie bothgood", "tie both good"),
        *("no preference", "nopreference", "no pref", "indifferent", "no difference", "unentschieden", "gleich"),
        *("gleich gut", "gleich schlecht", "gleichstand", "beide", "beide gleich", "beide gut", "beide schlecht"),
        *("keine präferenz", "égalité", "egalité", "ex aequo", "les deux", "aucune préférence", "empate", "igual"),
        *("iguales", "ambas", "ambos", "sin preferencia"),
    )
)
ALIKE = frozenset(  # words of which one makes a tie of both sides, or of none that is named
    (
        *(
            "same",
            "equal",
            "equals",
            "equally",
            "tie",
            "tied",
            "draw",
            "similar",
            "equivalent",
            "comparable",
            "neutral",
        ),
        *("indifferent", "gleich", "igual", "neutre", "neutro"),
    )
)
SOFT = frozenset(("about", "roughly", "approximately", "nearly", "both", "quality", "as", "to", "and", "than", "in"))
WORSE = frozenset(("worse", "worst", "loses", "lost", "loser", "schlechter", "pire", "peor"))
NO_ANSWER = frozenset(
    (
        *("", "-", "--", "–", "—", "?", "na", "n/a", "n.a.", "#n/a", "nan", "<na>", "null", "skip", "skipped"),
        *("unsure", "not sure", "no answer", "not answered", "unanswered", "not applicable"),
    )
)
COMPARED = str.maketrans({"≫": ">>", "≪": "<<", "≻": ">", "≺": "<", "≈": "=", "≃": "=", "~": "=", "−": "-"})

NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:e[+-]?\d+)?\s*%?")
COMPARISON = re.compile(r"(.+?)\s*(<+|>+|=+)\s*(.+)")
GLUED = re.compile(rf"({'|'.join(NOUNS)})(a|b|\d)")


@dataclass(frozen=True)
class Said:
    """Who won, and how strongly it is said (ties: 0)."""

    side: Side
    strength: float = PLAINLY


@dataclass(frozen=True)
class Number:
    """A number; ``named`` if it numbers a response, as in model_1. ``strength``: of "response 1 is much better"."""

    value: float
    named: bool = False
    strength: float = PLAINLY


@dataclass(frozen=True)
class Nothing:
    """No answer."""


Meaning = Said | Number | Nothing


def meaning(text: str | None) -> Meaning | None:
    """What a value says by itself; None if that is unknown."""
    if text is None:
        return Nothing()
    bare = unicodedata.normalize("NFKC", text).casefold().strip().translate(COMPARED)
    if bare in NO_ANSWER:
        return Nothing()
    bare = bare.strip("[](){}\"'`*“”„«» ").rstrip(".!")
    if NUMBER.fullmatch(bare):
        return Number(as_float(bare))
    if compared := COMPARISON.fullmatch(bare):
        return _compared(*compared.groups())
    return _in_words(plain(bare))


def as_float(text: str) -> float:
    """The number of a text that ``NUMBER`` matches."""
    return float(text.rstrip("% ").replace(",", "."))


def plain(text: str) -> str:
    """Lower case, with one space for whatever separates words."""
    return " ".join(re.sub(r"[^\w]+|_", " ", unicodedata.normalize("NFKC", text).casefold()).split())


def parts(text: str) -> list[str]:
    """The words and whole numbers of a name: response1 and response_1 are "response", "1"."""
    return re.findall(r"[^\W\d_]+|\d+", unicodedata.normalize("NFKC", text).casefold())


def _compared(one: str, sign: str, other: str) -> Meaning | None:
    """``A>B``, ``A>>B`` (stronger), ``A=B``."""
    sides = [_in_words(plain(name)) for name in (one, other)]
    said = [found.side if isinstance(found, Said) else None for found in sides]
    if sorted(map(str, said)) != ["A", "B"]:
        return None
    if sign[0] == "=":
        return Said("tie", 0.0)
    first = (said[0] == "A") == (sign[0] == ">")
    return Said("A" if first else "B", PLAINLY if len(sign) == 1 else STRONGLY)


def _in_words(words: str) -> Meaning | None:
    if words in TIED:
        return Said("tie", 0.0)
    tokens = GLUED.sub(r"\1 \2", words).split()
    strengths = [STRENGTHS[token] for token in tokens if token in STRENGTHS]
    rest = [token for token in tokens if token not in STRENGTHS and token not in FILLERS and token not in PLURALS]
    if alike := ALIKE & set(rest):
        sides = [token in FIRST for token in rest if token not in alike | SOFT]
        known = all(token in FIRST | SECOND | alike | SOFT for token in rest)
        return Said("tie", 0.0) if known and not strengths and sorted(sides) in ([], [False, True]) else None
    turned = [token for token in rest if token in WORSE]
    rest = [token for token in rest if token not in WORSE]
    if len(rest) == 3 and rest[1] in AGAINST and {rest[0] in FIRST, rest[2] in FIRST} == {True, False}:
        rest = rest[:1] if {rest[0], rest[2]} <= FIRST | SECOND else rest
    if len(rest) != 1 or len(strengths) > 1 or len(turned) > 1:
        return None
    (token,) = rest
    if token.isdecimal() and len(tokens) > 1 and not turned:
        return Number(float(token), True, *strengths)
    if token not in FIRST | SECOND:
        return None
    return Said("A" if (token in FIRST) != bool(turned) else "B", *strengths)
