"""Our own library of matrix products: its C sources, and the one place that loads what they were built into.

`hatch_build.py` compiles it at the installation, where there is a C compiler and the processor is of x86-64. Nothing
needs it: without it ONNX Runtime's own products are used.
"""

from typing import Literal

ProductsChoice = Literal["auto", "own", "stock"]  # auto: ours where they are faster than ONNX Runtime's
