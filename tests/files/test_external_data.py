"""Models of two files: the weights are copied from file to file, or stay where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence import check
from onnx_fc2conv.files import linked
from onnx_fc2conv.files.reading import load, stored_tensors
from onnx_fc2conv.files.staging import staged
from tests.cli.conftest import MODELS, Run, run
from tests.files.test_large import embedded, external
from tests.nets import Net

__all__ = ["run"]


def locations(file: Path) -> set[str]:
    model = onnx.load(file, load_external_data=False)
    return {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def flat_head(folder: Path) -> Path:
    """A model with external data whose kernel is its weight's own bytes."""
    net = Net()
    file = folder / "model.onnx"
    onnx.save(
        net.model(net.fc(net.flat(net.trunk()), 40)),
        file,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return file


def test_linked_weights_are_not_written_again(run: Run, tmp_path: Path) -> None:
    source, out = flat_head(tmp_path), tmp_path / "out.onnx"
    outcome = run(source, out, "--link-weights")
    assert outcome.code == 0, outcome.err
    assert "out.onnx reads its weights from the data file of model.onnx." in outcome.out
    assert locations(out) == {"weights.bin"}
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "weights.bin", "out.onnx"}
    assert check(source, out)


def test_what_is_new_is_in_the_linked_model_itself(run: Run, tmp_path: Path) -> None:
    """The kernel holds its weights in another order than the layer."""
    source, out = external(tmp_path, "weights/all.bin"), tmp_path / "out.onnx"
    outcome = run(source, out, "--link-weights", "--no-check")
    assert outcome.code == 0, outcome.err
    assert locations(out) == {"weights/all.bin"}
    stored = onnx.load(out, load_external_data=False).graph.initializer
    assert any(tensor.raw_data for tensor in stored if len(tensor.dims) == 4)
    assert check(source, out)


def test_a_link_does_not_reach_another_folder(run: Run, tmp_path: Path) -> None:
    source = flat_head(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    outcome = run(source, tmp_path / "elsewhere" / "out.onnx", "--link-weights")
    assert outcome.code == 2
    assert outcome.error_lines == [
        f"fc2conv: --link-weights: OUT has to lie in {tmp_path.resolve()}, beside weights.bin, "
        "which it is to refer to"
    ]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_there_is_nothing_to_link_in_a_model_of_one_file(run: Run, tmp_path: Path) -> None:
    outcome = run(embedded(tmp_path), tmp_path / "out.onnx", "--link-weights")
    assert outcome.code == 2
    assert "IN has no external data" in outcome.err


def test_more_new_weights_than_one_file_holds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linked, "INLINE_LIMIT", 1 << 10)
    source, out = external(tmp_path, "weights.bin"), tmp_path / "out.onnx"
    outcome = run(source, out, "--link-weights", "--no-check")
    assert outcome.code == 2
    assert "leave it out" in outcome.err
    assert not out.exists()


def odd_sizes(folder: Path) -> Path:
    """Weights that end between the offsets that the next one may have."""
    file = folder / "odd.onnx"
    model = onnx.load(MODELS / "face25.onnx")
    onnx.save(model, file, save_as_external_data=True, location="w", size_threshold=256)
    assert any(tensor.nbytes % 64 for tensor in stored_tensors(load(file)) if tensor.nbytes > 256)
    return file


@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize("make", [odd_sizes, partial(external, location="weights.bin", front=4096)])
def test_copied_weights_are_the_bytes_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], by_kernel: bool
) -> None:
    if not by_kernel:  # as between some file systems, and outside of Linux
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    source, target = make(tmp_path), tmp_path / "copy.onnx"
    with staged(target, load(source), overwrite=False):
        pass
    assert locations(target) == {"copy.onnx.data"}
    one, two = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (onnx.load(source), onnx.load(target))
    )
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


def test_weights_of_one_place_are_written_once(tmp_path: Path) -> None:
    model = load(flat_head(tmp_path))
    (weight,) = (v for v in model.graph.initializers.values() if v.const_value.nbytes > 4096)
    for number in range(3):
        tied = ir.Value(name=f"tied{number}", const_value=weight.const_value)
        tied.shape, tied.type = weight.shape, weight.type
        model.graph.register_initializer(tied)
    target = tmp_path / "tied.onnx"
    with staged(target, model, overwrite=False):
        pass
    written = (tmp_path / "tied.onnx.data").stat().st_size
    assert written < 2 * weight.const_value.nbytes


def test_a_link_in_place_of_a_copy_and_back(run: Run, tmp_path: Path) -> None:
    """The copy that nothing refers to any more goes, the data of the original stays."""
    source, out = flat_head(tmp_path), tmp_path / "out.onnx"
    options = ("--no-check", "--overwrite")
    for more, kept in (((), True), (("--link-weights",), False), ((), True)):
        outcome = run(source, out, *options, *more)
        assert outcome.code == 0, outcome.err
        assert (tmp_path / "out.onnx.data").exists() == kept
        assert (tmp_path / "weights.bin").exists()
        assert check(source, out)
