"""The report of a conversion and its check, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from onnx_fc2conv.pipeline import Conversion, Interface, OpsetUpgrade

if TYPE_CHECKING:
    from onnx_fc2conv.equivalence.reporting.junit import TestCase
    from onnx_fc2conv.equivalence.reporting.report import EquivalenceReport

__all__ = ["ConversionReport", "Status", "times", "upgrade_line"]

Status = Literal["equivalent", "different", "refused", "unchecked"]


@dataclass(frozen=True)
class ConversionReport:
    """One run of ``fc2conv``.

    Attributes:
        source: The file that was converted.
        target: The file that was written or would have been; None if none was asked for.
        conversion: The planned conversion.
        equivalence: The result of the check; None if there was none.
    """

    source: str
    target: str | None
    conversion: Conversion
    equivalence: EquivalenceReport | None = None

    @property
    def status(self) -> Status:
        """The outcome in one word."""
        if self.conversion.refusals:
            return "refused"
        if self.equivalence is None:
            return "unchecked"
        return "equivalent" if self.equivalence else "different"

    def as_dict(self) -> dict[str, object]:
        """The report as plain values; the keys are documented in ``docs/report.md``."""
        conversion = self.conversion
        checked = self.equivalence
        checks = {"checks": []} if checked is None else checked.check_values()
        return {
            "schema": 1,
            "status": self.status,
            "input": self.source,
            "output": self.target,
            "heads": [_plain(asdict(layer)) for layer in conversion.heads],
            "poolings": [_plain(asdict(pooling)) for pooling in conversion.poolings],
            "lifted": _upgrade(conversion.lifted),
            "left_alone": [asdict(layer) for layer in conversion.left_alone],
            "refusals": [asdict(refusal) for refusal in conversion.refusals],
            "geometry": {name: g.as_dict() for name, g in conversion.geometry.items()},
            "interface": {
                "before": _interface(conversion.before),
                "after": _interface(conversion.after),
            },
            **checks,
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The report as Markdown, for a pull request or a CI summary."""
        lines = [f"## fc2conv: {self.source}", "", f"**{self.status}**", ""]
        if self.conversion.lifted is not None:
            lines += [f"- {upgrade_line(self.conversion.lifted)}", ""]
        if self.conversion.heads:
            lines += ["| layer | weight | kernel | bytes |", "| --- | --- | --- | --- |"]
            lines += [
                f"| {h.op_type} `{h.node}` | {times(h.weight_shape)} | "
                f"{f'{h.parts} of at most ' if h.parts > 1 else ''}{times(h.kernel_shape)} | "
                f"{h.bytes_kept} |"
                for h in self.conversion.heads
            ]
            lines.append("")
        lines += [
            f"- {p.op_type} `{p.node}` → {p.pooling} {times(p.kernel)}"
            for p in self.conversion.poolings
        ]
        for name, g in self.conversion.geometry.items():
            lines.append(
                f"- `{name}`: window {times(g.window)}, stride {times(g.stride)}, {g.verdict}: "
                f"{g.why}"
            )
        lines += [f"- left alone: `{x.node}`: {x.reason}" for x in self.conversion.left_alone]
        lines += [f"- refused: {refusal}" for refusal in self.conversion.refusals]
        if self.equivalence is not None:
            lines += ["", self.equivalence.to_table().rstrip()]
        return "\n".join(lines) + "\n"

    def to_junit(self) -> str:
        """The report as JUnit XML: the layers, and a suite of checks for each provider."""
        from onnx_fc2conv.equivalence.reporting.junit import Suite, junit_xml  # noqa: PLC0415 - lazy

        suites = [Suite("fc2conv", self._cases())]
        if self.equivalence is not None:
            suites += self.equivalence.junit_suites()
        return junit_xml(f"fc2conv {self.source}", suites)

    def _cases(self) -> tuple[TestCase, ...]:
        """A case for each layer; one that refuses or is left alone says why."""
        from onnx_fc2conv.equivalence.reporting.junit import TestCase  # noqa: PLC0415 - lazy

        return (
            *(
                TestCase(
                    "convert",
                    f"{head.op_type} {head.node}",
                    output=f"Conv {times(head.kernel_shape)}",
                )
                for head in self.conversion.heads
            ),
            *(
                TestCase("convert", left.node, skipped=left.reason)
                for left in self.conversion.left_alone
            ),
            *(
                TestCase("convert", refusal.node, failure=f"{refusal.reason} [{refusal.code}]")
                for refusal in self.conversion.refusals
            ),
        )


def times(shape: tuple[int | str, ...]) -> str:
    """A shape as people write it: 48×24×6×6."""
    return "×".join(map(str, shape)) or "scalar"


def upgrade_line(upgrade: OpsetUpgrade) -> str:
    """The upgrade of the opset, in one line."""
    return (
        f"upgraded from opset {upgrade.before} to {upgrade.after}: the model is written in the "
        f"operators of opset {upgrade.after}"
    )


def _upgrade(upgrade: OpsetUpgrade | None) -> object:
    return None if upgrade is None else {"from": upgrade.before, "to": upgrade.after}


def _interface(interface: Interface | None) -> object:
    if interface is None:
        return None
    return {
        "inputs": {name: list(shape) for name, shape in interface.inputs.items()},
        "outputs": {name: list(shape) for name, shape in interface.outputs.items()},
    }


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
