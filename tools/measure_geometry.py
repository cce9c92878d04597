"""Measure what the geometry claims, on random nets and on files: pixels change, cells move.

    python -m tools.measure_geometry --nets 1000                 # random graphs of sliding layers
    python -m tools.measure_geometry --nets 0 classics models    # files: tools/export_classics.py

A random net is measured at every pixel and at all sizes up to two strides above its own; a file at
the ends of the receptive field instead of at every pixel. Outcomes and measured cells are counted;
a contradiction is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_fc2conv import Fc2ConvError, RefusedError, convert
from onnx_fc2conv.views import Pool, interpret
from tests.geometry.measuring import (
    Measurement,
    measure_clean_cells,
    measure_field_ends,
    measure_output_size,
    measure_receptive_field,
    measure_verdict,
)
from tests.geometry.random_nets import RandomNet

_Measure = Callable[[Measurement], int]


def main(arguments: list[str] | None = None) -> int:
    """Measure, count, and say what contradicts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path, help="ONNX files, or folders of them")
    parser.add_argument("--nets", type=int, default=500, help="number of random nets")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    options = parser.parse_args(arguments)
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)

    counts: Counter[str] = Counter()
    contradictions = 0
    for name, attempt in (*_nets(options.first, options.nets), *_files(options.paths)):
        try:
            it, measures = attempt()
        except RefusedError as error:
            counts[f"refused: {error.refusals[0].code}"] += 1
            continue
        except Fc2ConvError as error:
            counts[f"not usable: {error}"] += 1
            continue
        counts[it.scores.verdict] += 1
        for measure in measures:
            what = measure.__name__.removeprefix("measure_").replace("_", " ")
            try:
                counts[f"measured: {what}"] += measure(it)
            except AssertionError as error:
                contradictions += 1
                print(f"{name}: {what}: {error}")
    for what, count in sorted(counts.items()):
        print(f"{count:>8} {what}")
    print(f"{contradictions:>8} contradictions")
    return 1 if contradictions else 0


_Attempt = tuple[str, Callable[[], tuple[Measurement, tuple[_Measure, ...]]]]


def _nets(first: int, count: int) -> Iterator[_Attempt]:
    for seed in range(first, first + count):

        def attempt(seed: int = seed) -> tuple[Measurement, tuple[_Measure, ...]]:
            net = RandomNet(seed)
            model = net.model()
            it = Measurement(model, convert(model, pool=net.pool), seed)
            everywhere: tuple[_Measure, ...] = (measure_output_size, measure_verdict)
            if it.scores.receptive_field is None:
                return it, everywhere
            return it, (*everywhere, measure_receptive_field, measure_clean_cells)

        yield f"net {seed}", attempt


def _files(paths: list[Path]) -> Iterator[_Attempt]:
    folders = [sorted(path.rglob("*.onnx")) if path.is_dir() else [path] for path in paths]
    for file in (file for files in folders for file in files):

        def attempt(file: Path = file) -> tuple[Measurement, tuple[_Measure, ...]]:
            model, pool = onnx.load(file), _pool_of(file)
            _add_read_map(model, pool)
            it = Measurement(model, convert(model, pool=pool))
            measures: list[_Measure] = [measure_output_size, measure_verdict]
            if it.scores.receptive_field is not None:
                measures.append(measure_field_ends)
                if len(it.conversion.geometry) == 2:
                    measures.append(measure_clean_cells)
            return it, tuple(measures)

        yield str(file), attempt


def _pool_of(file: Path) -> Pool:
    """How to convert the file so that its scores are a map."""
    whole = any(0 in geometry.stride for geometry in convert(file).geometry.values())
    return "window" if whole else "keep"


def _add_read_map(model: onnx.ModelProto, pool: Pool) -> None:
    """Make the feature map that the head reads an output, if it is one tensor of the model."""
    maps = [interpret(ir.from_proto(model), pool=pool).outputs[0].feature_map]
    for feature_map in maps:
        if feature_map.made_by_fc:
            maps.extend(source for source in feature_map.sources if source not in maps)
    read = [feature_map for feature_map in maps if not feature_map.made_by_fc]
    if len(model.graph.output) == len(read) == 1 and read[0].value is not None:
        element = model.graph.output[0].type.tensor_type.elem_type
        name, shape = read[0].value.name or "", [None] * len(read[0].layout)
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, shape))


if __name__ == "__main__":
    sys.exit(main())
