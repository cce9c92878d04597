"""``python -m onnx_fc2conv``."""

from onnx_fc2conv.cli import main

if __name__ == "__main__":
    main()
