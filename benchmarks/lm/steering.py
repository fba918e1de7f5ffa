"""Context steering on a small language model: does it write more like the persona, and what does that cost in fluency?

    python benchmarks/lm/steering.py MODEL [--dials 0 .5 1 2 3] [--tokens 48] [--prompts 12] [--seed 0]

MODEL is a folder or name that transformers loads, such as SmolLM2-135M-Instruct. Six personas, twelve prompts, one
sampled answer (temperature 1) for each at each dial; answers of all dials draw with one seed. Adherence is counted in
the text by marks of the persona's style, from 0 to 1, and not by the probabilities that were steered; the placebo is
how much of the five other personas' marks the same answers show. The log likelihood ratio (persona's context over none,
a token) is printed as a check only: it is what the dial adds. Fluency: mean log-probability of a token under the plain
model; share of distinct words; answers with one trigram three times. Intervals: 95 %, over prompts.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from polypref.policy.steering import steering

Floats = np.ndarray

PERSONAS = {
    "lists": "Always answer with a bulleted list. Begin every line with a dash.",
    "numbers": "You are an engineer. Always give exact numbers, amounts and percentages.",
    "excited": "You are very excited and cheerful! Use many exclamation marks! Be playful and have fun!",
    "careful": "You are very careful. Say perhaps, maybe and might, and that you are not sure.",
    "story": "You answer with a short story from your own life, about your family, in the past tense.",
    "brief": "Answer in one very short sentence of at most eight words, and then stop.",
}
PROMPTS = (
    "How can I sleep better?",
    "How do I make good coffee?",
    "How should I start running?",
    "How do I save money?",
    "How do I care for a cactus?",
    "What should I cook tonight?",
    "How do I learn a language?",
    "Where should I spend my holidays?",
    "How do I tidy my room?",
    "What is a good gift for a friend?",
    "How do I repair a flat tyre?",
    "Should I get a dog?",
)


def marks(name: str, text: str, ended: bool) -> float:
    """How much of the persona's style the text shows, from 0 to 1."""
    words = text.split()
    sentences = max(len(re.findall(r"[.!?](?:\s|$)", text)), 1)
    share = {
        "lists": lambda: (
            len(re.findall(r"(?m)^\s*(?:[-*\u2022]|\d+\.)\s", text)) / max(len(text.strip().split("\n")), 1)
        ),
        "numbers": lambda: 10 * len(re.findall(r"\d+", re.sub(r"(?m)^\s*\d+\.\s", "", text))) / max(len(words), 1),
        "excited": lambda: text.count("!") / sentences,
        "careful": lambda: len(re.findall(r"(?i)\b(?:perhaps|maybe|might|may|not sure|could)\b", text)) / sentences,
        "story": lambda: 10 * len(re.findall(r"(?i)\b(?:I|my|was|were|had|we|our)\b", text)) / max(len(words), 1) / 2,
        "brief": lambda: float(ended and len(words) <= 12),
    }[name]
    return min(share(), 1.0)


def log_probabilities(model, context_BT, mask_BT, written_BT) -> Floats:
    """Mean log-probability (B,) of the tokens written, up to and with the end, after the context."""
    import torch

    written = (written_BT != -1).long()
    ids_BT = torch.cat([context_BT, written_BT.clamp(min=0)], 1)
    mask_BT = torch.cat([mask_BT, written], 1)
    with torch.no_grad():
        logits = model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=written_BT.shape[1] + 1,
        ).logits[:, :-1]
    found = logits.float().log_softmax(-1).gather(-1, written_BT.clamp(min=0)[..., None])[..., 0]
    return ((found * written).sum(1) / written.sum(1)).numpy()


def answers(model, tokenizer, dial: float, args: argparse.Namespace) -> list[dict[str, object]]:
    """One answer for each persona and prompt, with what was measured."""
    import torch

    rows = [(name, prompt) for name in PERSONAS for prompt in PROMPTS[: args.prompts]]
    inputs, processor = steering(
        model, tokenizer, [p for _, p in rows], [PERSONAS[n] for n, _ in rows], dial, most=dial
    )
    torch.manual_seed(args.seed)
    with torch.no_grad():
        ids = model.generate(
            **inputs, logits_processor=[processor], max_new_tokens=args.tokens, do_sample=True, top_k=0, temperature=1.0
        )
    written_BT = ids[:, inputs["input_ids"].shape[1] :]
    end_BT = written_BT == model.generation_config.eos_token_id
    after_BT = end_BT.cumsum(1) - end_BT.long() > 0
    kept_BT = torch.where(after_BT, -1, written_BT)
    plain = log_probabilities(model, inputs["input_ids"], inputs["attention_mask"], kept_BT)
    persona = log_probabilities(model, processor.persona_BT, processor.mask_BT, kept_BT)
    texts = tokenizer.batch_decode(torch.where(after_BT, tokenizer.pad_token_id, written_BT), skip_special_tokens=True)
    found = []
    for at, (name, prompt) in enumerate(rows):
        words = re.findall(r"\w+", texts[at].lower())
        runs = [tuple(words[n : n + 3]) for n in range(len(words) - 2)]
        ended = bool(end_BT[at].any())
        others = [other for other in PERSONAS if other != name]
        found.append(
            {
                "persona": name,
                "prompt": prompt,
                "text": texts[at],
                "marks": marks(name, texts[at], ended),
                "placebo": np.mean([marks(other, texts[at], ended) for other in others]),
                "ratio": persona[at] - plain[at],
                "plain log p": plain[at],
                "distinct": len(set(words)) / max(len(words), 1),
                "repeats": float(any(runs.count(one) >= 3 for one in set(runs))),
            }
        )
    return found


def over_prompts(rows: list[dict], key: str) -> str:
    """Mean with its interval over prompts."""
    from scipy.special import stdtrit

    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    value_P = np.array([np.mean([row[key] for row in rows if row["prompt"] == prompt]) for prompt in prompts], float)
    reach = stdtrit(len(prompts) - 1, 0.975) * value_P.std(ddof=1) / np.sqrt(len(prompts))
    return f"{value_P.mean():.3f} ± {reach:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dials", nargs="+", type=float, default=[0, 0.5, 1, 2, 3])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    folder = Path(args.model)
    model = AutoModelForCausalLM.from_pretrained(folder if folder.is_dir() else args.model, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder if folder.is_dir() else args.model)
    keys = ("marks", "placebo", "ratio", "plain log p", "distinct", "repeats")
    print("| dial | " + " | ".join(keys) + " |\n" + "|---" * (len(keys) + 1) + "|", flush=True)
    found = {}
    for dial in args.dials:
        found[dial] = answers(model, tokenizer, dial, args)
        print(f"| {dial:g} | " + " | ".join(over_prompts(found[dial], key) for key in keys) + " |", flush=True)
    print(
        "\n| marks of | "
        + " | ".join(f"dial {dial:g}" for dial in args.dials)
        + " |\n"
        + "|---" * (len(args.dials) + 1)
        + "|"
    )
    for name in PERSONAS:
        own = [np.mean([row["marks"] for row in rows if row["persona"] == name]) for rows in found.values()]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in own) + " |")
    print("\nThe first prompt's answers, as they came out:\n")
    for dial, rows in found.items():
        for row in rows:
            if row["prompt"] == PROMPTS[0]:
                print(f"- {row['persona']}, dial {dial:g}: {row['text']!r}")


if __name__ == "__main__":
    sys.exit(main())
