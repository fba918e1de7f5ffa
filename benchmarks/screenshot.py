"""A picture of a report, as a reader sees it: python benchmarks/screenshot.py out/report.html docs/report.png

Needs Chromium and ``pip install playwright``; --dark, --width 360 and --full show it dark, on a phone, and whole.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


def shoot(report: Path, picture: Path, width: int, height: int, scheme: str, full: bool, scale: float) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            device_scale_factor=scale,
        )
        page.goto(report.resolve().as_uri())
        page.screenshot(path=picture, full_page=full)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=1640)
    parser.add_argument("--scale", type=float, default=1.5)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--full", action="store_true")
    a = parser.parse_args()
    shoot(a.report, a.picture, a.width, a.height, "dark" if a.dark else "light", a.full, a.scale)


if __name__ == "__main__":
    main()
