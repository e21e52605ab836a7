/* What Python asks of the library, see library.py. */
#include <stdatomic.h>

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

EXPORTED size_t tidemill_packed_float_bytes(const FloatMatrixShape *matrix) {
  return float_matrix_is_valid(matrix) ? packed_float_bytes(matrix) : 0;
}

/* A matrix, and where it is packed to. One of 32 bits is of floats, which alone have steps. */
typedef struct {
  MatrixShape shape;
  int64_t row_step, column_step;
  const uint8_t *values;
  const float *scales;
  const uint8_t *zero_points;
  void *packed;
} PackingJob;

/* Any number of threads may work on the same jobs: each takes the `next` one until there is none. One call for all of
 * them, since a thread that comes back to Python in between may have to wait for it. */
EXPORTED void tidemill_pack(const PackingJob *jobs, int64_t num_jobs, _Atomic int64_t *next) {
  for (int64_t index; (index = atomic_fetch_add(next, 1)) < num_jobs;) {
    const PackingJob *job = &jobs[index];
    if (job->shape.bits == 32) {
      const FloatMatrixShape shape = {job->shape.depth, job->shape.width};
      pack_float_matrix(&shape, job->values, job->row_step, job->column_step, job->packed);
    } else {
      pack_matrix(&job->shape, job->values, job->scales, job->zero_points, job->packed);
    }
  }
}
