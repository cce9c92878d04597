"""ConvTranspose in the trunk: s cells for each cell, as long as they lie whole pixels apart."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_fc2conv import check
from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views import interpret
from tests.nets import Net, Tensor, conv, i64, op_types
from tests.oracle import assert_refused, assert_slides, converted_model


def strided(net: Net, stride: int = 2, extent: int = 2) -> Tensor:
    sizes = tuple((n - extent) // stride + 1 for n in net.image[1:])
    return conv(net, net.x, sizes, kernel=extent, strides=[stride] * len(sizes))


def transposed(net: Net, y: Tensor, kernel: int, size: tuple[int, ...], **rest: Any) -> Tensor:
    weight = net.random(y.shape[0], 2 // rest.get("group", 1), *[kernel] * len(size))
    made = net.op("ConvTranspose", y, weight, net.random(2), name="up", **rest)
    return Tensor(made.value, (2, *size))


def sizes(y: Tensor, **given: int) -> tuple[int, ...]:
    """Dumoulin & Visin 2016, relationship 14, with dilation and output padding."""
    s, k, d = given.get("stride", 1), given["kernel"], given.get("dilation", 1)
    rest = given.get("more", 0) - given.get("begin", 0) - given.get("end", 0)
    return tuple(s * (n - 1) + (k - 1) * d + 1 + rest for n in y.shape[1:])


IN_PLACE: dict[str, dict[str, int]] = {
    "a block for each cell": {"kernel": 2, "stride": 2},
    "gaps": {"kernel": 1, "stride": 2},
    "gaps of three": {"kernel": 2, "stride": 3},
    "gaps behind the last": {"kernel": 2, "stride": 3, "more": 1},
    "overlaps cut off": {"kernel": 4, "stride": 2, "begin": 2, "end": 2},
    "more cut off": {"kernel": 4, "stride": 2, "begin": 3, "end": 3},
    "unevenly cut off": {"kernel": 3, "stride": 2, "begin": 1, "end": 2},
    "dilated": {"kernel": 2, "stride": 2, "dilation": 3, "begin": 3, "end": 2},
    "a stride of one": {"kernel": 3, "begin": 2, "end": 2},
    "a cell of the first block": {"kernel": 1, "stride": 3, "begin": 1},
}


def attributes(rank: int, given: dict[str, int]) -> dict[str, Any]:
    return {
        "strides": [given.get("stride", 1)] * rank,
        "dilations": [given.get("dilation", 1)] * rank,
        "output_padding": [given.get("more", 0)] * rank,
        "pads": [given.get("begin", 0)] * rank + [given.get("end", 0)] * rank,
    }


@pytest.mark.parametrize("image", [(2, 14), (2, 11, 13), (1, 8, 9, 8)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("given", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_cells_of_which_each_reads_what_it_reads_in_a_crop(
    given: dict[str, int], image: tuple[int, ...]
) -> None:
    net = Net(image=image)
    stride = given.get("stride", 1)
    y = strided(net, stride)
    rank = len(image) - 1
    y = transposed(net, y, given["kernel"], sizes(y, **given), **attributes(rank, given))
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.geometry["y"].stride == (stride,) * rank
    assert "ConvTranspose" in op_types(converted_model(conversion))


OVERLAPPING: dict[str, dict[str, int]] = {
    "U-Net": {"kernel": 3, "stride": 2, "more": 1, "begin": 1, "end": 1},
    "DCGAN": {"kernel": 4, "stride": 2, "begin": 1, "end": 1},
    "full": {"kernel": 3},
    "behind the last": {"kernel": 4, "stride": 2, "begin": 2, "end": 1},
}


@pytest.mark.parametrize("given", OVERLAPPING.values(), ids=OVERLAPPING.keys())
def test_cells_at_the_border_have_less_to_add_up(given: dict[str, int]) -> None:
    net = Net(image=(2, 11, 13))
    y = strided(net, given.get("stride", 1))
    y = transposed(net, y, given["kernel"], sizes(y, **given), **attributes(2, given))
    model = net.model(net.head(net.op("Relu", y, shape=y.shape)))
    conversion = assert_slides(model, exact=False)
    assert "ConvTranspose up" in conversion.geometry["y"].why
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()


FROZEN: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, ...]]] = {
    "SAME_UPPER": ({"auto_pad": "SAME_UPPER"}, (10, 12), (0, 0, 1, 1)),
    "SAME_LOWER": ({"auto_pad": "SAME_LOWER"}, (10, 12), (1, 1, 0, 0)),
    "output_shape": ({"output_shape": [9, 12]}, (9, 12), (1, 1, 1, 0)),
    "both": ({"auto_pad": "SAME_UPPER", "output_shape": [9, 12]}, (9, 12), (1, 0, 1, 1)),
}


@pytest.mark.parametrize("opset", [9, 11, 22])
@pytest.mark.parametrize(("given", "size", "pads"), FROZEN.values(), ids=FROZEN.keys())
def test_sizes_are_frozen_to_pads(
    given: dict[str, Any], size: tuple[int, int], pads: tuple[int, ...], opset: int
) -> None:
    net = Net(image=(2, 11, 13), opset=opset)
    y = transposed(net, strided(net), 3, size, strides=[2, 2], **given)
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    node = next(node for node in converted_model(conversion).graph if node.name == "up")
    assert not {"auto_pad", "output_shape"} & set(node.attributes)
    assert tuple(node.attributes.get_ints("pads", ())) == pads


def test_groups_of_channels() -> None:
    net = Net(image=(2, 11, 13))
    y = conv(net, net.x, (5, 6), kernel=2, strides=[2, 2], channels=4)
    y = transposed(net, y, 2, (10, 12), strides=[2, 2], group=2)
    assert_slides(net.model(net.head(y)))


def test_joined_with_a_map_of_the_same_grid() -> None:
    """A U-Net: the finer map of the encoder beside what the decoder makes of the coarser one."""
    net = Net(image=(2, 12, 14))
    down = conv(net, net.x, (6, 7), kernel=2, strides=[2, 2])
    up = transposed(net, down, 2, (12, 14), strides=[2, 2])
    both = net.op("Concat", net.x, up, axis=1, shape=(4, 12, 14))
    conversion = assert_slides(net.model(net.head(both)))
    assert "multiples of 2×2" in conversion.geometry["y"].why


def test_cells_at_fractions_of_pixels_are_refused() -> None:
    net = Net()
    y = transposed(net, conv(net, net.x, (6, 8)), 2, (12, 16), strides=[2, 2])
    assert_refused(net.model(net.head(y)), "misaligned", "ConvTranspose up", "1 pixels apart")


def test_a_size_that_its_kernels_do_not_reach_is_refused() -> None:
    net = Net(image=(2, 11, 13))
    y = transposed(net, strided(net), 2, (12, 14), strides=[2, 2], output_shape=[12, 14])
    assert_refused(net.model(net.head(y)), "baked-size", "ConvTranspose up", "[12, 14]")


def test_a_map_of_the_cell_of_a_layer_is_refused() -> None:
    net = Net()
    cell = net.op("Unsqueeze", net.head(net.trunk()), i64(2, 3), shape=(4, 1, 1))
    y = transposed(net, cell, 2, (2, 2))
    assert_refused(net.model(net.head(y)), "slides-after-fc", "ConvTranspose up")


def test_a_map_of_a_pooled_image_is_refused() -> None:
    net = Net()
    y = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1))
    y = transposed(net, y, 2, (2, 2))
    assert_refused(net.model(net.head(y)), "misaligned", "ConvTranspose up", "whole image")


def test_a_computed_kernel_is_refused() -> None:
    net = Net(batch=3, image=(2, 2, 2))
    y = net.op("ConvTranspose", conv(net, net.x, (1, 1), 2), net.x, name="up", shape=(2, 2, 2))
    assert_refused(net.model(net.head(y)), "weight-not-constant", "ConvTranspose up")


def field_of(given: dict[str, int], cells: int) -> AxisField:
    """The field of a 1-D ConvTranspose whose input has a cell for each ``stride`` pixels."""
    stride = given.get("stride", 1)
    net = Net(image=(2, cells * stride), batch=1)
    y = strided(net, stride, stride)
    y = transposed(net, y, given["kernel"], sizes(y, **given), **attributes(1, given))
    (output,) = interpret(net.ir_model(y)).outputs
    (field,) = output.feature_map.field
    return field


def read_by(given: dict[str, int], cell: int) -> list[int]:
    """The input cells that a cell adds up, also those that there are none of."""
    stride, kernel = given.get("stride", 1), given["kernel"]
    span = (kernel - 1) * given.get("dilation", 1) + 1
    place = cell + given.get("begin", 0)
    return [i for i in range(-20, 40) if 0 <= place - i * stride < span]


@pytest.mark.parametrize("cells", [4, 5])
@pytest.mark.parametrize(
    "given",
    [*IN_PLACE.values(), *OVERLAPPING.values()],
    ids=[*IN_PLACE.keys(), *OVERLAPPING.keys()],
)
def test_what_a_cell_sees(given: dict[str, int], cells: int) -> None:
    """Counted cell by cell, at lengths that leave blocks of cells in parts and pixels over."""
    field, stride = field_of(given, cells), given.get("stride", 1)
    for length in range(cells * stride, (cells + 3) * stride + 1):
        blocks = length // stride
        (count,) = sizes(Tensor(None, (1, blocks)), **given)  # type: ignore[arg-type]
        assert field.cells(length) == count
        for cell in range(count):
            read = read_by(given, cell)
            if read:
                seen_whole = read[0] >= 0 and read[-1] < blocks
                assert (cell in field.clean(length)) == seen_whole, (length, cell)
            block = [i for c in range(stride) for i in read_by(given, cell // stride * stride + c)]
            pixels = (min(block) * stride, (max(block) + 1) * stride)
            assert field.seen_by(cell) == pixels, (length, cell)
