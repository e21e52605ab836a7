/* The part of ONNX Runtime's C interface that this library uses, declared anew.
 *
 * The runtime gives a table of functions, to which later versions only ever append; so each function is named here by
 * its place in that table. Asked for is the interface of version 20 (September 2024).
 */
#ifndef TIDEMILL_ONNXRUNTIME_ABI_H
#define TIDEMILL_ONNXRUNTIME_ABI_H

#include <stddef.h>
#include <stdint.h>

#define RUNTIME_INTERFACE 20

typedef struct Status Status; /* NULL: all went well */
typedef struct Value Value;
typedef struct TypeAndShape TypeAndShape;
typedef struct SessionOptions SessionOptions;
typedef struct OperatorDomain OperatorDomain;
typedef struct KernelInfo KernelInfo;
typedef struct KernelContext KernelContext;
typedef struct Operator Operator;

enum { STATUS_INVALID_ARGUMENT = 2 };
enum { ELEMENT_ANY = 0, ELEMENT_FLOAT = 1, ELEMENT_UINT8 = 2, ELEMENT_INT32 = 6 };
enum { REQUIRED = 0, OPTIONAL = 1, VARIADIC = 2 }; /* inputs and outputs */
enum { MEMORY_DEFAULT = 0 };

typedef struct Allocator {
  uint32_t version;
  void *(*allocate)(struct Allocator *self, size_t num_bytes);
  void (*release)(struct Allocator *self, void *memory);
} Allocator;

/* Any function of the table; it is cast to its own type before it is called. */
typedef void (*AnyFunction)(void);

typedef struct Runtime {
  AnyFunction functions[284]; /* those of version 20 and before; none behind the last place below is read */
} Runtime;

typedef struct RuntimeBase {
  const Runtime *(*get_runtime)(uint32_t version);
  const char *(*get_version)(void);
} RuntimeBase;

/* CALL(runtime, get_input)(context, 0, &value) */
#define CALL(runtime, function) ((function##_function)(runtime)->functions[function##_place])
#define DECLARE(function, place, result, ...) \
  enum { function##_place = (place) };        \
  typedef result (*function##_function)(__VA_ARGS__)

DECLARE(create_status, 0, Status *, int code, const char *message);
DECLARE(create_domain, 26, Status *, const char *name, OperatorDomain **domain);
DECLARE(add_operator, 27, Status *, OperatorDomain *domain, const Operator *op);
DECLARE(add_domain, 28, Status *, SessionOptions *options, OperatorDomain *domain);
DECLARE(get_data, 51, Status *, Value *value, void **memory);
DECLARE(get_element_type, 60, Status *, const TypeAndShape *shape, int *type);
DECLARE(get_num_dimensions, 61, Status *, const TypeAndShape *shape, size_t *count);
DECLARE(get_dimensions, 62, Status *, const TypeAndShape *shape, int64_t *dimensions, size_t count);
DECLARE(get_num_elements, 64, Status *, const TypeAndShape *shape, size_t *count);
DECLARE(get_type_and_shape, 65, Status *, const Value *value, TypeAndShape **shape);
DECLARE(get_integer, 86, Status *, const KernelInfo *info, const char *name, int64_t *number);
DECLARE(get_input, 90, Status *, const KernelContext *context, size_t index, const Value **value);
DECLARE(get_output, 91, Status *, KernelContext *context, size_t index, const int64_t *dimensions, size_t count,
        Value **value);
DECLARE(release_shape, 99, void, TypeAndShape *shape);
DECLARE(release_allocator, 132, void, Allocator *allocator);
DECLARE(get_integers, 163, Status *, const KernelInfo *info, const char *name, int64_t *numbers, size_t *count);
DECLARE(parallel_for, 274, Status *, const KernelContext *context, void (*task)(void *given, size_t index),
        size_t num_tasks, size_t num_batches, void *given);
DECLARE(get_allocator, 278, Status *, const KernelInfo *info, int memory, Allocator **allocator);

/* An operator; functions that are NULL are not called. */
struct Operator {
  uint32_t version;
  void *(*create_kernel)(const Operator *op, const Runtime *runtime, const KernelInfo *info);
  const char *(*get_name)(const Operator *op);
  const char *(*get_provider)(const Operator *op);
  int (*get_input_type)(const Operator *op, size_t index);
  size_t (*get_num_inputs)(const Operator *op);
  int (*get_output_type)(const Operator *op, size_t index);
  size_t (*get_num_outputs)(const Operator *op);
  void (*compute)(void *kernel, KernelContext *context);
  void (*destroy_kernel)(void *kernel);
  int (*get_input_characteristic)(const Operator *op, size_t index);
  int (*get_output_characteristic)(const Operator *op, size_t index);
  int (*get_input_memory)(const Operator *op, size_t index);
  int (*get_variadic_input_min)(const Operator *op);
  int (*get_variadic_input_homogeneity)(const Operator *op);
  int (*get_variadic_output_min)(const Operator *op);
  int (*get_variadic_output_homogeneity)(const Operator *op);
  Status *(*create_kernel_or_fail)(const Operator *op, const Runtime *runtime, const KernelInfo *info, void **kernel);
  Status *(*compute_or_fail)(void *kernel, KernelContext *context);
  Status *(*infer_shape)(const Operator *op, void *context);
  int (*get_first_version)(const Operator *op);
  int (*get_last_version)(const Operator *op);
  size_t (*get_may_inplace)(int **inputs, int **outputs);
  void (*release_may_inplace)(int *inputs, int *outputs);
  size_t (*get_aliases)(int **inputs, int **outputs);
  void (*release_aliases)(int *inputs, int *outputs);
};

#endif
