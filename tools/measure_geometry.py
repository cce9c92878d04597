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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
from tests.geometry.misaligned import measure_misaligned
from tests.geometry.random_nets import RandomNet

_Measure = Callable[[Measurement], int]


@dataclass(frozen=True)
class _Subject:
    """A model, its verdict, and what measures the claims: each gives the number of comparisons."""

    name: str
    verdict: str
    measures: Mapping[str, Callable[[], int]]


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
    for subject in chain(_nets(options.first, options.nets), _files(options.paths)):
        counts[subject.verdict] += 1
        for what, measure in subject.measures.items():
            try:
                counts[f"measured: {what}"] += measure()
            except AssertionError as error:
                contradictions += 1
                print(f"{subject.name}: {what}: {error}")
    for what, count in sorted(counts.items()):
        print(f"{count:>8} {what}")
    print(f"{contradictions:>8} contradictions")
    return 1 if contradictions else 0


def _nets(first: int, count: int) -> Iterator[_Subject]:
    for seed in range(first, first + count):
        net = RandomNet(seed)
        model = net.model()
        try:
            conversion = convert(model, pool=net.pool)
        except RefusedError as error:
            code = error.refusals[0].code
            yield _Subject(
                f"net {seed}", f"refused: {code}", {code: partial(measure_misaligned, model, seed)}
            )
            continue
        it = Measurement(model, conversion, seed)
        measures: list[_Measure] = [measure_output_size, measure_verdict]
        if it.scores.receptive_field is not None:
            measures += [measure_receptive_field, measure_clean_cells]
        yield _subject(f"net {seed}", it, measures)


def _files(paths: list[Path]) -> Iterator[_Subject]:
    folders = [sorted(path.rglob("*.onnx")) if path.is_dir() else [path] for path in paths]
    for file in (file for files in folders for file in files):
        try:
            model, pool = onnx.load(file), _pool_of(file)
            _add_read_map(model, pool)
            it = Measurement(model, convert(model, pool=pool))
        except Fc2ConvError as error:
            yield _Subject(str(file), f"not usable: {error}", {})
            continue
        measures: list[_Measure] = [measure_output_size, measure_verdict]
        if it.scores.receptive_field is not None:
            measures.append(measure_field_ends)
            if len(it.conversion.geometry) == 2:
                measures.append(measure_clean_cells)
        yield _subject(str(file), it, measures)


def _subject(name: str, it: Measurement, measures: Iterable[_Measure]) -> _Subject:
    return _Subject(
        name,
        it.scores.verdict,
        {m.__name__.removeprefix("measure_").replace("_", " "): partial(m, it) for m in measures},
    )


def _pool_of(file: Path) -> Pool:
    """How to convert the file so that its scores are a map."""
    whole = any(0 in geometry.stride for geometry in convert(file).geometry.values())
    return "window" if whole else "keep"


def _add_read_map(model: onnx.ModelProto, pool: Pool) -> None:
    """Make the feature map that the head reads an output, if it is one tensor of the model."""
    maps = [interpret(ir.from_proto(model), pool=pool).outputs[0].feature_map]
    for feature_map in maps:
        if feature_map.one_per_window:
            maps.extend(source for source in feature_map.sources if source not in maps)
    read = [feature_map for feature_map in maps if not feature_map.one_per_window]
    if len(model.graph.output) == len(read) == 1 and read[0].value is not None:
        element = model.graph.output[0].type.tensor_type.elem_type
        name, shape = read[0].value.name or "", [None] * len(read[0].layout)
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, shape))


if __name__ == "__main__":
    sys.exit(main())
