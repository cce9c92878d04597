"""Tensors that are no views of the image: constants, and those of which nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import Batches

__all__ = ["A_NUMBER", "Constant", "NotComputable", "Quantized", "Unknown"]


class NotComputable(ValueError):  # noqa: N818 - an outcome that becomes a refusal
    """A constant tensor's value cannot be computed here."""


class Constant:
    """A tensor that does not depend on the image's pixels.

    Attributes:
        sized: Whether it was computed from the shape of an image-dependent tensor, so that it
            changes with the batch or the image size.
        tensor: The stored tensor, where the value is exactly that and nothing was computed.
        quantized: The integers behind it, if it is dequantized.
    """

    def __init__(
        self,
        compute: Callable[[int], AnyArray],
        batches: Batches,
        *,
        sized: bool = False,
        tensor: ir.TensorProtocol | None = None,
        quantized: Quantized | None = None,
    ) -> None:
        self._compute = compute
        self._computed: dict[int, AnyArray] = {}
        self.batches = batches
        self.sized = sized
        self.tensor = tensor
        self.quantized = quantized

    @classmethod
    def of_tensor(cls, tensor: ir.TensorProtocol, batches: Batches) -> Constant:
        """A stored tensor: an initializer or the value of a Constant node."""
        return cls(lambda _: tensor.numpy(), batches, tensor=tensor)

    def at(self, batch: int) -> AnyArray:
        """The value at this batch size.

        Raises:
            NotComputable: If the model's own computation of it fails there.
        """
        key = batch if self.sized else self.batches.native
        if self.tensor is not None:
            return self._compute(key)
        if key not in self._computed:
            try:
                self._computed[key] = self._compute(key)
            except (MemoryError, ImportError):
                raise
            except Exception as error:
                raise NotComputable(" ".join(str(error).split())[:200]) from error
        return self._computed[key]

    @property
    def array(self) -> AnyArray:
        """The value at the native batch size."""
        return self.at(self.batches.native)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, found without reading or dequantizing a stored tensor."""
        if self.tensor is not None:
            return tuple(self.tensor.shape.numpy())
        if self.quantized is not None:
            return self.quantized.integers.shape
        return tuple(self.array.shape)


@dataclass(frozen=True, eq=False)
class Quantized:
    """The source of a dequantized constant ``(integers - zero) · scale``, element by element.

    Attributes:
        integers: The integers; stored, as a rule.
        scale: The scale of each element, in the same shape.
        zero: The zero point of each element, in the same shape and the type of the integers.
        domain: Domain of the DequantizeLinear.
    """

    integers: Constant
    scale: Constant
    zero: Constant
    domain: str

    def values(self) -> AnyArray:
        """The numbers, in the type of the scale."""
        steps = self.integers.array.astype(np.int64) - self.zero.array.astype(np.int64)
        scale = self.scale.array
        numbers: AnyArray = steps.astype(scale.dtype) * scale
        return numbers


@dataclass(frozen=True, slots=True)
class Unknown:
    """A tensor of which nothing is known here: no rule led further.

    Attributes:
        from_image: Whether it depends on an image input, by way of a refused node.
        uniform: Its shape, if it has no batch axis and is known to be the same for all samples.
    """

    from_image: bool
    uniform: tuple[int, ...] | None = None


A_NUMBER = Unknown(from_image=False, uniform=())
"""One number, the same for all samples."""
