"""PAL: planted ideal points are counted and people sorted by them; slopes and new users by independent means."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from contract_cases import Words, answers, small
from polypref.comparisons import Comparisons
from polypref.features.prompts import prompt_texts
from polypref.learners.pal_a import PalA
from polypref.learners.pal_b import PalB
from recovery_worlds import DIMENSIONS, Normal, ideal_points

POINTS_GD = 2.0 * np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]) @ np.eye(2, DIMENSIONS)


@cache
def world() -> Comparisons:
    return ideal_points(POINTS_GD, 30, 60, 1)


@cache
def fitted():
    return PalA(prototypes=(1, 2, 3, 4)).fit(world(), encoder=Normal(), seed=1)


def test_the_number_of_ideal_points_is_found():
    """Three points that lie on no line need three prototypes, two on a line two.

    The count is right in 7 of 8 such worlds (four seeds each); once four are taken for three.
    """
    assert fitted().selection["prototypes"] == 3
    two = PalA(prototypes=(1, 2, 3)).fit(ideal_points(POINTS_GD[:2], 30, 60, 1), encoder=Normal(), seed=1)
    assert two.selection["prototypes"] == 2


def test_people_of_one_group_have_one_mixture():
    scorer = fitted()
    group_U = np.array([int(name[1:]) % 3 for name in scorer.users.ids])
    mean_GC = np.stack([scorer.mixture_UC[group_U == g].mean(axis=0) for g in range(3)])
    nearest_U = ((scorer.mixture_UC[:, None] - mean_GC) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest_U == group_U).mean() > 0.9


def test_texts_near_a_groups_point_are_liked():
    c = world()
    x_RD = Normal().encode(c.responses)
    for user, point_D in enumerate(POINTS_GD):
        reward_R = fitted().score(c.responses, [f"u{user:03d}"] * len(c.responses)).value_Q
        near_R = -np.linalg.norm(x_RD - point_D, axis=1)
        assert np.corrcoef(reward_R, near_R)[0, 1] > 0.6


# --- new users


FORMS = {
    **{f"pal-a {ideal}": PalA(prototypes=(3,), ideal=ideal) for ideal in ("Pw", "f(Pw)", "f(P)w")},
    "pal-b": PalB(prototypes=(3,)),
    "pal-b hinge": PalB(prototypes=(2,), loss="hinge"),
}


@pytest.mark.parametrize("form", FORMS)
def test_slopes_are_those_of_finite_differences_and_margins_those_of_scores(form):
    c = small()
    scorer = replace(FORMS[form], most_steps=30).fit(c, encoder=Words(), seed=0)
    own = c.take(c.user_N == 2)
    judge = partial(scorer.margins, scorer.reads(own))
    mixture_C = np.full(len(scorer.mixture_C), 0.2)
    mixture_C[0] += 0.3
    slope_NC = judge(mixture_C)[1]
    for at, step_C in enumerate(1e-6 * np.eye(len(mixture_C))):
        numeric_N = (judge(mixture_C + step_C)[0] - judge(mixture_C - step_C)[0]) / 2e-6
        np.testing.assert_allclose(slope_NC[:, at], numeric_N, atol=1e-5)
    known_C = scorer.mixture_UC[scorer.users.index([c.users.ids[2]])[0]]
    np.testing.assert_allclose(judge(known_C)[0], answers(scorer, own), atol=1e-4)


def test_newcomers_of_known_groups_are_sorted_into_them():
    c = world()
    right: dict[str, list[np.ndarray]] = {"stranger": [], "new": []}
    for user in range(6):
        own = c.take(c.user_N == user)
        rest = own.take(np.arange(len(own)) >= 30)
        scorer = fitted().adapt("new", own.take(np.arange(len(own)) < 30))
        for who, found in right.items():
            ids = rest.users.ids.replace(f"u{user:03d}", who)
            found.append(answers(scorer, replace(rest, users=replace(rest.users, ids=ids))) > 0)
    assert np.mean(right["new"]) > 0.75
    assert np.mean(right["new"]) > np.mean(right["stranger"]) + 0.08


# --- prompts


def test_each_prompt_is_encoded_once_as_a_text_of_its_own():
    r = small().responses
    texts, at_R = prompt_texts(r)
    assert len(texts) == len(np.unique(r.prompt_R)) < len(r)
    assert [texts.texts_R[int(at)] for at in at_R] == [r.prompts[int(p)] for p in r.prompt_R]


def test_hinge_and_logistic_agree_on_who_wins():
    c = small()
    one, other = (PalA(prototypes=(2,), loss=loss).fit(c, encoder=Words(), seed=0) for loss in ("logistic", "hinge"))
    assert (np.sign(answers(one, c)) == np.sign(answers(other, c))).mean() > 0.75
