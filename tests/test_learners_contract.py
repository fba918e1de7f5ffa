"""The contract that every learner in ``LEARNERS`` keeps: core properties for all, declared ones for who declares them.

Tolerances are in units of the margins' root mean square under the learner at hand, so they mean the same for all."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from contract_cases import (
    BLIND,
    EACH,
    EVERYONE,
    FOLDER,
    NAMES,
    QUICK,
    READS_IDS,
    Constant,
    Words,
    answers,
    apart,
    each,
    fitted,
    fresh,
    renamed,
    small,
    tied,
)
from polypref import scorers
from polypref.comparisons import Comparisons, from_columns
from polypref.errors import ArtifactError, InputError, NotEnoughData
from polypref.learners import LEARNERS, SCORERS, WITH_MODEL, margins
from polypref.learners.new_user_baselines import ROUTES
from polypref.learners.protocol import PERSONAL, POPULATION, Adapts, population_margins, scorer_class
from polypref.scorers import load, save

# --- the table


def learners_in(source: str) -> list[str]:
    """Names of the classes that have a ``fit`` of the contract's form."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in node.bases):
            methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
            if "fit" in methods and {"encoder", "seed"} <= {a.arg for a in methods["fit"].args.kwonlyargs}:
                found.append(node.name)
    return found


def test_every_learner_is_in_the_table():
    assert len(LEARNERS) >= 9
    assert set(LEARNERS) >= EVERYONE
    found = [(path.stem, name) for path in sorted(FOLDER.glob("*.py")) for name in learners_in(path.read_text())]
    assert len(found) >= 7
    learners = [*LEARNERS.values(), *ROUTES.values(), *(make("model") for make in WITH_MODEL.values())]
    listed = {(type(learner).__module__.rpartition(".")[2], type(learner).__name__) for learner in learners}
    assert listed == set(found)


def test_a_learner_that_is_not_listed_would_be_seen():
    planted = "class Odd:\n    def fit(self, train, *, encoder, seed, valid=None):\n        return 1\n"
    assert learners_in(planted) == ["Odd"]
    assert learners_in(planted.replace("class Odd", "class Odd(Protocol)")) == []
    assert learners_in("class Inputs:\n    def fit(self, encoder, train): ...\n") == []


def test_every_scorer_is_known_by_its_kind():
    with_model = {scorer for kind, scorer in SCORERS.items() if kind in WITH_MODEL}  # fitted in tests of their own
    assert len(with_model) == len(WITH_MODEL)
    routes = {scorer_class(route) for route in ROUTES.values()}
    assert {type(fitted(name)) for name in NAMES} == set(SCORERS.values()) - with_model - routes
    assert all(kind == scorer.kind for kind, scorer in SCORERS.items())


@each
def test_settings_survive_json(name):
    learner = LEARNERS[name]
    text = json.dumps(asdict(learner))
    again = type(learner)(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})
    assert again == learner
    assert hash(again) == hash(learner)
    with pytest.raises(AttributeError):  # frozen
        object.__getattribute__(learner, "__setattr__")(next((f.name for f in fields(learner)), "x"), 1)


# --- what is said, and by whom


@each
def test_scores_are_finite_for_texts_and_users_never_seen(name):
    scorer, c = fitted(name), fresh()
    for ids in (c.users.ids.gather(np.arange(len(c.responses)) % len(c.users)), ["nobody"] * len(c.responses)):
        scores = scorer.score(c.responses, ids)
        assert scores.value_Q.shape == scores.source_Q.shape == (len(c.responses),)
        assert np.isfinite(scores.value_Q).all()
        assert len(np.unique(scores.value_Q)) > 1


@each
def test_who_answered_is_said(name):
    scorer, c = fitted(name), small()
    known, unknown = c.users.ids[3], "nobody"
    asked = np.array([5, 2, 2, 0], np.int32)
    scores = scorer.score(c.responses, [known, unknown, known, "someone else"], asked)
    expected = [PERSONAL, POPULATION, PERSONAL, POPULATION] if name in EACH else [POPULATION] * 4
    assert scores.source_Q.tolist() == expected
    assert (scorer.serves == "population") == (name in EVERYONE)
    assert (scorer.serves == "any_user") == isinstance(scorer, Adapts)


@each
def test_all_strangers_get_the_same_answer(name):
    scorer, r = fitted(name), fresh().responses
    one, other = (scorer.score(r, [who] * len(r)).value_Q for who in ("nobody", "__proto__"))
    assert (one == other).all()
    known = [scorer.score(r, [who] * len(r)).value_Q for who in small().users.ids]
    assert any((value != one).any() for value in known) == (name in EACH)


@each
def test_nobody_is_answered_as_an_unknown_user_bit_for_bit(name):
    scorer, r = fitted(name), fresh().responses
    stranger, nobody = (scorer.score(r, who) for who in (["nobody"] * len(r), None))
    assert (nobody.value_Q == stranger.value_Q).all() and (nobody.source_Q == POPULATION).all()
    some = np.array([3, 1, 1], np.int32)
    assert (scorer.score(r, None, some).value_Q == scorer.score(r, ["nobody"] * 3, some).value_Q).all()
    mixed = scorer.score(r, [None if q % 2 else small().users.ids[0] for q in range(len(r))])
    known = scorer.score(r, [small().users.ids[0]] * len(r))
    assert (mixed.source_Q[1::2] == POPULATION).all() and (mixed.source_Q[::2] == known.source_Q[::2]).all()
    np.testing.assert_allclose(mixed.value_Q[1::2], nobody.value_Q[1::2], rtol=1e-4, atol=1e-4)
    assert (answers(scorer, renamed(fresh())) == population_margins(scorer, fresh()).value_Q).all()


@each
@pytest.mark.parametrize("bad", ["", "\0nobody", "a\0", "\ud800", 3.5, True])
def test_ids_that_nobody_can_have_are_refused(name, bad):
    scorer, c = fitted(name), fresh()
    with pytest.raises(InputError, match="user id"):
        scorer.score(c.responses, [bad] * len(c.responses))
    with pytest.raises(InputError, match="user id"):
        scorer.score(c.responses, ["u"] * 3, np.zeros(2, np.int32))
    if isinstance(scorer, Adapts):
        with pytest.raises(InputError, match="user id"):
            scorer.adapt(bad, c)


@each
def test_a_score_does_not_depend_on_what_else_is_asked(name):
    scorer, c = fitted(name), fresh()
    whole = scorer.score(c.responses, [c.users.ids[1]] * len(c.responses)).value_Q
    part = scorer.score(c.responses, [c.users.ids[1]] * 2, np.array([7, 3], np.int32)).value_Q
    pool = scorer.score(c.responses.take(np.array([3, 7], np.int32)), [c.users.ids[1]] * 2).value_Q
    np.testing.assert_allclose(part, whole[[7, 3]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pool, whole[[3, 7]], rtol=1e-4, atol=1e-4)


# --- symmetries of the data


@each
def test_same_seed_same_scores(name):
    assert (answers(fitted(name), fresh()) == answers(fitted(name, "again"), fresh())).all()
    assert fitted(name).selection == fitted(name, "again").selection


@each
def test_the_order_of_rows_does_not_matter(name):
    assert apart(answers(fitted(name, "permuted"), fresh()), answers(fitted(name), fresh())) < 0.02


@pytest.mark.parametrize("name", sorted(set(NAMES) - READS_IDS))
def test_names_of_users_do_not_matter(name):
    assert (answers(fitted(name, "renamed"), renamed(fresh())) == answers(fitted(name), fresh())).all()


@each
def test_swapped_labels_negate_the_margins(name):
    one, other = answers(fitted(name), fresh()), answers(fitted(name, "swapped"), fresh())
    if name in BLIND:
        assert (one == other).all()
    else:
        assert apart(-other, one) < 0.02
        assert np.abs(one).max() > 0.1  # zero is its own negative


@each
def test_weight_two_is_a_row_twice(name):
    one, other = answers(fitted(name, "weighted"), fresh()), answers(fitted(name, "doubled"), fresh())
    assert apart(one, other) < 0.02
    if name not in BLIND:
        assert apart(one, answers(fitted(name), fresh())) > 0.02  # and it is not nothing


@each
def test_weight_zero_moves_nobody(name):
    """Bit for bit as without these judgements, and who has no others is a stranger."""
    c = small()
    told_N = (c.user_N != 0) & (np.arange(len(c)) % 5 > 0)
    kept = replace(c, weight_N=np.ones(len(c))).take(told_N)
    one, other = (QUICK[name].fit(rows, encoder=Words(), seed=0) for rows in (kept, silenced(c, told_N)))
    found, expected = margins(other, fresh()), margins(one, fresh())
    np.testing.assert_array_equal(found.value_Q, expected.value_Q)
    np.testing.assert_array_equal(found.source_Q, expected.source_Q)


def silenced(c: Comparisons, told_N: np.ndarray) -> Comparisons:
    """The judgements not marked say the opposite, with weight 0."""
    chosen_N = np.where(told_N, c.chosen_N, c.rejected_N)
    rejected_N = np.where(told_N, c.rejected_N, c.chosen_N)
    return replace(c, chosen_N=chosen_N, rejected_N=rejected_N, weight_N=told_N.astype(float))


@each
def test_ties_count_half(name):
    """A tie is half a judgement each way; ties alone say nothing."""
    c, learner = small(), QUICK[name]
    tie_N = np.arange(len(c)) % 4 == 0
    rows = np.concatenate([np.arange(len(c)), np.flatnonzero(tie_N)])
    turned = np.arange(len(rows)) >= len(c)
    halves = c.take(rows)
    halves = replace(
        halves,
        chosen_N=np.where(turned, halves.rejected_N, halves.chosen_N),
        rejected_N=np.where(turned, halves.chosen_N, halves.rejected_N),
        weight_N=np.where(tie_N[rows], 0.5, 1.0),
    )
    one = learner.fit(replace(c, tie_N=tie_N), encoder=Words(), seed=0)
    other = learner.fit(halves, encoder=Words(), seed=0)
    assert apart(answers(one, fresh()), answers(other, fresh())) < 0.02


@each
def test_ties_alone_say_nothing(name):
    if name == "pooled-majority":
        with pytest.raises(NotEnoughData, match="majority"):
            QUICK[name].fit(tied(small()), encoder=Words(), seed=0)
        return
    margin_N = answers(QUICK[name].fit(tied(small()), encoder=Words(), seed=0), fresh())
    assert np.isfinite(margin_N).all()
    if name not in BLIND:
        assert np.abs(margin_N).max() < 0.05


# --- fitting leaves its inputs alone


def fingerprint(c: Comparisons) -> str:
    state = sha256()
    arrays = [getattr(c, f.name) for f in fields(c)] + [c.responses.prompt_R]
    for array in arrays:
        if isinstance(array, np.ndarray):
            state.update(array.tobytes())
    for series in (c.responses.prompts, c.responses.texts_R, c.users.ids):
        state.update(json.dumps(series.to_list()).encode())
    return state.hexdigest()


@each
def test_inputs_are_not_changed(name):
    c = replace(small(), weight_N=np.ones(len(small())), tie_N=np.zeros(len(small()), bool))
    before = fingerprint(c)
    QUICK[name].fit(c, encoder=Words(), seed=0)
    assert fingerprint(c) == before


def test_a_change_would_be_seen():
    c = replace(small(), weight_N=np.ones(len(small())))
    before = fingerprint(c)
    assert c.weight_N is not None
    c.weight_N[3] = 0.5
    assert fingerprint(c) != before


# --- saved and loaded

READ = """
import sys, numpy as np
from test_learners_contract import Words, answers, fresh, NAMES
from polypref.scorers import load
folder = sys.argv[1]
np.savez(folder + "/there.npz", **{name: answers(load(f"{folder}/{name}", Words()), fresh()) for name in NAMES})
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Margins of all scorers after they were saved, as another process computes them."""
    folder = tmp_path_factory.mktemp("scorers")
    for name in NAMES:
        save(fitted(name), folder / name)
    import os

    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    subprocess.run([sys.executable, "-c", READ, str(folder)], check=True, env={**os.environ, **path})
    return np.load(folder / "there.npz")


@each
def test_another_process_answers_the_same(name, there):
    assert (there[name] == answers(fitted(name), fresh())).all()


def test_a_scorer_of_an_unknown_kind_is_refused(tmp_path, monkeypatch):
    save(fitted("length"), tmp_path / "scorer")
    monkeypatch.delitem(scorers.SCORERS, "length")
    with pytest.raises(ArtifactError, match="'length'"):
        load(tmp_path / "scorer", Words())


# --- poor data


def pairs(user_ids: list[str], prompts: list[str] | None = None) -> Comparisons:
    n = len(user_ids)
    good, bad = [f"good thing number {i}" for i in range(n)], [f"bad {i}" for i in range(n)]
    return from_columns(user_ids, prompts or ["why?"] * n, good, bad)


POOR = {
    "one user": (lambda: pairs(["ann"] * 12), Words()),
    "one comparison per user": (lambda: pairs([f"u{i}" for i in range(12)]), Words()),
    "two comparisons": (lambda: pairs(["ann", "bob"]), Words()),
    "all features identical": (small, Constant()),
    "a text judged against itself": (lambda: replace(small(), rejected_N=small().chosen_N), Words()),
    "weights of zero": (lambda: replace(small(), weight_N=(np.arange(len(small())) % 2).astype(float)), Words()),
}


@each
@pytest.mark.parametrize("poor", list(POOR))
def test_poor_data_are_learned_from(name, poor):
    make, encoder = POOR[poor]
    c = make()
    try:
        scorer = QUICK[name].fit(c, encoder=encoder, seed=0)
    except NotEnoughData as error:
        assert (name, poor) == ("pooled-majority", "a text judged against itself"), error
        return
    margin_N = answers(scorer, c)
    assert np.isfinite(margin_N).all()
    if poor == "a text judged against itself":
        assert (margin_N == 0).all()
    elif poor in ("one user", "one comparison per user") and name not in BLIND:
        assert (margin_N > 0).mean() > 0.5


@each
def test_nothing_to_learn_from_is_said(name):
    with pytest.raises(NotEnoughData, match="0 training rows"):
        QUICK[name].fit(small().take(np.zeros(0, np.int64)), encoder=Words(), seed=0)


@each
def test_one_user_more_does_not_hurt(name):
    c = small()
    kept = c.take(c.user_N != 0)
    one = QUICK[name].fit(kept, encoder=Words(), seed=0)
    margin_N = answers(one, fresh())
    assert np.isfinite(margin_N).all()
    source_N = margins(one, fresh()).source_Q
    if name in EACH:
        assert (source_N == np.where(fresh().user_N == 0, POPULATION, PERSONAL)).all()
