"""How long onnxruntime takes for one pass of each of two models, measured in turns.

    python -m tools.benchmarks.latency ORIGINAL CONVERTED BATCH PASSES

prints the two medians in seconds as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort


def main(original: str, converted: str, batch: str, passes: str) -> None:
    """Measure."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The threads of a model that waits must not keep a core busy while the other one runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    sessions = [
        ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for file in (original, converted)
    ]
    (image, *_) = sessions[0].get_inputs()
    shape = (int(batch), *image.shape[1:])
    feeds = {image.name: np.random.default_rng(0).random(shape, np.float32)}
    seconds: tuple[list[float], list[float]] = ([], [])
    pairs = list(zip(sessions, seconds, strict=True))
    for number in range(int(passes) + 1):
        pairs.reverse()  # neither is always the second
        for session, found in pairs:
            start = time.perf_counter()
            session.run(None, feeds)
            if number:  # the first pass allocates
                found.append(time.perf_counter() - start)
    print(json.dumps([statistics.median(found) for found in seconds]))


if __name__ == "__main__":
    main(*sys.argv[1:])
