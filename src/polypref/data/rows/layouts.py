"""Which column of a file plays which role, and which of four shapes of preference data the file has.

pairs     prompt, chosen, rejected            TRL's preference formats; the prompt may be implicit
labels    prompt, response_a, response_b, label
ratings   prompt, response, rating            one row for each rated response
rankings  prompt, responses, ranking          one row for each ranked list
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from polypref.errors import InputError, SettingsError, unknown_name
from polypref.wording import shown

Shape = Literal["pairs", "labels", "ratings", "rankings"]

CHATS = ("messages", "conversations", "conversation")  # prompts, or prompts and the response where there is no other

# Role -> the column names understood without --columns, the most specific first.
ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("user_id", "uid", "user", "userid", "worker_id", "worker", "workerid", "annotator_id", "annotator"),
        *("rater_id", "rater", "judge", "participant_id", "participant", "labeler"),
    ),
    "prompt": ("prompt", "instruction", "question", "query", "context", *CHATS, "history", "input"),
    "chosen": ("chosen", "preferred", "chosen_response", "preferred_response", "preferred_output"),
    "rejected": (
        *("rejected", "dispreferred", "rejected_response", "dispreferred_response"),
        *("dispreferred_output", "non_preferred_output"),
    ),
    "response_a": ("response_a", "response_1", "response1", "output_1", "answer_a", "completion_a"),
    "response_b": ("response_b", "response_2", "response2", "output_2", "answer_b", "completion_b"),
    "label": ("label", "winner", "preference", "choice"),
    "response": ("response", "completion", "answer", "output", *CHATS),
    "rating": ("rating", "score", "stars"),
    "responses": ("responses", "completions", "answers", "outputs"),
    "ranking": ("ranking", "ranks", "rank"),
    "tie": ("tie", "is_tie"),
    "pair_id": ("pair_id", "pairid", "comparison_id"),
    "time": ("timestamp", "time", "created_at", "date"),
    "seconds": ("seconds", "duration", "duration_seconds", "response_time", "elapsed"),
    "weight": ("weight", "sample_weight"),
    "chosen_pos": ("chosen_pos", "chosen_position"),
    "shown_first": ("shown_first",),
    "attributes": ("attributes", "user_attributes", "demographics"),
}
NEEDS: dict[Shape, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "labels": ("response_a", "response_b"),
    "ratings": ("response", "rating"),
    "rankings": ("responses", "ranking"),
}
ONLY_IN: dict[str, tuple[Shape, ...]] = {role: (shape,) for shape, roles in NEEDS.items() for role in roles}
ONLY_IN |= {
    "label": ("pairs", "labels"),
    "label_too": ("labels",),
    "tie": ("pairs", "labels"),
    "chosen_pos": ("pairs",),
    "shown_first": ("pairs",),
}
TEXTS = ("prompt", "chosen", "rejected", "response_a", "response_b", "response")
READABLE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(TEXTS, ("text", "list", "object")),
    "user_id": ("text", "number"),
    "responses": ("list", "text"),
    "ranking": ("list", "text"),
    "rating": ("number", "text", "boolean"),
    "weight": ("number", "text"),
    "seconds": ("number", "text", "time"),
    "attributes": ("object", "text"),
}


@dataclass(frozen=True)
class Layout:
    """The shape of a file and the column that plays each role.

    ``all_ties``  a ties file without a label column. ``unused``: columns that play no role.
    ``guessed``   roles whose column has another name than docs/data.md gives, and was not named by the user either.
    """

    shape: Shape
    names: Mapping[str, str]
    all_ties: bool = False
    unused: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Which column plays which role, and which plays none, in one line."""
        roles = [f"{role}={name}" + " (guessed)" * (role in self.guessed) for role, name in self.names.items()]
        roles += [] if "prompt" in self.names else ["no prompt"]
        return ", ".join(roles) + f"; not used: {listed(self.unused)}"

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
    shapes: list[Shape] = [shape for shape, needed in NEEDS.items() if all(role in names for role in needed)]
    shape = shapes[0] if shapes else None
    if shape is None or "user_id" not in names:
        raise InputError(_missing(path, list(types), names, shape))
    names = {role: name for role, name in names.items() if shape in ONLY_IN.get(role, (shape,))}
    if names.get("prompt") == names.get("response"):  # the chat's last message is the response
        names.pop("prompt", None)
    if shape == "labels" and not ties and "label" not in names:
        raise InputError(_missing(path, list(types), names, None, "label"))
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
    )


def unnamed(found: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    """Names that would play a role that no column of ``found`` plays: a reason to read the rest of a file."""
    known = {_plain(name) for name in found}
    names = [name for name in mapping.values() if name]
    for role, aliases in ALIASES.items():
        if role not in mapping and (role == "label" or known.isdisjoint(aliases)):
            names += aliases
    return [name for name in dict.fromkeys(names) if name not in found]


def _plain(name: str) -> str:
    """A column's name as it is compared: forms put what a column is for in further lines of its name."""
    first = next((line.strip() for line in name.splitlines() if line.strip()), "")
    return first.casefold().replace("-", "_").replace(" ", "_")


def _one_line(name: str) -> str:
    return " ".join(name.split())


def find_columns(
    path: str, types: Mapping[str, str], roles: Sequence[str], mapping: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Role -> column of just these ``roles``, all of which are needed; found and mapped as in ``find_layout``."""
    for role in mapping or {}:
        if role not in roles:
            raise unknown_name("role in --columns", role, roles)
    names = _name_roles(path, types, mapping or {}, ties=False)
    for role in roles:
        if role not in names:
            raise InputError(_missing(path, list(types), names, None, role))
    return {role: names[role] for role in roles}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Column names for a message: the first ``most`` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(_quoted(name) for name in names[:most]) or "none") + more


def _quoted(name: str) -> str:
    """A name from a file, for a message: one line, shortened when long."""
    return shown(name)[1:-1] if name.strip() else "(unnamed)"


def _name_roles(path: str, types: Mapping[str, str], mapping: Mapping[str, str], ties: bool) -> dict[str, str]:
    known = {_plain(name): name for name in reversed(list(types))}
    names: dict[str, str] = {}
    named = {_one_line(name) for name in mapping.values()}
    for role, aliases in ALIASES.items():
        found = next((known[alias] for alias in aliases if alias in known), None)
        if found is not None and _one_line(found) not in named:
            names[role] = found
    labels = [known[alias] for alias in ALIASES["label"] if alias in known]
    if len(labels) > 1:
        names["label_too"] = labels[1]  # if it differs, the row contradicts itself
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
    return names


def _missing(
    path: str, found: Sequence[str], names: Mapping[str, str], shape: Shape | None, lacking: str | None = None
) -> str:
    if lacking is None and shape is None:
        started = [r for needed in NEEDS.values() if any(r in names for r in needed) for r in needed if r not in names]
        lacking = started[0] if started else "chosen"
    lacking = lacking or "user_id"
    example = next((_one_line(f) for f in found if f.strip() and f not in names.values()), "NAME")
    hint = shlex.quote(f"{lacking}={shown(example)[1:-1]}")
    return (
        f'{path}: column "{lacking}" is missing; found: {listed(found)}. Use --columns to map yours, as in '
        f"--columns {hint}."
    )
