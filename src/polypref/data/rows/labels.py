"""What the labels of a file mean: one stated meaning for the whole column, or a refusal that offers the ways to say it.

Read by themselves: words that mean one thing everywhere (``words``); the file's own names (columns output_1 and
output_2, labels 1 and 2); 1 and 2, the number of the winner; the layouts of ``KNOWN``; a label that names the preferred
model or repeats the preferred text. Everything else is ambiguous: 0 and 1 are an index in some sets and "A is better"
in others, and so on. Grades keep their size as the row's weight, from 0 to 1 for the strongest grade of the scale;
Wang et al. (2024, HelpSteer2-Preference) weight a Bradley-Terry loss in this way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from polypref.data.rows import words
from polypref.data.rows.vocabulary import FEW_SLIPS, SLIPS, Told, Vocabulary, are_slips, key, mapping, told
from polypref.data.rows.words import Meaning, Nothing, Number, Said
from polypref.errors import InputError
from polypref.wording import shown

SHARE = {"A": 1.0, "B": 0.0, "tie": 0.5}
MEANS = {"A": "response_a", "B": "response_b", "tie": "a tie"}
IN_RULE = 6  # values of one meaning that a rule lists
OFFERED = 8  # values for which a mapping is offered
YES = ("true", "yes", "t", "y", "win")  # offered as A
INDEX_NAME = re.compile(r"(.*_)?(index|idx|response_id)")


@dataclass(frozen=True)
class Known:
    """A published layout: the names of its columns settle what its labels mean, as ``--labels`` would say it."""

    name: str
    sides: tuple[str, str]
    labels: tuple[str, ...]
    meanings: tuple[str, ...]


KNOWN = (
    Known("AlpacaFarm", ("output_1", "output_2"), ("preference",), ("1=A,2=B,0=tie,1.5=tie", "scale:1..2")),
    Known("HelpSteer3", ("response1", "response2"), ("overall_preference",), ("scale:-3..3",)),
    Known("HelpSteer2", ("response_1", "response_2"), ("preference_strength",), ("scale:-3..3",)),
    Known("PKU-SafeRLHF", ("response_0", "response_1"), ("better_response_id", "safer_response_id"), ("0=A,1=B",)),
    Known("SHP", ("human_ref_a", "human_ref_b"), ("labels",), ("1=A,0=B",)),
)


@dataclass(frozen=True)
class Place:
    """Where labels stand: the file, their column, and the columns of response_a and response_b."""

    path: str
    column: str
    sides: tuple[str, str]
    has_ties: bool = False

    @property
    def known(self) -> Known | None:
        """The published layout that has these columns."""
        column, sides = words.plain(self.column), tuple(map(words.plain, self.sides))
        return next(
            (
                known
                for known in KNOWN
                if sides == tuple(map(words.plain, known.sides)) and column in map(words.plain, known.labels)
            ),
            None,
        )

    def own(self) -> dict[str | float, Said]:
        """What the names of the two columns, whole or without what they share, say as labels."""
        whole = [words.parts(name) for name in self.sides]
        start = _shared(*whole)
        cut = [parts[start:] for parts in whole]
        end = _shared(*(parts[::-1] for parts in cut))
        cut = [parts[: len(parts) - end] for parts in cut]
        names: dict[str | float, Said] = {}
        for one, other in (whole, cut):
            if one and other:
                names |= {key(" ".join(one)): Said("A"), key(" ".join(other)): Said("B")}
        return names


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of words that two names share at the start."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return (*same, False).index(False)


@dataclass(frozen=True)
class Labels:
    """The meaning of a file's labels. ``share``: value -> 1 if response_a is preferred, 0, one half, None (no answer).

    ``weight``: value -> grade, where there are several. ``scale``: the ends of a scale, read as numbers instead.
    ``by``: roles whose texts the labels repeat, as model_a and model_b.
    """

    rule: str
    share: Mapping[str, float | None] = field(default_factory=dict)
    weight: Mapping[str, float] = field(default_factory=dict)
    scale: tuple[float, float] | None = None
    by: tuple[str, str] | None = None

    def read(self, text: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
        """``(share, weight, bad)`` of labels (null: absent): share is null where there is no answer or ``bad``."""
        text = text.str.strip_chars().fill_null("")
        share = text.replace_strict(list(self.share), list(self.share.values()), default=None, return_dtype=pl.Float64)
        known = text.is_in(list(self.share)) | (text == "")
        weight = text.replace_strict(
            list(self.weight), list(self.weight.values()), default=1.0, return_dtype=pl.Float64
        )
        if self.scale is not None:
            low, high = self.scale
            bare = text.str.replace_all("−", "-").str.replace(r"\s*%$", "").str.replace(",", ".", literal=True)
            grade = (2 * bare.cast(pl.Float64, strict=False) - low - high) / (high - low)
            frame = pl.DataFrame({"grade": grade, "share": share, "weight": weight, "known": known})
            inside = pl.col.grade.is_between(-1.0, 1.0).fill_null(False) & ~pl.col.known
            side = pl.when(pl.col.grade < 0).then(1.0).when(pl.col.grade > 0).then(0.0).otherwise(0.5)
            size = pl.when(pl.col.grade == 0).then(1.0).otherwise(pl.col.grade.abs())
            frame = frame.with_columns(
                share=pl.when(inside).then(side).otherwise("share"),
                weight=pl.when(inside).then(size).otherwise("weight"),
                known=inside | pl.col.known,
            )
            share, weight, known = frame["share"], frame["weight"], frame["known"]
        return share, weight, ~known


def decide(seen: Vocabulary, place: Place, said: Told) -> Labels:
    """The meaning of all of a file's labels. Raises InputError where they have none that is certain."""
    if not seen.counts and said.of("") is None:
        return Labels("")
    if said.kind == "scale":
        return _scaled(seen, place, said, f"--labels {said.text.strip()}")
    if not said.kind and (known := place.known):
        numbers = {found.value for value in seen.counts if isinstance(found := words.meaning(value), Number)}
        for text in known.meanings:
            as_known = told(text)
            if as_known.kind == "scale":
                assert as_known.ends is not None
                if numbers and min(as_known.ends) <= min(numbers) and max(numbers) <= max(as_known.ends):
                    return _scaled(seen, place, as_known, f"as in {known.name}")
            elif numbers and all(number in as_known.values for number in numbers):
                return _listed(seen, place, as_known, f"as in {known.name}")
    return _listed(seen, place, said, f"--labels {said.text.strip()}" * bool(said.text))


def _listed(seen: Vocabulary, place: Place, said: Told, why: str) -> Labels:
    """Each value by itself: as the user says, by the columns' own names, in words, or as the number of a response."""
    own = place.own()
    parsed: dict[str, Meaning | None] = {value: words.meaning(value) for value in seen.counts}
    numbers = {found.value for found in parsed.values() if isinstance(found, Number) and not found.named}
    named = {found.value for found in parsed.values() if isinstance(found, Number) and found.named}
    by_number, because = _numbered(numbers, own, said, place.column)
    by_name = {} if not named else _from_first(named, own) or {}
    for value, found in parsed.items():
        meant = said.of(value)
        if meant is not None:
            parsed[value] = Nothing() if meant == "skip" else Said(meant) if meant in SHARE else None  # type: ignore[arg-type]
        elif isinstance(found, Number):
            meaning = (by_name if found.named else by_number).get(found.value, found)
            parsed[value] = replace(meaning, strength=found.strength)
        elif found is None or isinstance(found, Said):
            parsed[value] = own.get(" ".join(words.parts(value)), found)
    unread = {value for value, found in parsed.items() if found is None or isinstance(found, Number)}
    readable = sum(seen.counts[value] for value, found in parsed.items() if isinstance(found, Said))
    mistaken = any(isinstance(parsed[value], Number) for value in unread) and bool(by_number or by_name)
    if seen.others or mistaken or not are_slips((seen.counts[value] for value in unread), readable):
        raise _refusal(seen, place, unread, said)
    empty = said.of("")
    told_all = {value: found for value, found in parsed.items() if isinstance(found, Said | Nothing)}
    sides = {found.side for found in told_all.values() if isinstance(found, Said)} - {"tie"}
    if len(sides) == 1 and empty is None and not place.has_ties:
        _refuse_half(seen, place, told_all, sides.pop(), readable)
    strongest = max((found.strength for found in told_all.values() if isinstance(found, Said)), default=0.0)
    share = {value: SHARE[found.side] if isinstance(found, Said) else None for value, found in told_all.items()}
    weight = {
        value: found.strength / strongest
        for value, found in told_all.items()
        if isinstance(found, Said) and 0 < found.strength < strongest
    }
    if empty in SHARE:
        share[""] = SHARE[empty]
    return Labels(_rule(place, share, weight, why or because), share, weight)


def _numbered(
    numbers: set[float], own: Mapping[str | float, Said], said: Told, column: str
) -> tuple[dict[float, Said], str]:
    """What plain numbers mean, and why; nothing if that is not certain."""
    if said.kind == "index":
        return _index(numbers), ""
    if numbers and all(number in own for number in numbers):
        return {number: own[number] for number in numbers}, "as the columns are numbered"
    if numbers == {1.0, 2.0}:
        return _index(numbers), "the number of the winner"
    if INDEX_NAME.fullmatch(words.plain(column).replace(" ", "_")) and numbers <= {0.0, 1.0} and 0.0 in numbers:
        return _index(numbers), "the index of the winner, as its name says"
    return {}, ""


def _index(numbers: set[float]) -> dict[float, Said]:
    """Counted from 0, or from 1 if there is a 2."""
    first = 1.0 if 2.0 in numbers else 0.0
    return {first: Said("A"), first + 1: Said("B")} if numbers <= {first, first + 1} else {}


def _from_first(named: set[float], own: Mapping[str | float, Said]) -> dict[float, Said]:
    """model_1 and model_2, or model_0 and model_1; one of them alone only if the columns are numbered so."""
    if all(number in own for number in named):
        return {number: own[number] for number in named}
    return _index(named) if len(named) == 2 else {}


def _scaled(seen: Vocabulary, place: Place, said: Told, why: str) -> Labels:
    low, high = said.ends or (-(top := max(abs(seen.low), abs(seen.high))), top)
    parsed = {value: words.meaning(value) for value in seen.counts}
    unread = {value for value, found in parsed.items() if found is None or (isinstance(found, Number) and found.named)}
    count = sum(seen.counts.values()) - sum(seen.counts[value] for value in unread)
    whole = are_slips([*(seen.counts[value] for value in unread), *[seen.others_unknown] * bool(seen.others)], count)
    if not whole or count == 0 or seen.low > seen.high:
        raise _refusal(seen, place, unread, said)
    if seen.low < min(low, high) or seen.high > max(low, high) or (said.ends is None and seen.low >= 0):
        raise InputError(
            f'{place.path}: column "{place.column}" holds numbers from {seen.low:g} to {seen.high:g}, which are not on '
            f"a scale {f'from {low:g} to {high:g}' if said.ends else 'around 0'}. Give both ends, that of response_a "
            f"first: --labels scale:{seen.low:g}..{seen.high:g} (or scale:{seen.high:g}..{seen.low:g})."
        )
    share = {value: SHARE[found.side] if isinstance(found, Said) else None for value, found in parsed.items()
             if isinstance(found, Said | Nothing)}  # fmt: skip
    rule = (
        f'labels in "{place.column}" ({why}): a scale from {low:g} (response_a) to {high:g} (response_b); '
        f"{(low + high) / 2:g}: a tie; the distance from it, as a share of {abs(high - low) / 2:g}, is the row's weight"
    )
    return Labels(rule, share, {}, (low, high))


def _rule(place: Place, share: Mapping[str, float | None], weight: Mapping[str, float], why: str) -> str:
    parts = []
    for side, number in SHARE.items():
        values = sorted(value for value, one in share.items() if one == number)
        if values:
            more = f" and {len(values) - IN_RULE} more" if len(values) > IN_RULE else ""
            parts.append(f"{', '.join(shown(value, 30) for value in values[:IN_RULE])}{more}: {MEANS[side]}")
    skipped = sorted(value for value, one in share.items() if one is None)
    if skipped:
        parts.append(f"{', '.join(shown(value, 30) for value in skipped[:IN_RULE])}: no answer")
    graded = "; the strongest wording has weight 1, weaker ones less" if weight else ""
    return f'labels in "{place.column}"{f" ({why})" * bool(why)}: {"; ".join(parts)}{graded}'


def _refuse_half(seen: Vocabulary, place: Place, parsed: Mapping[str, Meaning], side: str, readable: int) -> None:
    """Raise InputError if all labels prefer one side and many rows have none: an empty label may be the other side."""
    skipped = sum(seen.counts[value] for value, found in parsed.items() if isinstance(found, Nothing))
    if seen.absent + skipped >= max(FEW_SLIPS, SLIPS * readable):
        other = "B" if side == "A" else "A"
        raise InputError(
            f'{place.path}: column "{place.column}" holds {seen}: every label prefers {MEANS[side]}, and what the '
            f"others mean is not certain. Say it: {mapping([('', other)])} (empty: {MEANS[other]}), "
            f"{mapping([('', 'tie')])} or {mapping([('', 'skip')])} (left out)."
        )


class UnknownLabels(InputError):
    """Labels without a certain meaning, and the flags that give them one, the likeliest first."""

    def __init__(self, text: str, offers: Sequence[str] = ()) -> None:
        super().__init__(text, offers)
        self.text, self.offers = text, tuple(offers)

    def __str__(self) -> str:
        return self.text


def _refusal(seen: Vocabulary, place: Place, unread: set[str], said: Told) -> InputError:
    offers = offered(seen, unread)
    if said.text:
        what = f"which --labels {shown(said.text.strip())[1:-1]} does not cover"
    elif all(isinstance(words.meaning(value), Number) for value in unread):
        what = "and such numbers mean different things in different files"
    else:
        first, *more = sorted(unread, key=lambda value: (-seen.counts[value], value)) or ["such a value"]
        means = f"and {len(more)} more of them mean" if more else "means"
        what = f"and it is not certain what {shown(first, 30)} {means}"
    advice = f"Say it: {' or '.join(offers)}" if offers else "Say it: --labels VALUE=A,VALUE=B,VALUE=tie"
    return UnknownLabels(
        f'{place.path}: column "{place.column}" holds {seen}, {what}. {advice} (A: response_a is preferred, B: '
        "response_b; skip leaves rows out).",
        offers,
    )


def offered(seen: Vocabulary, unread: set[str]) -> list[str]:
    """Flags that give this vocabulary a meaning, the likeliest first; each works."""
    if seen.others or not unread:
        numeric = seen.others and not seen.others_unknown and seen.low < seen.high
        return _scales(seen) if numeric and not any(words.meaning(value) is None for value in unread) else []
    order = sorted(unread, key=lambda value: (value.casefold() not in YES, -seen.counts[value], value))
    found = {value: words.meaning(value) for value in order}
    numbers = {one.value for one in found.values() if isinstance(one, Number)}
    rest = [value for value, one in found.items() if not isinstance(one, Number)]
    if rest or any(isinstance(one, Number) and one.named for one in found.values()):
        return [_by_words(seen, list(found))] if len(found) <= OFFERED else []
    said = {f"{number:g}" for number in numbers}
    ways = {
        frozenset("01"): ("index", "1=A,0=B"),
        frozenset("012"): ("1=A,2=B,0=tie", "0=A,1=B,2=tie"),
        frozenset("123"): ("1=A,2=B,3=tie", "1=A,2=tie,3=B"),
        frozenset(("0", "0.5", "1")): ("1=A,0=B,0.5=tie", "0=A,1=B,0.5=tie"),
        frozenset("1"): ("1=A", "1=B"),
        frozenset("0"): ("0=A", "0=B"),
        frozenset("2"): ("2=A", "2=B"),
    }.get(frozenset(said))
    if ways is not None:
        return [f'--labels "{way}"' if "=" in way else f"--labels {way}" for way in ways]
    return _scales(seen)


def _scales(seen: Vocabulary) -> list[str]:
    low, high = seen.low, seen.high
    if low < 0:
        top = max(-low, abs(high))
        return ["--labels scale (negative: response_a)", f"--labels scale:{top:g}..{-top:g} (positive: response_a)"]
    if any("%" in value for value in seen.counts):
        low, high = 0.0, 100.0
    elif high <= 1:
        low, high = 0.0, 1.0
    elif low == high:
        return [mapping([(f"{low:g}", side)]) for side in "AB"]
    ends = "with the ends of your scale, that of response_a first"
    return [f"--labels scale:{low:g}..{high:g}", f"--labels scale:{high:g}..{low:g}, {ends}"]


def _by_words(seen: Vocabulary, unread: list[str]) -> str:
    """A mapping of all unknown values, to be corrected by the user: sides that no label has yet, then ties."""
    taken = {found.side for value in seen.counts if isinstance(found := words.meaning(value), Said)}
    free = [side for side in ("A", "B") if side not in taken] + ["tie"] * len(unread)
    return f"{mapping(list(zip(unread, free, strict=False)))} with the sides that are right"
