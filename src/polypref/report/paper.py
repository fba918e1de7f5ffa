"""The evaluation paper's tables from collected results, with its published figures beside them.

Published figures come only from ``published.toml``. A folder is matched to a published data set by name (psoups,
P-SOUPS), or by the name of the world that imitates the set (psoups-like); a footnote then says so. A learner is matched
to the method it implements, whatever its model (``pretrained:MODEL``, ``finetune:pooled``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import polars as pl

from polypref import wording as words
from polypref.evaluation import collect_results
from polypref.evaluation.collect_results import Collected
from polypref.evaluation.results_table import ResultRow
from polypref.profiling.formatting import UNKNOWN
from polypref.report.paper_controls import placebos, taxes
from polypref.report.table import Cell, Column, Row, Table
from polypref.stats import cluster_robust

FEW_USERS = 12  # up to this many users get a column each in one table
NOTES = {  # of a method's row, where its published figures are shown
    "pretrained": ("pretrained",),
    "retrieval-judge": ("rag",),
    "pooled": ("vanilla",),
    "individual": ("individual",),
    "vpl": ("vpl-context",),
    "personalized": ("prm",),
}
TUNED = ("pretrained", "retrieval-judge")  # methods that always work on text


@cache
def published() -> dict[str, Any]:
    """The content of ``published.toml``."""
    return tomllib.loads((resources.files("polypref.report") / "published.toml").read_text(encoding="utf-8"))


def legend(beside: bool) -> str:
    """What the figures are, for the top of a document."""
    text = (
        "Accuracy on held-out judgements; a dash: not measured. Intervals are 95 %; where a data set has fewer than "
        f"{cluster_robust.FEW_USERS} users they are of these users on new judgements, not of users like them."
    )
    return f"{text} Beside ours, in grey or brackets: {published()['cite']}." if beside else text


def tables(results: Sequence[Collected], beside: bool = True) -> list[Table]:
    """Every table that the folders have figures for; ``beside`` also shows what was published."""
    built = [
        characteristics(results, beside),
        accuracy(results, beside),
        minorities(results),
        *(each_user(one) if _n_users(one) <= FEW_USERS else user_spread(one) for one in results if _n_users(one)),
        published_users(results) if beside else None,
        new_users(results, beside),
        room_and_gain(results),
        placebos(results),
        *taxes(results, published(), {one.name: set_of(one.name)[0] for one in results} if beside else {}),
    ]
    return [table for table in built if table is not None]


def set_of(name: str) -> tuple[str | None, bool]:
    """The published set that a folder's name refers to, and whether the folder is the world that imitates it."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    key = plain.removesuffix("like")
    return (key if key in published()["sets"] else None), plain != key


def method_of(learner: str) -> str:
    """The key of the published method that a learner implements, if any: its name without a model."""
    return learner.removeprefix("finetune:").partition(":")[0]


def characteristics(results: Sequence[Collected], beside: bool) -> Table | None:
    """Table 2 of the paper: one line per data set."""
    paper = published()["characteristics"]
    rows = []
    for one in results:
        line = (one.contents.profile or {}).get("table2")
        if line is None:
            continue
        texts = [text.strip() for text in line.splitlines()[-1].removesuffix("|").split(" | ")[1:]]
        measured = [None if text == UNKNOWN else text for text in texts]
        key, world = set_of(one.name)
        known = paper[key] if beside and key else [None] * len(measured)
        cells = (Cell(m, p) for m, p in zip(measured, known, strict=True))
        rows.append(Row(one.name, tuple(cells), _world(beside and key is not None and world)))
    if not rows:
        return None
    columns = tuple(map(Column, paper["columns"]))
    return _table("characteristics", "Data sets", "data", columns, rows, source=paper["source"])


def accuracy(results: Sequence[Collected], beside: bool) -> Table | None:
    """Accuracy by number of training comparisons: learners by sets and sizes."""
    results = [one for one in results if one.rows]
    if not results:
        return None
    paper = published()["accuracy"]
    columns: list[Column] = []
    cell_of: list[Callable[[str | None, str | None], Cell]] = []
    for one in results:
        key, world = set_of(one.name)
        key = key if beside else None
        sizes = sorted({*one.rows.sizes, *(paper["sizes"][key] if key else ())})
        notes = (*_world(world and key is not None), *(("rows",) if key else ()))
        for size in sizes:
            each = one.per_user(size)
            title = f"{size:,}" if each is None else f"{each:,} each ({size:,})"
            columns.append(Column(title, one.name, notes))
            cell_of.append(_accuracy_cell(one, size, key))
    rows = []
    for learner, method in _lines(_all_learners(results), beside and any(set_of(one.name)[0] for one in results)):
        cells = tuple(make(learner, method) for make in cell_of)
        shown = any(cell.published for cell in cells)
        rows.append(Row(_label(learner, method), cells, _method_notes(learner, method) if shown else ()))
    return _table("accuracy", "Accuracy by number of training comparisons", "learner", columns, rows, paper["source"])


def _accuracy_cell(one: Collected, size: int, key: str | None) -> Callable[[str | None, str | None], Cell]:
    def cell(learner: str | None, method: str | None) -> Cell:
        return _cell(
            None if learner is None else one.rows.at(learner, size=size), _published_accuracy(key, method, size)
        )

    return cell


def _published_accuracy(key: str | None, method: str | None, size: int) -> float | None:
    paper = published()["accuracy"]
    if key is None or method not in paper[key] or size not in paper["sizes"][key]:
        return None
    return paper[key][method][paper["sizes"][key].index(size)]


def minorities(results: Sequence[Collected]) -> Table | None:
    """Accuracy averaged over all users and over minority users, at full size."""
    found = []
    for one in results:
        if any(row.n_users for row in one.rows.where(metric="accuracy_macro", cohort="minority").at_full()):
            found.append(one)
    if not found:
        return None
    columns = [Column(title, one.name) for one in found for title in ("all", "minority")]
    rows = []
    for learner in _all_learners(found):
        sized = [(one, cohort) for one in found for cohort in ("all", "minority")]
        cells = (_cell(one.rows.at(learner, "accuracy_macro", cohort)) for one, cohort in sized)
        rows.append(Row(learner, tuple(cells)))
    remark = "Minority users agree with the others' majority less than half of the time (95 %), by the training rows."
    return _table(
        "minorities", "All users and minority users, mean over users", "learner", columns, rows, remarks=(remark,)
    )


def each_user(one: Collected) -> Table:
    """Accuracy of each user, best served by ``pooled`` first."""
    assert one.users is not None
    by_learner = {name: frame for (name,), frame in one.users.group_by("learner", maintain_order=True)}
    first = by_learner.get("pooled", next(iter(by_learner.values())))
    order = first.sort("accuracy", "user_id", descending=[True, False], nulls_last=True)
    columns = [Column(_user_title(row)) for row in order.iter_rows(named=True)]
    rows = []
    for learner, frame in by_learner.items():
        accuracy_of = dict(zip(frame["user_id"], frame["accuracy"], strict=True))
        rows.append(Row(learner, tuple(Cell(_two(accuracy_of.get(user))) for user in order["user_id"])))
    return _table(_users_key(one), f"{one.name}: accuracy of each user", "learner", columns, rows)


def _user_title(row: Mapping[str, Any]) -> str:
    return f"{row['user_id']} (minority)" if row["minority"] else str(row["user_id"])


def published_users(results: Sequence[Collected]) -> Table | None:
    """The paper's own table of users; it is separate from ours because its users are not ours."""
    paper, names = published()["users"], published()["methods"]
    if not any(set_of(one.name)[0] == paper["set"] for one in results):
        return None
    columns = [Column(user, notes=("order",)) for user in paper["ids"]]
    rows = []
    for method, values in paper["accuracy"].items():
        notes = ("vpl-users",) if method == "vpl" else ("pretrained",) if method == "pretrained" else ()
        rows.append(Row(names[method], tuple(Cell(None, _two(value)) for value in values), notes))
    title = f"{published()['sets'][paper['set']]}: accuracy of each user, as published"
    return _table("users-published", title, "method", columns, rows, paper["source"])


def user_spread(one: Collected) -> Table:
    """For many users: the worst, the median and the best accuracy, and how many users are better or worse off."""
    assert one.users is not None
    names = ("worst", "tenth", "median", "ninetieth", "best", "better", "worse")
    titles = [{"tenth": "10 % quantile", "ninetieth": "90 % quantile"}.get(name, name) for name in names]
    rows = []
    for line in collect_results.user_spread(one.users).iter_rows(named=True):
        values = (line[name] for name in names)
        cells = (Cell(_two(value) if isinstance(value, float) else _count(value)) for value in values)
        rows.append(Row(line["learner"], tuple(cells)))
    remark = "Percentiles of the users' accuracies; better, worse: users significantly so against the baseline."
    title = f"{one.name}: accuracy over {_n_users(one):,} users"
    return _table(_users_key(one), title, "learner", map(Column, titles), rows, remarks=(remark,))


def _users_key(one: Collected) -> str:
    return "users-" + re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-")


def new_users(results: Sequence[Collected], beside: bool) -> Table | None:
    """Accuracy for users held out entirely, by route and number of their comparisons."""
    paper = published()["new_users"]
    found = [one for one in results if one.new_users]
    if not found:
        return None
    columns: list[Column] = []
    cell_of: list[Callable[[str | None, str], Cell]] = []
    for one in found:
        key, world = set_of(one.name)
        known = beside and key == paper["set"]
        sizes = sorted({*one.new_users.sizes, *(paper["counts"] if known else ())})
        notes = (*_world(known and world), *(("new-users",) if known else ()))
        columns += [Column(f"{size:,}", one.name, notes) for size in sizes]
        cell_of += [_new_cell(one, size, known) for size in sizes]
    routes = list(dict.fromkeys(name for one in found for name in one.new_users.learners))
    lines = [(route, paper["routes"].get(route, method_of(route))) for route in routes]
    if any(make(None, name).published for make in cell_of for name in paper["names"]):
        lines += [(None, name) for name in paper["names"] if name not in dict(lines).values()]
    rows = []
    for route, method in lines:
        cells = tuple(make(route, method) for make in cell_of)
        name = paper["names"].get(method) if any(cell.published for cell in cells) else None
        label = " ".join(filter(None, (route, name if route is None else name and f"({name})")))
        rows.append(Row(label, cells))
    title = "New users, by number of their own comparisons"
    return _table("new-users", title, "route", columns, rows, paper["source"])


def _new_cell(one: Collected, size: int, known: bool) -> Callable[[str | None, str], Cell]:
    paper = published()["new_users"]

    def cell(route: str | None, method: str) -> Cell:
        row = None if route is None else one.new_users.at(route, size=size)
        values = paper["accuracy"].get(method) if known and size in paper["counts"] else None
        return _cell(row, None if values is None else values[paper["counts"].index(size)])

    return cell


def room_and_gain(results: Sequence[Collected]) -> Table | None:
    """Room for personalization and the gain of the personal learner that ``compare`` names, by data set."""
    found = [gained for one in results if (gained := collect_results.gained(one)) is not None]
    if not found:
        return None
    columns = tuple(map(Column, ("room", "gain", "95 % interval", "learner", "over")))
    rows = []
    for one in found:
        room = words.percent(one.room) if one.measured else f"≤ {words.percent(one.room)}"
        interval = words.interval({"lo": one.lo, "hi": one.hi}, words.points) or None
        texts = (room, words.points(one.gain), interval, one.learner, one.baseline)
        rows.append(Row(one.name, tuple(map(Cell, texts))))
    remarks = [
        "In points of accuracy. Room: people's consistency minus the accuracy of the best population learner on "
        "validation rows; an upper limit (consistency 1) where nobody judged a pair twice. Gain: on test rows, of the "
        "personal learner that compare names.",
        correlation_sentence(found),
    ]
    known = [one for one in found if one.measured]
    if len(known) < len(found):
        remarks.append(correlation_sentence(known, " whose consistency was measured"))
    return _table("room", "Room and gain", "data", columns, rows, remarks=tuple(remarks))


def correlation_sentence(found: Sequence[collect_results.Gained], which: str = "") -> str:
    """A sentence on whether room predicts gain."""
    over = collect_results.correlation([one.room for one in found], [one.gain for one in found])
    if over.value is None or over.lo is None or over.hi is None:
        few = over.n < collect_results.LEAST_SETS
        reason = f"expected {collect_results.LEAST_SETS} or more" if few else "room or gain is the same in all"
        return f"{words.counted(over.n, 'data sets')}{which} cannot show whether room predicts gain ({reason})."
    sure = over.lo > 0 or over.hi < 0
    finding = (
        f"where room is larger, gain is {'larger' if over.value > 0 else 'smaller'}" if sure else "it may be chance"
    )
    interval = f"{words.signed(over.lo, 2)} to {words.signed(over.hi, 2)}"
    return (
        f"Over {words.counted(over.n, 'data sets')}{which}, the correlation of room and gain is "
        f"{words.signed(over.value, 2)} "
        f"(95 % interval over data sets {interval}): {finding}."
    )


def _table(
    key: str,
    title: str,
    head: str,
    columns: Iterable[Column],
    rows: Sequence[Row],
    source: str | None = None,
    remarks: tuple[str, ...] = (),
) -> Table:
    """A table that names its source where published figures are shown."""
    if source and any(cell.published is not None for row in rows for cell in row.cells):
        remarks = (*remarks, f"Published: {published()['cite']}, {source}.")
    return Table(key, title, head, tuple(columns), tuple(rows), remarks, published()["notes"])


def _lines(learners: Sequence[str], beside: bool) -> list[tuple[str | None, str | None]]:
    """Rows ``(learner, method)``: ``beside`` the paper, its methods in its order (also those without a learner) come
    first.
    """
    if not beside:
        return [(learner, None) for learner in learners]
    methods = published()["methods"]
    lines: list[tuple[str | None, str | None]] = []
    for method in methods:
        named = [learner for learner in learners if method_of(learner) == method]
        lines += [(learner, method) for learner in named] or [(None, method)]
    return lines + [(learner, None) for learner in learners if method_of(learner) not in methods]


def _label(learner: str | None, method: str | None) -> str:
    name = None if method is None else published()["methods"][method]
    return " ".join(filter(None, (learner, name if learner is None else name and f"({name})")))


def _method_notes(learner: str | None, method: str | None) -> tuple[str, ...]:
    if method is None:
        return ()
    frozen = learner is not None and not learner.startswith("finetune:") and method not in TUNED
    return (*(("frozen",) if frozen else ()), *NOTES.get(method, ()))


def _world(world: bool) -> tuple[str, ...]:
    return ("world",) if world else ()


def _all_learners(results: Sequence[Collected]) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in one.rows.learners))


def _n_users(one: Collected) -> int:
    users: pl.DataFrame | None = one.users
    return 0 if users is None else users["user_id"].n_unique()


def _cell(row: ResultRow | None, known: float | None = None) -> Cell:
    beside = None if known is None else _two(known)
    if row is None or row.value is None:
        return Cell(None, beside)
    return Cell(words.number(row.value), beside, words.interval(row.ends) or None)


def _two(value: Any) -> str | None:
    return None if words.finite(value) is None else words.number(float(value), 2)


def _count(value: Any) -> str | None:
    return None if value is None else words.number(value)
