"""Write the tables of tiers in README.md and docs/check.md, from the check's own table.

python tools/tier_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path

from onnx_fc2conv.equivalence.tiers.table import TIERS

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": ("| tier | what is compared |", "| --- | --- |"),
    "docs/check.md": ("| tier | what is compared | how close |", "| --- | --- | --- |"),
}
"""The pages, each with the head of its table."""

_TABLE = re.compile(r"(?<=<!-- tiers -->\n\n).*?(?=\n\n<!-- end of tiers -->)", re.DOTALL)


def with_table(page: str) -> str:
    """The text of a page with the table as it is now."""
    head = PAGES[page]
    closeness = head[0].endswith("how close |")
    rows = [
        f"| *{tier.name}* | {tier.compares} |" + (f" {tier.closeness} |" if closeness else "")
        for tier in TIERS
    ]
    text = (ROOT / page).read_text(encoding="utf-8")
    table = "\n".join([*head, *rows])
    return _TABLE.sub(lambda _: table, text)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        (ROOT / page).write_text(with_table(page), encoding="utf-8")


if __name__ == "__main__":
    main()
