"""Files that ask for more than a machine has: python benchmarks/reliability/hostile_input.py [SCALE [NAME ...]]

Each is made anew in a temporary folder and given to ``polypref check`` (or the command that reads such a file) in a
process of its own, whose address space is bounded. Printed for each: exit code, seconds, peak memory, and the line. All
have to end with exit code 2 and one line within 10 seconds and 1 GiB. On a machine that does other work too, read the
seconds of computing, which are those of all threads together.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

GIB = 1 << 30
SECONDS = 10
DEEP = 100_000
HEAD = b"user_id,prompt,chosen,rejected\n"
ROW = b'{"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}\n'
CHILD = """
import resource, sys
from polypref.cli import main
size = int(next(l for l in open("/proc/self/statm")).split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 30),) * 2)
code = main(sys.argv[1:])
print("peak", next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def gz(path: Path, pieces: Iterator[bytes]) -> None:
    """Each piece as a member of its own, equal ones compressed once: gigabytes are written in seconds."""
    last, member = None, b""
    with path.open("wb") as out:
        for piece in pieces:
            if piece is not last:
                last, member = piece, gzip.compress(piece, 9)
            out.write(member)


def zst(path: Path, pieces: Iterator[bytes], window_log: int = 0) -> None:
    import zstandard

    made = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=bool(window_log))
    with path.open("wb") as raw, zstandard.ZstdCompressor(compression_params=made).stream_writer(raw) as out:
        for piece in pieces:
            out.write(piece)


def repeated(piece: bytes, total: int, first: bytes = b"") -> Iterator[bytes]:
    """``first``, then ``piece`` over and over, in blocks of some MiB, ``total`` bytes in all."""
    block = piece * max(1, (8 << 20) // len(piece))
    yield first
    for _ in range(total // len(block)):
        yield block


def keys_of_their_own(users: int, each: int) -> bytes:
    rows = []
    for n in range(users):
        facts = {f"key {n} {k}": "x" for k in range(each)}
        rows.append(json.dumps(json.loads(ROW) | {"user_id": f"u{n}", "attributes": facts}))
    return "\n".join(rows).encode()


def sparse_facts(users: int, keys: int) -> bytes:
    facts = [{"user_id": f"u{n}", "attributes": {f"key {n % keys}": "x"}} for n in range(users)]
    return "\n".join(json.dumps(json.loads(ROW) | fact) for fact in facts).encode()


def nested(levels: int, role: str = "note") -> bytes:
    return ROW[:-2] + b', "%s": ' % role.encode() + b"[" * levels + b"]" * levels + b"}\n"


def cases(scale: float = 1.0) -> dict[str, tuple[Callable[[Path], object], list[str]]]:
    """File name -> what writes it, and the command's words before the file's path. ``scale`` 1 is full size."""
    big, line = int(scale * 10 * GIB), int(max(scale, 0.1) * 200 * (1 << 20))
    many = max(int(scale * 300_000), 3000)
    chat = b'[{"role": "user", "content": ' + b"[" * DEEP + b"]" * DEEP + b"}]"
    contents = {
        "long line.jsonl": ROW[:-3] + b"x" * line + b'"}\n',
        "long line.csv": HEAD + b"u,p,x," + b"y" * line + b"\n",
        "lists in a line.jsonl": ROW[:-2] + b', "n": [' + b"[]," * 6_000_000 + b"1]}\n",
        "keys in a line.jsonl": json.dumps({f"k{n}": 1 for n in range(many * 3)}).encode(),
        "columns.csv": b",".join(b"c%d" % n for n in range(many)) + b"\n",
        "keys of their own.jsonl": keys_of_their_own(many // 3, 3),
        "sparse facts.jsonl": sparse_facts(many, 900),
        "nested.jsonl": nested(DEEP),
        "nested attributes.jsonl": nested(DEEP, "attributes"),
        "nested chat.csv": HEAD + b'u,p,"' + chat.replace(b'"', b'""') + b'",y\n',
    }
    streams = {
        "zeros.jsonl": (bytes(1024), b""),
        "zeros behind rows.jsonl": (bytes(1024), ROW * 2000),
        "zeros.csv": (bytes(1024), HEAD),
        "line ends.jsonl": (b"\n", ROW),
        "line ends.csv": (b"\n", HEAD + b"u,p,x,y\n"),
        "empty objects.jsonl": (b"{}\n", ROW),
        "no JSON.jsonl": (b"x\n", ROW),
        "one good row in 500.jsonl": (b"{}\n" * 500 + ROW, ROW),
        "nothing to compare.jsonl": (b'{"user_id": "u"}\n', ROW),
        "nobody.jsonl": (ROW.replace(b'"u"', b'""'), ROW),
        "long rubbish.jsonl": (b'{"n": "%b"}\n' % (b"x" * 8000), ROW),
        "late keys.jsonl": (b'{"n": {"tie": 1}}\n', ROW),
        "no columns.jsonl": (b'{"n": 1}\n', b""),
        "rows far apart.jsonl": (b"\n" * (1 << 20) + ROW, ROW),
        "rows far apart.csv": (b",,,\n" * (1 << 18) + b"u,p,x,y\n", HEAD),
        "separators.csv": (b",,,\n", HEAD + b"u,p,x,y\n"),
        "wrong fields.csv": (b"a\n", HEAD + b"u,p,x,y\n"),
        "stray quote.csv": (b"a\n", HEAD + b'u,p,5" pipe,y\n'),
        "open quote.csv": (b"a\n", HEAD + b'u,p,"x'),
    }
    made: dict[str, tuple[Callable[[Path], object], list[str]]] = {}
    for name, content in contents.items():
        made[name] = (partial(Path.write_bytes, data=content), ["check"])
    for name, (piece, first) in streams.items():
        for ending, compress in ((".gz", gz), (".zst", zst)):
            made[name + ending] = (lambda p, c=compress, x=piece, f=first: c(p, repeated(x, big, f)), ["check"])
    made["window.jsonl.zst"] = (lambda p: zst(p, repeated(ROW, max(big // 32, 1 << 28)), 28), ["check"])
    made["published.json.gz"] = (lambda p: gz(p, repeated(bytes(1024), big)), ["convert", "arena", "--out", "x.jsonl"])
    made["settings.toml"] = (lambda p: p.write_bytes(b"a = [" + b"[" * line), ["check", "x.jsonl", "--config"])
    return made


def run(words: list[str]) -> tuple[int, float, float, int, str]:
    """Exit code, seconds, those of a processor, peak MiB and what was said on the error stream."""
    start, used = time.perf_counter(), processor_seconds()
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    peak = next((int(line.split()[1]) >> 10 for line in lines if line.startswith("peak ")), -1)
    said = [line for line in lines if not line.startswith("peak ")]
    return done.returncode, time.perf_counter() - start, processor_seconds() - used, peak, "\n".join(said)


def processor_seconds() -> float:
    """Seconds that processes which ended so far have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Make, read and remove one file after the other."""
    failed = 0
    scale = float(sys.argv[1]) if sys.argv[1:] else 1.0
    for name, (make, words) in cases(scale).items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory(prefix="polypref-hostile-") as folder:
            path = Path(folder) / name
            make(path)
            size = path.stat().st_size
            code, seconds, used, peak, said = run([*words, str(path)])
        good = code == 2 and said.count("\n") == 0 and seconds < SECONDS and 0 <= peak < 1024
        failed += not good
        figures = f"{size >> 10:>8} KiB  exit {code}  {seconds:5.1f} s ({used:4.1f} computing)  {peak:>5} MiB"
        print(f"{'ok ' if good else 'BAD'} {name:28} {figures}  {said[-300:]}", flush=True)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{failed} failed; making the files took {own} MiB")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
