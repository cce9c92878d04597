"""Convert and check the models of models/ and a VGG-16 on a GPU; write docs/gpu.json and gpu.md.

VGG-16 (Simonyan and Zisserman 2014, configuration D, 224×224, 138 million weights) is made here
with random, He-scaled weights: their values do not matter to the question whether two graphs
compute the same. Every tier of the check runs on the provider that is asked for and on no other.

    python tools/gpu_check.py                                     # CUDA; writes into docs/
    python tools/gpu_check.py --provider cpu --out /tmp           # the tool itself, without a GPU
    python tools/gpu_check.py --provider cpu --out /tmp digits8   # one model

Where CUDA cannot be had the reason is printed and the exit code is 2; docs/gpu.md is written to say
so if it holds no figures yet.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_fc2conv import EquivalenceReport, RuntimeUnavailableError, check, convert
from onnx_fc2conv.runtime.session import runtime_version
from onnx_fc2conv.runtime.start import Provider

ROOT = Path(__file__).parents[1]
MODELS = {path.stem: path for path in sorted((ROOT / "models").glob("*.onnx"))}
VGG = "vgg16"
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Channels of each convolution; 0 is a pooling."""


def vgg16(width: int = 64, image: int = 224, seed: int = 0) -> onnx.ModelProto:
    """VGG-16 with random weights; ``width`` is the number of channels of its first layer."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def layer(op_type: str, x: str, shape: tuple[int, ...], **attributes: object) -> str:
        name = f"{op_type.lower()}{len(nodes)}"
        scale = np.sqrt(2 / np.prod(shape[1:]))
        array = rng.standard_normal(shape, np.float32) * np.float32(scale)
        bias = rng.standard_normal(shape[0], np.float32) * np.float32(0.1)
        weights.append(numpy_helper.from_array(array, f"{name}.weight"))
        weights.append(numpy_helper.from_array(bias, f"{name}.bias"))
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def plain(op_type: str, x: str, **attributes: object) -> str:
        name = f"{op_type.lower()}{len(nodes)}"
        nodes.append(helper.make_node(op_type, [x], [name], name, **attributes))
        return name

    x, channels, extent = "image", 3, image
    for layer_channels in _LAYERS:
        if not layer_channels:
            x = plain("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            extent //= 2
            continue
        made = layer_channels * width // 64
        x = plain("Relu", layer("Conv", x, (made, channels, 3, 3), pads=[1, 1, 1, 1]))
        channels = made
    x, features = plain("Flatten", x), channels * extent**2
    for outputs in (64 * width, 64 * width):
        x = plain("Relu", layer("Gemm", x, (outputs, features), transB=1))
        features = outputs
    nodes[-1].output[0] = "last"
    layer("Gemm", "last", (1000, features), transB=1)
    nodes[-1].output[0] = "scores"
    shape = ["N", 3, image, image]
    graph = helper.make_graph(
        nodes,
        "vgg16",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1000])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def files(names: Sequence[str], width: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """The model files by name; VGG-16 is written into the folder first."""
    for name in names:
        if name != VGG:
            yield name, MODELS[name]
            continue
        path = folder / "vgg16.onnx"
        onnx.save(vgg16(width), path, save_as_external_data=True, location="vgg16.data")
        yield name, path


def device(provider: Provider) -> str:
    """What the models ran on, in words."""
    if provider == "cpu":
        return f"CPU ({platform.machine()})"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "a CUDA device that nvidia-smi does not name"
    return done.stdout.strip().splitlines()[0]


def markdown(reports: dict[str, EquivalenceReport], where: str) -> str:
    """The reports as a table: a row for each model and tier."""
    report = next(iter(reports.values()))
    settings = ", ".join(f"{k}={v}" for k, v in report.runs[0].settings.items()) or "its defaults"
    lines = [
        "# The check on a GPU" if report.runs[0].provider == "cuda" else "# The check on a CPU",
        "",
        f"Written by `tools/gpu_check.py`: {where}, onnxruntime {report.runtime}, {settings}.",
        "",
        "| model | verdict | tier | result | elements | worst error | smallest rtol | seconds |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, report in reports.items():
        for number, tier in enumerate(dict.fromkeys(r.tier for r in report.results)):
            results = [r for r in report.results if r.tier == tier]
            status = ", ".join(dict.fromkeys(r.status for r in results))
            worst = max((r.worst_error for r in results if r.worst_error is not None), default=None)
            rtols = [r.required_rtol for r in results if r.required_rtol is not None]
            rtol = max(rtols, default=None)
            head = (name, report.verdict, f"{report.seconds:.1f}") if not number else ("", "", "")
            cells = (
                *(head[0], head[1], tier, status, f"{sum(r.elements for r in results):,}"),
                *("" if figure is None else f"{figure:.2g}" for figure in (worst, rtol)),
                head[2],
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


NOTHING = """# The check on a GPU

Nothing has been run on a GPU yet. `--provider cuda` is there and is meant to work, but no figure in
this project comes from it. `python tools/gpu_check.py` on a machine with a CUDA device and
`onnxruntime-gpu` replaces this page by what it measures.
"""


def main() -> int:
    """Run the tool; 0 if all is equivalent, 1 if not, 2 where the provider cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"of: {', '.join([*MODELS, VGG])} (all)")
    parser.add_argument("--provider", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder to write into")
    parser.add_argument("--vgg-width", type=int, default=64, help="channels of its first layer")
    options = parser.parse_args()
    for name in options.models:
        if name not in (*MODELS, VGG):
            parser.error(f"there is no model {name!r}")
    stem = "gpu" if options.provider == "cuda" else "cpu"
    page, data = options.out / f"{stem}.md", options.out / f"{stem}.json"
    reports: dict[str, EquivalenceReport] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            names = options.models or [*MODELS, VGG]
            for name, path in files(names, options.vgg_width, Path(folder)):
                conversion = convert(path)
                assert conversion.model is not None
                reports[name] = check(
                    path,
                    conversion.model,
                    providers=(options.provider,),
                    geometry=conversion.geometry,
                )
                print(f"{name}: {reports[name].verdict} ({reports[name].seconds:.1f} s)")
    except RuntimeUnavailableError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        if stem == "gpu" and not data.exists():
            page.write_text(NOTHING, encoding="utf-8")
        return 2
    where = device(options.provider)
    everything = {
        "device": where,
        "onnxruntime": runtime_version(),
        "models": {name: {**r.as_dict(), "reference": name} for name, r in reports.items()},
    }
    data.write_text(json.dumps(everything, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(markdown(reports, where), encoding="utf-8")
    print(f"wrote {data} and {page}")
    return 0 if all(reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
