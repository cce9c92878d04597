"""--detector: the step of convert between converting and writing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx_fc2conv.cli.box_options import BoxOptions, parse_thresholds
from onnx_fc2conv.errors import ArgumentError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from onnx_fc2conv.equivalence import EquivalenceReport
    from onnx_fc2conv.pipeline import Conversion
    from onnx_fc2conv.scanning.model import ScanModel

__all__ = ["DetectorStep", "detector_step"]


def detector_step(
    options: BoxOptions, *, wanted: bool, static: bool, reduced: bool
) -> DetectorStep | None:
    """Return the step, None without --detector.

    Raises:
        ArgumentError: If options do not go together.
    """
    if not wanted:
        if options != BoxOptions():
            raise ArgumentError("options that say which windows become boxes need --detector")
        return None
    if static:
        raise ArgumentError("static mode has one window only: leave out --detector")
    if reduced:
        raise ArgumentError("--detector reads a map, of which --reduce leaves one vector")
    return DetectorStep(options)


class DetectorStep:
    """Appends a detector to a converted model, and checks it."""

    def __init__(self, options: BoxOptions) -> None:
        from onnx_fc2conv.scanning import Settings  # noqa: PLC0415 - lazy: --help must be quick

        self._settings = Settings(
            classes=tuple(options.classes) if options.classes else None,
            background=tuple(options.background or ()),
            threshold=parse_thresholds(options.threshold),
            iou=options.iou,
            agnostic=options.agnostic,
        )
        self._output = options.output
        self._scanning: ScanModel | None = None

    def planned(self, conversion: Conversion) -> Conversion:
        """Return the plan, with a refusal if it gives no map of windows."""
        from onnx_fc2conv.scanning.model import choose_map  # noqa: PLC0415

        if conversion.refusals:
            return conversion
        try:
            choose_map(conversion.geometry, self._output)
        except RefusedError as error:
            return replace(conversion, model=None, after=None, refusals=error.refusals)
        return conversion

    def appended(self, converted: ir.Model) -> ir.Model:
        """Return the detector: a copy of the converted model with the steps of scan."""
        from onnx_fc2conv.detection import append_detector  # noqa: PLC0415
        from onnx_fc2conv.scanning.model import scan_model  # noqa: PLC0415

        self._scanning = scan_model(converted, output=self._output)
        return append_detector(self._scanning, self._settings)

    def checked(self, report: EquivalenceReport, written: Path, seed: int) -> EquivalenceReport:
        """Add the results on the written detector to the report on the converted model."""
        from onnx_fc2conv.detection import check_detector  # noqa: PLC0415

        assert self._scanning is not None
        return report.extended(check_detector(written, self._scanning, self._settings, seed=seed))
