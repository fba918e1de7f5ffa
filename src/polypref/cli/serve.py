"""``polypref serve``: a saved scorer behind HTTP, which orders answers for the person who asks and learns from use."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from polypref.arguments import Numbers, Port, Range
from polypref.cli.shared import Loads
from polypref.files import temporary
from polypref.terminal import out, say

if TYPE_CHECKING:
    from polypref.serve.core import Core
    from polypref.serve.dialects.upstream import Upstream
    from polypref.serve.placing import Placing
    from polypref.serve.questions import Questions

STORE = "polypref.db"
STORE_HINT = f"(default: {STORE}; with --demo a temporary file)"
Floor = Annotated[float, Range(-1_000_000, 1_000_000)]
Candidates = Annotated[int, Range(1, 64)]
Timeout = Annotated[float, Range(0, 3600, open=True)]


@dataclass(frozen=True, kw_only=True)
class Serve(Loads):
    """Serve a scorer over HTTP: rerank clients ask, judgements are learned from at once, people can leave.

    docs/serve.md shows the start and the routes. Everything is kept in one SQLite file, or in PostgreSQL.
    """

    scorer: Annotated[Path | None, tyro.conf.Positional, arg(metavar="DIR", help_behavior_hint="(needed)")] = None
    """Folder written by polypref fit."""
    demo: bool = False
    """Serve a simulated world with its own scorer, questions and bounds, to try the page; no files are needed."""
    store: Annotated[str | None, arg(metavar="FILE|postgresql://...", help_behavior_hint=STORE_HINT)] = None
    """File of judgements and answers, created if it is not there; or a PostgreSQL database, for several servers."""
    bounds: Annotated[Path | None, arg(metavar="BOUNDS.TOML", help_behavior_hint="(default: none)")] = None
    """Calibrated bounds."""
    pin: Annotated[str | None, arg(metavar="HASH", help_behavior_hint="")] = None
    """Refuse bounds with another policy hash."""
    floor: Floor = -100.0
    """Reward of a response that the bounds hold back, in trainers' routes; every other one gets 1 more, or better."""
    keys: Annotated[Path | None, arg(metavar="KEYS.TOML", help_behavior_hint="(default: anybody may ask)")] = None
    """API keys and issuers of tokens, with their tenants and users; more keys in POLYPREF_KEYS."""
    questions: Annotated[Path | None, arg(metavar="FILE.JSONL", help_behavior_hint="(default: none)")] = None
    """Prompts with responses to ask people about: {"prompt": "...", "responses": ["...", "..."]} in each line."""
    groups: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Folder written by polypref groups: tells people which group they judge like."""
    encoder: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The encoder, if not the one named at fit."""
    scorers: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: STORE.scorers)")] = None
    """Folder of the scorers that were in force, shared by all servers of a store in PostgreSQL."""
    upstream: Annotated[str | None, arg(metavar="URL|MODEL", help_behavior_hint="(default: no chat completions)")] = (
        None
    )
    """What writes answers: an OpenAI-compatible server, http://host:8000/v1#model, whose key is in
    POLYPREF_UPSTREAM_KEY; or a language model in this process: smollm2, or a folder."""
    candidates: Candidates = 4
    """Candidates that the upstream writes for a chat completion."""
    upstream_timeout: Timeout = 60.0
    """Seconds that the upstream may take for all of them."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """Port to listen on; 0: any that is free."""
    encrypt: bool = False
    """Make a new store encrypted, with a key for each person; the master key is in POLYPREF_MASTER_KEY."""
    workers: Numbers = 1
    """Processes that answer, each with its own copy of the scorer."""
    log: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: standard error)")] = None
    """One JSON line per request, without texts, keys and ids."""
    request_limits: Annotated[
        tuple[str, ...], arg(metavar="NAME=N ...", help_behavior_hint="(default: as in docs/serve-operations.md)")
    ] = ()
    """Limits: body, url, headers, read_seconds, concurrent, person_rate, tenant_rate."""

    def run(self) -> int:
        """Load, say what is in force, answer until stopped."""
        from polypref.errors import MissingExtra

        try:
            from polypref.serve.running.workers import supervised
        except ImportError:
            raise MissingExtra("polypref serve", "serve") from None
        self._refuse()
        listening = self._listening()
        with temporary() if self._passing else nullcontext() as folder:
            store = self.store or STORE if folder is None else str(folder / "demo.db")
            work, where = partial(self._answer, store, secrets.token_bytes(32)), self._where(listening)
            if self.workers == 1:
                work(listening, True, lambda: out(where))
            else:
                supervised(work, listening, self.workers, where)
        out("stopped")
        return 0

    @property
    def _passing(self) -> bool:
        """Whether judgements are only kept until the server stops."""
        return self.demo and self.store is None

    def _refuse(self) -> None:
        """Raises SettingsError for settings that do not go together."""
        from polypref.errors import SettingsError

        if self.demo:
            for name in ("scorer", "bounds", "pin", "questions", "groups", "encoder", "scorers"):
                if getattr(self, name) is not None:
                    shown = "the scorer" if name == "scorer" else f"--{name}"
                    raise SettingsError(f"--demo brings its own scorer, bounds and questions; leave out {shown}.")
        elif self.scorer is None:
            raise SettingsError("serve needs a scorer: polypref serve DIR, as polypref fit writes it; or --demo.")
        elif self.pin is not None and self.bounds is None:
            raise SettingsError("--pin names the policy hash of bounds; add --bounds BOUNDS.TOML.")

    def _answer(
        self, store: str, log_key: bytes, listening: socket.socket, tells: bool, ready: Callable[[], None]
    ) -> None:
        """One process: answers until it is stopped."""
        from polypref.serve.app import app_of
        from polypref.serve.running.limits import parse_limits
        from polypref.serve.running.log import Log
        from polypref.serve.running.server import server_of
        from polypref.serve.who.person import Keys

        keys = Keys.found(self.keys)
        upstream, limits, log = self._upstream(), parse_limits(self.request_limits), Log(self.log, log_key)
        core, questions = self._loaded(store)
        try:
            questions.prepare(core)
            placing = self._placing(core, tells)
            if tells:
                self._tell(core, upstream, keys is None)
            app = app_of(core, keys, questions=questions, upstream=upstream, limits=limits, log=log, placing=placing)
            server_of(app, limits.read_seconds, ready).run(sockets=[listening])
        finally:
            core.store.close()
            log.close()

    def _placing(self, core: Core, tells: bool) -> Placing | None:
        """What tells people their group; says what the groups are."""
        from polypref.serve.placing import Placing, loaded

        if self.groups is None:
            return None
        grouping = loaded(self.groups, core.people.scorer, self.allow_network)
        if tells:
            out(f"groups {self.groups}: {grouping.finding()}")
        return Placing(grouping, core.store)

    def _loaded(self, store: str) -> tuple[Core, Questions]:
        """The scorer in use, and what people are asked."""
        from polypref.serve.questions import Questions, read
        from polypref.serve.start import Within, core_of

        if self.demo:
            from polypref.serve.demo import demo

            core, given = demo(store, self.floor, self.encrypt)
            return core, Questions(given)
        assert self.scorer is not None
        questions = Questions(() if self.questions is None else read(self.questions))
        core = core_of(
            self.scorer,
            store,
            within=Within(self.bounds, self.pin, self.floor),
            encoder=self.encoder,
            scorers_at=self.scorers,
            encrypt=self.encrypt,
            allow_network=self.allow_network,
        )
        return core, questions

    def _listening(self) -> socket.socket:
        """The socket. Raises SettingsError where the address cannot be had."""
        from polypref.errors import SettingsError

        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # only from a socket that says it is TCP does asyncio send at once (TCP_NODELAY); others lose 40 ms an answer
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
        from polypref.serve.dialects.upstreams import upstream_of

        if self.upstream is None:
            return None
        return upstream_of(self.upstream, self.candidates, self.upstream_timeout)

    def _where(self, listening: socket.socket) -> str:
        address, port = listening.getsockname()[:2]
        return f"listening on http://{f'[{address}]' if ':' in address else address}:{port}"

    def _named(self, now: str) -> str:
        """The scorer in force; says where it is not the one that was given."""
        from polypref.artifact import digest_of
        from polypref.scorers import KIND

        if self.scorer is None:
            return f"of the demo ({now[:16]})"
        given = digest_of(self.scorer, KIND)
        if given == now:
            return f"{self.scorer} ({now[:16]})"
        say(f"it took the place of {self.scorer} ({given[:16]}): polypref refit --history")
        return now[:16]

    def _tell(self, core: Core, upstream: Upstream | None, anybody: bool) -> None:
        from polypref.serve.store.contract import Person
        from polypref.serve.store.opened import shown

        kept = "kept until the server stops" if self._passing else f"in {shown(self.store or STORE)}"
        out(f"scorer {self._named(core.scorer_hash)}, judgements {kept}")
        if core.follower is None and not self.demo:
            say("another scorer needs a restart: add --scorers DIR, a folder that all servers of the store share")
        if core.bounded is None:
            say("nothing bounds the answers: add --bounds BOUNDS.TOML (docs/safety.md)")
        else:
            within = "bounds that only know the demo's own unsafe sentences" if self.demo else self.bounds
            out(f"within {within}, policy {core.bounded.policy_hash[:16]}")
        if upstream is not None:
            many = min(self.candidates, core.most_candidates(Person("", None)))
            out(f"chat completions are the best of {many} candidates from {upstream.shown}")
            if many < self.candidates:
                say(f"the bounds allow {many} candidates; --candidates {self.candidates} is lowered to that")
        if not core.people.learns:
            say("this scorer cannot learn from use: judgements are kept, and answers stay as they were fitted")
        if anybody and self.host not in ("127.0.0.1", "::1", "localhost"):
            say("anybody who can reach this address may ask and judge for anybody: add --keys KEYS.TOML")
