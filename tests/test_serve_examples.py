"""The files under docs/examples/serve name options that there are, and are what their programs read."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from polypref.cli import main

FOLDER = Path(__file__).parent.parent / "docs" / "examples" / "serve"


@pytest.mark.parametrize("name", ["polypref.service", "compose.yaml"])
def test_options_of_examples_are_options(name, capsys):
    text = (FOLDER / name).read_text()
    command = re.search(r"polypref serve ([^\n]*(?:\n {6}--[^\n]*)*)", text)
    assert command is not None
    with suppress(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    named = set(re.findall(r"--[a-z-]+", command[1] + " ".join(re.findall(r"add (--\w+)", text))))
    assert len(named) >= 5
    assert [one for one in named if not re.search(rf"{one}\b", told)] == []
    assert not re.search(r"--nonsense\b", told)


def test_compose_is_yaml_and_every_service_is_whole():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"one", "two", "database", "proxy"}
    for name in ("one", "two"):
        assert (
            set(services[name]["depends_on"]) <= set(services)
            and "polypref serve /scorer" in services[name]["command"][2]
        )
    proxied = re.findall(r"server (\w+):(\d+)", (FOLDER / "nginx.conf").read_text())
    assert proxied == [("one", "8080"), ("two", "8080")]


def test_systemd_reads_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: the unit was not verified")

    def verified(text):
        (tmp_path / "polypref.service").write_text(text)
        command = ["systemd-analyze", "verify", str(tmp_path / "polypref.service")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    unit = (FOLDER / "polypref.service").read_text().replace("/opt/polypref/bin/polypref", "/bin/true")
    found = verified(unit)
    assert (found.returncode, found.stderr) == (0, "")
    assert "Unknown key" in verified(unit.replace("KillSignal", "KillSignals")).stderr  # the control
