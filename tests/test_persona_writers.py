"""Writers of profiles: statements about traits are read back and measured, and a language model's texts are sifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polypref.learners.personas.evidence import Judged, Person
from polypref.learners.personas.proposers import Tried
from polypref.learners.personas.traits import TRAITS, contrast, meaning
from polypref.learners.personas.written import Written


def test_every_statement_is_read_back_and_measured():
    for z, trait in enumerate(TRAITS):
        assert [meaning(trait.statement(sign, s)) for sign in (1, -1) for s in (1, 2, 3)] == [
            (z, sign, s) for sign in (1, -1) for s in (1, 2, 3)
        ]
    assert meaning("Prefers cats.") is None
    one, other = "- I gave 3 examples, for instance?\n- maybe", "You shall walk."
    np.testing.assert_array_equal(contrast(one, other), -contrast(other, one))
    more = dict(zip((trait.name for trait in TRAITS), contrast(one, other), strict=True))
    assert {name for name, value in more.items() if value > 0} >= {
        "lists",
        "examples",
        "hedging",
        "figures",
        "questions",
    }
    assert more["formality"] < 0


class Author:
    """Writes what it is told to, and remembers what it was asked."""

    identity = "author"

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, list[str]()

    def write(
        self, messages: Sequence[Mapping[str, str]], n: int, max_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        self.asked.append(messages[-1]["content"])
        return [self.texts[i % len(self.texts)] for i in range(n)]


def test_a_language_model_writes_and_what_is_of_no_use_is_dropped():
    listed = "Sure!\n1. Prefers the answer that rhymes.\nPrefers cats.\n- Prefers the answer that is short."
    author = Author(listed, "", " x ")
    written = Written(author, 0, 20)
    one = Judged("Why?", "B" * 30, "A" * 30)
    person = Person([one], [], np.zeros(1, np.int32))
    assert written.hypotheses(person, 5) == ["Prefers the answer that rhymes.", "Prefers the answer that is short."]
    assert written.hypotheses(person, 1) == ["Prefers the answer that rhymes."]
    assert "B" * 20 in author.asked[0] and "B" * 21 not in author.asked[0]
    new = written.better([Tried("Likes prose.", 0.25, [one]), Tried("Likes lists.", 0.75, [])], 3)
    assert new == [author.texts[0].strip()[:20], "x"]
    assert author.asked[-1].index("25%") < author.asked[-1].index("75%")  # ascending, with the mis-answered case
    assert "Not preferred: AAA" in author.asked[-1]
    written.reasons(person)
    assert author.asked[-1].index("A" * 20) < author.asked[-1].index("B" * 20)  # by content, not by what was chosen
    assert Written(Author(""), 0, 20).first(person) == ""
