/* What Python asks of the library, see library.py. */
#include "float_product.h"
#include "operators.h"
#include "product.h"
#include "program.h"

EXPORTED int tidemill_version(void) { return TIDEMILL_PROGRAM_VERSION; }
EXPORTED int tidemill_runs_here(void) { return product_runs_here(); }
EXPORTED int tidemill_is_wanted(void) { return product_is_wanted(); }
EXPORTED int tidemill_floats_are_wanted(void) { return float_product_is_wanted(); }

/* Bytes of a packed matrix; 0: there is no such matrix. */
EXPORTED size_t tidemill_packed_bytes(const MatrixShape *matrix) {
  return matrix_is_valid(matrix) ? packed_bytes(matrix) : 0;
}

EXPORTED void tidemill_pack(const MatrixShape *matrix, const uint8_t *values, const float *scales,
                            const uint8_t *zero_points, uint8_t *packed) {
  pack_matrix(matrix, values, scales, zero_points, packed);
}

EXPORTED size_t tidemill_packed_float_bytes(const FloatMatrixShape *matrix) {
  return float_matrix_is_valid(matrix) ? packed_float_bytes(matrix) : 0;
}

EXPORTED void tidemill_pack_float(const FloatMatrixShape *matrix, const uint8_t *values, int64_t row_step,
                                  int64_t column_step, float *packed) {
  pack_float_matrix(matrix, values, row_step, column_step, packed);
}
