"""Write artificial classifiers: every operator that ONNX defines in front of a Flatten and a Gemm.

    python tools/make_heads.py build/heads
    python tools/sweep.py build/heads

The node cases of the onnx wheel's backend tests show each operator in each of its variants, with
inputs of small shapes. Of each case whose first float input of rank 3 or more can be an image and
that gives a float tensor of rank 2 or more, this makes a classifier: that input stays an input,
all others become initializers with the case's values, and a Flatten and a Gemm with seeded random
weights follow the output. A sweep over the folder says which operators a trunk or a head may have.

Most of these models are no sensible image classifiers: a refusal is the right answer to many of
them, a wrong conversion or an exception is not.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

CLASSES = 5
NEWEST_OPSET = 26  # that onnxruntime loads
NEWEST_IR = 12


class SkippedError(Exception):
    """The case cannot be made a classifier; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Write the models and print why which cases were left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write them; made if it is not there")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    skipped: Counter[str] = Counter()
    written = 0
    for seed, case in enumerate(node_cases()):
        try:
            model = classifier(case, np.random.default_rng(seed))
        except SkippedError as error:
            skipped[str(error)] += 1
            continue
        onnx.save(model, folder / f"{case.name}.onnx")
        written += 1
    print(f"{written} models in {folder}")
    for reason, count in skipped.most_common():
        print(f"{count:6} cases left out: {reason}")
    return 0


def node_cases() -> list[Any]:
    """The node cases of the onnx wheel."""
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute infinities on purpose
        return list(collect_testcases(None))


def classifier(case: Any, rng: np.random.Generator) -> onnx.ModelProto:
    """The case's model with a fully connected layer behind it.

    Raises:
        SkippedError: If it has no input or output of the right kind.
    """
    if not case.data_sets:
        raise SkippedError("no data")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    inputs, outputs = (list(values) for values in case.data_sets[0])
    if len(inputs) != len(graph.input):
        raise SkippedError("an optional input is missing")
    image = first_float(inputs, rank=3)
    scores = first_float(outputs, rank=2)
    if image is None:
        raise SkippedError("no float input of rank 3 or more")
    if scores is None:
        raise SkippedError("no float output of rank 2 or more")
    store_others(graph, inputs, image)
    append_layer(graph, graph.output[scores].name, outputs[scores].shape, rng)
    for opset in model.opset_import:
        opset.version = min(opset.version, NEWEST_OPSET)
    if not any(opset.domain == "" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 18))
    model.ir_version = min(model.ir_version, NEWEST_IR)
    return model


def first_float(values: list[Any], rank: int) -> int | None:
    """Where the first float32 array of this rank or more stands."""
    for position, value in enumerate(values):
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            continue
        if value.ndim >= rank and value.size:
            return position
    return None


def store_others(graph: onnx.GraphProto, inputs: list[Any], image: int) -> None:
    """Make initializers of all inputs but the image, and give that the shape of its values."""
    for position, (value, array) in enumerate(zip(graph.input, inputs, strict=True)):
        if position == image:
            continue
        if not isinstance(array, np.ndarray):
            raise SkippedError("another input is no tensor")
        graph.initializer.append(numpy_helper.from_array(array, value.name))
    name = graph.input[image].name
    del graph.input[:]
    shape = inputs[image].shape
    graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def append_layer(
    graph: onnx.GraphProto, name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Put Flatten and Gemm behind the tensor; their output is the only one that is left."""
    features = int(np.prod(shape[1:]))
    weight: npt.NDArray[np.float32] = rng.standard_normal((CLASSES, features), np.float32)
    weight /= np.sqrt(np.float32(features))
    bias = rng.standard_normal(CLASSES, np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "head_weight"))
    graph.initializer.append(numpy_helper.from_array(bias, "head_bias"))
    flat = helper.make_node("Flatten", [name], ["head_flat"], axis=1)
    operands = ["head_flat", "head_weight", "head_bias"]
    layer = helper.make_node("Gemm", operands, ["head_scores"], transB=1)
    graph.node.extend([flat, layer])
    del graph.output[:]
    shape = (shape[0], CLASSES)
    graph.output.append(helper.make_tensor_value_info("head_scores", onnx.TensorProto.FLOAT, shape))


if __name__ == "__main__":
    sys.exit(main())
