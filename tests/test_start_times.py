"""How long a fresh process needs, in processor time, until ``polypref --help`` has answered."""

from __future__ import annotations

import subprocess
import sys

HELP = """
import time
from polypref.cli import main
assert main(["--help"]) == 0
print(time.process_time())
"""


def least_of_three(code: str) -> float:
    """Seconds that ``code`` prints in its last line."""
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    return min(float(run.splitlines()[-1]) for run in runs)


def test_help_answers_at_once():
    assert least_of_three(HELP) < 0.5
    assert least_of_three("import time\nwhile time.process_time() < 0.6: pass\nprint(time.process_time())") > 0.5
