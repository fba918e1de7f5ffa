"""Profiles that a language model writes, in the four places where a proposer is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polypref.judges.protocol import Writer
from polypref.learners.personas.evidence import Judged, Person
from polypref.learners.personas.proposers import Tried


@dataclass(frozen=True, eq=False)
class Written:
    """Profiles by a language model; what it writes in no usable form is dropped."""

    writer: Writer
    seed: int
    characters: int
    """Most characters of each text that it is shown, and of a profile that it writes."""

    def hypotheses(self, person: Person, n: int) -> list[str]:
        """Lines that begin as asked."""
        ask = (
            f"{self._told(person.judged)}\n\nState {n} different guesses about what this person prefers in "
            'an answer, about manner rather than topic. One a line, each beginning with "Prefers the answer that".'
        )
        lines = [line.lstrip(" \t-*•0123456789.)").rstrip() for line in self._write(ask, 1, 40 * n).splitlines()]
        return list(dict.fromkeys(line for line in lines if line.lower().startswith("prefers the answer that ")))[:n]

    def first(self, person: Person) -> str:
        """A description from the judgements."""
        return self._profile(f"{self._told(person.judged)}\n\n{DESCRIBE}")

    def better(self, tried: Sequence[Tried], n: int) -> list[str]:
        """New descriptions from the earlier ones, worst first, each with the judgements that it gets wrong."""
        parts = []
        for one in tried:
            missed = self._told(one.missed[:SHOWN]) if one.missed else "none"
            parts.append(f"Description, right {one.score:.0%} of the time:\n{one.profile}\nWrongly foretold:\n{missed}")
        ask = "\n\n".join([*parts, f"Write a description that foretells this person's choices better. {DESCRIBE}"])
        texts = self.writer.write(_message(ask), n, TOKENS, 1.0, self.seed)
        return [text for text in dict.fromkeys(map(self._trimmed, texts)) if text]

    def reasons(self, person: Person) -> list[list[str]]:
        """A sentence about each judgement, the responses in an order that does not tell."""
        found = []
        for one in person.judged:
            first, second = sorted((one.chosen, one.rejected))
            ask = (
                f"Prompt: {one.prompt[: self.characters]}\n\nResponse A: {first[: self.characters]}\n\n"
                f"Response B: {second[: self.characters]}\n\nSomebody preferred one of the two. What would somebody "
                'like who chose A, and what who chose B? Two lines, each beginning with "Prefers the answer that".'
            )
            lines = (line.strip() for line in self._write(ask, 1, 80).splitlines())
            found.append([line for line in lines if line.lower().startswith("prefers the answer that ")][:2])
        return found

    def summary(self, verified: Sequence[str]) -> str:
        """A description out of the reasonings."""
        listed = "\n".join(f"- {one}" for one in verified)
        return self._profile(f"These explain single choices of one person:\n{listed}\n\n{DESCRIBE}")

    def _told(self, judged: Sequence[Judged]) -> str:
        """The judgements; many of them are cut shorter, so that they fit together."""
        most = max(min(self.characters, TOGETHER // max(3 * len(judged), 1)), 1)
        named = (("Prompt", "prompt"), ("Preferred", "chosen"), ("Not preferred", "rejected"))
        return "\n\n".join("\n".join(f"{name}: {getattr(one, at)[:most]}" for name, at in named) for one in judged)

    def _profile(self, ask: str) -> str:
        return self._trimmed(self._write(ask, 1, TOKENS))

    def _write(self, ask: str, n: int, tokens: int) -> str:
        found = self.writer.write(_message(ask), n, tokens, 0.7, self.seed)
        return found[0] if found else ""

    def _trimmed(self, text: str) -> str:
        return text.strip()[: self.characters]


TOGETHER = 12_000  # characters of judgements that are shown at once
TOKENS = 160  # of a profile
SHOWN = 3  # mis-answered judgements that go with a profile
DESCRIBE = "Describe in at most four sentences what this person prefers in an answer. Quote nothing."


def _message(ask: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": ask}]
