/* A program as an operator of ONNX Runtime, on the runtime's own threads.
 *
 *   tidemill::DecoderProgram(inputs...) -> outputs...
 *   attributes: steps, outputs as program.h has them; version
 *
 * The first input of rows says how many there are: [..., width], and where there is attention [sequences, tokens, width].
 */
#include <stdlib.h>

#include "program_run.h"

static Status *compute(void *given, KernelContext *context) { return run_program(given, context); }

/* An attribute of integers; to be freed. */
static Status *read_integers(const Runtime *runtime, const KernelInfo *info, const char *name, int64_t **integers,
                             size_t *count) {
  *count = 0;
  TRY(CALL(runtime, get_integers)(info, name, NULL, count));
  *integers = calloc(*count + 1, sizeof **integers);
  if (*integers == NULL) return fail(runtime, "there is no memory for the program");
  return CALL(runtime, get_integers)(info, name, *integers, count);
}

static Status *read_attributes(const Runtime *runtime, const KernelInfo *info, Program *program) {
  int64_t *steps = NULL, *outputs = NULL, num_inputs = 0;
  size_t num_integers = 0, num_outputs = 0;
  Status *status = CALL(runtime, get_integer)(info, "inputs", &num_inputs);
  if (status == NULL) status = read_integers(runtime, info, "steps", &steps, &num_integers);
  if (status == NULL) status = read_integers(runtime, info, "outputs", &outputs, &num_outputs);
  if (status == NULL) {
    const char *wrong = read_program(steps, num_integers, outputs, num_outputs, num_inputs, program);
    if (wrong != NULL) status = fail(runtime, wrong);
  }
  free(steps);
  free(outputs);
  return status;
}

static Status *create_kernel(const Operator *op, const Runtime *runtime, const KernelInfo *info, void **created) {
  (void)op;
  int64_t version = 0;
  TRY(CALL(runtime, get_integer)(info, "version", &version));
  if (!product_runs_here()) return fail(runtime, "this processor has no AVX2 and FMA");
  if (version != TIDEMILL_PROGRAM_VERSION) return fail(runtime, "the program was written for another version");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(runtime, "there is no memory");
  *kernel = (Kernel){.runtime = runtime};
  Status *status = read_attributes(runtime, info, &kernel->program);
  if (status == NULL) status = CALL(runtime, get_allocator)(info, MEMORY_DEFAULT, &kernel->allocator);
  if (status != NULL) {
    free_program(&kernel->program);
    free(kernel);
    return status;
  }
  *created = kernel;
  return NULL;
}

static void destroy_kernel(void *given) {
  Kernel *kernel = given;
  CALL(kernel->runtime, release_allocator)(kernel->allocator);
  free_program(&kernel->program);
  free(kernel);
}

static const char *get_name(const Operator *op) { return (void)op, "DecoderProgram"; }
static size_t get_one(const Operator *op) { return (void)op, 1; }
static int get_input_type(const Operator *op, size_t index) { return (void)op, (void)index, ELEMENT_ANY; }
static int get_output_type(const Operator *op, size_t index) { return (void)op, (void)index, ELEMENT_FLOAT; }
static int get_variadic(const Operator *op, size_t index) { return (void)op, (void)index, VARIADIC; }
static int get_least(const Operator *op) { return (void)op, 1; }
static int is_of_any_types(const Operator *op) { return (void)op, 0; }
static int is_of_one_type(const Operator *op) { return (void)op, 1; }

const Operator PROGRAM_OPERATOR = {
    .version = RUNTIME_INTERFACE,
    .get_name = get_name,
    .get_provider = provider_of_operators,
    .get_input_type = get_input_type,
    .get_num_inputs = get_one,
    .get_output_type = get_output_type,
    .get_num_outputs = get_one,
    .destroy_kernel = destroy_kernel,
    .get_input_characteristic = get_variadic,
    .get_output_characteristic = get_variadic,
    .get_input_memory = memory_of_operators,
    .get_variadic_input_min = get_least,
    .get_variadic_input_homogeneity = is_of_any_types,
    .get_variadic_output_min = get_least,
    .get_variadic_output_homogeneity = is_of_one_type,
    .create_kernel_or_fail = create_kernel,
    .compute_or_fail = compute,
    .get_first_version = version_of_operators,
    .get_last_version = version_of_operators,
};
