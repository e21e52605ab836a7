/* What our operators share: how they read their tensors, fail, and share their work among the runtime's threads. */
#ifndef TIDEMILL_OPERATORS_H
#define TIDEMILL_OPERATORS_H

#include "onnxruntime_abi.h"

#define EXPORTED __attribute__((visibility("default")))
#define TRY(call)                        \
  do {                                   \
    Status *failure = (call);            \
    if (failure != NULL) return failure; \
  } while (0)

enum { MAX_DIMENSIONS = 8 };

typedef struct {
  void *data; /* NULL: an optional input that is not there */
  int element_type;
  size_t num_elements, num_dimensions;
  int64_t dimensions[MAX_DIMENSIONS];
} Tensor;

static inline int64_t least(int64_t one, int64_t other) { return one < other ? one : other; }

Status *fail(const Runtime *runtime, const char *message);
Status *check_type(const Runtime *runtime, const Tensor *tensor, int element_type);
Status *read_input(const Runtime *runtime, const KernelContext *context, size_t index, Tensor *tensor);
Status *open_output(const Runtime *runtime, KernelContext *context, size_t index, const int64_t *dimensions,
                    size_t num_dimensions, void **data);

/* Do all tasks; small work is done at once, since to share it costs more. */
Status *share(const Runtime *runtime, const KernelContext *context, void *work, void (*task)(void *work, size_t index),
              int64_t num_tasks, int is_large);

/* The same for all operators. */
const char *provider_of_operators(const Operator *op);
int memory_of_operators(const Operator *op, size_t index);
int version_of_operators(const Operator *op);

extern const Operator PROGRAM_OPERATOR;

#endif
