"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached by a socket in it and by nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg
import pytest

NOBODY = 65534  # PostgreSQL refuses to run as root
PLACES = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ.get("PATH", "")]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # many databases are made there


class Cluster:
    """A running server; ``restart`` and ``stop`` as its operator would."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=MEMORY))  # a socket's path has to be short
        self._numbers = count()
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._run("initdb", "-A", "trust", "-U", "polypref", "-E", "UTF8", "--locale=C", "--no-sync")
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nlog_min_messages = warning\n"
            )
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-t", "30", "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def database(self, *more: str) -> str:
        """The address of a new, empty database."""
        name = f"d{next(self._numbers)}"
        with self.connect() as to:
            to.execute(f"CREATE DATABASE {name} {' '.join(more)}")  # type: ignore[arg-type]
        return self.address(name)

    def address(self, database: str, user: str = "polypref") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def connect(self, address: str | None = None) -> psycopg.Connection:
        return psycopg.connect(address or self.address("postgres"), autocommit=True)

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        found = shutil.which(program, path=os.pathsep.join(PLACES))
        assert found is not None
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "said").open("wb+") as out:  # no pipe: the server would keep it open
            command = [found, "-D", str(self.folder / "data"), *arguments]
            done = subprocess.run(command, cwd=self.folder, stdout=out, stderr=out, check=False, **who)  # type: ignore
            out.seek(0)
            assert not done.returncode, out.read().decode()


def cluster() -> Cluster:
    """A new one, or the test is skipped where PostgreSQL is not installed."""
    if shutil.which("initdb", path=os.pathsep.join(PLACES)) is None:
        pytest.skip("PostgreSQL is not installed: initdb was not found")
    return Cluster()
