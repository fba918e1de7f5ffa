"""Fit, save, load and rank in Python, on the file that `polypref simulate two-tastes --out prefs.jsonl` writes."""

import polypref

reading = polypref.read("prefs.jsonl")
comparisons = polypref.clean(reading, polypref.lint(reading))
encoder = polypref.encoder("minilm")
scorer = polypref.LEARNERS["individual"].fit(comparisons, encoder=encoder, seed=0)
polypref.save(scorer, "my-scorer")

scorer = polypref.load("my-scorer")  # the folder names its encoder; one of your own is given: load(folder, encoder)
prompt = "How do I boil an egg?"
texts = ["Seven minutes in boiling water.", "It depends on how you like it."]
for user in ("u0", "a stranger"):  # None also asks for the population's answer
    for text, reward, source, _ in scorer.rank(user, prompt, texts):
        print(f"{user}: {reward:+.2f} {text} ({source})")

# Many questions at once: Q users, prompts and texts as columns.
responses, response_Q = polypref.Responses.of([prompt] * 2, texts)
scores = scorer.score(responses, ["u0", "u1"], response_Q)
print(scores.value_Q)
