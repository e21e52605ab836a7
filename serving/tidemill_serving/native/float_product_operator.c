/* The float product as an operator of ONNX Runtime, on the runtime's own threads.
 *
 *   tidemill::PackedMatMul(input float [..., depth], packed uint8 [bytes]) -> float [..., width]
 *   attributes: depth, width, version
 */
#include <stdlib.h>

#include "float_product.h"
#include "operators.h"
#include "product.h"

enum { BLOCK_ROWS = 96, TASK_BYTES = 1 << 16, MIN_SHARED_PRODUCTS = 1 << 16 };

typedef struct {
  const Runtime *runtime;
  FloatMatrixShape matrix;
} Kernel;

/* What the tasks of one product share. */
typedef struct {
  const FloatMatrixShape *matrix;
  const float *packed, *input;
  float *output;
  int64_t num_rows, num_row_tasks, task_panels, num_panel_tasks;
} Work;

static void multiply_task(void *given, size_t index) {
  const Work *work = given;
  const int64_t block = (int64_t)index / work->num_panel_tasks;
  const int64_t panel = (int64_t)index % work->num_panel_tasks * work->task_panels;
  multiply_float_panels(work->matrix, work->packed, work->input, block * work->num_rows / work->num_row_tasks,
                        (block + 1) * work->num_rows / work->num_row_tasks, panel,
                        least(panel + work->task_panels, num_float_panels(work->matrix)), work->output);
}

static Status *multiply(const Kernel *kernel, const KernelContext *context, Work work) {
  const int64_t panels = num_float_panels(work.matrix), panel_bytes = (int64_t)packed_float_bytes(work.matrix) / panels;
  const int64_t wanted = TASK_BYTES / panel_bytes;
  work.task_panels = wanted < 1 ? 1 : wanted;
  work.num_panel_tasks = (panels + work.task_panels - 1) / work.task_panels;
  work.num_row_tasks = (work.num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  return share(kernel->runtime, context, &work, multiply_task, work.num_row_tasks * work.num_panel_tasks,
               work.num_rows * work.matrix->depth >= MIN_SHARED_PRODUCTS / work.matrix->width);
}

static Status *compute(void *given, KernelContext *context) {
  const Kernel *kernel = given;
  const Runtime *runtime = kernel->runtime;
  Tensor input, packed;
  void *output = NULL;
  TRY(read_input(runtime, context, 0, &input));
  TRY(read_input(runtime, context, 1, &packed));
  const size_t count = input.num_dimensions;
  if (count == 0 || input.dimensions[count - 1] != kernel->matrix.depth) {
    return fail(runtime, "the input's last dimension is not the matrix' depth");
  }
  if (packed.num_elements != packed_float_bytes(&kernel->matrix)) {
    return fail(runtime, "the packed matrix has another size");
  }
  input.dimensions[count - 1] = kernel->matrix.width;
  TRY(open_output(runtime, context, 0, input.dimensions, count, &output));
  if (input.num_elements == 0) return NULL;
  const int64_t num_rows = (int64_t)input.num_elements / kernel->matrix.depth;
  return multiply(kernel, context, (Work){&kernel->matrix, packed.data, input.data, output, num_rows, 0, 0, 0});
}

static Status *create_kernel(const Operator *op, const Runtime *runtime, const KernelInfo *info, void **created) {
  (void)op;
  FloatMatrixShape matrix;
  int64_t version = 0;
  TRY(CALL(runtime, get_integer)(info, "depth", &matrix.depth));
  TRY(CALL(runtime, get_integer)(info, "width", &matrix.width));
  TRY(CALL(runtime, get_integer)(info, "version", &version));
  if (!product_runs_here()) return fail(runtime, "this processor has no AVX2 and FMA");
  if (version != TIDEMILL_FLOAT_PRODUCT_VERSION) return fail(runtime, "the matrix was packed by another version");
  if (!float_matrix_is_valid(&matrix)) return fail(runtime, "there is no such matrix");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(runtime, "there is no memory");
  *kernel = (Kernel){runtime, matrix};
  *created = kernel;
  return NULL;
}

static const char *get_name(const Operator *op) { return (void)op, "PackedMatMul"; }
static size_t get_num_inputs(const Operator *op) { return (void)op, 2; }
static size_t get_num_outputs(const Operator *op) { return (void)op, 1; }
static int get_input_type(const Operator *op, size_t index) { return (void)op, index ? ELEMENT_UINT8 : ELEMENT_FLOAT; }
static int get_output_type(const Operator *op, size_t index) { return (void)op, (void)index, ELEMENT_FLOAT; }
static int get_characteristic(const Operator *op, size_t index) { return (void)op, (void)index, 0; }

const Operator FLOAT_PRODUCT_OPERATOR = {
    .version = RUNTIME_INTERFACE,
    .get_name = get_name,
    .get_provider = provider_of_operators,
    .get_input_type = get_input_type,
    .get_num_inputs = get_num_inputs,
    .get_output_type = get_output_type,
    .get_num_outputs = get_num_outputs,
    .destroy_kernel = free,
    .get_input_characteristic = get_characteristic,
    .get_output_characteristic = get_characteristic,
    .get_input_memory = memory_of_operators,
    .create_kernel_or_fail = create_kernel,
    .compute_or_fail = compute,
    .get_first_version = version_of_operators,
    .get_last_version = version_of_operators,
};

EXPORTED int tidemill_float_product_version(void) { return TIDEMILL_FLOAT_PRODUCT_VERSION; }
EXPORTED int tidemill_float_product_is_wanted(void) { return float_product_is_wanted(); }

/* Bytes of the packed matrix; 0: there is no such matrix. */
EXPORTED size_t tidemill_packed_float_bytes(const FloatMatrixShape *matrix) {
  return float_matrix_is_valid(matrix) ? packed_float_bytes(matrix) : 0;
}

EXPORTED void tidemill_pack_float(const FloatMatrixShape *matrix, const uint8_t *values, int64_t row_step,
                                  int64_t column_step, float *packed) {
  pack_float_matrix(matrix, values, row_step, column_step, packed);
}
