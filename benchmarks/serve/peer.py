"""What a team writes in an hour: FastAPI, MiniLM, and the dot product of a person's vector and a text's.

python benchmarks/serve/peer.py PORT     (latency.py starts it, to compare polypref serve with)

It keeps the vectors of texts in memory, encodes new ones in one thread, and does nothing else: no bounds, no learning,
no log, no limits.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from polypref.features import minilm
from polypref.features.transformer import default_device, pool

KNOWN: dict[str, np.ndarray] = {}
THREAD = ThreadPoolExecutor(1)
app = FastAPI()


class Rerank(BaseModel):
    query: str
    documents: list[str]
    user: str | None = None


def vectors(texts: list[str], batch_size: int = 32) -> np.ndarray:
    """The network's own batched throughput: tokenise all, sort by length, pad, run, pool."""
    import torch

    network, tokenizer = minilm.load(default_device())
    ids = tokenizer(texts, truncation=True, max_length=256)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
    found = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt").to(network.device)
        with torch.inference_mode():
            hidden = network(**batch).last_hidden_state
            found[rows] = torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], "mean")).cpu().numpy()
    return found


def encode(texts: list[str]) -> None:
    new = [text for text in dict.fromkeys(texts) if text not in KNOWN]
    KNOWN.update(zip(new, THREAD.submit(vectors, new).result() if new else [], strict=True))


@app.post("/rerank")
async def rerank(body: Rerank) -> dict:
    if not all(text in KNOWN for text in body.documents):
        await run_in_threadpool(encode, body.documents)
    person = np.random.default_rng(abs(hash(body.user)) % 2**32).standard_normal(384)
    scores = np.stack([KNOWN[text] for text in body.documents]) @ person
    order = np.argsort(-scores).tolist()
    return {"results": [{"index": at, "relevance_score": float(scores[at])} for at in order]}


if __name__ == "__main__":
    encode(["warm"])
    print("ready", flush=True)
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
