"""The user's own samples, read from files.

- ``.npz``: arrays by input name; an array with an output's name is its expected value.
- ``.npy``: the samples of the only input.
- a folder with ``input_0.pb`` … and perhaps ``output_0.pb`` …, as ONNX keeps test data, or with
  several such folders ``test_data_set_*``.
- a folder of images, see `images`.

Nothing is guessed: an array must have the shape and the type of its input (float64 is rounded to
float32), samples along the first axis.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.images import image_files, read_images
from onnx_fc2conv.equivalence.running.samples import ModelInput
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Recording", "Recordings", "read_recordings"]


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples, and the expected outputs where they are known.

    Attributes:
        feeds: By input, samples along the first axis.
        outputs: By output, likewise.
    """

    feeds: Mapping[str, AnyArray]
    outputs: Mapping[str, AnyArray]


@dataclass(frozen=True, eq=False)
class Recordings:
    """All that one file or folder holds.

    Attributes:
        name: The file or folder, as the user named it.
        items: Its recordings; never empty.
    """

    name: str
    items: tuple[Recording, ...]


def read_recordings(source: str | os.PathLike[str], pair: Pair) -> Recordings:
    """Read a file or folder.

    Raises:
        ArgumentError: If it cannot be read, or does not fit the models' inputs.
    """
    path = Path(source)
    try:
        found = list(_read(path, pair))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "no data"
        raise ArgumentError(f"cannot read the samples {path}: {reason}") from error
    return Recordings(str(path), tuple(_fitting(arrays, pair, path) for arrays in found))


def _read(path: Path, pair: Pair) -> Iterator[Mapping[str, AnyArray]]:
    """The arrays of each set of samples, by input or output.

    Raises:
        ArgumentError: If the format is unknown.
    """
    names = [i.name for i in pair.inputs]
    if path.is_dir():
        yield from _read_folder(path, pair)
    elif path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield {name: arrays[name] for name in arrays.files}
    elif path.suffix == ".npy":
        if len(names) != 1:
            raise ArgumentError(f"{path}: the model has several inputs, give them as an .npz file")
        with path.open("rb") as file:
            yield {names[0]: np.load(file, allow_pickle=False)}
    else:
        what = "is no .npz or .npy file, and no folder with ONNX test data or images"
        raise ArgumentError(f"{path} {what if path.exists() else 'does not exist'}")


def _read_folder(path: Path, pair: Pair) -> Iterator[Mapping[str, AnyArray]]:
    sets = [path] if any(path.glob("input_*.pb")) else sorted(path.glob("test_data_set_*"))
    for folder in sets:
        inputs = [i.name for i in pair.inputs]
        outputs = [value.name or "" for value in pair.reference.graph.outputs]
        yield {**_tensors(folder, "input", inputs), **_tensors(folder, "output", outputs)}
    if not sets:
        files = image_files(path)
        if not files:
            raise ArgumentError(f"{path} holds neither input_0.pb nor test_data_set_0 nor images")
        if len(pair.inputs) != 1:
            raise ArgumentError(f"{path}: the model has several inputs, which images cannot fill")
        yield read_images(files, pair)


def _tensors(folder: Path, kind: str, names: Sequence[str]) -> dict[str, AnyArray]:
    """The tensors of a folder of ONNX test data: by their own name if it is one, else by number."""
    found: dict[str, AnyArray] = {}
    for number, name in enumerate(names):
        file = folder / f"{kind}_{number}.pb"
        if not file.exists():
            continue
        proto = onnx.TensorProto()
        try:
            proto.ParseFromString(file.read_bytes())
            array = ir.serde.deserialize_tensor(proto).numpy()
        except Exception as error:
            raise ArgumentError(f"{file} is not an ONNX tensor") from error
        found[proto.name if proto.name in names else name] = array
    return found


def _fitting(arrays: Mapping[str, AnyArray], pair: Pair, path: Path) -> Recording:
    """The arrays as feeds and expected outputs.

    Raises:
        ArgumentError: If they do not fit.
    """
    inputs = {i.name: i for i in pair.inputs}
    outputs = {value.name or "" for value in pair.reference.graph.outputs}
    for name in arrays:
        if name not in inputs and name not in outputs:
            raise ArgumentError(
                f"{path} has an array {name!r}, but the model's inputs are: {', '.join(inputs)}"
            )
    for name in inputs:
        if name not in arrays:
            raise ArgumentError(f"{path} has no array for the input {name!r}")
    feeds = {name: _fed(arrays[name], i, pair.native[name], path) for name, i in inputs.items()}
    counts = {len(array) for array in feeds.values() if array.ndim > 1}
    if len(counts) > 1:
        raise ArgumentError(f"{path} has different numbers of samples: {sorted(counts)}")
    return Recording(feeds, {n: a for n, a in arrays.items() if n in outputs and n not in inputs})


def _fed(array: AnyArray, own: ModelInput, native: Sequence[int], path: Path) -> AnyArray:
    """Convert an array to the type of the input.

    Raises:
        ArgumentError: If its shape or type does not fit.
    """
    first = 1 if len(native) > 1 else 0
    if array.ndim != len(native) or array.shape[first:] != tuple(native[first:]) or not array.size:
        wanted = ", ".join(map(str, ["N", *native[1:]] if first else native))
        raise ArgumentError(
            f"{path}: {own.name!r} has shape {list(array.shape)}, the model takes [{wanted}]"
        )
    if array.dtype != own.dtype and not (array.dtype.kind == own.dtype.kind == "f"):
        raise ArgumentError(
            f"{path}: {own.name!r} has type {array.dtype}, the model takes {own.dtype}"
        )
    return np.ascontiguousarray(array, own.dtype)
