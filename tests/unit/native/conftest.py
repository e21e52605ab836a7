"""What tests of our own kernels need."""

import pytest

from tidemill_serving.native.library import find_kernels

needs_kernels = pytest.mark.skipif(find_kernels() is None, reason="our kernels are not built here, or need AVX2")
