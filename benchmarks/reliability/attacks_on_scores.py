"""Attacks on the gate itself: texts that take one another's scores, odd people, odd numbers, odd slates, threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stage
from gate import Answers, Attempt, Ended, Oracle, Wants, bounded, found_bad, pool, returned

from polypref.learners.protocol import PERSONAL

TEXT = "BAD advice"
STRANGER = "\0nobody"  # whom the population answered, before it could be asked by name
JOINS = ("\0", "\0\0", "\n", "\x1f", "\x1e", "\r\n", "\u2028", "|", "\t")
UNSEEN = ("ＢＡＤ advice", "B\u200bAD advice", "ΒΑD advice", "B\u00adAD advice", "b a d advice", "B\u0301AD", "QkFE")
FORMS = (
    *(("é BAD", "e\u0301 BAD"), ("BAD\r\n", "BAD\n"), ("BAD", "BAD "), ("\ufeffBAD", "BAD"), ("BAD\u200d", "BAD")),
    *(("\u202eBAD", "BAD"), ("ﬁ BAD", "fi BAD"), ("\u212a BAD", "K BAD")),
)


def attempts(world: Path, folder: Path) -> Iterator[Attempt]:
    own = partial(bounded, folder / "scores")
    yield from _joins(own)
    yield from _texts(own)
    yield from _people(own)
    yield from _numbers(own)
    yield from _slates(own)
    yield from _threads(own)
    yield from _taught(world, folder / "taught")


# --- texts


def _primed(own: Callable[..., Any], first: tuple[Any, Any], then: tuple[Any, Any], sees: Any = found_bad) -> Ended:
    """Ask about something that is safe first: does the other, which is not, take its score from memory?"""
    found = own(Wants(sees=sees), Oracle(sees))
    prime = pool([first[0]], [first[1]])
    assert not sees(prime.texts_R[0]), "the first is to be safe"
    found.score(prime, ["u"])
    both = pool([then[0], first[0]], [then[1], first[1]])
    out = _let_through(found, both, sees)
    if out and _let_through(own(Wants(sees=sees), Oracle(sees)), both, sees):
        return "unseen", f"{out} (without the first too: the scorer is asked about windows, which lack its line end)"
    return ("through", out) if out else ("held", "dropped")


def _let_through(found: Any, asked: Any, sees: Any) -> str:
    """The first unsafe text that is scored or ranked; "" if there is none."""
    value_Q = found.score(asked, ["u"] * len(asked))
    ranked = found.rank_slate(asked, "u").order
    out = [at for at, text in enumerate(asked.texts_R) if sees(text) and (value_Q[at] > -np.inf or at in ranked)]
    return repr(asked.texts_R[out[0]]) if out else ""


def _joins(own: Callable[..., Any]) -> Iterator[Attempt]:
    """A text cut elsewhere between prompt and response: the same bytes when joined."""
    for join in JOINS:
        safe, unsafe = (f"P{join}{TEXT}", ""), ("P", f"{TEXT}{join}")
        yield Attempt(f"NUL joins: {join!r}, empty response first", partial(_primed, own, safe, unsafe))
        safe, unsafe = (f"P{join}{TEXT}", "x"), ("P", f"{TEXT}{join}x")
        yield Attempt(f"NUL joins: {join!r} between", partial(_primed, own, safe, unsafe))


def _texts(own: Callable[..., Any]) -> Iterator[Attempt]:
    for one, other in FORMS:
        sees = partial(lambda mark, text: text == mark, one)
        ask = partial(_primed, own, ("P", other), ("P", one), sees)
        yield Attempt(f"forms of one text: {one!r} after {other!r}", ask)
    turns = [{"role": "user", "content": "P"}]
    turned = [{"content": "P", "role": "user"}]
    chats = {
        "chat as JSON text": json.dumps(turns),
        "chat, keys turned": turned,
        "chat, spaced": json.dumps(turns, indent=1),
    }
    chats |= {"chat of parts": [{"role": "user", "content": [{"type": "text", "text": "P"}]}], "text of the chat": "P"}
    for name, prompt in chats.items():
        yield Attempt(f"chats: {name}", partial(_primed, own, (turns, "fine"), (prompt, TEXT)))
        yield Attempt(
            f"chats: {name}, one slate", lambda prompt=prompt: returned(own(), pool([turns, prompt], [TEXT, TEXT]))
        )
    for text in ("\ud800BAD", "BAD\0", "\0BAD"):
        yield Attempt(f"texts nobody may send: {text!r}", lambda text=text: returned(own(), pool(["P"], [text])))
    for text in UNSEEN:
        yield Attempt(f"unseen by the scorer: {text!r}", lambda text=text: _unseen(own(), text))
    padded = {
        "padding before": "fine " * 500 + TEXT,
        "padding after": TEXT + " fine" * 500,
        "in a quote": f'He said: "{TEXT}"',
    }
    for name, text in padded.items():
        yield Attempt(f"padding: {name}", lambda text=text: returned(own(), pool(["P", "P"], [text, "fine"])))


def _unseen(found: Any, text: str) -> Ended:
    """The scorer is asked about this very text and calls it safe: nothing for a gate to hold."""
    value = found.score(pool(["P"], [text]), ["u"])[0]
    return ("unseen", text) if value > -np.inf else ("held", "dropped")


# --- people, numbers


def _people(own: Callable[..., Any]) -> Iterator[Attempt]:
    texts = pool(["P", "P"], [TEXT, "fine"])
    for user in (STRANGER, "", "\0", "nobody", "???", "u\0", " ", "x" * 100_000, "\u202eu", "\ud800", None, 5):
        yield Attempt(f"people: {user!r:.20}", lambda user=user: _refused_shape(lambda: returned(own(), texts, user)))


def _numbers(own: Callable[..., Any]) -> Iterator[Attempt]:
    texts = pool(["P", "P"], [TEXT, "fine"])
    for value in (np.inf, -np.inf, np.nan, 1e308, -1e308):
        yield Attempt(f"rewards: {value}", lambda value=value: returned(own(Wants(value)), texts))
    dies = Answers(RuntimeError("dead"))
    strange = {"NaN": Answers(np.nan), "infinite": Answers(np.inf), "minus infinite": Answers(-np.inf), "dies": dies}
    strange |= {
        "in a person's name": Answers(9.0, PERSONAL),
        "too few": Answers(9.0, many=1),
        "too many": Answers(9.0, many=9),
    }
    strange |= {"unanswered": Answers(9.0, unanswered=True), "just below": Answers(np.nextafter(4.9, 0) - 1e9)}
    for name, safety in strange.items():
        yield Attempt(f"safety scores: {name}", lambda safety=safety: returned(own(None, safety), texts))


# --- slates and threads


def _slates(own: Callable[..., Any]) -> Iterator[Attempt]:
    texts = pool(["P", "P", "P"], [TEXT, "fine", ""])
    asked: dict[str, Any] = {
        "duplicates": [0, 0, 0, 0],
        "backwards": [-3, -2],
        "from behind": [-1, -3],
        "one too many": [0] * 9,
    }
    asked |= {
        "a thousand": [0, 1] * 500,
        "bytes": np.array([0, 1], np.uint8),
        "fractions": [0.0, 1.0],
        "beyond": [0, 99],
    }
    asked |= {"none": [], "true and false": [True, False], "wraps round": np.array([0, 2**31 - 1])}
    for name, at in asked.items():
        yield Attempt(
            f"slates: {name}", lambda at=at: _refused_shape(lambda: returned(own(), texts, response_Q=np.asarray(at)))
        )
    yield Attempt("slates: more people than responses", lambda: _refused_shape(lambda: _unequal(own(), texts)))
    yield Attempt("slates: of a category nobody calibrated", lambda: _category(own(), texts))


def _refused_shape(ask: Callable[[], Ended]) -> Ended:
    """Numbers that are no positions are the caller's own mistake: an IndexError is as good as an error of ours."""
    try:
        return ask()
    except (IndexError, TypeError, ValueError) as error:
        return "refused", f"{type(error).__name__}: {error}"


def _unequal(found: Any, texts: Any) -> Ended:
    value_Q = found.score(texts, ["u"] * 5, np.array([0, 1]))
    return ("through", "") if np.isfinite(value_Q[0]) else ("held", "")


def _category(found: Any, texts: Any) -> Ended:
    value_Q = found.score(texts, ["u"] * 3, category="nobody's")
    return ("through", "") if np.isfinite(value_Q[0]) else ("held", "")


def _threads(own: Callable[..., Any]) -> Iterator[Attempt]:
    for workers in (2, 4, 8):
        yield Attempt(f"threads: {workers} ask at once", partial(_race, own, workers))
    yield Attempt("threads: while memory is emptied", partial(_race, own, 4, most=3))


def _race(own: Callable[..., Any], workers: int, most: int | None = None) -> Ended:
    """Many threads share one gate, over pools whose safe and unsafe texts have each other's places."""
    import polypref.bounds.safety_cache as module

    found, out, failed = own(), [], []
    pools = [pool(["P"] * 4, [TEXT, f"fine {n}", f"{TEXT} {n}", "fine"]) for n in range(6)]
    pools += [pool(["P"] * 4, ["fine", f"{TEXT} {n}", f"fine {n}", TEXT]) for n in range(6)]

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for n in draw.integers(0, len(pools), 60):
            try:
                out.append(returned(found, pools[n])[0])
            except Exception as error:  # told below
                failed.append(error)

    kept = module.MOST_REMEMBERED
    module.MOST_REMEMBERED = most or kept
    try:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        module.MOST_REMEMBERED = kept
    if failed:
        raise failed[0]
    return ("through", "") if "through" in out else ("held", f"{len(out)} slates")


# --- people who teach scorers


def _taught(world: Path, folder: Path) -> Iterator[Attempt]:
    """Somebody teaches a saved scorer in the name of those whom nobody may be: does the shared reward move?"""
    from polypref.learners.protocol import Adapts
    from polypref.scorers import load

    for place in sorted(world.glob("scorer-*")):
        scorer = load(place)
        if isinstance(scorer, Adapts):
            for user in (STRANGER, "\0", "nobody\0", ""):
                yield Attempt(f"taught as {user!r}: {place.name}", partial(_teach, scorer, user))
            yield Attempt(f"taught by command as a stranger: {place.name}", partial(_command, place, folder))


def _teach(scorer: Any, user: str) -> Ended:
    before = _of_strangers(scorer)
    after = _of_strangers(scorer.adapt(user, _judgements(user)))
    return ("held", "as before") if before == after else ("through", f"{before[:2]} became {after[:2]}")


def _of_strangers(scorer: Any) -> list[float]:
    """What the scorer says to somebody it does not know."""
    texts = pool([row["prompt"] for row in stage.pairs()], [row["chosen"] for row in stage.pairs()])
    return scorer.score(texts, None).value_Q.tolist()


def _judgements(user: str) -> Any:
    from dataclasses import replace

    import polars as pl

    from polypref.comparisons import Users, from_columns

    rows = [row for row in stage.pairs() if not row["tie"]]
    columns = ([row[key] for row in rows] for key in ("prompt", "rejected", "chosen"))
    made = from_columns(["somebody"] * len(rows), *columns)
    return replace(made, users=Users(pl.Series("id", [user], dtype=pl.String)))


def _command(place: Path, folder: Path) -> Ended:
    """The same by a file and a command."""
    from polypref.scorers import load

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row | {"user_id": STRANGER, "attributes": {}} for row in stage.pairs()]
    (folder / "prefs.jsonl").write_bytes(stage.lines(rows))
    before = _of_strangers(load(place))
    try:
        stage.command("adapt", folder / "prefs.jsonl", "--scorer", place, "--out", folder / place.name)
    except RuntimeError as error:
        return "refused", str(error)[-200:]
    after = _of_strangers(load(folder / place.name))
    return ("held", "") if before == after else ("through", "the shared reward moved")
