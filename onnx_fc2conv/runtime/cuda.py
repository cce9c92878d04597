"""Why there is no CUDA where onnxruntime cannot start it, asked of NVIDIA's driver itself.

The driver's library has C functions for it (CUDA Driver API: ``cuInit``, ``cuDeviceGetCount``).
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["why_no_cuda"]

_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE"""


def why_no_cuda() -> str:
    """Return what is missing: the driver, a device, or the libraries of CUDA and cuDNN."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"there is no NVIDIA driver here ({name} cannot be loaded)"
    status = int(driver.cuInit(0))
    if status == _NO_DEVICE:
        return "NVIDIA's driver sees no device (is CUDA_VISIBLE_DEVICES empty?)"
    if status:
        return f"NVIDIA's driver does not start (CUDA error {status})"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return "NVIDIA's driver sees no device"
    return (
        f"the driver sees {count.value} device(s), but onnxruntime cannot load the CUDA or cuDNN "
        'libraries of its version: pip install "onnx-fc2conv[gpu]" brings them'
    )
