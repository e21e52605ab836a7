/* The product as an operator of ONNX Runtime, on the runtime's own threads.
 *
 *   tidemill::PackedMatMulNBits(input float [..., depth], packed uint8 [bytes]) -> float [..., width]
 *   attributes: depth, width, bits, block, has_zero_points, version
 */
#include <stdlib.h>

#include "operators.h"
#include "product.h"

enum { SLAB_ROWS = 512, BLOCK_ROWS = 64, QUANTIZE_ROWS = 8 };
enum { MIN_SHARED_PRODUCTS = 1 << 16, MIN_SHARED_NUMBERS = 1 << 14, TASK_BYTES = 1 << 16 };

typedef struct {
  const Runtime *runtime;
  Allocator *allocator;
  MatrixShape matrix;
} Kernel;

/* What the tasks of one product share; its rows are a slab of the input's. */
typedef struct {
  const MatrixShape *matrix;
  const uint8_t *packed;
  const float *input;
  float *output;
  QuantizedRows rows;
  int64_t num_rows;
  int64_t task_panels;
  int64_t num_panel_tasks;
} Work;

static void quantize_task(void *given, size_t index) {
  const Work *work = given;
  const int64_t first = (int64_t)index * QUANTIZE_ROWS;
  quantize_rows(work->matrix, work->input, first, least(first + QUANTIZE_ROWS, work->num_rows), work->rows);
}

static void multiply_task(void *given, size_t index) {
  const Work *work = given;
  const int64_t row = (int64_t)index / work->num_panel_tasks * BLOCK_ROWS;
  const int64_t panel = (int64_t)index % work->num_panel_tasks * work->task_panels;
  multiply_panels(work->matrix, work->packed, work->rows, row, least(row + BLOCK_ROWS, work->num_rows), panel,
                  least(panel + work->task_panels, num_panels(work->matrix)), work->output);
}

static Status *multiply_slab(const Kernel *kernel, const KernelContext *context, Work *work) {
  const MatrixShape *matrix = work->matrix;
  const int64_t panels = num_panels(matrix), panel_bytes = (int64_t)packed_bytes(matrix) / panels;
  const int64_t wanted = TASK_BYTES / panel_bytes;
  work->task_panels = wanted < 1 ? 1 : wanted;
  work->num_panel_tasks = (panels + work->task_panels - 1) / work->task_panels;
  const int64_t num_numbers = work->num_rows * matrix->depth;
  TRY(share(kernel->runtime, context, work, quantize_task, (work->num_rows + QUANTIZE_ROWS - 1) / QUANTIZE_ROWS,
            num_numbers >= MIN_SHARED_NUMBERS));
  const int64_t row_tasks = (work->num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  return share(kernel->runtime, context, work, multiply_task, row_tasks * work->num_panel_tasks,
               num_numbers >= MIN_SHARED_PRODUCTS / matrix->width);
}

static Status *multiply(const Kernel *kernel, const KernelContext *context, const uint8_t *packed, const float *input,
                        int64_t num_rows, float *output) {
  const MatrixShape *matrix = &kernel->matrix;
  const int64_t slab = least(num_rows, SLAB_ROWS);
  void *scratch = kernel->allocator->allocate(kernel->allocator, scratch_bytes(matrix, slab));
  if (scratch == NULL) return fail(kernel->runtime, "there is no memory for the rows in 8 bits");
  Status *status = NULL;
  for (int64_t first = 0; first < num_rows && status == NULL; first += slab) {
    const int64_t rows = least(slab, num_rows - first);
    Work work = {matrix, packed, input + first * matrix->depth, output + first * matrix->width,
                 rows_in(scratch, matrix, rows), rows, 0, 0};
    status = multiply_slab(kernel, context, &work);
  }
  kernel->allocator->release(kernel->allocator, scratch);
  return status;
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
  if (packed.num_elements != packed_bytes(&kernel->matrix)) return fail(runtime, "the packed matrix has another size");
  input.dimensions[count - 1] = kernel->matrix.width;
  TRY(open_output(runtime, context, 0, input.dimensions, count, &output));
  if (input.num_elements == 0) return NULL;
  return multiply(kernel, context, packed.data, input.data, (int64_t)input.num_elements / kernel->matrix.depth, output);
}

static Status *create_kernel(const Operator *op, const Runtime *runtime, const KernelInfo *info, void **created) {
  (void)op;
  MatrixShape matrix;
  int64_t version = 0;
  TRY(CALL(runtime, get_integer)(info, "depth", &matrix.depth));
  TRY(CALL(runtime, get_integer)(info, "width", &matrix.width));
  TRY(CALL(runtime, get_integer)(info, "bits", &matrix.bits));
  TRY(CALL(runtime, get_integer)(info, "block", &matrix.block));
  TRY(CALL(runtime, get_integer)(info, "has_zero_points", &matrix.has_zero_points));
  TRY(CALL(runtime, get_integer)(info, "version", &version));
  if (!product_runs_here()) return fail(runtime, "this processor has no AVX2 and FMA");
  if (version != TIDEMILL_PRODUCT_VERSION) return fail(runtime, "the matrix was packed by another version");
  if (!matrix_is_valid(&matrix)) return fail(runtime, "there is no such matrix");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(runtime, "there is no memory");
  *kernel = (Kernel){runtime, NULL, matrix};
  Status *status = CALL(runtime, get_allocator)(info, MEMORY_DEFAULT, &kernel->allocator);
  if (status != NULL) {
    free(kernel);
    return status;
  }
  *created = kernel;
  return NULL;
}

static void destroy_kernel(void *given) {
  Kernel *kernel = given;
  CALL(kernel->runtime, release_allocator)(kernel->allocator);
  free(kernel);
}

static const char *get_name(const Operator *op) { return (void)op, "PackedMatMulNBits"; }
static size_t get_num_inputs(const Operator *op) { return (void)op, 2; }
static size_t get_num_outputs(const Operator *op) { return (void)op, 1; }
static int get_input_type(const Operator *op, size_t index) { return (void)op, index ? ELEMENT_UINT8 : ELEMENT_FLOAT; }
static int get_output_type(const Operator *op, size_t index) { return (void)op, (void)index, ELEMENT_FLOAT; }
static int get_characteristic(const Operator *op, size_t index) { return (void)op, (void)index, 0; }

const Operator PRODUCT_OPERATOR = {
    .version = RUNTIME_INTERFACE,
    .get_name = get_name,
    .get_provider = provider_of_operators,
    .get_input_type = get_input_type,
    .get_num_inputs = get_num_inputs,
    .get_output_type = get_output_type,
    .get_num_outputs = get_num_outputs,
    .destroy_kernel = destroy_kernel,
    .get_input_characteristic = get_characteristic,
    .get_output_characteristic = get_characteristic,
    .get_input_memory = memory_of_operators,
    .create_kernel_or_fail = create_kernel,
    .compute_or_fail = compute,
    .get_first_version = version_of_operators,
    .get_last_version = version_of_operators,
};

EXPORTED int tidemill_product_version(void) { return TIDEMILL_PRODUCT_VERSION; }
EXPORTED int tidemill_product_runs_here(void) { return product_runs_here(); }
EXPORTED int tidemill_product_is_wanted(void) { return product_is_wanted(); }

/* Bytes of the packed matrix; 0: there is no such matrix. */
EXPORTED size_t tidemill_packed_bytes(const MatrixShape *matrix) {
  return matrix_is_valid(matrix) ? packed_bytes(matrix) : 0;
}

EXPORTED void tidemill_pack(const MatrixShape *matrix, const uint8_t *values, const float *scales,
                            const uint8_t *zero_points, uint8_t *packed) {
  pack_matrix(matrix, values, scales, zero_points, packed);
}
