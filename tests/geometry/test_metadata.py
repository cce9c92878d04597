"""The geometry in the model: it is there, it can be read, and the check does not believe it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import InvalidModelError, check, convert, inspect, read_geometry
from onnx_fc2conv.geometry import GEOMETRY_KEY
from tests.nets import Net, Tensor, conv
from tests.oracle import converted_model

Values = dict[str, Any]


def exact() -> onnx.ModelProto:
    net = Net(image=(2, 9, 10))
    return net.model(net.head(net.trunk()))


def padded() -> onnx.ModelProto:
    net = Net(image=(2, 9, 10))
    return net.model(net.head(conv(net, net.x, (9, 10), pads=[1, 1, 1, 1])))


def pooled() -> onnx.ModelProto:
    net = Net(image=(2, 9, 10))
    y = net.trunk()
    return net.model(net.head(Tensor(net.op("GlobalAveragePool", y).value, (3, 1, 1))))


def with_a_map() -> onnx.ModelProto:
    net = Net(image=(2, 9, 10))
    y = net.trunk()
    return net.model(net.head(y), y)


OPTIONS: list[tuple[Callable[[], onnx.ModelProto], Values]] = [
    (exact, {}),
    (padded, {}),
    (pooled, {}),
    (pooled, {"pool": "window"}),
    (exact, {"reduce": "mean"}),
    (padded, {"reduce": "max"}),
    (with_a_map, {}),
]


@pytest.mark.parametrize(("make", "options"), OPTIONS)
def test_a_converted_model_says_what_it_means(
    make: Callable[[], onnx.ModelProto], options: Values, tmp_path: Path
) -> None:
    conversion = convert(make(), **options)
    model = converted_model(conversion)
    assert read_geometry(model) == conversion.geometry
    assert read_geometry(ir.to_proto(model)) == conversion.geometry
    onnx.save(ir.to_proto(model), tmp_path / "dense.onnx")
    assert read_geometry(tmp_path / "dense.onnx") == conversion.geometry
    report = check(make(), model)
    assert report, report.to_markdown()


def test_a_model_without_it_says_nothing() -> None:
    assert read_geometry(exact()) == {}
    assert GEOMETRY_KEY not in converted_model(convert(exact(), static=True)).metadata_props


def changed(model: ir.Model, change: Callable[[Values], None]) -> ir.Model:
    """The model with another geometry of its first output."""
    stored = json.loads(model.metadata_props[GEOMETRY_KEY])
    change(stored)
    model.metadata_props[GEOMETRY_KEY] = json.dumps(stored)
    return model


def says(**values: Any) -> Callable[[Values], None]:
    return lambda stored: stored["outputs"]["y"].update(values)


EXACT = {"verdict": "windows exact", "windows_exact": True}
WHOLE = {"verdict": "whole image", "windows_exact": False, "receptive_field": None}


@pytest.mark.parametrize(
    ("make", "change", "tier"),
    [
        pytest.param(exact, says(stride=[1, 2]), "image windows", id="stride"),
        pytest.param(exact, says(stride=[4, 4]), "image windows", id="wide stride"),
        pytest.param(exact, says(window=[8, 10]), "geometry", id="window"),
        pytest.param(exact, says(offset=[1, 0]), "geometry", id="offset"),
        pytest.param(exact, says(input="image"), "geometry", id="input"),
        pytest.param(exact, says(remainder=[0, 0]), "geometry", id="remainder"),
        pytest.param(exact, says(cells=[2, 1]), "geometry", id="cells"),
        pytest.param(exact, says(stride=[0, 0], **WHOLE), "geometry", id="one cell"),
        pytest.param(
            exact,
            says(receptive_field={"start": [0, 0], "size": [4, 4]}),
            "geometry",
            id="receptive field",
        ),
        pytest.param(padded, says(**EXACT), "image windows", id="exact"),
        pytest.param(
            exact,
            lambda stored: stored["outputs"].update(z=stored["outputs"]["y"]),
            "geometry",
            id="another output",
        ),
    ],
)
def test_a_wrong_geometry_is_found(
    make: Callable[[], onnx.ModelProto], change: Callable[[Values], None], tier: str
) -> None:
    model = changed(converted_model(convert(make())), change)
    report = check(make(), model)
    assert any(result.tier.endswith(tier) for result in report.failures), report.to_markdown()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema":2,"outputs":{}}', "schema 2"),
        ('{"schema":1,"outputs":{"y":{}}}', "has no 'verdict'"),
        ('{"schema":1,"outputs":{"y":3}}', "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(text: str, reason: str) -> None:
    model = converted_model(convert(exact()))
    model.metadata_props[GEOMETRY_KEY] = text
    with pytest.raises(InvalidModelError, match=reason) as error:
        read_geometry(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"verdict": "perfect"},
        {"windows_exact": False},
        {"window": [9]},
        {"window": [9.5, 10]},
        {"stride": [-2, 2]},
        {"reduction": "sum"},
        {"sizes": [{"modulo": 0, "remainders": [0]}] * 2},
        {"receptive_field": {"start": [0, 0]}},
    ],
    ids=str,
)
def test_contradictions_are_not_read(values: Values) -> None:
    model = changed(converted_model(convert(exact())), says(**values))
    with pytest.raises(InvalidModelError, match="cannot be read"):
        read_geometry(model)


def test_the_report_and_the_plan_say_the_same() -> None:
    assert inspect(padded()).geometry == convert(padded()).geometry
