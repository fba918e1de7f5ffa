"""Reads the columns of a file whose values have a meaning only as a whole, and decides it before any row is read.

Labels, flags of ties, ratings, thumbs and positions: 1 is the first response where there is also a 2, and the second
where there is a 0. So these columns are read once from end to end (they are short), and then the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from polypref.data.files.limits import Limits
from polypref.data.files.sources import Source
from polypref.data.files.textfiles import Batch
from polypref.data.giving_up import ReadSoFar
from polypref.data.linting.problems import ProblemLog
from polypref.data.rows import values
from polypref.data.rows.labels import MEANS, Labels, Place, decide
from polypref.data.rows.layouts import Layout, missing_column, plain_name
from polypref.data.rows.ranked import RANKING_RULE, Ranked, decide_best, rank_within, ratings_rule
from polypref.data.rows.ratings import BY_FLAG, Ratings, decide_ratings
from polypref.data.rows.roles import ALIASES, WON
from polypref.data.rows.thumbs import Thumbs, are_thumbs, decide_thumbs
from polypref.data.rows.vocabulary import Told, Vocabulary, are_slips
from polypref.data.rows.words import Nothing, Number, Said, meaning
from polypref.errors import InputError, SettingsError
from polypref.wording import shown

FLAGS = {"true": "1", "false": "0", "1.0": "1", "0.0": "0", "yes": "1", "no": "0"}
MODELS = ("model_a", "model_b")
SIDES = ("rating_a", "rating_b")
ROLES = ("label", "label_too", *WON, "tie", "rating", *SIDES, "thumb", "chosen_pos")
MANY = 20  # different values beyond which a column beside chosen and rejected is no label
POSITIONS = {"first": 0, "second": 1, "left": 0, "right": 1, "a": 0, "b": 1}


@dataclass(frozen=True)
class Meanings:
    """What the values of one file mean. ``positions``: value -> 0 (first), 1 or None (unknown).

    ``used``: whether ``--labels`` says something about the file.

    ``ranked``: by what a list of responses is ranked, and what the index of the best one counts from.

    ``labels``: of response_a and response_b, or, beside chosen and rejected, which values are ties.
    """

    labels: Labels | None = None
    labels_too: Labels | None = None
    ratings: Ratings = field(default_factory=Ratings)
    thumbs: Thumbs = field(default_factory=Thumbs)
    positions: Mapping[str, int | None] = field(default_factory=dict)
    ranked: Ranked = field(default_factory=Ranked)
    rules: tuple[str, ...] = ()
    used: bool = False


class Survey:
    """One file's columns, counted."""

    def __init__(self, source: Source, layout: Layout, said: Told, columns: Mapping[str, str], limits: Limits) -> None:
        self.source, self.layout, self.said, self.columns, self.limits = source, layout, said, columns, limits

    def decide(self) -> tuple[Layout, Meanings]:
        """The layout without columns that turn out to say nothing, and what the others mean.

        Raises InputError for a vocabulary without a certain meaning, SettingsError for ``--labels`` that cannot apply.
        """
        if self.layout.sides and self._names_the_sides():
            self.layout = self._by_names()
        layout, said = self.layout, self.said
        if layout.shape == "rankings":
            return self._ranked()
        roles = [role for role in ROLES if role in layout.names]
        if not roles:
            return layout, Meanings()
        seen = self._count(roles)
        if "tie" in seen:
            self._refuse_flags(seen["tie"])
        found = Meanings(used=self._applies(seen))
        if "rating" in seen and not said.kind and are_thumbs(seen["rating"]):
            seen["thumb"] = seen.pop("rating")
            names = {"thumb" if role == "rating" else role: name for role, name in layout.names.items()}
            layout = replace(layout, shape="thumbs").with_names(names)
        if "rating" in seen:
            column = " and ".join(layout.names[role] for role in ("rating", *SIDES) if role in layout.names)
            ratings = decide_ratings(seen["rating"], self.source.path, column, said)
            found = replace(found, ratings=ratings, rules=(ratings.rule,) if ratings.rule else ())
        if "thumb" in seen:
            thumbs = decide_thumbs(seen["thumb"], self.source.path, layout.names["thumb"])
            found = replace(found, thumbs=thumbs, rules=(thumbs.rule,) if thumbs.rule else ())
        if "chosen_pos" in seen:
            found = self._positions(seen["chosen_pos"], found)
        if "rating_a" in layout.names:
            one, other = (f'"{layout.names[role]}"' for role in SIDES)
            rule = f"the higher rating of the two is preferred ({one}: response_a, {other}: response_b), equal is a tie"
            found = replace(found, rules=(*found.rules, rule))
        if layout.shape == "labels" and "label" in seen:
            return self._labels(seen, found)
        if layout.shape == "pairs" and "label" in seen:
            return self._beside_pairs(seen["label"], found)
        return layout, found

    def _ranked(self) -> tuple[Layout, Meanings]:
        """How lists of responses are ranked: by a column, by the index of the best, or by what is in each response."""
        names, path = self.layout.names, self.source.path
        if "ranking" in names:
            return self.layout.without("label").without("ratings"), Meanings(rules=(RANKING_RULE,))
        if "ratings" in names:
            return self.layout.without("label"), Meanings(rules=(ratings_rule(names["ratings"]),))
        if "label" in names:
            seen = self._count(["label"])["label"]
            ranked = decide_best(seen, path, names["label"])
            return self.layout, Meanings(ranked=ranked, rules=(ranked.rule,))
        batch = next(iter(self.source.batches([names["responses"]], ProblemLog())), None)
        ranked = rank_within(batch.frame[names["responses"]], names["responses"]) if batch is not None else None
        if ranked is None:
            raise missing_column(path, self.source.types, names, "ranking")
        return self.layout, Meanings(ranked=ranked, rules=(ranked.rule,))

    def _names_the_sides(self) -> bool:
        """Whether chosen and rejected do not repeat responses but name them: A and B, or the models."""
        names = [self.layout.names["chosen"], *self.layout.sides, *self._columns_of(MODELS)]
        batch = next(iter(self.source.batches(names, ProblemLog())), None)
        if batch is None:
            return False
        chosen, one, other, *models = (values.as_text(batch.frame[name]).str.strip_chars() for name in names)
        texts = chosen.drop_nulls().unique()
        if len(texts) > MANY or ((chosen == one) | (chosen == other)).fill_null(False).any():
            return False
        named = sides_by_text(chosen, *models) if models else chosen
        return all(isinstance(meaning(value), Said | Number | Nothing) for value in named.drop_nulls().unique())

    def _by_names(self) -> Layout:
        """The layout with the label that chosen is."""
        names = {role: name for role, name in self.layout.names.items() if role not in ("chosen", "rejected", "label")}
        names |= dict(zip(("response_a", "response_b"), self.layout.sides, strict=True))
        names["label"] = self.layout.names["chosen"]
        return replace(self.layout, shape="labels").with_names(names)

    def _applies(self, seen: Mapping[str, Vocabulary]) -> bool:
        """Whether ``--labels`` says something about this file."""
        kind, path = self.said.kind, self.source.path
        if not kind or not ({"label", "rating"} & set(seen)):
            return False
        if kind in BY_FLAG and "rating" not in seen:
            raise SettingsError(f"--labels {kind} is for ratings; {path} has labels.")
        if kind in ("index", "scale") and "rating" in seen:
            raise SettingsError(f"--labels {kind} is for labels of two responses; {path} has ratings.")
        if kind != "values":
            return True
        counted = [seen[role] for role in ("label", "rating") if role in seen]
        return any(self.said.of(value) is not None for one in counted for value in one.counts) or (
            self.said.of("") is not None and any(one.absent for one in counted)
        )

    def _count(self, roles: list[str]) -> dict[str, Vocabulary]:
        """The vocabulary of each role; one-hot winners are counted as one label."""
        names = ["label" if role == "won_a" else role for role in roles if role not in WON[1:]]
        seen = {"rating" if name in SIDES else name: Vocabulary() for name in names}
        so_far = ReadSoFar(self.source.path, self.limits)
        for batch in self.source.batches([self.layout.names[role] for role in roles], so_far.unusable):
            absent = 0
            frame = as_roles(batch, self.layout.names, roles)
            for name in names:
                column = label_text(frame) if name == "label" else frame[name]
                counted = "rating" if name in SIDES else name
                if counted != "rating" or column.dtype == pl.String:
                    absent = max(absent, seen[counted].add(values.as_text(column)))
            so_far.add(batch, batch.frame.height - (absent if names == ["label"] else 0))
        return seen

    def _labels(self, seen: Mapping[str, Vocabulary], found: Meanings) -> tuple[Layout, Meanings]:
        layout, said = self.layout, self.said
        if "won_a" in layout.names:
            many = 3 if "won_tie" in layout.names else 2
            outcomes = ["/".join("1" if k == at else "0" for k in range(many)) for at in range(many)]
            said = Told(said.text, "values", {**dict(zip(outcomes, MEANS, strict=False)), **said.values})
        tries = [role for role in ("label", "label_too") if role in seen]
        labels, wrong = {}, None
        for role in tries:
            try:
                labels[role] = self._by_words_or_names(role, seen[role], said)
            except InputError as error:
                wrong = wrong or error
        if not labels:
            assert wrong is not None
            raise wrong
        first, *second = labels.values()
        for role in tries:
            if role not in labels:
                layout = layout.without(role)
        names = dict(layout.names)
        if "label" not in names and "label_too" in names:
            names["label"] = names.pop("label_too")
        if first.by == MODELS:
            names |= dict(zip(MODELS, self._columns_of(MODELS), strict=True))
        layout = layout.with_names(names)
        rules = (*found.rules, first.rule, *(one.rule for one in second))
        return layout, replace(found, labels=first, labels_too=second[0] if second else None, rules=rules)

    def _place(self, role: str) -> Place:
        names = self.layout.names
        column = names[role] if role in names else ", ".join(names[one] for one in WON if one in names)
        return Place(self.source.path, column, (names["response_a"], names["response_b"]), "tie" in names)

    def _by_words_or_names(self, role: str, seen: Vocabulary, said: Told) -> Labels:
        """The meaning of labels; those that say nothing by themselves may repeat a model's name or a text."""
        place = self._place(role)
        try:
            return decide(seen, place, said)
        except InputError:
            if role not in self.layout.names or said.kind not in ("", "values"):
                raise
            for by in (MODELS, ("response_a", "response_b")):
                if self._columns_of(by) and (found := self._repeating(role, by, place, said)):
                    return found
            raise

    def _columns_of(self, by: tuple[str, str]) -> tuple[str, ...]:
        """The columns of two roles, () if the file lacks one."""
        known = {plain_name(name): name for name in self.source.types}
        found = [self.layout.names.get(role) or next((known[a] for a in ALIASES_OF_MODELS[role] if a in known), None)
                 if role in MODELS else self.layout.names[role] for role in by]  # fmt: skip
        return tuple(name for name in found if name is not None) if None not in found else ()

    def _repeating(self, role: str, by: tuple[str, str], place: Place, said: Told) -> Labels | None:
        """The meaning of labels that repeat the text of one of the columns ``by``; None if they do not."""
        one, other = self._columns_of(by)
        names = {"label": self.layout.names[role], "one": one, "other": other}
        seen, hits = Vocabulary(), 0
        for batch in self.source.batches(list(names.values()), ProblemLog()):
            frame = as_roles(batch, names, list(names))
            text = sides_by_text(frame["label"], frame["one"], frame["other"])
            hits += int((text != values.as_text(frame["label"]).str.strip_chars()).sum())
            seen.add(text)
        if not hits:
            return None
        try:
            found = decide(seen, place, said)
        except InputError:
            return None
        what = "the name of the preferred model" if by == MODELS else "the preferred text"
        ties = [shown(value) for value, share in found.share.items() if share == 0.5]
        rule = f'labels in "{place.column}": {what} ({one}: response_a, {other}: response_b)'
        return replace(found, by=by, rule=rule + f"; {', '.join(ties)}: a tie" * bool(ties))

    def _beside_pairs(self, seen: Vocabulary, found: Meanings) -> tuple[Layout, Meanings]:
        """Beside chosen and rejected, a label says which rows are ties, and may contradict the columns' meaning."""
        names = self.layout.names
        ties, others = [], []
        for value in seen.counts:
            said = meaning(value)
            meant = self.said.of(value) or (said.side if isinstance(said, Said) else None)
            (ties if meant == "tie" else others).append(value)
        chosen = names["chosen"]
        mapped = any(
            role in self.columns and plain_name(names[role]) not in ALIASES[role] for role in ("chosen", "rejected")
        )
        if mapped and 1 < len(others) <= MANY:
            raise InputError(
                f'{self.source.path}: column "{names["label"]}" holds {seen}, so the winner changes, but '
                f"--columns chosen={chosen} says that it is always {chosen}. Use --columns response_a={chosen} "
                f"response_b={names['rejected']} (or --columns label= if that column is no label)."
            )
        if ties:
            share = dict.fromkeys(others) | dict.fromkeys(ties, 0.5)
            rule = f'labels in "{names["label"]}": {", ".join(map(shown, sorted(ties)))}: a tie'
            return self.layout, replace(found, labels=Labels(rule, share), rules=(*found.rules, rule))
        if "label" in self.columns:
            raise SettingsError(
                f"--columns label={names['label']} would not be used: {self.source.path} has {chosen} and "
                f"{names['rejected']}, which say who won, and no label is a tie. Leave it out."
            )
        rules = found.rules
        if 1 < len(others) <= MANY:
            rules += (
                f'column "{names["label"]}" holds {seen} and is not used: {chosen} and {names["rejected"]} say who won',
            )
        return self.layout.without("label"), replace(found, used=False, rules=rules)

    def _positions(self, seen: Vocabulary, found: Meanings) -> Meanings:
        """Positions from 0, or from 1 if there is a 2; not used where 1 may mean either."""
        column = self.layout.names["chosen_pos"]
        known = {value.casefold() for value in seen.counts}
        of: dict[str, int | None] = dict(POSITIONS)
        if "2" in known and "0" not in known:
            of |= {"1": 0, "2": 1}
        elif "2" not in known and ("0" in known or "1" not in known):
            of |= {"0": 0, "1": 1}
        else:
            rule = f'positions in "{column}": {seen}; it cannot be told whether they count from 0 or 1: not used'
            return replace(found, positions=of | dict.fromkeys("012"), rules=(*found.rules, rule))
        counts_from_1 = "2" in known
        rules = (f'positions in "{column}": 1: first, 2: second',) * counts_from_1
        return replace(found, positions=of, rules=(*found.rules, *rules))

    def _refuse_flags(self, seen: Vocabulary) -> None:
        known = {*values.TRUE, *values.FALSE}
        unread = [count for value, count in seen.counts.items() if value.casefold() not in known]
        if not are_slips(unread, seen.rows - sum(unread)):
            name = self.layout.names["tie"]
            raise InputError(
                f'{self.source.path}: column "{name}" holds {seen}; expected true or false for each row. '
                "Use --columns tie= to leave it out."
            )


ALIASES_OF_MODELS = {
    "model_a": ("model_a", "model_1", "model1", "generator_1", "model_a_name", "model_name_a", "system_a"),
    "model_b": ("model_b", "model_2", "model2", "generator_2", "model_b_name", "model_name_b", "system_b"),
}


def as_roles(batch: Batch, names: Mapping[str, str], roles: list[str]) -> pl.DataFrame:
    """The columns of some roles, named by them."""
    return batch.frame.select(pl.col(names[role]).alias(role) for role in roles)


def label_text(frame: pl.DataFrame) -> pl.Series:
    """Labels as text (null: absent); one-hot winners as 1/0/0, 0/1/0, 0/0/1."""
    if "won_a" not in frame.columns:
        return values.as_text(frame["label"])
    flags = [
        values.as_text(frame[role]).str.strip_chars().str.to_lowercase().replace(FLAGS)
        for role in WON
        if role in frame.columns
    ]
    columns = pl.DataFrame([flag.alias(str(at)) for at, flag in enumerate(flags)])
    absent = pl.all_horizontal(pl.all().fill_null("") == "")
    written = pl.concat_str(pl.all().fill_null(""), separator="/")
    return columns.select(pl.when(~absent).then(written)).to_series()


def sides_by_text(label: pl.Series, one: pl.Series, other: pl.Series) -> pl.Series:
    """A where a label repeats the text ``one``, B where ``other``; the label itself where neither or both."""
    text, *sides = (values.as_text(column).str.strip_chars() for column in (label, one, other))
    is_one, is_other = ((text == side).fill_null(False) for side in sides)
    frame = pl.DataFrame({"text": text, "one": is_one & ~is_other, "other": is_other & ~is_one})
    return frame.select(pl.when("one").then(pl.lit("A")).when("other").then(pl.lit("B")).otherwise("text")).to_series()
