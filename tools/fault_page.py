"""Write docs/faults.md: which tier of the check finds which fault, from the tests' own table.

python tools/fault_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the table is part of the tests

from tests.equivalence.faults import TABLE, TIERS  # noqa: E402

TEXT = """# Faults that the check finds

A check is worth what it finds. Each of these {count} faults is planted into a right conversion of a
small model; the test suite (`tests/equivalence/test_planted_faults.py`) asserts that exactly the
tiers marked here fail, and that the model passes without the fault. The nets are in
`tests/equivalence/conftest.py`.

Made by `python tools/fault_page.py`.

"""


def page() -> str:
    """The page as Markdown."""
    lines = [
        "| fault | net | " + " | ".join(TIERS.values()) + " |",
        "| --- | --- |" + " :---: |" * len(TIERS),
    ]
    for fault in TABLE:
        marks = ["✗" if tier in fault.tiers else "" for tier in TIERS]
        lines.append(f"| {fault.name} | {fault.net} | " + " | ".join(marks) + " |")
    found = [str(sum(tier in fault.tiers for fault in TABLE)) for tier in TIERS]
    lines.append("| found | | " + " | ".join(found) + " |")
    return TEXT.format(count=len(TABLE)) + "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    (ROOT / "docs" / "faults.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
