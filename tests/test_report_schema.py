"""Reports are what docs/report.schema.json says, and it says what is in them.

The validator knows the keywords that the schema uses and refuses any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MODELS, Run, run
from tests.equivalence.conftest import NETS, Case, case_of
from tests.nets import Net

__all__ = ["case_of", "run"]  # fixtures

SCHEMA = json.loads(
    (Path(__file__).parents[1] / "docs" / "report.schema.json").read_text(encoding="utf-8")
)
TYPES: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def is_of(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        kinds = (int,) if name == "integer" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def fault(schema: Mapping[str, Any], value: Any, where: str = "report") -> str:  # noqa: PLR0912
    """What is wrong with the value; empty if nothing is."""
    for keyword, wanted in schema.items():
        match keyword:
            case "$schema" | "title" | "description":
                pass
            case "type":
                names = [wanted] if isinstance(wanted, str) else wanted
                if not any(is_of(value, name) for name in names):
                    return f"{where} is no {wanted}: {value!r}"
            case "const" if value != wanted:
                return f"{where} is not {wanted!r}"
            case "enum" if value not in wanted:
                return f"{where} is none of {wanted}: {value!r}"
            case "const" | "enum":
                pass
            case "minimum":
                if is_of(value, "number") and value < wanted:
                    return f"{where} is less than {wanted}"
            case "required":
                missing = [key for key in wanted if isinstance(value, dict) and key not in value]
                if missing:
                    return f"{where} lacks {missing}"
            case "properties" | "additionalProperties" | "items":
                pass
            case "anyOf":
                if all(fault(one, value, where) for one in wanted):
                    return f"{where}: {[fault(one, value, where) for one in wanted]}"
            case _:
                raise AssertionError(f"the validator does not know {keyword}")
    return _fault_inside(schema, value, where)


def _fault_inside(schema: Mapping[str, Any], value: Any, where: str) -> str:
    if isinstance(value, list) and "items" in schema:
        found = [fault(schema["items"], v, f"{where}[{n}]") for n, v in enumerate(value)]
        return next(filter(None, found), "")
    if not isinstance(value, dict):
        return ""
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, inner in value.items():
        if key in known:
            found_inside = fault(known[key], inner, f"{where}.{key}")
        elif isinstance(rest, dict):
            found_inside = fault(rest, inner, f"{where}.{key}")
        else:
            found_inside = "" if rest else f"{where}.{key} is not in the schema"
        if found_inside:
            return found_inside
    return ""


def assert_described(report: Any) -> None:
    """Valid, and without a key that the schema does not describe."""
    assert fault(SCHEMA, report) == ""
    assert set(report) <= set(SCHEMA["properties"])
    for check in report["checks"]:
        assert set(check) <= set(SCHEMA["properties"]["checks"]["items"]["properties"])
    for key in ("heads", "poolings", "left_alone", "refusals"):
        for item in report.get(key, ()):
            assert set(item) <= set(SCHEMA["properties"][key]["items"]["properties"])


@pytest.mark.parametrize("net", NETS)
def test_report_of_a_check(net: str, case_of: Callable[[str], Case]) -> None:
    assert_described(json.loads(case_of(net).check().to_json()))


@pytest.mark.parametrize("option", [(), ("--static",), ("--reduce", "max"), ("--no-check",)])
def test_report_of_a_conversion(run: Run, tmp_path: Path, option: tuple[str, ...]) -> None:
    report = tmp_path / "report.json"
    run(MODELS / "face25.onnx", tmp_path / "out.onnx", "--report", report, *option)
    assert_described(json.loads(report.read_text(encoding="utf-8")))


def test_reports_of_the_other_commands(run: Run, tmp_path: Path) -> None:
    assert_described(json.loads(run("inspect", MODELS / "face25.onnx", "--json").out))
    report = tmp_path / "report.json"
    model = MODELS / "digits8.onnx"
    run("check", model, model, "--expect", "map", "--report", report)
    values = json.loads(report.read_text(encoding="utf-8"))
    assert values["status"] == "different"
    assert_described(values)


def test_report_of_a_refusal(run: Run, tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.op("Relu", net.x))
    (tmp_path / "relu.onnx").write_bytes(model.SerializeToString())
    result = run("inspect", tmp_path / "relu.onnx", "--json")
    assert result.code == 3
    assert_described(json.loads(result.out))


GOOD = {
    "schema": 1,
    "status": "equivalent",
    "reference": None,
    "converted": "out.onnx",
    "geometry": {},
    "relation": {"kind": "map", "words": ""},
    "notes": [],
    "providers": [{"name": "cpu", "settings": {}, "seconds": 0.1}],
    "onnxruntime": "1.31.0",
    "seed": 0,
    "seconds": 0.1,
    "bins": ["<1e-9", "≥1e-9"],
    "checks": [
        {
            "provider": "cpu",
            "tier": "native",
            "subject": "y",
            "status": "passed",
            "detail": "",
            "elements": 1,
            "worst_error": "nan",
            "required_rtol": None,
            "where": None,
            "quantiles": {"0.5": 0.0},
            "histogram": [1, 0],
            "not_finite": 0,
        }
    ],
}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"status": "fine"},
        {"seed": 0.5},
        {"seed": True},
        {"seconds": -1},
        {"notes": [1]},
        {"relation": {"kind": "map"}},
        {"relation": None},
        {"geometry": {"y": {"input": "x"}}},
        {"providers": [{"name": "tpu", "settings": {}, "seconds": 0.1}]},
        {"checks": [{**GOOD["checks"][0], "elements": -1}]},  # type: ignore[index]
        {"checks": [{**GOOD["checks"][0], "worst_error": "large"}]},  # type: ignore[index]
        {"checks": [{**GOOD["checks"][0], "histogram": [0.5]}]},  # type: ignore[index]
        {"checks": [{**GOOD["checks"][0], "quantiles": {"0.5": "small"}}]},  # type: ignore[index]
        {"checks": {}},
    ],
    ids=str,
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    assert fault(SCHEMA, GOOD) == ""
    assert fault(SCHEMA, {**GOOD, **change}) != ""


@pytest.mark.parametrize("key", GOOD)
def test_no_key_may_be_missing(key: str) -> None:
    assert fault(SCHEMA, {k: v for k, v in GOOD.items() if k != key}) != ""
