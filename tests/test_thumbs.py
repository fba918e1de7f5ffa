"""Likes and dislikes of single answers: read, learned, measured by ranking, never shown as a text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polypref import compare, features, lint, load, read, save
from polypref.cli import main
from polypref.comparisons import Comparisons, Responses, concat
from polypref.content import BAR
from polypref.data import thumbs as module
from polypref.data.linting.lint import clean
from polypref.data.split import RULES, check_leaks, split
from polypref.data.thumbs import AREA, READING, VALID, bar_N, from_thumbs, liked_N, ranked
from polypref.errors import InputError, SettingsError
from polypref.learners import LEARNERS
from polypref.learners.pretrained import Pretrained
from polypref.learners.protocol import margins
from polypref.profiling import profile
from polypref.testing import Words

WORDS = ("apple", "river", "stone", "quick", "green", "tall", "cat", "dog", "walk", "sing", "cloud", "paper")


class NoBars(Words):
    """Fails where it is given a bar."""

    def encode(self, responses: Responses):
        assert BAR not in responses.texts_R.to_list()
        return super().encode(responses)


def world(each: int = 40, people: int = 8, lenient: float = 0.0, seed: int = 0) -> Comparisons:
    """Half of the people like "cat", the others "dog"; a share ``lenient`` of what they would dislike is liked."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(each * people)]
    users = np.repeat(np.arange(people), each)
    wanted = ["cat" if user % 2 else "dog" for user in users]
    liked = [w in text.split() for w, text in zip(wanted, texts, strict=True)]
    liked = np.array(liked) | ((users < people // 2) & (rng.random(len(users)) < lenient))
    return from_thumbs([f"u{u}" for u in users], [f"question {i}" for i in range(len(users))], texts, liked)


def pair_of(liked: str, disliked: str, users: list[str]) -> Comparisons:
    from polypref import from_columns

    return from_columns(users, ["new"] * len(users), [liked] * len(users), [disliked] * len(users))


@pytest.mark.parametrize(
    ("values", "likes"),
    [
        (["up", "down", "up"], [1, 0, 1]),
        (["1", "0", "0"], [1, 0, 0]),
        (["1", "-1", "-1"], [1, 0, 0]),
        (["1", "-1", "0"], [1, 0]),
        (["True", "false", "true"], [1, 0, 1]),
        (["👍", "👎", "👍"], [1, 0, 1]),
        (["thumbs_up", "thumbs_down", ""], [1, 0]),
        (["Like", "DISLIKE", "none"], [1, 0]),
        (["positive", "negative", "positive"], [1, 0, 1]),
        (["thumbsUp", "thumbsDown", "neutral"], [1, 0]),
    ],
)
def test_a_column_of_thumbs_has_one_meaning(tmp_path, values, likes):
    path = tmp_path / "t.csv"
    rows = [f"u,q{at},answer {at},{value}" for at, value in enumerate(values)]
    path.write_text("\n".join(["user_id,prompt,response,thumb", *rows]))
    found = read([path])
    assert liked_N(found.comparisons).astype(int).tolist() == likes
    assert found.comparisons.lists == "thumbs"
    missing = len(values) - len(likes)
    assert any("have no thumb" in rule for rule in found.rules) == bool(missing)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ("1 2 2", '"2" '),
        ("up maybe down", '"maybe" is neither'),
        ("up up up", "every thumb"),
        ("1 5 3", "--columns rating="),
    ],
)
def test_other_values_are_refused_in_one_line(tmp_path, values, match):
    path = tmp_path / "t.csv"
    rows = [f"u,q{at},answer {at},{value}" for at, value in enumerate(values.split())]
    path.write_text("\n".join(["user_id,prompt,response,thumb", *rows]))
    with pytest.raises(InputError, match=match) as error:
        read([path])
    assert "\n" not in str(error.value)


def test_unpaired_preferences_of_trl(tmp_path):
    path = tmp_path / "t.jsonl"
    chat = [{"role": "user", "content": "Hello?"}]
    rows = [
        {"user_id": "u", "prompt": chat, "completion": [{"role": "assistant", "content": f"a{k}"}], "label": k > 1}
        for k in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read([path]).comparisons
    assert liked_N(found).tolist() == [False, False, True, True]
    assert sorted(found.responses.texts_R.to_list()) == [BAR, "a0", "a1", "a2", "a3"]


def test_single_ratings_are_judged_against_the_persons_mean_and_pairs_stay_pairs(tmp_path):
    single, paired = tmp_path / "s.csv", tmp_path / "p.csv"
    head = "user_id,prompt,response,rating\n"
    single.write_text(head + "\n".join(f"u{k % 2},q{k},a{k},{1 + k % 2 + 2 * (k > 3)}" for k in range(8)))
    thumbs = read([single]).comparisons
    assert liked_N(thumbs).tolist() == [False] * 4 + [True] * 4  # 1 and 3 of one person, 2 and 4 of the other
    paired.write_text(head + "u,q,a,1\nu,q,b,2\nu,r,c,3")
    found = read([paired])
    assert not bar_N(found.comparisons).any() and len(found.comparisons) == 1
    assert [(p.name, p.count, p.line) for p in found.problems] == [("single rating", 1, 4)]


def test_people_with_one_kind_are_left_out_and_told(tmp_path):
    path = tmp_path / "t.csv"
    rows = [
        f"{user},q{user}{at},answer {at},{'up' if at or user == 'fan' else 'down'}"
        for user in ("ann", "fan")
        for at in range(4)
    ]
    path.write_text("\n".join(["user_id,prompt,response,thumb", *rows]))
    reading = read([path])
    found = lint(reading)
    named = {finding.name: finding for finding in found.findings}
    assert (named["one kind of thumb"].count, named["one kind of thumb"].total) == (1, 2)
    assert "likes 'answer 0'" in named["one kind of thumb"].example.replace('"', "'")
    assert named["share of likes"].values["share"] == 0.75
    assert clean(reading, found).users.ids.to_list() == ["ann"]
    assert "\0" not in "".join(finding.example + finding.text for finding in found.findings)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_pairs_for_ranking(thumbs, seed):
    users, liked = zip(*thumbs, strict=True)
    texts = [f"text {at}" for at in range(len(users))]
    found = from_thumbs([str(u) for u in users], [f"q{at}" for at in range(len(users))], texts, np.array(liked))
    pairs = ranked(found)
    is_liked = dict(zip(texts, zip(users, liked, strict=True), strict=True))
    for user, one, other in zip(pairs.user_N, pairs.chosen_N, pairs.rejected_N, strict=True):
        texts_R, owner = found.responses.texts_R, int(found.users.ids[int(user)])
        assert is_liked[texts_R[int(one)]] == (owner, True) and is_liked[texts_R[int(other)]] == (owner, False)
    assert len(set(zip(pairs.chosen_N.tolist(), pairs.rejected_N.tolist(), strict=True))) == len(pairs)
    for place, user in enumerate(found.users.ids):
        likes = sum(1 for u, like in thumbs if str(u) == user and like)
        dislikes = sum(1 for u, _ in thumbs if str(u) == user) - likes
        assert np.isclose(pairs.weights_N[pairs.user_N == place].sum(), 2 * likes * dislikes / max(likes + dislikes, 1))
        if min(likes, dislikes) <= 4:  # all pairs: the mean is Mann and Whitney's
            assert (pairs.user_N == place).sum() == likes * dislikes


def test_every_split_works_and_leaks_nothing():
    thumbs = world()
    for rule in RULES:
        parts = split(thumbs, rule, 0)
        check_leaks(thumbs, parts)
        assert len(parts.train_rows) and len(module.tested(thumbs, parts.test_rows))


def test_linear_learners_learn_from_thumbs():
    thumbs, encoder = world(each=40, people=4), NoBars()
    parts = split(thumbs, "pair", 0)
    train, valid = thumbs.take(parts.train_rows), thumbs.take(parts.valid_rows)
    test = module.tested(thumbs, parts.test_rows)
    right = {}
    for name in ("length", "pooled", "pooled-effects", "individual", "hierarchical", "conditional"):
        found = margins(LEARNERS[name].fit(train, encoder=encoder, seed=0, valid=valid), test).value_Q
        assert np.isfinite(found).all(), name
        right[name] = float((found > 0).mean())
    assert min(right["individual"], right["hierarchical"]) > 0.75, right


def test_who_likes_often_gains_nothing_by_being_known():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(600)]
    users, many = np.repeat(np.arange(10), 60), np.repeat(np.tile([0.15, 0.85], 5), 60)
    found = from_thumbs([f"u{u}" for u in users], [f"q{at}" for at in range(600)], texts, rng.random(600) < many)
    parts = split(found, "pair", 0)
    scorer = LEARNERS["hierarchical"].fit(found.take(parts.train_rows), encoder=Words(), seed=0)
    against_bar = margins(scorer, found.take(parts.test_rows)).value_Q
    assert (against_bar > 0).mean() > 0.7  # the bars were learned
    assert 0.3 < (margins(scorer, module.tested(found, parts.test_rows)).value_Q > 0).mean() < 0.7


def test_a_saved_scorer_scores_and_adapts_from_thumbs(tmp_path):
    thumbs = world()
    save(LEARNERS["hierarchical"].fit(thumbs, encoder=Words(), seed=0), tmp_path / "s")
    scorer = load(tmp_path / "s", Words())
    cats = pair_of("a cat sat", "a dog sat", ["u1", "u0"])
    assert (margins(scorer, cats).value_Q > 0).tolist() == [True, False]
    few = thumbs.take(thumbs.user_N == 1)
    new = scorer.adapt("new", few)
    assert margins(new, pair_of("a cat sat", "a dog sat", ["new"])).value_Q[0] > 0


def test_compare_measures_by_ranking_and_shows_no_bar(tmp_path):
    thumbs = world(each=60, people=6, lenient=0.3)
    learners = {name: LEARNERS[name] for name in ("pooled", "individual")}
    found = compare(thumbs, learners, Words(), out=tmp_path / "r", seeds=1, workers=1, quiet=True, placebo=False)
    assert READING in found.verdict["text"]
    rows = found.contents.rows.at_full()
    one, other = (rows.at(name, "accuracy_micro", "all").value for name in ("individual", "pooled"))
    assert one > other
    written = "".join(path.read_text(errors="replace") for path in (tmp_path / "r").glob("*.json"))
    assert "\\u0000bar" not in written and BAR not in written
    assert found.contents.data["n_responses"] == len(thumbs)


def test_real_pairs_are_the_test_where_there_are_enough():
    thumbs = world(each=20)
    pairs = ranked(thumbs)
    pairs = replace(pairs, lists="", weight_N=None)
    both = concat(replace(thumbs, lists=""), pairs)
    assert len(pairs) < 500
    assert bar_N(thumbs).all() and len(module.tested(both, np.arange(len(both)))) == len(ranked(thumbs))
    many = both
    while int((~bar_N(many)).sum()) < 500:
        many = concat(many, pairs)
    part = module.tested(many, np.arange(len(many)))
    assert len(part) == int((~bar_N(many)).sum()) and not bar_N(part).any()


def test_the_commands_take_thumbs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thumbs = world(each=20)
    liked = ["up" if like else "down" for like in liked_N(thumbs)]
    texts = thumbs.responses.texts_R.filter(~pl.Series(thumbs.responses.bar_R))
    ids = thumbs.users.ids.gather(thumbs.user_N)
    frame = pl.DataFrame({"user_id": ids, "prompt": thumbs.responses.prompts, "response": texts, "thumb": liked})
    frame.write_csv("t.csv")
    for command in (["check"], ["profile"], ["fit", "--encoder", "static", "--learner", "pooled", "--out", "s"]):
        assert main([command[0], "t.csv", *command[1:]]) == 0
    assert "  valid_accuracy: " in (printed := capsys.readouterr().out) and VALID in printed
    assert main(["score", "s", "t.csv"]) == 0
    shown = capsys.readouterr().out
    assert "\0" not in shown and "u0000" not in shown
    assert main(["groups", "t.csv", "--encoder", "static", "--out", "g"]) == 2
    assert "needs judgements of two answers" in capsys.readouterr().err


def test_adapt_takes_thumbs(tmp_path, capsys, monkeypatch):
    """Both ways: which method serves new people, by ranking, and a saved scorer that learns one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words())
    thumbs = world(each=30, people=8)
    liked = ["up" if like else "down" for like in liked_N(thumbs)]
    texts = thumbs.responses.texts_R.filter(~pl.Series(thumbs.responses.bar_R))
    ids = thumbs.users.ids.gather(thumbs.user_N)
    frame = pl.DataFrame({"user_id": ids, "prompt": thumbs.responses.prompts, "response": texts, "thumb": liked})
    frame.write_csv("t.csv")
    grid = ["adapt", "t.csv", "--learners", "hierarchical", "--sizes", "0", "10", "--seeds", "2", "--workers", "1"]
    assert main([*grid, "--out", "a", "--quiet"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Area under the ROC curve on the new people's test rows" in printed and READING in printed
    content = json.loads(Path("a/new_users.json").read_text())
    assert content["data"]["measure"] == AREA
    value = {
        (row["learner"], row["size"]): row["value"] for row in content["rows"] if row["metric"] == "accuracy_micro"
    }
    assert value["hierarchical", 10] > max(0.75, value["pooled", 10] + 0.1), "tastes are opposed, so ten thumbs tell"
    frame.filter(pl.col("user_id") != "u1").write_csv("old.csv")
    frame.filter(pl.col("user_id") == "u1").with_columns(user_id=pl.lit("new")).write_csv("new.csv")
    assert main(["fit", "old.csv", "--out", "s", "--quiet"]) == 0
    assert main(["adapt", "new.csv", "--scorer", "s", "--out", "s2"]) == 0
    assert "learned 1 person from 30" in capsys.readouterr().out
    scorer = load("s2", Words())
    assert (margins(scorer, pair_of("a cat sat", "a dog sat", ["new"])).value_Q > 0).all()
    assert (margins(scorer, pair_of("a cat sat", "a dog sat", ["u0"])).value_Q < 0).all()


def test_learners_that_compare_texts_refuse():
    with pytest.raises(SettingsError, match="pretrained needs judgements of two answers"):
        Pretrained("nowhere").fit(world(), encoder=Words(), seed=0)


def test_profile_of_thumbs_counts_texts_only():
    thumbs = world(each=10)
    assert profile(thumbs).sizes["responses"] == len(thumbs)
