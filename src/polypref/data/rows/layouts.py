"""Which column of a file plays which role, and which of five shapes of preference data the file has.

pairs     prompt, chosen, rejected            TRL's preference formats; the prompt may be implicit
labels    prompt, response_a, response_b, label (or a column for each outcome: won_a, won_b, won_tie)
ratings   prompt, response, rating            one row for each rated response
rankings  prompt, responses, ranking          one row for each ranked list; in place of ranking: ratings (a list),
                                              label (the index of the best), or a rank or rating within each response
thumbs    prompt, response, thumb             a like or a dislike of one response; TRL's unpaired format: label
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polypref.data.rows.roles import ALIASES, COUNTED, LABELS, NEEDS, ONLY_IN, PAIRED, RATED, READABLE, WON, Shape
from polypref.errors import InputError, SettingsError, unknown_name
from polypref.wording import shown


@dataclass(frozen=True)
class Layout:
    """The shape of a file and the column that plays each role.

    ``all_ties``  a ties file without a label column. ``unused``: columns that play no role.
    ``sides``     the columns of two responses in a file of pairs, of which chosen and rejected may only give the names.
    ``guessed``   roles whose column has another name than docs/data.md gives, and was not named by the user either.
    """

    shape: Shape
    names: Mapping[str, str]
    all_ties: bool = False
    unused: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Which column plays which role, and which plays none, in one line."""
        roles = [f"{role}={name}" + " (guessed)" * (role in self.guessed) for role, name in self.names.items()]
        roles += [] if "prompt" in self.names else ["no prompt"]
        return ", ".join(roles) + f"; not used: {listed(self.unused)}"

    def with_names(self, names: Mapping[str, str]) -> Layout:
        """The same file with other columns in use."""
        gone = [name for name in self.names.values() if name not in names.values()]
        unused = [name for name in (*self.unused, *gone) if name not in names.values()]
        return replace(self, names=names, unused=tuple(dict.fromkeys(unused)))

    def without(self, role: str) -> Layout:
        """The same file without a role."""
        return self.with_names({one: name for one, name in self.names.items() if one != role})

    def as_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "shape": self.shape,
            "roles": dict(self.names),
            "guessed": list(self.guessed),
            "unused": list(self.unused),
        }


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """``ROLE=NAME`` words to a mapping; ``ROLE=`` leaves that role out. Raises SettingsError for anything else."""
    mapping = {}
    for pair in pairs:
        role, equals, name = pair.partition("=")
        if not equals:
            raise SettingsError(f"--columns {pair}: expected ROLE=NAME, as in --columns user_id=annotator.")
        if role not in ALIASES:
            raise unknown_name("role in --columns", role, ALIASES)
        if role in mapping:
            raise SettingsError(f"--columns {role}={mapping[role]} {role}={name}: expected one column for {role}.")
        mapping[role] = name
    return mapping


def find_layout(
    path: str, types: Mapping[str, str], mapping: Mapping[str, str] | None = None, ties: bool = False
) -> Layout:
    """The layout of a file whose columns hold ``types``; ``mapping`` (role -> column) wins over the known names.

    Raises InputError for a missing column or one of the wrong type, SettingsError for a mapping that cannot work.
    """
    names = _name_roles(path, types, mapping or {}, ties)
    if _unpaired(names):  # TRL's unpaired preferences: prompt, completion, label
        names["thumb"] = names.pop("label")
    shapes: list[Shape] = [shape for shape, needed in NEEDS.items() if all(role in names for role in needed)]
    shape = shapes[0] if shapes else "rankings" if _are_ranked(names, types) else None
    if shape is None or "user_id" not in names:
        raise _missing(path, list(types), names, shape)
    if shape == "labels":
        names = _one_label(names, mapping or {})
        if not ties and not {"label", "won_a", "rating_a"} & set(names):
            raise _missing(path, list(types), names, None, "label")
    sides = _beside(names) if shape == "pairs" and not {"chosen", "rejected"} & set(mapping or {}) else ()
    names = {role: name for role, name in names.items() if shape in ONLY_IN.get(role, (shape,))}
    if names.get("prompt") == names.get("response"):  # the chat's last message is the response
        names.pop("prompt", None)
    _refuse_unused(path, shape, names, mapping or {}, ties)
    for role, name in names.items():
        found = [kind for kind in types[name].split(" and ") if kind != "null"]
        expected = READABLE.get(role)
        if expected and found and not any(kind in expected for kind in found):
            raise InputError(
                f'{path}: column "{name}" holds {found[0]} values; expected {" or ".join(expected)} for {role}. '
                f"Use --columns {role}=NAME to choose another column."
            )
    return Layout(
        shape,
        names,
        all_ties=ties and "label" not in names and "tie" not in names,
        unused=tuple(name for name in types if name not in names.values()),
        guessed=tuple(
            role
            for role, name in names.items()
            if role not in (mapping or {}) and name != ALIASES.get(role, (name,))[0]
        ),
        sides=sides,
    )


def _beside(names: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of two responses, () if a file lacks one."""
    return (
        tuple(names[role] for role in ("response_a", "response_b"))
        if {"response_a", "response_b"} <= set(names)
        else ()
    )


def _are_ranked(names: dict[str, str], types: Mapping[str, str]) -> bool:
    """Whether a list of responses may be ranked otherwise than by a list of ranks; sets the roles for that."""
    if "responses" not in names or "response_a" in names:
        return False
    if "rating" in names and "list" in types[names["rating"]]:
        names.setdefault("ratings", names.pop("rating"))
    if "ratings" not in names and "label" not in names and "chosen" in names and "rejected" not in names:
        names["label"] = names["chosen"]
    return bool({"ratings", "label"} & set(names)) or "list" in types[names["responses"]]


def _unpaired(names: Mapping[str, str]) -> bool:
    """Whether a label is of one response, and no other column judges it."""
    others = ("thumb", "rating", "chosen", "rejected", "response_a", "response_b", "responses", "won_a")
    return "response" in names and "label" in names and not any(role in names for role in others)


def _one_label(names: dict[str, str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The roles of a file of two responses with one label: a column of labels, or a column for each outcome."""
    names = dict(names)
    if "label" not in names and "chosen" in names and "chosen" not in mapping:
        names["label"] = names.pop("chosen")
    if {"label", "won_a"} & set(names) or not {"rating_a", "rating_b"} <= set(names):
        names = {role: name for role, name in names.items() if role not in ("rating_a", "rating_b")}
    won = [names[role] for role in WON if role in names]
    if {"won_a", "won_b"} <= set(names) and names.get("label", names["won_a"]) in won:
        names.pop("label", None)
        if (tie := names.pop("tie", None)) is not None:
            names.setdefault("won_tie", tie)
        return names
    return {role: name for role, name in names.items() if role not in WON}


def _refuse_unused(path: str, shape: Shape, names: Mapping[str, str], mapping: Mapping[str, str], ties: bool) -> None:
    """Raise SettingsError for a column that the user named and that would not be used."""
    in_use = set(map(_one_line, names.values()))
    unused = next((role for role, name in mapping.items() if name and _one_line(name) not in in_use), None)
    if unused is not None and not ties:
        used = " and ".join(f'"{names[role]}"' for role in NEEDS[shape])
        raise SettingsError(
            f"--columns {unused}={mapping[unused]} would not be used: {path} is read as {shape}, from {used}. Leave it "
            f"out, or leave the others out, as in --columns {NEEDS[shape][0]}= {unused}={mapping[unused]}."
        )


def unnamed(found: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    """Names that would play a role that no column of ``found`` plays: a reason to read the rest of a file."""
    known = {plain_name(name) for name in found}
    names = [name for name in mapping.values() if name]
    for role, aliases in ALIASES.items():
        if role not in mapping and (role == "label" or known.isdisjoint(aliases)):
            names += aliases
    return [name for name in dict.fromkeys(names) if name not in found]


def plain_name(name: str) -> str:
    """A column's name as it is compared: forms put what a column is for in further lines of its name."""
    first = next((line.strip() for line in name.splitlines() if line.strip()), "")
    return first.casefold().replace("-", "_").replace(" ", "_")


def _one_line(name: str) -> str:
    return " ".join(name.split())


def find_columns(
    path: str,
    types: Mapping[str, str],
    roles: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, str]:
    """Role -> column of just these ``roles``, needed if not ``optional``; found and mapped as in ``find_layout``."""
    for role in mapping or {}:
        if role not in roles:
            raise unknown_name("role in --columns", role, roles)
    names = _name_roles(path, types, mapping or {}, ties=False)
    for role in roles:
        if role not in names and role not in optional:
            missing = _missing(path, list(types), names, None, role)
            if len(missing.free) == 1:
                missing = missing.advising(f"Use --columns {role}={_quoted(missing.free[0])} to map yours.")
            raise missing
    also = ["input"] if "prompt" in roles and "input" in names else []
    return {role: names[role] for role in (*roles, *also) if role in names}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Column names for a message: the first ``most`` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(_quoted(name) for name in names[:most]) or "none") + more


def _quoted(name: str) -> str:
    """A name from a file, for a message: one line, shortened when long."""
    return shown(name)[1:-1] if name.strip() else "(unnamed)"


def _name_roles(path: str, types: Mapping[str, str], mapping: Mapping[str, str], ties: bool) -> dict[str, str]:
    known = {plain_name(name): name for name in reversed(list(types))}
    names: dict[str, str] = {}
    named = {_one_line(name) for name in mapping.values()}
    for role, aliases in ALIASES.items():
        found = next((known[alias] for alias in aliases if alias in known), None)
        if found is not None and (_one_line(found) not in named or role in WON):
            names[role] = found
    if "input" not in mapping and plain_name(names.get("prompt", "")) != "instruction":
        names.pop("input", None)  # the text that an instruction is about, as in Alpaca; elsewhere not known
    if not {"response_a", "response_b"} & set(mapping):
        names |= _two_of(PAIRED, ("response_a", "response_b"), known, named)
    if not {"rating_a", "rating_b"} & set(mapping):
        names |= _two_of(RATED, ("rating_a", "rating_b"), known, named)
    for role, name in mapping.items():
        if role not in ALIASES:
            raise unknown_name("role in --columns", role, ALIASES)
        same = [column for column in types if _one_line(column) == _one_line(name)]
        if name in types or len(same) == 1:  # a shell does not type the line breaks of a name
            names[role] = name if name in types else same[0]
        elif not name:
            names.pop(role, None)
        elif not ties:  # a ties file may name its columns differently
            raise SettingsError(
                f'--columns {role}={name}: {path} has no column "{name}"; found: {listed(list(types))}.'
            )
    labels = [known[alias] for alias in LABELS if alias in known and known[alias] != names.get("label")]
    if labels and "label" in names and "label" not in mapping:
        names["label_too"] = labels[0]  # if it differs, the row contradicts itself
    return names


def _two_of(
    pairs: Sequence[tuple[str, str]], roles: tuple[str, str], known: Mapping[str, str], taken: set[str]
) -> dict[str, str]:
    """The columns of the two responses of a row (or of their ratings), unless there are more than two of a kind."""
    for one, other in pairs:
        several = any(
            sum(f"{one[:-1]}{ending}" in known for ending in endings) > 2 for endings in COUNTED if one[-1] in endings
        )
        if (
            one in known
            and other in known
            and not several
            and taken.isdisjoint(map(_one_line, (known[one], known[other])))
        ):
            return dict(zip(roles, (known[one], known[other]), strict=True))
    return {}


class MissingColumn(InputError):
    """A file lacks a column that its shape needs; ``lacking`` is its role. ``free``: the columns without a role."""

    def __init__(
        self, path: str, lacking: str, found: Sequence[str], free: Sequence[str] = (), advice: str = ""
    ) -> None:
        super().__init__(path, lacking, found, free, advice)
        self.path, self.lacking, self.found, self.free = path, lacking, tuple(found), tuple(free)
        self.advice = advice or f"Use --columns to map yours, as in --columns {lacking}=NAME."

    def __str__(self) -> str:
        return f'{self.path}: column "{self.lacking}" is missing; found: {listed(self.found)}. {self.advice}'

    def advising(self, advice: str = "") -> MissingColumn:
        """The same error with another next step."""
        return MissingColumn(self.path, self.lacking, self.found, self.free, advice)


def missing_column(path: str, found: Iterable[str], names: Mapping[str, str], lacking: str) -> MissingColumn:
    """The error for a role that no column plays."""
    return _missing(path, list(found), names, None, lacking)


def _missing(
    path: str, found: Sequence[str], names: Mapping[str, str], shape: Shape | None, lacking: str | None = None
) -> MissingColumn:
    if lacking is None and shape is None:
        started = [r for needed in NEEDS.values() if any(r in names for r in needed) for r in needed if r not in names]
        lacking = started[0] if started else "response_a" if "label" in names or "won_a" in names else "chosen"
    free = [name for name in found if name.strip() and name not in names.values()]
    return MissingColumn(path, lacking or "user_id", found, free)
