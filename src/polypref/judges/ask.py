"""Asks a language model to judge: which of two answers it prefers, by the log-probability of the first token.

    odds = log p(first answer) - log p(second answer)

The rule is the same for local models and servers. Of the 20 most likely first tokens, those that equal an answer, apart
from spaces and punctuation, count for it. An answer without such a token is at most as likely as the least likely of
the 20, and gets that value. If neither answer has one, the judge has not answered: NaN, which is not a tie. For a
server without log-probabilities, its text counts as odds of 9 to 1.

Odds are cached on disk by the question's content, batch by batch, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.content import Identities
from polypref.features.cache import Store
from polypref.judges.protocol import TOP, LanguageModel, Question, Reply
from polypref.progress import Progress

WORD = log(9.0)
LEAST = -50.0  # minimum log-probability: servers write -9999, -Infinity or null for none
IGNORED = " \t\r\n.,:;()[]*\"'`"


def language_model(
    model: str,
    *,
    max_length: int | None = None,
    dtype: str = "float32",
    timeout: float = 60.0,
    retries: int = 5,
    pause: float = 1.0,
) -> LanguageModel:
    """The model at ``http://host:8000/v1#name``, in a local folder, or on the hub. Loads nothing yet.

    ``max_length`` and ``dtype`` are for a local model, ``timeout``, ``retries`` and ``pause`` for a server. Raises
    SettingsError for an invalid address.
    """
    if model.startswith(("http://", "https://")):
        from polypref.judges.server import Chat

        return Chat(model, timeout, retries, pause)
    from polypref.judges.local import Causal

    return Causal(model, max_length, dtype)


def ask(
    model: LanguageModel, questions: Sequence[Question], answers: tuple[str, str], cache_folder: str | None = None
) -> NDArray[np.float64]:
    """``odds_Q`` of the first answer against the second, NaN if the judge gave neither.

    Raises EncoderError if the model is not available or does not reply, CacheError.
    """
    store = Store(f"{model.identity} answers={'/'.join(answers)} top={TOP}", cache_folder)
    keys_Q = content.identities(b"".join(content.digest(question.text()) for question in questions))
    return store.repaired(lambda: _odds(store, model, questions, keys_Q, answers))


def _odds(
    store: Store, model: LanguageModel, questions: Sequence[Question], keys_Q: Identities, answers: tuple[str, str]
) -> NDArray[np.float64]:
    index = store.index()
    if (index.rows(keys_Q) < 0).any():
        with store.filling() as writer:
            missing, first = np.unique(keys_Q, return_index=True)
            first = first[store.index().rows(missing) < 0]
            with Progress(f"asking {model.name}", len(first), "questions") as progress:
                for index_B, replies in model.replies([questions[i] for i in first]):
                    odds_B1 = np.array([[odds(reply, answers)] for reply in replies], np.float32)
                    writer.append(keys_Q[first[index_B]], odds_B1)
                    progress.advance(len(index_B))
        index = store.index()
    return store.read(index, keys_Q, index.rows(keys_Q))[:, 0].astype(np.float64)


def odds(reply: Reply, answers: tuple[str, str]) -> float:
    """Log-odds of the first answer against the second; NaN if the reply contains neither."""
    if isinstance(reply, str):
        word = reply.strip(IGNORED)
        return WORD * (1 - 2 * answers.index(word)) if word in answers else float("nan")
    listed = [(token.strip(IGNORED), max(p, LEAST) if p is not None and isfinite(p) else LEAST) for token, p in reply]
    found = [[p for token, p in listed if token == answer] for answer in answers]
    if not any(found):
        return float("nan")
    least = min(p for _, p in listed)
    first, second = (float(np.logaddexp.reduce(p)) if p else least for p in found)
    return first - second
