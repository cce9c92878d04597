"""The oracle that says whether a conversion is right: every cell against the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.pipeline import Conversion, convert
from tests.nets import FC_TRACES, Array, Run, session


def by_channel(dense: Array, rank: int) -> Array:
    """A map [N, *features, *spatial] as [N, K, *spatial]."""
    return dense.reshape(len(dense), -1, *dense.shape[dense.ndim - rank :])


def converted_model(conversion: Conversion) -> ir.Model:
    assert conversion.model is not None
    return conversion.model


def assert_close(actual: Array, expected: Array, tolerance: float, what: str) -> None:
    """Equal up to ``tolerance`` times the largest expected value; NaN nowhere."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape} instead of {expected.shape}"
    assert np.isfinite(actual).all(), f"{what}: not finite"
    assert np.isfinite(expected).all(), f"{what}: the original is not finite"
    error = np.abs(actual.astype(np.float64) - expected)
    worst, scale = float(error.max()), float(np.abs(expected).max())
    where = tuple(map(int, np.unravel_index(error.argmax(), error.shape)))
    assert worst <= tolerance * max(scale, 0.1), (
        f"{what}: off by {worst:.3g} of {scale:.3g} at {where}"
    )


@dataclass(frozen=True)
class Oracle:
    """What a conversion is held to; the defaults suit an exactly sliding net with a free batch.

    Attributes:
        gone: Operators of which the converted model has none.
        exact: Whether every cell equals the original on its crop.
        free_batch: Whether the original takes any batch size.
        batch_axis: The batch axis of the original's outputs; None where it has none.
        channels_last: Whether the images are [N, *spatial, C].
        lacks: Axes of [N, C, *spatial], of length 1, that the images do not have.
        tolerance: Largest error, relative to the largest output.
        options: How to convert: keyword arguments of `convert`.
    """

    gone: tuple[str, ...] = FC_TRACES
    exact: bool = True
    free_batch: bool = True
    batch_axis: int | None = 0
    channels_last: bool = False
    lacks: tuple[int, ...] = ()
    tolerance: float = 1e-5
    dtype: Any = np.float32
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, model: onnx.ModelProto | ir.Model) -> Conversion:
        """Convert and compare at the native size and at larger ones."""
        proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
        source = proto.SerializeToString()
        conversion = convert(proto, **self.options)
        assert proto.SerializeToString() == source, "convert changed its argument"
        result = converted_model(conversion)
        onnx.checker.check_model(ir.to_proto(result), full_check=True)
        # The feature axes of an output, such as [N, A, B], are put right in its last node.
        inner = {
            node.op_type
            for node in result.graph
            if not any(v.is_graph_output() for v in node.outputs)
        }
        left = sorted(inner & set(self.gone))
        assert not left, f"{left} left in the converted model"
        assert [v.name for v in result.graph.outputs] == [o.name for o in proto.graph.output]
        listed = {value.name for value in proto.graph.initializer}
        images = [value.name for value in proto.graph.input if value.name not in listed]
        assert [
            v.name for v in result.graph.inputs if v.name not in result.graph.initializers
        ] == images

        original, dense = self._runner(proto), self._runner(result)
        self._native(conversion, original, dense)
        self._larger(conversion, original, dense)
        return conversion

    def _runner(self, model: onnx.ModelProto | ir.Model) -> Run:
        """The model as a function of images [N, C, *spatial]."""
        run = session(model)
        if self.channels_last:
            return lambda feeds: run({name: np.moveaxis(x, 1, -1) for name, x in feeds.items()})
        if not self.lacks:
            return run

        def each(feeds: Mapping[str, Array]) -> dict[str, Array]:
            if 0 not in self.lacks:
                return run({name: x.squeeze(self.lacks) for name, x in feeds.items()})
            images = zip(*feeds.values(), strict=True)
            axes = tuple(axis - 1 for axis in self.lacks if axis > 0)
            single = [
                run({n: x.squeeze(axes) for n, x in zip(feeds, image, strict=True)})
                for image in images
            ]
            return {name: np.concatenate([made[name] for made in single]) for name in single[0]}

        return each

    def _native(self, conversion: Conversion, original: Run, dense: Run) -> None:
        shapes = self._native_shapes(conversion)
        for batch in (1, 3):
            feeds = self._images(shapes, batch)
            actual = dense(feeds)
            expected = self._per_sample(original, conversion, feeds)
            for name, geometry in conversion.geometry.items():
                cells = (1,) * len(geometry.window)
                want = expected[name].reshape(batch, -1, *cells)
                made = by_channel(actual[name], len(cells))
                assert_close(made, want, self.tolerance, f"{name} at batch {batch}")
            if self.free_batch:
                for name, together in original(feeds).items():
                    moved = together
                    if self.batch_axis is not None:
                        moved = np.moveaxis(together, self.batch_axis, 0)
                    want = expected[name].reshape(batch, -1)
                    assert_close(moved.reshape(batch, -1), want, 1e-4, f"original {name}")

    def _larger(self, conversion: Conversion, original: Run, dense: Run) -> None:
        shapes = self._native_shapes(conversion)
        for steps in ((2, 1, 1), (1, 3, 2)):
            geometry = next(iter(conversion.geometry.values()))
            rank = len(geometry.window)
            grown = [
                steps[axis] * geometry.stride[axis] + (axis + steps[0]) % 2 for axis in range(rank)
            ]
            if geometry.size_step is not None:
                grown = [-(-g // s) * s for g, s in zip(grown, geometry.size_step, strict=True)]
            larger = {
                name: (*shape[:1], *(a + b for a, b in zip(shape[1:], grown, strict=True)))
                if len(shape) > 1
                else shape
                for name, shape in shapes.items()
            }
            feeds = self._images(larger, 2)
            actual = dense(feeds)
            for name, where in conversion.geometry.items():
                assert where.windows_exact == self.exact, where.why
                if self.exact:
                    made = by_channel(actual[name], rank)
                    self._cells(name, conversion, original, feeds, made)

    def _cells(
        self,
        name: str,
        conversion: Conversion,
        original: Run,
        feeds: dict[str, Array],
        dense: Array,
    ) -> None:
        """Every cell of the map against the original on the crop that it stands for."""
        where = conversion.geometry[name]
        sizes = feeds[where.input].shape[2:]
        cells = tuple(
            (size - window) // stride + 1
            for size, window, stride in zip(sizes, where.window, where.stride, strict=True)
        )
        # Pixels that no layer reaches at the native size may be missing from a last window.
        extra = [made - count for made, count in zip(dense.shape[2:], cells, strict=True)]
        assert set(extra) <= {0, 1}, f"{name}: {dense.shape} for {cells} windows"
        ends = [(0, 0), (0, 0), *((0, stride - 1) for stride in where.stride)]
        feeds = {
            name: np.pad(array, ends) if array.ndim > 2 else array for name, array in feeds.items()
        }
        wanted = np.zeros_like(dense)
        for cell in product(*map(range, dense.shape[2:])):
            corner = tuple(c * s for c, s in zip(cell, where.stride, strict=True))
            window = tuple(
                slice(a, a + length) for a, length in zip(corner, where.window, strict=True)
            )
            crops = {
                name: array[:, :, *window] if array.ndim > 2 else array
                for name, array in feeds.items()
            }
            expected = self._per_sample(original, conversion, crops)[name].reshape(2, -1)
            wanted[:, :, *cell] = expected  # type: ignore[index]
        assert_close(dense, wanted, self.tolerance, f"{name} at {sizes}")

    def _images(self, shapes: Mapping[str, Sequence[int]], batch: int) -> dict[str, Array]:
        rng = np.random.default_rng(7)
        return {
            name: rng.normal(size=(batch, *shape)).astype(self.dtype)
            for name, shape in shapes.items()
        }

    def _native_shapes(self, conversion: Conversion) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in conversion.before.inputs.items():
            own = shape[1 - (0 in self.lacks) :]
            dims = tuple(dim for dim in own if isinstance(dim, int))
            if 1 in self.lacks:
                dims = (1, *dims)
            shapes[name] = (*dims[-1:], *dims[:-1]) if self.channels_last else dims
        return shapes

    def _per_sample(
        self, original: Run, conversion: Conversion, feeds: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The original's outputs sample by sample, at its own batch size: [batch, features]."""
        declared = 1 if 0 in self.lacks else next(iter(conversion.before.inputs.values()))[0]
        copies = declared if isinstance(declared, int) else 1
        batch = len(next(iter(feeds.values())))
        found: dict[str, list[Array]] = {}
        for sample in range(batch):
            one = {name: np.repeat(x[sample : sample + 1], copies, 0) for name, x in feeds.items()}
            for name, array in original(one).items():
                first = array
                if self.batch_axis is not None and copies > 1:
                    first = np.take(array, 0, axis=self.batch_axis)
                found.setdefault(name, []).append(first.reshape(-1))
        return {name: np.stack(arrays) for name, arrays in found.items()}


def assert_slides(model: onnx.ModelProto | ir.Model, **expectations: Any) -> Conversion:
    """Convert the model and hold the result to the `Oracle`."""
    return Oracle(**expectations).check(model)


def refusals(model: onnx.ModelProto | ir.Model, **options: Any) -> tuple[Refusal, ...]:
    """Why the model is refused; fails if it is converted."""
    try:
        convert(model, **options)
    except RefusedError as error:
        return error.refusals
    raise AssertionError("converted, not refused")


def assert_refused(
    model: onnx.ModelProto | ir.Model,
    code: str,
    node: str = "",
    reason: str = "",
    **options: Any,
) -> None:
    """The first refusal has this code, names the node and gives the reason."""
    first = refusals(model, **options)[0]
    assert first.code == code, first
    assert node in first.node, first
    assert reason in first.reason, first
