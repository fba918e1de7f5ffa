"""A picture of the page after a few answers: python benchmarks/serve/screenshot.py docs/serve.png

Starts ``polypref serve --demo`` and answers by keyboard. Needs Chromium and ``pip install playwright``; --dark and
--width 360 show it dark and on a phone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
READY = "#choose-0:not([aria-disabled])"


def shoot(address: str, picture: Path, width: int, scheme: str, keys: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            device_scale_factor=1.5,
        )
        page.goto(f"{address}/u/ann/")
        for key in keys:
            page.wait_for_selector(READY)
            page.keyboard.press(key)
            page.wait_for_selector("[aria-busy=false]")
        page.wait_for_selector(READY)
        page.wait_for_timeout(600)
        page.screenshot(path=picture, full_page=True)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--keys", default="122", help="the answers")
    a = parser.parse_args()
    command = [sys.executable, "-m", "polypref", "serve", "--demo", "--port", "0", "--log", os.devnull]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = next(line.split()[-1] for line in server.stdout if line.startswith("listening on "))
        try:
            shoot(address, a.picture, a.width, "dark" if a.dark else "light", a.keys)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
