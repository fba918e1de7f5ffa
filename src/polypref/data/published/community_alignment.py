"""Community Alignment (Zhang et al. 2025): over 3,500 people in five languages choose the best of four answers.

facebook/community-alignment-dataset (CC BY 4.0), CSV or Parquet, one row for each conversation of up to four turns:
annotator_id (the person), conversation_id, assigned_lang, and for each turn, first to fourth, first_turn_prompt,
first_turn_response_a to _d, first_turn_preferred_response (response_a to response_d) and first_turn_feedback (the
reason, in 44 % of the comparisons). Also annotator_age, _gender, _education_level, _political, _ethnicity and _country,
is_pregenerated_first_prompt, in_balanced_subset. The prompt of a turn is the conversation so far, with the answers that
the person chose. Each choice makes three pairs, the chosen answer against each other one; of

    all     every turn
    first   first turns: prompts without a history
    shared  first turns of prompts that were given to people, not written by them; over 2,500 of them were judged by ten
            people or more

Written beside the judgements: turn, conversation_id, reason, and who judges (language, age, ... as attributes).

Traps. The person is annotator_id: conversation_id is another one in each conversation, and a file without the former is
refused. The three pairs of a choice share one text, which wins in all of them: they follow from one judgement. Answers
to later turns depend on what the person chose before, so that only first turns are the same for several people.
assigned_lang is the language that a person was given; some wrote in another. After a turn without a choice the history
is unknown, and later turns are left out (the first release's "full" file has such gaps). Human texts may hold personal
details and offensive words.

Columns: verified by the set's card (licence, counts, is_pregenerated_first_prompt) and by public loaders of several
independent projects, which name all the others. The first release also had each turn's four answers as one text
(first_turn_responses); it is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, File, Selection, message, one_of, read_files, stack, typed
from polypref.errors import InputError

PERSON, CONVERSATION = "annotator_id", "conversation_id"
TURNS = ("first", "second", "third", "fourth")
LETTERS = ("a", "b", "c", "d")
ABOUT = {  # attribute -> its column
    "language": "assigned_lang",
    **{name: f"annotator_{name}" for name in ("age", "gender", "education_level", "political", "ethnicity", "country")},
}
GIVEN = "is_pregenerated_first_prompt"
PAIRS = ("all", "first", "shared")


@dataclass(frozen=True)
class CommunityAlignment:
    """``pairs`` all, first or shared."""

    pairs: str = "all"

    def __post_init__(self) -> None:
        one_of("kind of pairs of community-alignment", self.pairs, PAIRS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form, or without a column that says who judged."""
        whole = stack([self._conversations(file) for file in read_files(paths, limits)])
        rows = whole.unique(maintain_order=True)
        turns = [_turn(rows, number) for number in range(len(TURNS))]
        selection = Selection(pl.concat(turns))
        count = selection.frame.height
        selection.count("conversations that are copies of an earlier one", whole.height - rows.height)
        selection.drop("turns of nobody", pl.col.user_id.is_null())
        if self.pairs != "all":
            selection.drop("turns after the first", pl.col.turn > 1)
        if self.pairs == "shared":
            selection.drop("turns with a prompt that the person wrote", ~pl.col.given)
        selection.drop("turns after one without a prompt or a choice", ~pl.col.known)
        selection.drop("turns without a prompt", pl.col.asked.is_null())
        selection.drop("turns without a choice", pl.col.preferred.is_null())
        selection.drop("turns without the chosen answer", pl.col.chosen.is_null())
        kept = selection.frame.height
        others = pl.concat_list(pl.when(pl.col.preferred != letter).then(pl.col(letter)) for letter in LETTERS)
        numbers = pl.concat_list(
            pl.when(pl.col.preferred != letter).then(pl.lit(number)) for number, letter in enumerate(LETTERS)
        )
        selection.frame = (
            selection.frame.with_columns(rejected=others, number=numbers)
            .explode("rejected", "number")
            .filter(pl.col.number.is_not_null())  # the chosen answer itself
        )
        people = selection.frame["user_id"].n_unique()
        remarks = (
            f"{kept:,} of {count:,} turns are used: each choice of one answer among four makes three pairs, which "
            "follow from one judgement; --made-from ratings says so to compare and fit",
            f"{selection.frame['prompt'].n_unique():,} different questions, put to {people:,} people",
        )
        columns = ("attributes", "turn", CONVERSATION, "reason")
        return selection.finish(f"Community Alignment, {self.pairs} turns", count, remarks, columns)

    def _conversations(self, file: File) -> pl.DataFrame:
        if not file.has(PERSON):
            found = ", ".join(file.frame.columns[:20])
            known = f'"{CONVERSATION}" is one conversation and no person. ' if file.has(CONVERSATION) else ""
            raise InputError(
                f'{file.path}: column "{PERSON}" of Community Alignment, which says who judged, is missing; found: '
                f"{found}. {known}Give the published files."
            )
        needed = [CONVERSATION, *(f"{turn}_turn_{part}" for turn in TURNS for part in _parts())]
        if self.pairs == "shared":
            needed.append(GIVEN)
        about = [name for name in ABOUT.values() if file.has(name)]
        reasons = [name for turn in TURNS if file.has(name := f"{turn}_turn_feedback")]
        file.need("Community Alignment", *needed)
        texts = dict.fromkeys((PERSON, *needed, *about, *reasons), "text")
        rows = typed(file, file.frame.select(list(texts)), texts | ({GIVEN: "flag"} if GIVEN in texts else {}))
        for turn in TURNS:
            _ensure_choice(file, rows[f"{turn}_turn_preferred_response"])
        absent = [pl.lit(None, pl.String).alias(f"{turn}_turn_feedback") for turn in TURNS]
        rows = rows.with_columns(one for one in absent if one.meta.output_name() not in reasons)
        said = pl.struct(pl.col(column).alias(name) for name, column in ABOUT.items() if column in about)
        attributes = said.struct.json_encode() if about else pl.lit(None, pl.String)
        given = pl.col(GIVEN) if GIVEN in needed else pl.lit(True)
        return rows.with_columns(attributes=attributes, given=given).drop(about, *({GIVEN} & set(needed)))


def _parts() -> tuple[str, ...]:
    return ("prompt", *(f"response_{letter}" for letter in LETTERS), "preferred_response")


def _ensure_choice(file: File, choice: pl.Series) -> None:
    known = [f"response_{letter}" for letter in LETTERS]
    bad = ~choice.is_in(known) & choice.is_not_null() & (choice != "")
    if bad.any():
        at = int(bad.arg_max() or 0)
        raise InputError(
            f'row {at + 1} of {file.path}: "{choice.name}" is {choice[at]!r}; expected one of {", ".join(known)}.'
        )


def _turn(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    """One turn of every conversation that has it: ``asked``, the history as ``prompt``, and whether that is ``known``.

    A conversation has a turn if anything of it is there.
    """
    said, known = pl.lit(""), pl.lit(True)
    for turn in TURNS[:number]:
        asked, answer = _text(f"{turn}_turn_prompt"), _chosen(turn)
        known = known & asked.is_not_null() & answer.is_not_null()
        said = pl.format("{}{},{},", said, message("user", asked), message("assistant", answer))
    turn = TURNS[number]
    asked = _text(f"{turn}_turn_prompt")
    there = pl.any_horizontal(_text(f"{turn}_turn_{part}").is_not_null() for part in _parts())
    return rows.filter(there).select(
        pl.col(PERSON).alias("user_id"),
        CONVERSATION,
        "attributes",
        "given",
        turn=pl.lit(number + 1),
        known=known,
        asked=asked,
        prompt=asked if number == 0 else pl.format("[{}{}]", said, message("user", asked)),
        preferred=_text(f"{turn}_turn_preferred_response").str.tail(1),
        chosen=_chosen(turn),
        reason=_text(f"{turn}_turn_feedback"),
        **{letter: _text(f"{turn}_turn_response_{letter}") for letter in LETTERS},
    )


def _chosen(turn: str) -> pl.Expr:
    choice = pl.col(f"{turn}_turn_preferred_response")
    return pl.coalesce(
        pl.when(choice == f"response_{letter}").then(_text(f"{turn}_turn_response_{letter}")) for letter in LETTERS
    )


def _text(column: str) -> pl.Expr:
    """A text that is not empty."""
    return pl.when(pl.col(column) != "").then(pl.col(column))
