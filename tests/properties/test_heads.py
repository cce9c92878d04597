"""Any trunk, any spelling of a head: the converted model slides."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, note, settings
from onnx.reference import ReferenceEvaluator

from onnx_fc2conv import check, convert
from tests.nets import Array, Run, session
from tests.oracle import assert_close, assert_slides, converted_model
from tests.properties import flattens, trunks
from tests.properties.compositions import Made, classifiers

GONE = ("Gemm", "MatMul", "Flatten")
CHECKED = settings(max_examples=settings().max_examples // 10)
FEWER = settings(max_examples=settings().max_examples // 5)

CONVOLVED = {name: part for name, part in trunks.EXACT.items() if name != "nothing"}
EVERY_TRUNK = {**trunks.EXACT, **trunks.OTHER, **trunks.PAIRS}


def slides(found: Made, **expectations: Any) -> None:
    note(" · ".join(found.parts))
    usual = {"gone": GONE, "tolerance": 1e-4}
    batch = {"batch_axis": found.axis, "free_batch": found.free_batch}
    conversion = assert_slides(found.model, **(usual | batch | expectations))
    assert conversion.heads


@given(classifiers())
def test_any_head(found: Made) -> None:
    slides(found)


@FEWER
@given(classifiers(ranks=(1, 3)))
def test_sounds_and_volumes(found: Made) -> None:
    slides(found)


@CHECKED
@given(classifiers(dtype=ir.DataType.DOUBLE, opsets=(14, 18, 21), ranks=(1,)))
def test_double_precision(found: Made) -> None:
    """By ONNX's reference implementation: onnxruntime has no such convolution on the CPU."""
    slides(found, dtype=np.float64, session=reference, tolerance=1e-12)


@FEWER
@given(classifiers(last_axis=True, trunk=CONVOLVED))
def test_channels_last(found: Made) -> None:
    slides(found, channels_last=True)


@FEWER
@given(classifiers(trunk=trunks.PAIRS))
def test_two_images(found: Made) -> None:
    slides(found)


@FEWER
@given(classifiers(behind=flattens.POOLS))
def test_pooling_of_windows(found: Made) -> None:
    slides(found, options={"pool": "window"})


@FEWER
@given(classifiers(behind=flattens.POOLS))
def test_pooling_of_images(found: Made) -> None:
    """With the pooling kept, an image of any size gives what the original gives."""
    note(" · ".join(found.parts))
    for value in found.model.graph.input:
        for axis in value.type.tensor_type.shape.dim[2:]:
            axis.dim_param = "any"
    conversion = convert(found.model, input_shapes={"x": (1, 2, 8, 9)})
    original, dense = session(found.model), session(converted_model(conversion))
    for size in ((8, 9), (11, 10), (13, 17)):
        image = images(found, 1, size)
        for name, expected in original(image).items():
            actual = dense(image)[name]
            assert set(actual.shape[-2:]) == {1}
            assert_close(actual.reshape(-1), expected.reshape(-1), 1e-4, f"{name} at {size}")


_NUMBERS_OF_CLASSES = {"best_class", "best_number"}


@CHECKED
@given(classifiers(dtype=ir.DataType.FLOAT16, opsets=(13, 18, 21)))
def test_half_precision(found: Made) -> None:
    assume(not _NUMBERS_OF_CLASSES & set(found.parts))  # two may be the best, but for a rounding
    slides(found, dtype=np.float16, tolerance=0.05)


@CHECKED
@given(classifiers(trunk=trunks.OTHER, ranks=(1, 2)) | classifiers(trunk=EVERY_TRUNK))
def test_feature_windows(found: Made) -> None:
    """Where layers pad or see the whole image, each cell is the head on its window of the map."""
    note(" · ".join(found.parts))
    conversion = convert(found.model)
    report = check(found.model, converted_model(conversion), geometry=conversion.geometry)
    assert not report.failures
    assert any(result.tier == "feature windows" for result in report.results)


@FEWER
@given(classifiers(trunk=EVERY_TRUNK, ranks=(1, 2, 3)))
def test_static_mode(found: Made) -> None:
    """The interface and the numbers stay, and there is a convolution more."""
    note(" · ".join(found.parts))
    conversion = convert(found.model, static=True)
    assert conversion.heads
    assert conversion.after == conversion.before
    original, static = session(found.model), session(converted_model(conversion))
    for batch in (1, 3) if found.free_batch else (1,):
        feeds = images(found, batch)
        equal(original, static, feeds)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@CHECKED
@given(found=classifiers())
def test_reduction(reduce: Any, found: Made) -> None:
    """The reduced model gives the mean or maximum of the cells of the other."""
    note(" · ".join(found.parts))
    if _NUMBERS_OF_CLASSES & set(found.parts):
        return
    dense = session(converted_model(convert(found.model)))
    one = session(converted_model(convert(found.model, reduce=reduce)))
    feeds = images(found, 2, (13, 14))
    together = one(feeds)
    for name, cells in dense(feeds).items():
        expected = (np.mean if reduce == "mean" else np.max)(cells, axis=(-2, -1))
        assert_close(together[name].reshape(expected.shape), expected, 1e-4, name)


def images(found: Made, batch: int, size: tuple[int, ...] = ()) -> dict[str, Array]:
    """Random inputs, of the native size or another one."""
    rng = np.random.default_rng(5)
    stored = {value.name for value in found.model.graph.initializer}
    feeds: dict[str, Array] = {}
    for value in found.model.graph.input:
        if value.name in stored:
            continue
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        if size and len(dims) > 1:
            dims[1:] = size
        feeds[value.name] = rng.normal(size=(batch, *dims)).astype(np.float32)
    return feeds


def reference(model: onnx.ModelProto | ir.Model) -> Run:
    evaluator = ReferenceEvaluator(ir.to_proto(model) if isinstance(model, ir.Model) else model)
    names = [str(name) for name in evaluator.output_names]
    return lambda feeds: dict(zip(names, evaluator.run(None, dict(feeds)), strict=True))


def equal(original: Run, other: Run, feeds: dict[str, Array]) -> None:
    actual = other(feeds)
    for name, expected in original(feeds).items():
        assert_close(actual[name], expected, 1e-4, name)
