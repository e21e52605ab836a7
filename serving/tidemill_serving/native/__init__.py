"""Our own kernels, of products and of attention: C sources, and the one place that loads what they became.

`hatch_build.py` compiles them at the installation, where there is a C compiler and the processor is of x86-64. Nothing
needs them: without them ONNX Runtime's own are used.
"""

from typing import Literal

KernelsChoice = Literal["auto", "own", "stock"]  # auto: ours where they are faster than ONNX Runtime's
