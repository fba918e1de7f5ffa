"""A small causal language model from scratch on the texts of a preference file, to try `polypref align` on a laptop.

    python examples/small_lm.py prefs.parquet --out lm --minutes 3

Every response is read behind its prompt and one of the group names by lot, in the template that `polypref align` uses:
the model knows the names and they mean nothing to it yet. A twentieth of the texts is held out; the state with the
lowest loss on them is saved as a folder that transformers loads: a Llama of less than a million parameters.
"""

import argparse
import time

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

import polypref

VOCABULARY, LONGEST, ROWS, RATE = 2048, 128, 16, 2e-3


def texts_of(files: list[str], groups: list[str], template: str) -> list[str]:
    """What the model reads: template and response."""
    reading = polypref.read(files)
    pool = polypref.clean(reading, polypref.lint(reading)).responses
    rng = np.random.default_rng(0)
    return [
        template.format(group=rng.choice(groups), user="", prompt=pool.prompt_text(prompt)) + text
        for prompt, text in zip(pool.prompt_R.tolist(), pool.texts_R, strict=True)
    ]


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Word pieces learned from the texts."""
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=["<pad>", "<end>"], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def new_model() -> LlamaForCausalLM:
    """Random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def loss_of(model: LlamaForCausalLM, rows: list[torch.Tensor]) -> torch.Tensor:
    """Mean surprise of the next word piece, in nats."""
    batch = pad_sequence(rows, batch_first=True, padding_value=0)
    return model(input_ids=batch, attention_mask=batch != 0, labels=batch.masked_fill(batch == 0, -100)).loss


def train(model: LlamaForCausalLM, ids: list[torch.Tensor], seconds: float, out: str) -> None:
    """AdamW with a rate that falls to zero; saves the state with the lowest loss on held-out texts."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(ids)).tolist()
    held, rest = [ids[i] for i in order[: 1 + len(ids) // 20]], [ids[i] for i in order[1 + len(ids) // 20 :]]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    start, step, best, share = time.monotonic(), 0, float("inf"), 0.0
    for look in range(1, 11):
        while share < look / 10:
            optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50) * (1 - share)
            loss_of(model, [rest[i] for i in rng.integers(0, len(rest), ROWS)]).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step, share = step + 1, min(1.0, (time.monotonic() - start) / seconds)
        with torch.no_grad():
            unseen = float(np.mean([float(loss_of(model, held[at : at + 32])) for at in range(0, len(held), 32)]))
        print(f"{step} steps: loss on held-out texts {unseen:.2f}", flush=True)
        if unseen < best:
            best = unseen
            model.save_pretrained(out)


def main() -> None:
    """Read, learn word pieces, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", default="lm")
    parser.add_argument("--groups", nargs="+", default=["group 1", "group 2", "group 3"])
    parser.add_argument("--template", default="{group}: {prompt}\n")
    parser.add_argument("--minutes", type=float, default=3)
    settings = parser.parse_args()
    disable_progress_bar()
    texts = texts_of(settings.files, settings.groups, settings.template)
    tokenizer = tokenizer_of(texts)
    ids = [torch.tensor([*tokenizer(text)["input_ids"], 1])[:LONGEST] for text in texts]
    train(new_model(), ids, 60 * settings.minutes, settings.out)
    tokenizer.save_pretrained(settings.out)
    print(f"saved to {settings.out}")


if __name__ == "__main__":
    main()
