"""What each group likes: the truth where it is planted, nothing where groups are drawn at random, and the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from contract_cases import Normal
from polypref import from_columns, from_thumbs
from polypref.answers import Answer
from polypref.cli import main
from polypref.comparisons import Comparisons
from polypref.features import wording
from polypref.groups import Discovery, discover, from_mapping, number_of_groups
from polypref.groups.answer import answer_of
from polypref.groups.discover_groups import found_again
from polypref.groups.grouping import Grouping
from polypref.groups.likes import LENGTH, WORDS, Likes, Sample, likes, text_values, trait_values
from polypref.report.groups import page
from polypref.stats import group_differences
from polypref.stats.group_differences import LEAST, differences

TEXTS = [
    *("Yes.", "No, never!", "Perhaps you could ask them about it?", "- one\n- two\n- three", "In 1990 it cost 12.50"),
    *("I am sorry, I cannot help with that", "BIG LETTERS work well here", "A plain sentence of some length, as it is"),
    *("Why? How? When?", "Considerable infrastructural modernisation", "so it is as it is and so it is", "The end"),
]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_differences, "DRAWS", 99)


def judged(seed: int, users: int = 24, each: int = 20, taste_U: np.ndarray | None = None) -> Comparisons:
    """Judgements of pairs of TEXTS: everybody has the same reward, plus ``taste_U`` times the text's letters."""
    rng = np.random.default_rng(seed)
    reward_R = rng.normal(size=len(TEXTS))
    letters_R = np.array([len(text) for text in TEXTS]) / 15
    user_N = np.repeat(np.arange(users), each)
    pair_N2 = np.array([rng.choice(len(TEXTS), 2, replace=False) for _ in user_N])
    reward_UR = reward_R + (np.zeros(users) if taste_U is None else taste_U)[:, None] * letters_R
    margin_N = reward_UR[user_N, pair_N2[:, 0]] - reward_UR[user_N, pair_N2[:, 1]]
    first_N = rng.random(len(user_N)) < 1 / (1 + np.exp(-margin_N))
    won_N, lost_N = np.where(first_N, pair_N2.T, pair_N2.T[::-1])
    sides = [[TEXTS[r] for r in side_N] for side_N in (won_N, lost_N)]
    return from_columns([f"u{u:02d}" for u in user_N], ["which?"] * len(user_N), *sides)


def dealt(comparisons: Comparisons, seed: int, groups: int = 2) -> Grouping:
    """Groups that say nothing: everybody's is drawn."""
    drawn = np.random.default_rng([seed, 1]).integers(0, groups, len(comparisons.users))
    return from_mapping({user: f"group {g}" for user, g in zip(comparisons.users.ids, drawn, strict=True)})


def found(comparisons: Comparisons, grouping: Grouping, seed: int = 0) -> Likes:
    return likes(Sample.of(comparisons, grouping), grouping.names, seed=seed)


def test_a_person_is_one_value_of_each_trait_and_text() -> None:
    long, short = "a longer one of many words", "short"
    rows = [("a", long, short), ("a", long, short), ("a", short, long), ("b", short, long), ("c", "same", "also")]
    ids, won, lost = zip(*rows, strict=True)
    comparisons = from_columns(ids, ["p"] * 5, won, lost, tie_N=np.array([0, 0, 0, 0, 1], bool))
    keys, value_UK, judged_UK = trait_values(comparisons)
    length_U = value_UK[:, keys.index(LENGTH)]
    assert length_U[:2].tolist() == pytest.approx([2 / 3, 0.0]) and np.isnan(length_U[2])
    assert judged_UK[:, keys.index(LENGTH)].tolist() == [3, 1, 0]
    assert set(keys) <= set(WORDS) and not set(wording.OVERLAP) & set(keys)  # one prompt relates to nothing
    many = from_columns([f"u{u}" for u in range(10) for _ in range(2)], ["p"] * 20, [long, short] * 10, [short] * 20)
    text_K, won_UK, judged_UK = text_values(many.take(np.arange(0, 20, 2)), np.arange(10, dtype=np.int32) % 2, 2)
    assert won_UK.shape == (10, 2) and (judged_UK == 1).all()
    assert (won_UK == (many.responses.texts_R.gather(text_K) == long).to_numpy()).all()


def test_every_trait_has_words() -> None:
    assert {LENGTH, *wording.STYLE, *wording.OVERLAP} == set(WORDS)
    assert len({text for pair in WORDS.values() for text in pair}) == 2 * len(WORDS)


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_drawn_at_random_differ_in_one_of_twenty_runs_at_most(groups: int) -> None:
    runs = [found(data := judged(seed), dealt(data, seed, groups), seed) for seed in range(40)]
    assert all(sum(run.looked_at) > 15 for run in runs)
    assert sum(run.differs for run in runs) <= 5  # of 40 at 5 %; more than 5 are less likely than 2 %


def test_the_same_runs_find_a_planted_taste() -> None:
    taste_U = np.tile([1.0, -1.0], 12)
    for seed in range(3):
        data = judged(seed, taste_U=taste_U)
        grouping = from_mapping({f"u{u:02d}": "long" if u % 2 == 0 else "short" for u in range(24)})
        run = found(data, grouping, seed)
        length = next(one for one in run.of("long") if one.name == LENGTH)
        assert length.text == "longer responses" and length.lo > 0 and length.own > length.others
        mirrored = next(one for one in run.of("short") if one.name == LENGTH)
        assert (mirrored.text, mirrored.own) == ("shorter responses", pytest.approx(1 - length.others))
        favoured = [one.text for one in run.texts if one.group == "long"]
        assert len(favoured[0]) > 20 and set(favoured) < set(TEXTS)


def test_discovered_groups_are_described_by_judgements_that_did_not_make_them(monkeypatch) -> None:
    """In a crowd of one taste, two groups made to order differ in what made them, and in nothing else."""
    monkeypatch.setattr(number_of_groups, "EVIDENCE", (1.0,))
    monkeypatch.setattr(number_of_groups, "WEIGHTS", (3.0,))
    monkeypatch.setattr(number_of_groups, "TEXTS", (3.0,))
    how, inside, apart, described = Discovery(restarts=1, certainty=0.5, directions=4, folds=2), 0, 0, 0
    for seed in range(5):
        data = judged(seed, users=40)
        settings = {"encoder": Normal(), "seed": seed, "how": how}
        grouping = discover(data, groups=2, **settings)
        kept = Sample(*found_again(data, grouping, **settings), kept_out=True)
        assert 0.3 * len(data) < len(kept.rows) < 0.7 * len(data)
        told = likes(kept, grouping.names, seed=seed)
        apart, described = apart + told.differs, described + (not told.why_not)
        inside += found(data, grouping, seed).differs
    assert described >= 4 and apart <= 1 < 2 <= inside


def test_intervals_are_wider_than_one_at_a_time_and_fewer_people_are_less_sure() -> None:
    rng = np.random.default_rng(0)
    value_UK, group_U = rng.normal(size=(40, 20)), np.arange(40) % 2
    together = differences(value_UK, group_U, 2, seed=0)
    single = differences(value_UK[:, :1], group_U, 2, seed=0)
    assert (together.hi_GK - together.lo_GK)[0, 0] > 1.2 * (single.hi_GK - single.lo_GK)[0, 0]
    few = differences(value_UK[:12], group_U[:12], 2, seed=0)
    assert (few.hi_GK - few.lo_GK).mean() > 1.5 * (together.hi_GK - together.lo_GK).mean()
    own = value_UK[group_U == 0].mean(axis=0)
    np.testing.assert_allclose(together.own_GK[0], own)
    np.testing.assert_allclose(together.value_GK, -together.value_GK[::-1])
    split = differences(np.repeat([[0.0], [1.0]], LEAST, axis=0), np.repeat([0, 1], LEAST), 2, seed=0)
    assert (split.hi_GK - split.lo_GK).min() > 0.5  # a few who agree are not certain
    small = differences(value_UK, np.where(np.arange(40) < LEAST - 1, 0, 1), 2, seed=0)
    assert small.looked_at == 0 and not small.sure_GK.any()


@pytest.mark.parametrize(("few", "users", "judgements"), [(6, 60, (2, 50)), (6, 100, (1, 50)), (6, 60, (50, 2))])
def test_a_group_that_judged_less_or_more_does_not_differ_by_that(few, users, judgements) -> None:
    """Everybody tosses coins; the shares of the few are noisier than those of the others, or the other way round."""
    group_U = (np.arange(users) < few).astype(int)
    tosses_U = np.where(group_U == 1, *judgements)
    apart = 0
    for seed in range(60):
        value_UK = np.random.default_rng(seed).binomial(tosses_U[:, None], 0.5, (users, 10)) / tosses_U[:, None]
        judged_UK = np.repeat(tosses_U[:, None], 10, axis=1).astype(float)
        apart += differences(value_UK, group_U, 2, seed=seed, judged_UK=judged_UK).sure_GK.any()
    assert apart <= 7  # of 60 at 5 %: more in one of a hundred


def test_what_cannot_be_compared_says_why() -> None:
    data = judged(0, users=8)
    one = from_mapping(dict.fromkeys(data.users.ids, "all"))
    assert "one group" in found(data, one).why_not
    assert "fewer than two groups" in found(data, from_mapping({"u00": "a", "u01": "b"})).why_not
    thumbs = from_thumbs(["a", "b"] * 6, ["p"] * 12, [f"text {n}" for n in range(12)], [True, False] * 6)
    assert "single answers" in found(thumbs, from_mapping({"a": "x", "b": "y"})).why_not
    for grouping in (one, dealt(data, 0)):
        told = answer_of(grouping, grouping.sizes(), found(data, grouping), {"fit": "F", "compare": "C"})
        assert [line.command for line in told][-1] == "C" and all(len(line) <= 80 for line in told.printed())


def written(data: Comparisons, attribute: dict[str, list[str]], change: tuple[str, str] = ("", "")) -> None:
    """The judgements as p.jsonl; users have one of the attribute's values in turn."""
    texts = [text.replace(*change) if change[0] else text for text in data.responses.texts_R]
    ((name, values),) = attribute.items()
    rows = zip(data.user_N.tolist(), data.chosen_N.tolist(), data.rejected_N.tolist(), strict=True)
    lines = [
        {
            "user_id": f"u{u}",
            "prompt": "p",
            "chosen": texts[c],
            "rejected": texts[r],
            "attributes": {name: values[u % 2]},
        }
        for u, c, r in rows
    ]
    Path("p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)


def test_the_command_writes_a_page_and_json_that_say_the_same(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "<script>alert(1)</script>"
    written(judged(1, taste_U=np.tile([1.5, -1.5], 12)), {"taste": [f"`odd` & {evil}", "more"]}, ("Yes", evil))
    assert main(["groups", "p.jsonl", "--attribute", "taste", "--out", "g"]) == 0
    printed = capsys.readouterr().out
    told, html = json.loads(Path("g/likes.json").read_text()), Path("g/report.html").read_text()
    answer = Answer.of(told["answer"])
    assert "\n".join(answer.printed()) in printed
    assert html == page(told) and evil not in html
    tags = _Tags()
    tags.feed(html)
    assert "script" not in tags.names and tags.names.count("h2") == 4 and tags.names.count("svg") > 20
    assert any(one["sure"] and one["name"] == LENGTH for one in told["likes"]["traits"])
    command = next(line.command for line in answer if line.name == "next")
    assert command == "polypref fit p.jsonl --out g-fit" and command in html
    assert main([*command.split()[1:], "--learner", "length", "--encoder", "static"]) == 0
    assert not re.search(r"(src|href)=", html)
    assert max(map(len, printed.splitlines())) <= 80


def test_groups_that_do_not_differ_are_said_not_to(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    written(judged(3), {"coin": ["heads", "tails"]})
    assert main(["groups", "p.jsonl", "--attribute", "coin", "--out", "g"]) == 0
    assert "no group surely differs from the others in any of" in " ".join(capsys.readouterr().out.split())
    assert "polypref compare p.jsonl --out g-compare" in Path("g/report.html").read_text()


def test_an_unknown_encoder_is_refused_where_none_is_needed(tmp_path, monkeypatch, capsys):
    """The commands that the result names next would be refused for it."""
    monkeypatch.chdir(tmp_path)
    row = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b", "attributes": {"taste": "x"}}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["groups", "p.jsonl", "--attribute", "taste", "--encoder", "hash", "--out", "g"]) == 2
    assert "unknown encoder 'hash'" in capsys.readouterr().err
