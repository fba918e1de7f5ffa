"""``polypref refit``: fitted anew from the store, in force unless it is worse, a kill loses nothing, and a way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import polypref
from polypref import artifact, scorers
from polypref.cli import main
from polypref.learners.hierarchical import Hierarchical
from polypref.learners.protocol import log_odds
from polypref.serve.leaving import leave
from polypref.serve.people import knowing
from polypref.serve.refitting import data as refit_data
from polypref.serve.refitting.compare import compare, limits_of
from polypref.serve.refitting.data import Judged
from polypref.serve.refitting.folders import Folders, beside, known_to
from polypref.serve.refitting.refit import Refit, in_force
from polypref.serve.start import registered
from polypref.serve.store.contract import Conflict, InForceRow, Judgement, Person
from polypref.serve.store.opened import opened
from polypref.serve.store.sqlite import Sqlite
from polypref.worlds import simulate

USERS, EACH, OTHERS = 12, 30, 16


@pytest.fixture(scope="module")
def world():
    return simulate("two-tastes", users=USERS, judgements=EACH, judges=4).comparisons


@pytest.fixture(scope="module")
def first(world, tmp_path_factory):
    """A scorer of other people of the same world, who never judge here."""
    folder = tmp_path_factory.mktemp("first") / "scorer"
    others = simulate("two-tastes", users=OTHERS, judgements=40, judges=4, seed=5).comparisons
    ids = polypref.Users(pl.Series("id", [f"other {at}" for at in range(len(others.users))]))
    fitted = Hierarchical(steps=3).fit(replace(others, users=ids), encoder=polypref.encoder("static"), seed=0)
    polypref.save(fitted, folder)
    return folder


def filled(path, folder, world, share=1.0):
    """A store with ``folder`` in force and the world's judgements, in an order that mixes people."""
    return served(Sqlite(path), beside(path), folder, world, share)


def served(store, at, folder, world, share=1.0):
    digest = Folders(at).add(folder)
    store.put_in_force(InForceRow(hash=digest, why="served", before=None)).result()
    judge(store, world, np.random.default_rng(0).permutation(len(world))[: round(share * len(world))])
    return store


def named(world, user):
    return f"a person called {world.users.ids[user]} here"


def judge(store, world, rows, called=""):
    pool, done = world.responses, []
    for at in rows.tolist():
        chosen, rejected = (pool.texts_R[int(side[at])] for side in (world.chosen_N, world.rejected_N))
        prompt = pool.prompt_text(int(pool.prompt_R[world.chosen_N[at]]))
        person = Person("", named(world, int(world.user_N[at])))
        one = Judgement(id=f"{called}{at}", kind="pair", prompt=prompt, chosen=chosen, rejected=rejected)
        done.append(store.judge(person, one))
    assert all(one.result() for one in done)


@pytest.fixture
def store(tmp_path, first, world):
    found = filled(tmp_path / "s.db", first, world)
    yield found
    found.close()


def refitted(capsys, path, *more):
    code = main(["refit", "--store", str(path), *more])
    return code, capsys.readouterr()


def test_it_is_fitted_compared_and_put_in_force_and_there_is_a_way_back(store, first, capsys, tmp_path):
    before = store.in_force()
    code, said = refitted(capsys, store.path)
    assert code == 0, said
    now = store.in_force()
    assert now != before and f"scorer {now[:16]} is in force, in the place of {before[:16]}" in said.out
    assert f"{OTHERS} people whom the scorer in force knows" in said.err and "--with FILE" in said.err
    row = store.scorers()[-1]
    many = USERS * EACH
    assert (row.why, row.before, row.data["learner"]) == ("refit", before, "Hierarchical")
    assert row.data["judgements"] == round(0.8 * many) and row.report["judgements"] == round(0.2 * many)
    assert not Folders(beside(store.path)).work.exists()
    fitted = scorers.metadata(Folders(beside(store.path)).at(now))
    assert fitted.settings["steps"] == 3  # as in force, not the learner's defaults
    code, said = refitted(capsys, store.path, "--history")
    assert code == 0 and before[:16] in said.out and "in force" in said.out.splitlines()[-1]
    assert refitted(capsys, store.path, "--rollback")[0] == 0 and store.in_force() == before
    assert refitted(capsys, store.path, "--rollback")[0] == 0 and store.in_force() == now
    assert [one.why for one in store.scorers()] == ["served", "refit", "rollback", "rollback"]


def test_people_of_the_fit_are_strangers_to_the_new_scorer_until_the_store_tells_of_them(store, world, capsys):
    assert refitted(capsys, store.path)[0] == 0
    digest = store.in_force()
    new = Folders(beside(store.path)).load(digest)
    assert known_to(new) == []
    person = Person("", named(world, 0))
    assert store.fitted_with(person.user) == [digest]
    pool = world.responses
    stranger = new.score(pool, ["nobody"] * len(pool)).value_Q
    assert np.array_equal(new.score(pool, [person.user] * len(pool)).value_Q, stranger)
    own = knowing(new, person, store.judgements(person)).score(pool, [person.user] * len(pool)).value_Q
    assert not np.array_equal(own, stranger)
    left = leave(person, store)
    assert left.scorers == [digest] and left.residue == []
    for path in beside(store.path).rglob("*"):
        assert not path.is_file() or person.user.encode() not in path.read_bytes()
    judged = Judged.read(store, *store.newest(10**6))
    assert person not in judged.stored and len(judged.stored) == USERS - 1  # the next refit no longer has them


def test_a_refit_on_the_same_judgements_is_not_worse(tmp_path, first, world, capsys):
    store = filled(tmp_path / "s.db", first, world)
    assert refitted(capsys, store.path)[0] == 0
    one = store.in_force()
    code, said = refitted(capsys, store.path, "--seed", "1", "--held-out", "0.2")
    assert code == 0, said
    report = store.scorers()[-1].report
    if store.in_force() != one:
        assert report["accuracy"]["lo"] <= 0 <= report["accuracy"]["hi"]
    store.close()


def test_a_worse_scorer_is_not_put_in_force_unless_it_is_forced(store, capsys):
    assert refitted(capsys, store.path)[0] == 0
    good = store.in_force()
    more = simulate("two-tastes", users=USERS, judgements=30, judges=4, seed=9).comparisons
    judge(store, more, np.arange(len(more)), "more ")
    asked = (store.path, "--held-out", "0.4", "--learner", "random")
    code, said = refitted(capsys, *asked)
    assert code == 1, said
    assert "the new scorer is worse" in said.err and store.in_force() == good
    folders = Folders(beside(store.path))
    assert json.loads((folders.work / "report.json").read_text())["accuracy"]["hi"] < 0
    assert len(folders.hashes()) == 2
    code, said = refitted(capsys, *asked, "--force")
    assert code == 0 and "going on with the refit" in said.err  # what was fitted is not fitted again
    assert store.in_force() not in (good, store.scorers()[0].hash)
    assert refitted(capsys, store.path, "--rollback")[0] == 0 and store.in_force() == good
    code, said = refitted(capsys, *asked, "--dry-run")
    assert code == 1 and "would not be put in force" in said.out
    assert store.in_force() == good and not folders.work.exists()


def test_people_of_a_file_stay_known_and_count_once(store, world, capsys, tmp_path):
    prefs, rows = tmp_path / "prefs.jsonl", []
    others = simulate("two-tastes", users=6, judgements=20, judges=4, seed=3).comparisons
    pool = others.responses
    for at in range(len(others)):
        chosen, rejected = (int(side[at]) for side in (others.chosen_N, others.rejected_N))
        about = {"prompt": pool.prompt_text(int(pool.prompt_R[chosen])), "user_id": f"of the file {others.user_N[at]}"}
        rows.append({**about, "chosen": pool.texts_R[chosen], "rejected": pool.texts_R[rejected]})
    prefs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said = refitted(capsys, store.path, "--with", str(prefs))
    assert code == 0, said
    new = Folders(beside(store.path)).load(store.in_force())
    known = sorted(known_to(new))
    assert known == [f"of the file {at}" for at in range(6)]
    own = new.forget(known[0])
    few = polypref.read(prefs)
    mine = polypref.clean(few, polypref.lint(few))
    mine = mine.take(mine.user_N == mine.users.ids.to_list().index(known[0]))
    wanted = own.adapt(known[0], mine).score(pool, [known[0]] * len(pool)).value_Q
    assert np.allclose(new.score(pool, [known[0]] * len(pool)).value_Q, wanted)
    assert store.fitted_with(known[0]) == [store.in_force()] and store.scorers()[-1].data["files"] == len(rows)
    assert leave(Person("", known[0]), store).scorers == [store.in_force()]


def test_a_file_of_the_store_shows_no_held_out_judgement_and_counts_nothing_twice(store, world, capsys, tmp_path):
    asked = {"kind": "pair", "chosen": "one text", "rejected": "another"}
    conversation = Judgement(id="chat", prompt=({"role": "user", "content": "Hello?"},), **asked)
    tie = Judgement(id="tie", prompt="A question?", **{**asked, "kind": "tie"})
    done = [store.judge(Person("", named(world, 0)), one) for one in (conversation, tie)]
    assert all(one.result() for one in done)
    prefs = tmp_path / "prefs.jsonl"
    assert main(["convert", "serve-store", str(store.path), "--out", str(prefs)]) == 0
    capsys.readouterr()
    code, said = refitted(capsys, store.path, "--with", str(prefs), "--dry-run")
    assert code == 0, said
    assert f"{USERS * EACH + 2} comparisons of the files are in the store already, and count once" in said.err
    alone = refitted(capsys, store.path, "--dry-run")[1].out
    assert said.out == alone and "accuracy" in alone


def test_kill_9_at_any_step_and_the_next_run_goes_on(store):
    work = Folders(beside(store.path)).work
    asked = [sys.executable, "-m", "polypref", "refit", "--store", str(store.path)]
    split = None
    for after in ("run.json", "fitted/manifest.json", "report.json"):
        run = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not (work / after).exists() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.0005)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert [row.why for row in store.scorers()] == ["served"]
        kept = json.loads((work / "run.json").read_bytes())
        split = split or kept["split"]
        assert kept["split"] == split
    fitted = artifact.digest_of(work / "fitted", scorers.KIND)
    again = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "going on" in again.stderr, again.stderr
    assert store.scorers()[-1].data["upto"] == split and not work.exists()
    assert [row.why for row in store.scorers()] == ["served", "refit"] and store.in_force() == fitted


def test_who_leaves_while_a_refit_is_interrupted_is_not_in_it(store, world, first):
    folders = Folders(beside(store.path))
    job = Refit(store, folders)
    one = job.run()
    person = Person("", named(world, 3))
    assert person in one.people
    leave(person, store)
    with pytest.raises(Conflict, match="has left"):
        job.put_in_force(one)
    assert store.in_force() == in_force(store) == one.before and store.fitted_with(person.user) == []
    again = Refit(store, folders, force=True).run()  # it asks for what was finished, and gets it anew
    assert person not in again.people and len(again.people) == USERS - 1
    assert again.data["judgements"] < one.data["judgements"]


def test_the_newest_are_held_out_and_none_that_the_scorer_in_force_saw(store, world):
    judged = Judged.read(store, *store.newest(10**6))
    seqs = sorted(row.seq for _, row in judged.rows())
    split = refit_data.split_of(judged, 0.25, 0)
    held = refit_data.held_out(judged, split)
    assert sum(map(len, held.values())) == round(0.25 * len(seqs)) and split == seqs[-round(0.25 * len(seqs)) - 1]
    assert refit_data.split_of(judged, 0.25, seqs[-5]) == seqs[-5]
    assert all(one.seq <= split for many in judged.until(split).stored.values() for one in many)


def test_what_a_comparison_does_not_show_is_said(store, first, world):
    judged = Judged.read(store, *store.newest(10**6))
    scorer = Folders(beside(store.path)).load(store.in_force())
    held = refit_data.held_out(judged, refit_data.split_of(judged, 0.3, 0))
    earlier = judged.until(refit_data.split_of(judged, 0.3, 0)).stored
    report = compare(scorer, scorer, held, earlier)
    assert report["of_one"] == max(map(len, held.values()))
    assert [said[:14] for said in limits_of(report)] == ["not excluded: "]
    few = dict(list(held.items())[:3])
    three = compare(scorer, scorer, few, earlier)
    assert limits_of(three)[0].startswith("fewer than 10 people: ")
    alone = limits_of({**three, "of_one": three["judgements"] - 2})
    assert alone[1].startswith(f"one person gave {three['judgements'] - 2} of the {three['judgements']} judgements")
    rows = [held[person] for person in few]
    sure = np.concatenate(
        [log_odds(knowing(scorer, one, earlier[one]), few[one]).value_Q for one in few]
    )  # as margin_sd asks
    assert three["log_loss"]["new"] == pytest.approx(
        np.average(np.logaddexp(0, -sure), weights=np.concatenate([one.weights_N for one in rows]))
    )


def test_what_cannot_be_refitted_is_refused_in_one_line(tmp_path, first, world, capsys):
    def refused(*asked):
        assert main(["refit", *map(str, asked)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        return said

    assert "is no store" in refused("--store", tmp_path / "absent.db")
    assert "--scorers DIR" in refused("--store", "postgresql://127.0.0.1:9/x")
    Sqlite(tmp_path / "empty.db").close()
    assert "no scorer was ever in force" in refused("--store", tmp_path / "empty.db")
    assert "nothing to go back to" in refused("--store", tmp_path / "empty.db", "--rollback")
    store = filled(tmp_path / "s.db", first, world, share=0.1)
    assert "expected 20 or more by 2" in refused("--store", store.path)
    arrays = next(Folders(beside(store.path)).at(store.in_force()).glob("arrays-*"))
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"!")
    assert "changed after they were saved" in refused("--store", store.path)
    store.close()


def test_with_too_few_to_compare_force_says_that_nothing_is_known(tmp_path, first, world, capsys):
    store = filled(tmp_path / "s.db", first, world, share=0.2)
    code, said = refitted(capsys, store.path, "--held-out", "0.1", "--force")
    assert code == 0 and "too few judgements to compare on" in said.out
    assert store.scorers()[-1].report is None and store.in_force() != store.scorers()[0].hash
    assert refitted(capsys, store.path, "--history")[0] == 0
    store.close()


def test_the_example_of_the_docs_runs(store, tmp_path, monkeypatch):
    from test_docs import generate

    monkeypatch.chdir(tmp_path)
    words = generate.EXAMPLES["refit"].split()
    assert words[:4] == ["polypref", "refit", "--store", "feedback.db"]
    words[3] = str(store.path)
    simulate_file = ["simulate", "two-tastes", "--users", "6", "--judgements", "10", "--out", "prefs.jsonl"]
    assert main(simulate_file) == 0
    assert main(words[1:]) == 0
    assert store.scorers()[-1].why == "refit"


def test_people_are_taken_out_of_every_scorer_of_a_store_with_one_command(tmp_path, first, world, capsys):
    store = filled(tmp_path / "s.db", first, world)
    folders = Folders(beside(store.path))
    old = store.in_force()
    assert refitted(capsys, store.path)[0] == 0
    second = store.in_force()
    before = folders.load(old)
    pool = world.responses
    gone, stays = "other 3", "other 4"
    assert {gone, stays} <= set(known_to(before))
    asked = ["forget", str(folders.path), gone, "--store", str(store.path)]
    assert main(asked) == 0
    said = capsys.readouterr()
    new = store.scorers()[0].hash
    assert new != old and f"{old[:16]} knew one of them; {new[:16]} takes its place" in said.out
    assert sorted(folders.hashes()) == sorted([new, second]) and store.in_force() == second
    for path in folders.path.rglob("*"):
        assert not path.is_file() or gone.encode() not in path.read_bytes()
    assert refitted(capsys, store.path, "--rollback")[0] == 0 and store.in_force() == new
    less = folders.load(new)
    nobody = less.score(pool, ["nobody"] * len(pool)).value_Q
    assert np.array_equal(less.score(pool, [gone] * len(pool)).value_Q, nobody)
    kept = [one.score(pool, [stays] * len(pool)).value_Q for one in (before, less)]
    assert np.array_equal(*kept)
    assert registered(store, folders, first, folders.load) == new  # the folder with them does not come back
    assert main(asked) == 0 and "no scorer of the store has rows of them" in capsys.readouterr().out
    assert main([*asked, "--out", "x"]) == 2 and "leave --out out" in capsys.readouterr().err
    store.close()


@pytest.mark.parametrize("kind", ["encrypted", "postgres"])
def test_stores_of_every_kind_are_refitted(kind, tmp_path, first, world, capsys, request, monkeypatch):
    monkeypatch.setenv("POLYPREF_MASTER_KEY", "a master key that is long enough to be one" * 2)
    address = tmp_path / "s.db" if kind == "encrypted" else request.getfixturevalue("postgres").database()
    store = served(opened(address, kind == "encrypted"), tmp_path / "shared", first, world)
    before, at = store.in_force(), ("--scorers", str(tmp_path / "shared"))
    code, said = refitted(capsys, address, *at)
    assert code == 0 and f"{round(0.8 * USERS * EACH)} judgements of the store, by {USERS} people" in said.out, said
    now = store.in_force()
    assert now != before and store.fitted_with(named(world, 0)) == [now]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(named(world, 0).encode() in path.read_bytes() for path in files)
    left = leave(Person("", named(world, 0)), store)
    assert left.scorers == [now] and not left.residue
    assert refitted(capsys, address, *at, "--rollback")[0] == 0 and store.in_force() == before
    store.close()


def test_texts_are_encoded_part_by_part_so_that_a_server_waits_for_one(world):
    class Told:
        name, identity, features, asked = "told", "told", "response", []

        def encode(self, responses):
            self.asked.append(responses.texts_R.to_list())
            return np.zeros((len(responses), 1), np.float32)

    told = Told()
    refit_data.read_by_parts(told, world.responses)
    assert max(map(len, told.asked)) <= refit_data.PART < len(world.responses)
    assert [text for part in told.asked for text in part] == world.responses.texts_R.to_list()
