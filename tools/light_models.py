"""Convert and check the ImageNet classifiers that the onnx wheel carries, with random weights.

The graphs in ``onnx/backend/test/data/light`` are real exports (Caffe2, opset 9), but their weights
are constants, so that no permutation error could show. This script replaces them by seeded random
weights (He-scaled), runs ``fc2conv`` on each as a user would, and prints what came out.

    python tools/light_models.py                 # all of them; VGG-19 writes 1.2 GB meanwhile
    python tools/light_models.py zfnet512 resnet50
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.backend.test
from onnx import numpy_helper

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = (
    *("bvlc_alexnet", "zfnet512", "vgg19", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "densenet121"),
)


def randomized(name: str, seed: int = 0) -> onnx.ModelProto:
    """The light model with every ConstantOfShape replaced by a random initializer."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph = model.graph
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = {value: node for node in graph.node for value in node.input}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        (output,) = node.output
        shape = tuple(int(length) for length in shapes[node.input[0]])
        array = random_weight(readers.get(output), output, shape, rng)
        graph.initializer.append(numpy_helper.from_array(array, output))
    del graph.node[:]
    graph.node.extend(kept)
    return model


def random_weight(
    reader: onnx.NodeProto | None, name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A weight of the scale that keeps activations of order 1, for its place in the reader."""
    position = list(reader.input).index(name) if reader is not None else 1
    operator = reader.op_type if reader is not None else ""
    if operator == "BatchNormalization" and position in (1, 4):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        scale = 1.0 if operator in ("Unsqueeze", "Mul") else 0.1
        return (scale * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    weights = rng.standard_normal(shape, dtype=np.float32)
    weights *= np.float32(np.sqrt(2 / fan_in))
    return weights


def run(name: str, folder: Path) -> dict[str, Any]:
    """Convert one model in a process of its own; the report, the exit code, time and memory."""
    source, target, report = (folder / f"{name}{end}" for end in (".onnx", "_conv.onnx", ".json"))
    onnx.save(randomized(name), source)
    start = time.perf_counter()
    command = [sys.executable, "-m", "onnx_fc2conv", str(source), str(target), "--quiet"]
    done = subprocess.run(
        [*command, "--report", str(report)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    result: dict[str, Any] = {"code": done.returncode, "seconds": seconds, "error": done.stderr}
    if report.exists():
        result |= json.loads(report.read_text(encoding="utf-8"))
    for path in (source, target, report):
        path.unlink(missing_ok=True)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 1 if any model was converted wrongly or failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    names = parser.parse_args(arguments).names
    unknown = set(names) - set(NAMES)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = run(name, Path(folder))
        failed += result["code"] not in (0, 3)
        print(f"\n{name}: exit {result['code']}, {result['seconds']:.1f} s")
        for head in result.get("heads", []):
            print(f"  {head['op_type']} {head['weight_shape']} -> Conv {head['kernel_shape']}")
        for output, geometry in result.get("geometry", {}).items():
            print(f"  {output}: stride {geometry['stride']}, {geometry['why']}")
        for check in result.get("checks", []):
            rtol = check["required_rtol"]
            figures = "" if rtol is None else f", smallest rtol {rtol:.1e}"
            print(f"  {check['status']:8} {check['tier']}: {check['subject']}{figures}")
            if check["status"] != "passed":
                print(f"           {check['detail']}")
        if result["code"]:
            print(f"  {str(result['error']).strip()}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\nlargest resident size of any run: {peak:.0f} MB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
