"""The main job in Python, on the file that `polypref simulate two-tastes --out prefs.jsonl` writes."""

import polypref

reading = polypref.read("prefs.jsonl")
comparisons = polypref.clean(reading, polypref.lint(reading))
results = polypref.compare(comparisons, ["pooled", "hierarchical"], seeds=2)
print(results.verdict["text"])
