"""``fc2conv``, ``conv2fc`` and ``python -m onnx_fc2conv``: where the programs start and end."""

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager

from onnx_fc2conv.interrupts import interruptible
from onnx_fc2conv.streams import lasting_streams

__all__ = ["conv2fc", "fc2conv"]


def fc2conv() -> None:
    """The program ``fc2conv``."""
    with _program("fc2conv"):
        from onnx_fc2conv.cli import main  # noqa: PLC0415 - after interrupts are taken care of

        main()


def conv2fc() -> None:
    """The program ``conv2fc``."""
    with _program("conv2fc"):
        from onnx_fc2conv.cli.conv2fc import main  # noqa: PLC0415

        main()


@contextmanager
def _program(name: str) -> Generator[None]:
    with lasting_streams(name):
        try:
            with interruptible(name):
                yield
        except MemoryError:  # nothing could be imported
            sys.stderr.write(f"{name}: out of memory\n")
            sys.exit(2)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done, only Python ends


if __name__ == "__main__":
    fc2conv()
