"""``polypref serve``: a saved scorer behind HTTP, which orders answers for the person who asks and learns from use."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from polypref.arguments import Port, Range
from polypref.cli.shared import Loads
from polypref.terminal import out, say

if TYPE_CHECKING:
    from polypref.serve.core import Core
    from polypref.serve.upstream import Upstream

Floor = Annotated[float, Range(-1_000_000, 1_000_000)]
Candidates = Annotated[int, Range(1, 64)]
Timeout = Annotated[float, Range(0, 3600, open=True)]
STOP_S = 30  # for requests in hand, when the server is stopped


@dataclass(frozen=True, kw_only=True)
class Serve(Loads):
    """Serve a scorer over HTTP: rerank clients ask, judgements are learned from at once, people can leave.

    docs/serve.md lists the routes and clients. Everything is kept in one SQLite file, or in PostgreSQL.
    """

    scorer: Annotated[Path, tyro.conf.Positional, arg(metavar="DIR")]
    """Folder written by polypref fit."""
    store: Annotated[str, arg(metavar="FILE|postgresql://...")] = "polypref.db"
    """File of judgements and answers, created if it is not there; or a PostgreSQL database, for several servers."""
    bounds: Annotated[Path | None, arg(metavar="BOUNDS.TOML", help_behavior_hint="(default: none)")] = None
    """Calibrated bounds."""
    pin: Annotated[str | None, arg(metavar="HASH", help_behavior_hint="")] = None
    """Refuse bounds with another policy hash."""
    floor: Floor = -100.0
    """Reward of a response that the bounds hold back, in trainers' routes; every other one gets 1 more, or better."""
    keys: Annotated[Path | None, arg(metavar="KEYS.TOML", help_behavior_hint="(default: anybody may ask)")] = None
    """API keys, their tenants and users."""
    questions: Annotated[Path | None, arg(metavar="FILE.JSONL", help_behavior_hint="(default: none)")] = None
    """Prompts with responses to ask people about: {"prompt": "...", "responses": ["...", "..."]} in each line."""
    encoder: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The encoder, if not the one named at fit."""
    upstream: Annotated[str | None, arg(metavar="URL", help_behavior_hint="(default: no chat completions)")] = None
    """OpenAI-compatible server that writes answers: http://host:8000/v1#model. Its key: POLYPREF_UPSTREAM_KEY."""
    candidates: Candidates = 4
    """Candidates that the upstream writes for a chat completion."""
    upstream_timeout: Timeout = 60.0
    """Seconds that the upstream may take for all of them."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """Port to listen on; 0: any that is free."""

    def run(self) -> int:
        """Load, say what is in force, answer until stopped."""
        try:
            import uvicorn

            from polypref.serve.app import app_of
        except ImportError:
            from polypref.errors import MissingExtra

            raise MissingExtra("polypref serve", "serve") from None
        from polypref.errors import SettingsError
        from polypref.serve.person import Keys
        from polypref.serve.questions import Questions, read
        from polypref.serve.start import core_of

        keys = None if self.keys is None else Keys.read(self.keys)
        questions = Questions(() if self.questions is None else read(self.questions))
        upstream = self._upstream()
        if self.pin is not None and self.bounds is None:
            raise SettingsError("--pin names the policy hash of bounds; add --bounds BOUNDS.TOML.")
        listening = self._listening()
        core = core_of(
            self.scorer,
            self.store,
            bounds=self.bounds,
            pin=self.pin,
            floor=self.floor,
            encoder=self.encoder,
            allow_network=self.allow_network,
        )
        try:
            questions.prepare(core)
            self._tell(core, listening, upstream)
            app = app_of(core, keys, questions=questions, upstream=upstream)
            config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_S)
            for stops in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends what is in hand, then raises them again
                signal.signal(stops, lambda *_: None)
            uvicorn.Server(config).run(sockets=[listening])
            out("stopped")
        finally:
            core.store.close()
        return 0

    def _listening(self) -> socket.socket:
        """The socket. Raises SettingsError where the address cannot be had."""
        from polypref.errors import SettingsError

        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((self.host, self.port))
            found.listen(2048)
        except (OSError, OverflowError) as error:
            found.close()
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise SettingsError(f"cannot listen on {self.host} port {self.port}: {why}. Give another --port.") from None
        return found

    def _upstream(self) -> Upstream | None:
        from polypref.serve.upstream import Upstream

        if self.upstream is None:
            return None
        return Upstream(self.upstream, self.candidates, self.upstream_timeout)

    def _tell(self, core: Core, listening: socket.socket, upstream: Upstream | None) -> None:
        from polypref.serve.open_store import shown
        from polypref.serve.store import Person

        address, port = listening.getsockname()[:2]
        address = f"[{address}]" if ":" in address else address
        out(f"scorer {self.scorer} ({core.scorer_hash[:16]}), judgements in {shown(self.store)}")
        if core.bounded is None:
            say("nothing bounds the answers: add --bounds BOUNDS.TOML (docs/safety.md)")
        else:
            out(f"within {self.bounds}, policy {core.bounded.policy_hash[:16]}")
        if upstream is not None:
            many = min(self.candidates, core.most_candidates(Person("", None)))
            out(f"chat completions are the best of {many} candidates from {upstream.address}")
            if many < self.candidates:
                say(f"the bounds allow {many} candidates; --candidates {self.candidates} is lowered to that")
        if not core.people.learns:
            say("this scorer cannot learn from use: judgements are kept, and answers stay as they were fitted")
        if self.keys is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            say("anybody who can reach this address may ask and judge for anybody: add --keys KEYS.TOML")
        out(f"listening on http://{address}:{port}")
