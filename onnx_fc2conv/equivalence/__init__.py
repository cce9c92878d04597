"""Are two models the same function? Checked by running them, in tiers; see `check`."""

from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.equivalence.reporting.report import EquivalenceReport
from onnx_fc2conv.equivalence.reporting.results import TierResult

__all__ = ["EquivalenceReport", "TierResult", "check"]
