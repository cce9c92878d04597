"""Run the tests with the oldest dependencies that pyproject.toml allows, and with the newest.

    python tools/lanes.py oldest                 # `newest`, or nothing for both
    python tools/lanes.py oldest --pytest tests/views

Each lane is a fresh virtual environment of this Python. `oldest` takes the least version of each
dependency that has one (``onnx>=1.19`` is ``onnx==1.19``); what the tests are written with, and
what the dependencies need themselves, is the newest that fits. Nothing is compiled: under a Python
that is newer than the oldest versions, which have no wheels for it, `oldest` says so and fails.
Prints the versions that were installed, then pytest's summary; the exit code is 1 if a lane failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANES = ("oldest", "newest")
OWN = re.compile(r"onnx-fc2conv\[(.*)\]")
LINTERS = ("ruff", "mypy", "basedpyright")


def requirements(lane: str) -> list[str]:
    """What pip is to install beside the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    own = next(found for found in map(OWN.match, extras["test"]) if found)
    wanted = [*project["dependencies"], *(r for name in own[1].split(",") for r in extras[name])]
    if lane == "oldest":
        wanted = [_oldest(requirement) for requirement in _tightest(wanted)]
    tests = [r for r in extras["test"] if not OWN.match(r) and not r.startswith(LINTERS)]
    return [*wanted, *tests]


def _tightest(wanted: Sequence[str]) -> list[str]:
    """One requirement a package (and environment marker): the one of the highest version."""
    found: dict[tuple[str, str], str] = {}
    for requirement in wanted:
        specifier, _, marker = requirement.partition(";")
        key = re.split(r"[>=<\[]", specifier)[0], marker
        found[key] = max(found.get(key, requirement), requirement, key=_version)
    return list(found.values())


def _version(requirement: str) -> tuple[int, ...]:
    specifier = requirement.partition(";")[0]
    return tuple(map(int, re.findall(r"\d+", specifier.partition(">=")[2])))


def _oldest(requirement: str) -> str:
    specifier, semicolon, marker = requirement.partition(";")
    return specifier.replace(">=", "==") + semicolon + marker


def run(lane: str, arguments: Sequence[str]) -> int:
    """Make the environment, and run the tests in it; pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix=f"lane-{lane}-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "Scripts" if os.name == "nt" else "bin", "python"))
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        install = [*pip, "install", "-q", "--only-binary=:all:"]
        wanted = requirements(lane)
        print(f"== {lane}: {', '.join(wanted)}", flush=True)
        upgrade = ["--upgrade"] if lane == "newest" else []
        if subprocess.run([*install, *upgrade, *wanted], check=False).returncode:
            here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
            print(f"== {lane}: not run: pip finds no such wheels for {here}, as it says above")
            return 1
        subprocess.run([*pip, "install", "-q", "--no-deps", "-e", str(ROOT)], check=True)
        subprocess.run([*pip, "freeze", "--exclude-editable"], check=True)
        return subprocess.run(
            [python, "-m", "pytest", "-q", *arguments], cwd=ROOT, check=False
        ).returncode


def main() -> int:
    """Run the lanes asked for; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lanes", nargs="*", metavar="LANE", help="oldest, newest; default both")
    parser.add_argument("--pytest", default="-n 2", help="arguments of pytest; default '-n 2'")
    options = parser.parse_args()
    for lane in options.lanes:
        if lane not in LANES:
            parser.error(f"no lane {lane}: {', '.join(LANES)}")
    codes = [run(lane, options.pytest.split()) for lane in options.lanes or LANES]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
