"""Can a language model keep a person's judgements in a few compressed tokens? Against a mean vector and raw judgements.

    python benchmarks/lm/compression.py MODEL [--memory merge] [--slots 1] [--steps 12] [--full]

People of a simulated world, one in four with the opposite taste. A sequence is a person's CHUNKS judgements, each with
its compression tokens, and another judgement of theirs as target: the question, both answers as A and B, and which they
prefer; the loss is on that letter. People of the test are not among those of training. Each target is asked in both
orders, and the log odds averaged, so a liking of the letter A is worth nothing; a tie of the odds counts one half.

Arms, on the same targets: nothing remembered; the raw judgements in the context; the memory, trained; the memory of
somebody of the other taste (placebo); a mean vector of as many bytes as one token of memory takes (the hidden states of
chosen less rejected, all layers that fit, cosine). Intervals: over people. The default is a few minutes on a CPU, and
far too short to learn this: the paper trains on thousands of times as many tokens. --full is for a GPU.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from polypref.studies.compression import Compressor, Layout, compressing
from polypref.worlds import simulate

QUESTION, ANSWER = 12, 24  # tokens of a prompt and of an answer
FULL = {"chunks": 8, "slots": 4, "steps": 2000, "batch": 64, "people": 2000, "tests": 400}


class Judgements:
    """Token sequences of one length: (people, judgements, tokens), the preferred answer as A, and as B."""

    def __init__(self, tokenizer, people: int, each: int, seed: int):
        world = simulate("two-tastes", users=people, judgements=each, repeats=0, seed=seed)
        rows = world.comparisons
        assert rows.users.attributes is not None
        group = rows.users.attributes["group"].to_list()
        self.taste_U = np.array([name == group[0] for name in group])
        pool = rows.responses
        texts = [tokenizer(text)["input_ids"][:ANSWER] for text in pool.texts_R.to_list()]
        asked = [tokenizer(pool.prompt_text(p))["input_ids"][:QUESTION] for p in range(len(pool.prompts))]
        words = {word: tokenizer(word)["input_ids"] for word in ("Question:", "\nA:", "\nB:", "\nBetter:", " A", " B")}
        (self.a,), (self.b,) = words[" A"], words[" B"]
        pad = tokenizer.encode(" .")[0]

        def fixed(ids: list[int], size: int) -> list[int]:
            return ids + [pad] * (size - len(ids))

        def told(one: int, other: int, letter: int) -> list[int]:
            question = fixed(asked[int(pool.prompt_R[one])], QUESTION)
            parts = (words["Question:"], question, words["\nA:"], fixed(texts[one], ANSWER), words["\nB:"])
            return [t for part in (*parts, fixed(texts[other], ANSWER), words["\nBetter:"]) for t in part] + [letter]

        self.first = len(words["Question:"]) + QUESTION + len(words["\nA:"])
        self.second = self.first + ANSWER + len(words["\nB:"])
        order = np.argsort(rows.user_N, kind="stable").reshape(people, each)
        chosen, rejected = rows.chosen_N.tolist(), rows.rejected_N.tolist()
        both = [[told(chosen[n], rejected[n], self.a), told(rejected[n], chosen[n], self.b)] for n in order.ravel()]
        self.tokens = torch.tensor(both).reshape(people, each, 2, -1)

    @property
    def size(self) -> int:
        return self.tokens.shape[-1]


def sequences(memory: torch.Tensor, target: torch.Tensor, slots: int) -> torch.Tensor:
    """Chunks (B, C, T), each with room for its compression tokens, and the target without its letter."""
    room = torch.nn.functional.pad(memory, (0, slots)).flatten(1)
    return torch.cat([room, target[:, :-1]], 1)


def log_odds(found: Compressor, ids: torch.Tensor, layout: Layout, letters: tuple[int, int]) -> torch.Tensor:
    """Log odds (B,) of the letter A."""
    last = found.hidden(ids, layout)[:, -1]
    weights = found.model.lm_head.weight[list(letters)]
    logits = last.float() @ weights.float().T
    return logits[:, 0] - logits[:, 1]


def trained(model, data: Judgements, args: argparse.Namespace) -> Compressor:
    """Compression tokens and updates after ``--steps``."""
    found = compressing(model, args.slots, seed=args.seed)
    optimizer = torch.optim.AdamW(found.parameters(), lr=args.rate)
    rng, began = np.random.default_rng(args.seed), time.monotonic()
    layout = Layout.of([data.size] * args.chunks, data.size - 1, args.slots, args.memory)
    for step in range(args.steps):
        user = torch.as_tensor(rng.integers(0, len(data.tokens), args.batch))
        picked = np.stack([rng.permutation(data.tokens.shape[1])[: args.chunks + 1] for _ in user])
        side = torch.as_tensor(rng.integers(0, 2, (args.batch, args.chunks + 1)))
        rows = data.tokens[user[:, None], torch.as_tensor(picked), side]
        odds = log_odds(found, sequences(rows[:, :-1], rows[:, -1], args.slots), layout, (data.a, data.b))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, (side[:, -1] == 0).float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(found.parameters(), 1.0)
        optimizer.step()
        if step % max(args.steps // 10, 1) == 0:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    return found


def right(
    found: Compressor, memory: torch.Tensor | None, target: torch.Tensor, layout: Layout, data: Judgements
) -> np.ndarray:
    """Whether the preferred answer of each target (B, 2, T) is the likelier one over both orders."""
    odds = []
    for side in range(2):
        ids = target[:, side, :-1] if memory is None else sequences(memory, target[:, side], layout.slots)
        with torch.no_grad():
            odds.append(log_odds(found, ids, layout, (data.a, data.b)).cpu().numpy())
    margin = odds[0] - odds[1]
    return np.where(margin == 0, 0.5, margin > 0)


def mean_vectors(model, data: Judgements, rows: torch.Tensor, layers: int) -> torch.Tensor:
    """Of each judgement (B, T), the mean hidden states of A less those of B, of the last layers: (B, layers x D)."""
    with torch.no_grad():
        hidden = model.model(rows, output_hidden_states=True).hidden_states[-layers:]
    one, other = (
        torch.cat([layer[:, at : at + ANSWER].mean(1) for layer in hidden], 1) for at in (data.first, data.second)
    )
    return (one - other).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", choices=("concat", "merge"), default="merge")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--tests", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="hours on a CPU")
    args = parser.parse_args()
    if args.full:
        vars(args).update(FULL)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    train = Judgements(tokenizer, args.people, 2 * args.chunks + 2, args.seed)
    test = Judgements(tokenizer, args.tests, args.chunks + 1, args.seed + 1)
    rng = np.random.default_rng(args.seed)
    side = torch.as_tensor(rng.integers(0, 2, (args.tests, args.chunks)))
    memory = test.tokens[torch.arange(args.tests)[:, None], torch.arange(args.chunks), side]
    target = test.tokens[:, -1]
    other = np.array([np.flatnonzero(test.taste_U != taste)[0] for taste in test.taste_U])
    config = model.config
    token_bytes = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 2
    layers = min(token_bytes // (2 * config.hidden_size), config.num_hidden_layers)
    rows = torch.cat([test.tokens[:, :-1, 0], target[:, :1, :].reshape(args.tests, 1, -1)], 1)  # preferred first
    vectors = mean_vectors(model, test, rows.flatten(0, 1), layers).reshape(*rows.shape[:2], -1)
    cosine = torch.nn.functional.cosine_similarity(vectors[:, :-1].mean(1), vectors[:, -1], dim=-1).cpu().numpy()
    found = trained(model, train, args)
    layout = Layout.of([test.size] * args.chunks, test.size - 1, args.slots, args.memory)
    raw = Layout.of([], test.size * (args.chunks + 1) - 1, 0, "concat")
    plain = Layout.of([], test.size - 1, 0, "concat")
    arms = {
        "nothing": (right(found, None, target, plain, test), 0),
        f"last {args.chunks} judgements, raw": (right(found, memory, target, raw, test), 2 * test.size * args.chunks),
        "compressed, trained": (right(found, memory, target, layout, test), token_bytes * args.slots),
        "compressed, of another taste": (right(found, memory[other], target, layout, test), token_bytes * args.slots),
        f"mean vector of {layers} layers": (np.where(cosine == 0, 0.5, cosine > 0), 2 * layers * config.hidden_size),
    }
    print(f"\n{args.memory}, {args.slots} slots, {args.steps} steps of {args.batch}, {args.tests} new people\n")
    print("| arm | accuracy | bytes a person |\n|---|---|---|")
    for name, (value, size) in arms.items():
        reach = 1.96 * value.std(ddof=1) / np.sqrt(len(value))
        print(f"| {name} | {value.mean():.3f} ± {reach:.3f} | {size:,} |")


if __name__ == "__main__":
    main()
