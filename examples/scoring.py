"""Fit, save, load and score in Python, on the file that `polypref simulate two-tastes --out prefs.jsonl` writes."""

import polypref
from polypref.learners.protocol import SOURCES

reading = polypref.read("prefs.jsonl")
comparisons = polypref.clean(reading, polypref.lint(reading))
encoder = polypref.encoder("minilm")
scorer = polypref.LEARNERS["individual"].fit(comparisons, encoder=encoder, seed=0)
polypref.save(scorer, "my-scorer")

# load("scorer") needs no encoder where `polypref fit` has saved: the folder names it.
scorer = polypref.load("my-scorer", encoder)
users = ["u0", "u0", "a stranger"]
prompts = ["How do I boil an egg?"] * 3
texts = ["Seven minutes in boiling water.", "It depends on how you like it.", "It depends on how you like it."]
responses, response_Q = polypref.Responses.of(prompts, texts)
scores = scorer.score(responses, users, response_Q)  # users: None asks for the population's reward
for user, text, score, source in zip(users, texts, scores.value_Q, scores.source_Q, strict=True):
    print(f"{user}: {score:+.2f} {text} ({SOURCES[source]})")
