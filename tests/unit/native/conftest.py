"""What tests of our own kernels need."""

import pytest

from tidemill_serving.native.library import find_products

needs_kernels = pytest.mark.skipif(find_products() is None, reason="our kernels are not built here, or need AVX2")
