"""``convert serve-store``: what people told polypref serve, as a file that fit reads, compared by the same rule."""

from __future__ import annotations

import numpy as np
import pytest

from polypref.cli import main
from polypref.comparisons import Comparisons
from polypref.data.feedback.judgements import LATEST, SINGLE
from polypref.data.read import read
from polypref.serve.people import judged
from polypref.serve.store.contract import Judgement, Person
from polypref.serve.store.exported import ServeStore
from polypref.serve.store.opened import opened
from polypref.serve.store.sqlite import Sqlite
from polypref.serve.who.person import scorer_id

PEOPLE = [Person("", "ann"), Person("", "bob"), Person("shop", "ann")]
CHAT = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Q"})


def kept(address):
    """A store in which people compared, tied, rated and thumbed texts, changed their minds, and one paused."""
    store, rng = opened(address), np.random.default_rng(0)
    for at in range(300):
        person = PEOPLE[at % 3]
        prompt = CHAT if at % 7 == 0 else f"prompt {rng.integers(4)}"
        one, other = (f"answer {k}" for k in rng.choice(5, 2, replace=False))
        kind = ("pair", "tie", "rating", "thumb")[rng.integers(4)]
        value = {"rating": float(rng.integers(1, 6)), "thumb": float(rng.integers(2))}.get(kind)
        more = {"rejected": other} if value is None else {"value": value}
        store.judge(person, Judgement(id=f"j{at}", kind=kind, prompt=prompt, chosen=one, **more)).result()  # type: ignore[arg-type]
    store.judge(Person("", "zoe"), Judgement(id="z", kind="pair", prompt="p", chosen="a", rejected="b")).result()
    store.pause(Person("", "zoe"), True).result()
    return store


def told(data: Comparisons) -> list[tuple[str, ...]]:
    """The comparisons, in any order."""
    text, ids = data.responses.texts_R, data.users.ids
    tie_N = np.zeros(len(data), bool) if data.tie_N is None else data.tie_N
    rows = zip(data.user_N, data.chosen_N, data.rejected_N, tie_N, strict=True)
    prompts = data.responses.prompts
    return sorted(
        (ids[int(u)], prompts[int(data.responses.prompt_R[c])], *sorted([text[int(c)], text[int(r)]]), "tie")
        if tie
        else (ids[int(u)], prompts[int(data.responses.prompt_R[c])], text[int(c)], text[int(r)], "")
        for u, c, r, tie in rows
    )


def test_the_file_holds_the_comparisons_that_states_are_derived_from(tmp_path, capsys):
    store = kept(tmp_path / "s.db")
    expected = sorted(row for one in PEOPLE for row in told(judged(one, store.judgements(one))))  # type: ignore[arg-type]
    store.close()
    assert main(["convert", "serve-store", str(tmp_path / "s.db"), "--out", str(tmp_path / "p.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "300 records of feedback" in said and LATEST in said
    found = read([tmp_path / "p.jsonl"]).comparisons
    assert told(found) == expected and len(expected) > 200
    assert set(found.users.ids) == {scorer_id(one) for one in PEOPLE} == {"ann", "bob", "shop/ann"}


def test_a_running_store_can_be_read_and_single_answers_have_their_own_file(tmp_path):
    store = kept(tmp_path / "s.db")
    store.judge(PEOPLE[0], Judgement(id="x", kind="thumb", prompt="new", chosen="a", value=1.0)).result()
    pairs, single = (ServeStore(form=form).convert([str(tmp_path / "s.db")]) for form in ("pairs", "single"))
    store.close()
    assert pairs.left_out[SINGLE] == single.used and pairs.rows == single.rows == 301
    assert ("ann", "new", "a") in single.table.select("user_id", "prompt", "response").rows()


def test_a_store_in_postgresql_gives_the_same_file(tmp_path, postgres, capsys):
    address = postgres.database()
    kept(address).close()
    kept(tmp_path / "s.db").close()
    for store, out in ((address, "p.jsonl"), (str(tmp_path / "s.db"), "s.jsonl")):
        assert main(["convert", "serve-store", store, "--out", str(tmp_path / out)]) == 0
    assert told(read([tmp_path / "p.jsonl"]).comparisons) == told(read([tmp_path / "s.jsonl"]).comparisons)
    wrong = "postgresql://nobody:secret@localhost:1/none"
    assert main(["convert", "serve-store", wrong, "--out", str(tmp_path / "x.jsonl")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "secret" not in said


def test_the_side_on_which_a_text_was_shown_is_kept(tmp_path):
    store = Sqlite(tmp_path / "s.db")
    for at, side in enumerate(("left", "right", None)):
        more = {} if side is None else {"context": {"position": side, "seconds": 2.5}}
        one = Judgement(id=f"j{at}", kind="pair", prompt="p", chosen="a", rejected=f"b{at}", **more)
        store.judge(PEOPLE[0], one).result()
    store.close()
    table = ServeStore().convert([str(tmp_path / "s.db")]).table
    assert table["shown_first"].to_list() == ["chosen", "rejected", None]
    assert table["seconds"].to_list() == [2.5, 2.5, None]


def test_the_same_id_of_two_people_is_no_pair_of_both(tmp_path):
    store = Sqlite(tmp_path / "s.db")
    for at, person in enumerate(PEOPLE[:2]):
        store.judge(person, Judgement(id="k", kind="pair", prompt="p", chosen="a", rejected=f"b{at}")).result()
    store.close()
    assert ServeStore().convert([str(tmp_path / "s.db")]).table["pair_id"].to_list() == ["ann/k", "bob/k"]


def test_what_was_exported_can_be_fitted(tmp_path, monkeypatch, one_core):
    kept(tmp_path / "s.db").close()
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "serve-store", "s.db", "--out", "p.jsonl"]) == 0
    assert main(["check", "p.jsonl"]) == 0
    assert main(["fit", "p.jsonl", "--learner", "individual", "--out", "scorer"]) == 0
    assert (tmp_path / "scorer").is_dir()


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no store"), ("x" * 5000, "s.db"), ("", "nobody has judged anything")]
)
def test_what_is_no_store_is_one_line(tmp_path, capsys, content, says):
    path = tmp_path / "s.db"
    if content is not None:
        path.write_text(content)
    assert main(["convert", "serve-store", str(path), "--out", str(tmp_path / "p.jsonl")]) == 2
    told_ = capsys.readouterr().err
    assert told_.count("\n") == 1 and says in told_
    assert content is not None or not path.exists()


def test_one_store_at_a_time(tmp_path, capsys):
    assert main(["convert", "serve-store", "a.db", "b.db", "--out", str(tmp_path / "p.jsonl")]) == 2
    assert "2 stores given" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "names"), [("--form", "pairs, single"), ("--judges", "annotators, models, users")])
def test_a_word_that_a_setting_does_not_know_is_told_the_words_that_it_knows(capsys, flag, names):
    assert main(["convert", "langfuse", "scores.json", flag, "singles", "--out", "p.jsonl"]) == 2
    told = capsys.readouterr().err
    assert f"{flag}: expected one of {names}, found 'singles'." in told and "None" not in told
