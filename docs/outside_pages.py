"""Hook of the documentation site: the pages that live outside ``docs/`` join it, and links between both sides hold."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = {  # file, relative to the root of the repository -> its place in the site
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "examples/align.toml": "examples/align.toml",
    "examples/align-smollm2.toml": "examples/align-smollm2.toml",
}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the outside pages to those of ``docs/``."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point each relative link at its target's place in the site."""
    places = {place: source for source, place in OUTSIDE.items()}
    own = page.file.src_uri
    source = places.get(own, f"docs/{own}")

    def moved(link: re.Match[str]) -> str:
        if link[2].startswith(("http://", "https://", "mailto:")):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        place = OUTSIDE.get(target, target.removeprefix("docs/"))
        return f"{link[1]}{posixpath.relpath(place, posixpath.dirname(own) or '.')}{link[3]}"

    return LINK.sub(moved, markdown)
