"""The ImageNet classifiers of the onnx wheel, with random weights: minutes, so run by hand.

pytest -m slow tests/test_light_models.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.light_models import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        (
            "bvlc_alexnet",
            [[4096, 256, 6, 6], [4096, 4096, 1, 1], [1000, 4096, 1, 1]],
        ),
        ("zfnet512", [[4096, 512, 6, 6], [1024, 4096, 1, 1], [1000, 1024, 1, 1]]),
        ("vgg19", [[4096, 512, 7, 7], [4096, 4096, 1, 1], [1000, 4096, 1, 1]]),
        ("inception_v1", [[1000, 1024, 1, 1]]),
        ("inception_v2", [[1000, 1024, 1, 1]]),
        ("resnet50", [[1000, 2048, 1, 1]]),
        ("shufflenet", [[1000, 544, 1, 1]]),
    ],
)
def test_converts_and_is_equivalent(name: str, kernels: list[list[int]], tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert result["code"] == 0, result
    assert result["status"] == "equivalent"
    assert [head["kernel_shape"] for head in result["heads"]] == kernels
    compared = {check["tier"]: check for check in result["checks"] if check["status"] == "passed"}
    assert {"native", "feature windows"} <= set(compared)
    assert any("before its Softmax" in check["subject"] for check in result["checks"])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("squeezenet", "nothing-to-convert"),
        ("densenet121", "nothing-to-convert"),
    ],
)
def test_is_refused(name: str, code: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert result["code"] == 3
    assert code in {refusal["code"] for refusal in result["refusals"]}
