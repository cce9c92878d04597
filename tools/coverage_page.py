r"""Write docs/coverage.md: what became of thousands of models, from the results of sweeps.

    python tools/export_classics.py --out build/classics               # these two need torch
    python tools/export_heads.py --out build/torch_heads
    python tools/make_heads.py build/heads
    python tools/sweep.py models ../shared/models build/classics build/torch_heads build/heads \
        --backend-tests --timeout 400 --json build/dense.json
    python tools/coverage_page.py build/dense.json --output docs/coverage.md

Each --json file of ``tools/sweep.py`` becomes a section of its own, named as its file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Results = list[dict[str, Any]]

OUTCOMES = ("proven", "refused", "failed", "untested", "invalid", "CRASHED", "timeout")
PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy")
NODES_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the sweeps, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP.json")
    parser.add_argument("--output", type=Path, required=True, metavar="PAGE.md")
    options = parser.parse_args(arguments)
    sweeps = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in options.sweeps}
    options.output.write_text("\n".join(page(sweeps)) + "\n", encoding="utf-8")
    return 0


def page(sweeps: dict[str, Results]) -> Iterator[str]:
    """The lines of the page."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield from (
        "# Coverage",
        "",
        "What became of each model that `tools/sweep.py` found: *proven* means converted and equal",
        "in each tier of the check, *refused* that nothing was written, with a reason by name.",
        "",
        f"Written on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} with {versions}, by:",
        "",
    )
    yield from (line for line in (__doc__ or "").splitlines() if line.startswith("    "))
    for name, results in sweeps.items():
        yield from ("", f"## {name.capitalize()}", "", *by_group(results))
        yield from ("", "### Refused", "", *by_code(results))
        yield from unproven(results)


def by_group(results: Results) -> Iterator[str]:
    """A row for each folder or kind of backend test, a column for each outcome that occurs."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result["group"]][result["outcome"]] += 1
        counts["**all**"][result["outcome"]] += 1
    counts["**all**"] = counts.pop("**all**")  # last
    columns = [name for name in OUTCOMES if counts["**all**"][name]]
    yield row("models of", *columns, "sum")
    yield row("---", *("---:" for _ in columns), "---:")
    for group, found in counts.items():
        yield row(group, *(found[name] or "" for name in columns), found.total())


def by_code(results: Results) -> Iterator[str]:
    """A row for each code: how often it came first, and at which operators."""
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if result["outcome"] == "refused":
            operators[result["code"]][result["detail"].split()[0].rstrip(":")] += 1
    yield row("code", "models", "refused at")
    yield row("---", "---:", "---")
    for code, found in sorted(operators.items(), key=lambda pair: -pair[1].total()):
        shown = [f"{name} ({count})" for name, count in found.most_common(NODES_SHOWN)]
        more = [f"{len(found) - NODES_SHOWN} others"] if len(found) > NODES_SHOWN else []
        yield row(f"[`{code}`](refusals.md)", found.total(), ", ".join(shown + more))


def unproven(results: Results) -> Iterator[str]:
    """What was neither proven nor refused, by name."""
    others = [result for result in results if result["outcome"] not in ("proven", "refused")]
    if not others:
        return
    yield from ("", "### Neither proven nor refused", "", row("model", "outcome", "why"))
    yield row("---", "---", "---")
    for result in others:
        name = Path(result["name"]).stem
        why = result["detail"].replace("|", "\\|")
        yield row(f"`{name}`", result["outcome"], why.split(";")[0])


def row(*cells: Any) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
