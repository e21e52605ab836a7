/* See operators.h; and the domain in which ONNX Runtime finds our operators. */
#include "operators.h"

Status *fail(const Runtime *runtime, const char *message) {
  return CALL(runtime, create_status)(STATUS_INVALID_ARGUMENT, message);
}

Status *check_type(const Runtime *runtime, const Tensor *tensor, int element_type) {
  return tensor->element_type == element_type ? NULL : fail(runtime, "an input is of another type");
}

static Status *read_shape(const Runtime *runtime, const TypeAndShape *shape, Tensor *tensor) {
  TRY(CALL(runtime, get_element_type)(shape, &tensor->element_type));
  TRY(CALL(runtime, get_num_dimensions)(shape, &tensor->num_dimensions));
  if (tensor->num_dimensions > MAX_DIMENSIONS) return fail(runtime, "an input has too many dimensions");
  TRY(CALL(runtime, get_dimensions)(shape, tensor->dimensions, tensor->num_dimensions));
  return CALL(runtime, get_num_elements)(shape, &tensor->num_elements);
}

Status *read_input(const Runtime *runtime, const KernelContext *context, size_t index, Tensor *tensor) {
  const Value *value = NULL;
  TypeAndShape *shape = NULL;
  *tensor = (Tensor){0};
  TRY(CALL(runtime, get_input)(context, index, &value));
  if (value == NULL) return NULL;
  TRY(CALL(runtime, get_type_and_shape)(value, &shape));
  Status *status = read_shape(runtime, shape, tensor);
  CALL(runtime, release_shape)(shape);
  if (status != NULL) return status;
  return CALL(runtime, get_data)((Value *)value, &tensor->data);
}

Status *open_output(const Runtime *runtime, KernelContext *context, size_t index, const int64_t *dimensions,
                    size_t num_dimensions, void **data) {
  Value *value = NULL;
  TRY(CALL(runtime, get_output)(context, index, dimensions, num_dimensions, &value));
  if (value == NULL) return fail(runtime, "an output is missing");
  return CALL(runtime, get_data)(value, data);
}

Status *share(const Runtime *runtime, const KernelContext *context, void *work, void (*task)(void *work, size_t index),
              int64_t num_tasks, int is_large) {
  if (is_large && num_tasks > 1) return CALL(runtime, parallel_for)(context, task, (size_t)num_tasks, 0, work);
  for (int64_t index = 0; index < num_tasks; index++) task(work, (size_t)index);
  return NULL;
}

const char *provider_of_operators(const Operator *op) { return (void)op, NULL; } /* the processor's */
int memory_of_operators(const Operator *op, size_t index) { return (void)op, (void)index, MEMORY_DEFAULT; }
int version_of_operators(const Operator *op) { return (void)op, 1; }

/* Called by ONNX Runtime for each session's options. The domain lives as long as the process. */
EXPORTED Status *RegisterCustomOps(SessionOptions *options, const RuntimeBase *base) {
  static OperatorDomain *domain = NULL;
  const Runtime *runtime = base->get_runtime(RUNTIME_INTERFACE);
  if (domain == NULL) {
    OperatorDomain *made = NULL;
    TRY(CALL(runtime, create_domain)("tidemill", &made));
    TRY(CALL(runtime, add_operator)(made, &PROGRAM_OPERATOR));
    domain = made;
  }
  return CALL(runtime, add_domain)(options, domain);
}
