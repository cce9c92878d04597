"""Count what the check compares in right conversions, and how often it says that they are wrong.

    python tools/false_alarms.py models ../shared/models --nets 200 --seeds 3

Every model below the folders is converted and checked, and so are random small networks with heads
of several kinds; each with several seeds. All of these conversions are right as far as anybody
knows, so that every failure is a false alarm, or a bug that was found. The numbers are those that
are compared within a tolerance at the native size and at larger ones; what is compared bit for bit
is counted apart. The exit code is 1 if there was an alarm.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # random networks are built as the tests build theirs

from onnx_fc2conv import Fc2ConvError, check, convert  # noqa: E402
from tests.nets import Net, Tensor  # noqa: E402

WITHIN_A_TOLERANCE = {"native", "feature windows", "image windows"}
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu")
ENDS = ("", "Softmax", "LogSoftmax", "Sigmoid", "ArgMax")


def network(seed: int) -> onnx.ModelProto:
    """A random small network: trunk, one to three layers, perhaps a saturating end."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(8, 14))
    net = Net(image=(int(rng.integers(1, 4)), size, size + int(rng.integers(3))), seed=seed)
    y = net.trunk(
        relu=bool(rng.integers(2)), pool=bool(rng.integers(2)), channels=int(rng.integers(2, 6))
    )
    if rng.integers(3) == 0:
        statistics = [net.random(y.shape[0]) for _ in range(3)]
        normal = net.op("BatchNormalization", y, *statistics, net.random(y.shape[0]) ** 2 + 0.1)
        y = Tensor(normal.value, y.shape)
    y = net.flat(y)
    for _ in range(int(rng.integers(3))):
        hidden = net.fc(y, int(rng.integers(4, 257)))
        kind = ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]
        y = net.op(kind, hidden, shape=hidden.shape)
    y = net.fc(y, int(rng.integers(2, 1001)), bias=bool(rng.integers(2)))
    end = ENDS[int(rng.integers(len(ENDS)))]
    if end == "ArgMax":
        return net.model(net.op("ArgMax", y, axis=1, keepdims=0), dtype=ir.DataType.INT64)
    return net.model(net.op(end, y, axis=1) if end.endswith("max") else _applied(net, end, y))


def _applied(net: Net, op_type: str, y: Tensor) -> Tensor:
    return net.op(op_type, y) if op_type else y


def sources(folders: list[Path], nets: int) -> Iterator[tuple[str, Path | onnx.ModelProto]]:
    """Everything to be checked, by name."""
    for folder in folders:
        files = sorted(folder.rglob("*.onnx")) if folder.is_dir() else [folder]
        yield from ((file.name, file) for file in files)
    yield from ((f"network {seed}", network(seed)) for seed in range(nets))


def main() -> int:
    """Print the alarms and the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR")
    parser.add_argument("--nets", type=int, default=100, help="random networks; default 100")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each check; default 3")
    options = parser.parse_args()
    compared: Counter[str] = Counter()
    checks = alarms = converted = 0
    largest = 0.0
    for name, source in sources(options.folders, options.nets):
        try:
            conversion = convert(source)
        except Fc2ConvError:
            continue
        assert conversion.model is not None
        converted += 1
        for seed in range(options.seeds):
            try:
                report = check(source, conversion.model, geometry=conversion.geometry, seed=seed)
            except Fc2ConvError as error:  # onnxruntime lacks an operator
                print(f"not run: {name}: {error}")
                break
            checks += 1
            for result in report.results:
                compared[result.tier] += result.elements
                if result.status == "passed" and result.required_rtol is not None:
                    largest = max(largest, result.required_rtol)
                if result.status == "failed":
                    alarms += 1
                    print(f"ALARM {name}, seed {seed}: {result.tier}, {result.subject}")
                    print(f"      {result.detail}")
    within = sum(compared[tier] for tier in WITHIN_A_TOLERANCE)
    print(f"{converted} conversions, {checks} checks, {alarms} alarms")
    print(f"{within:,} numbers compared within a tolerance; largest rtol needed {largest:.2g}")
    for tier, count in compared.most_common():
        print(f"{count:14,} {tier}")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
