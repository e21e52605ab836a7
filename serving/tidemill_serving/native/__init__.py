"""Our own library in C: kernels of products and of attention, and the choice of tokens.

`hatch_build.py` compiles them at the installation, where there is a C compiler and the processor is of x86-64. Nothing
needs them: without them ONNX Runtime's own kernels are used, and numpy chooses.
"""

from typing import Literal

KernelsChoice = Literal["auto", "own", "stock"]  # auto: ours where they are faster than ONNX Runtime's
