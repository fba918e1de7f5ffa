"""The whole way with a real Label Studio: it connects, fetches predictions, and its annotations become judgements.

    pip install label-studio                       # in an environment of its own; tried with 1.23.2
    ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true \\
        label-studio start --no-browser --port 8998 --username a@b.co --password PASSWORD --user-token TOKEN
    python benchmarks/serve/label_studio.py http://127.0.0.1:8998 TOKEN

It starts a server with API keys and bounds, makes a project in Label Studio with two tasks, one of them with an unsafe
answer, and says what came of each step; it fails at the first that is not as it should be.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from polypref.serve.who.person import Keys
from serve_cases import PROMPT, TEXTS, UNSAFE, core, running

CONFIG = """<View><Header value="Which answer is better?"/><Text name="prompt" value="$prompt"/>
  <Pairwise name="comparison" toName="answer1,answer2"/>
  <Text name="answer1" value="$one"/><Text name="answer2" value="$two"/></View>"""
KEY = "a key of the annotators"
WAIT_S = 30.0


def expect(what: str, found: Any, wanted: Any) -> None:
    print(f"{'as it should be' if found == wanted else 'WRONG'}: {what}: {found}")
    if found != wanted:
        raise SystemExit(f"expected {wanted}")


def until(what: str, look: Callable[[], Any], wanted: Any) -> None:
    """Webhooks are sent in their own time."""
    end = time.monotonic() + WAIT_S
    while look() != wanted and time.monotonic() < end:
        time.sleep(0.2)
    expect(what, look(), wanted)


def project(studio: httpx.Client, at: str) -> tuple[int, list[int]]:
    """A project with polypref as its model and webhook, and its tasks."""
    made = studio.post("/api/projects/", json={"title": "polypref", "label_config": CONFIG}).json()["id"]
    user = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": KEY}
    backend = studio.post("/api/ml/", json={"project": made, "url": f"{at}/u/ann", "title": "polypref", **user})
    expect("connected as a model", backend.json().get("readable_state", backend.text), "Connected")
    hook = {"project": made, "url": f"{at}/webhook", "headers": {"Authorization": f"Bearer {KEY}"}}
    expect("webhook", studio.post("/api/webhooks/", json=hook | {"send_payload": True}).status_code, 201)
    rows = [{"prompt": PROMPT, "one": one, "two": TEXTS[1]} for one in (TEXTS[0], UNSAFE)]
    studio.post(f"/api/projects/{made}/import", json=rows)
    return made, [one["id"] for one in studio.get("/api/tasks/", params={"project": made}).json()["tasks"]]


def main(address: str, token: str) -> None:
    studio = httpx.Client(base_url=address, headers={"Authorization": f"Token {token}"}, timeout=60)
    folder = Path(tempfile.mkdtemp())
    (folder / "keys.toml").write_text(f'[[key]]\nkey = "{KEY}"\ntenant = "acme"\n')
    with running(core(folder / "s.db", bounded=True), Keys.read(folder / "keys.toml")) as at:
        made, tasks = project(studio, at)
        asked = {"selectedItems": {"all": True, "excluded": []}}
        studio.post(f"/api/dm/actions?id=retrieve_tasks_predictions&project={made}", json=asked)
        found = [studio.get(f"/api/tasks/{task}").json()["predictions"] for task in tasks]
        expect("predictions", [len(one) for one in found], [1, 1])
        expect("the unsafe side is not predicted", found[1][0]["result"][0]["value"]["selected"], "right")
        result = {"type": "pairwise", "from_name": "comparison", "to_name": "answer1,answer2"}
        left, right = ([result | {"value": {"selected": side}}] for side in ("left", "right"))
        note = studio.post(f"/api/tasks/{tasks[0]}/annotations/", json={"result": left, "lead_time": 3.5}).json()
        own = httpx.Client(base_url=f"{at}/u/{note['completed_by']}", headers={"Authorization": f"Bearer {KEY}"})

        def kept() -> list[Any]:
            rows = own.get("/v1/users/me/export").json()["judgements"]
            return [(one["chosen"], one["context"]["seconds"]) for one in rows]

        until("an annotation is a judgement", kept, [(TEXTS[0], 3.5)])
        studio.patch(f"/api/annotations/{note['id']}/", json={"result": right})
        until("an update replaces it", kept, [(TEXTS[1], 3.5)])
        studio.delete(f"/api/annotations/{note['id']}/")
        until("a deletion takes it back", kept, [])
        studio.post(f"/api/tasks/{tasks[0]}/annotations/", json={"result": left, "was_cancelled": True})
        time.sleep(3)
        expect("a cancelled one is left out", kept(), [])


if __name__ == "__main__":
    main(*sys.argv[1:])
