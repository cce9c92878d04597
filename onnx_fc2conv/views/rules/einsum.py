"""Einsum of a view and a constant, where it is a layer: ``nd,kd->nk``, ``nchw,kchw->nk``.

    view [rest…, summed…]   the letters that are summed over brought to the end, as one axis
    weight [kept…, summed…] the constant as a matrix [K, D]
    product [rest…, K]      K taken apart again, and the letters put in the order of the output

Each letter is in the view and the output, in the weight and the output, or in view and weight, and
summed over (Einsum-12).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.kernel import Weight
from onnx_fc2conv.views.layers.layer import Layer
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray, IntArray
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.registry import rule
from onnx_fc2conv.views.rules.linear import convolve

__all__ = ["Letters", "einsum"]


@dataclass(frozen=True)
class Letters:
    """The letters of an equation: of the view, of the weight, and of the output.

    Attributes:
        view, weight, output: The terms.
    """

    view: str
    weight: str
    output: str

    @classmethod
    def of(cls, equation: str, *, view_first: bool) -> Letters | None:
        """Parse an equation with two terms; None if it has others, or an ellipsis."""
        inputs, arrow, output = equation.replace(" ", "").partition("->")
        terms = inputs.split(",")
        if len(terms) != 2 or not "".join((*terms, output)).isalpha():
            return None
        if not arrow:  # the letters that occur once, in alphabetical order
            output = "".join(sorted(c for c in inputs if c.isalpha() and inputs.count(c) == 1))
        view, weight = terms if view_first else reversed(terms)
        return cls(view, weight, output)

    @property
    def summed(self) -> str:
        """Letters of the view and the weight."""
        return "".join(c for c in self.view if c in self.weight)

    @property
    def rest(self) -> str:
        """Letters of the view and the output."""
        return "".join(c for c in self.view if c not in self.weight)

    @property
    def kept(self) -> str:
        """Letters of the weight and the output."""
        return "".join(c for c in self.weight if c not in self.view)

    @property
    def is_layer(self) -> bool:
        """Whether each letter occurs once in a term, and is summed over or in the output."""
        once = all(len({*term}) == len(term) for term in (self.view, self.weight, self.output))
        return once and bool(self.summed) and {*self.output} == {*self.rest, *self.kept}


@rule("Einsum")
def einsum(ctx: Context) -> FeatureView:
    """Einsum-12 as a layer, as `linear` has it."""
    facts = [ctx.operand(position) for position in range(len(ctx.operands))]
    views = [fact for fact in facts if isinstance(fact, FeatureView)]
    weights = [fact for fact in facts if isinstance(fact, Constant)]
    equation = ctx.node.attributes.get_string("equation", "")
    if len(facts) == 2 and len(views) == 2:
        ctx.refuse(
            "weight-not-constant", f"{equation!r} multiplies two tensors made from the image"
        )
    if not len(facts) == 2 == len(views) + len(weights):
        ctx.refuse("no-rule", f"{equation!r} is not of one map and one constant")
    (view,), (constant,) = views, weights
    letters = Letters.of(equation, view_first=facts[0] is view)
    if letters is None or not letters.is_layer:
        ctx.refuse("no-rule", f"{equation!r} is not a layer: sums over features it shares")
    if (len(letters.view), len(letters.weight)) != (len(view.shape), len(constant.shape)):
        ctx.refuse("invalid-node", f"{equation!r} does not fit its operands")
    layer = Layer(_flattened(view, letters), -1, _matrix(ctx, constant, letters))
    rows = convolve(ctx, layer, None)
    lengths = dict(zip(letters.view + letters.weight, view.shape + constant.shape, strict=True))
    product = letters.rest + letters.kept
    order = [product.index(letter) for letter in letters.output]
    shape = [lengths[letter] for letter in letters.kept]

    def arranged(labels: IntArray) -> IntArray:
        return labels.reshape(*labels.shape[:-1], *shape).transpose(order)

    return rows.moved(arranged)


def _flattened(view: FeatureView, letters: Letters) -> FeatureView:
    """Return the view with the summed letters merged into its last axis."""
    order = [letters.view.index(letter) for letter in letters.rest + letters.summed]
    rest = len(letters.rest)

    def moved(labels: IntArray) -> IntArray:
        turned = labels.transpose(order)
        return turned.reshape(*turned.shape[:rest], -1)

    return view.moved(moved)


def _matrix(ctx: Context, constant: Constant, letters: Letters) -> Weight:
    """The constant as a weight [K, D]; as it is stored, if that is a matrix."""
    position = next(n for n, fact in enumerate(ctx.operands) if fact is constant)
    value = ctx.node.inputs[position]
    name = (value.name if value is not None else None) or "weight"
    if len(letters.weight) == 2 and len(letters.summed) == 1:
        return Weight(constant, letters.weight[0] in letters.summed, 1.0, name)
    order = [letters.weight.index(letter) for letter in letters.kept + letters.summed]
    outputs = prod(constant.shape[axis] for axis in order[: len(letters.kept)])

    def matrix(batch: int) -> AnyArray:
        array: AnyArray = constant.at(batch).transpose(order).reshape(outputs, -1)
        return array

    return Weight(Constant(matrix, constant.batches, sized=constant.sized), False, 1.0, name)
