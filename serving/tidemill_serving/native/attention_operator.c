/* Attention as an operator of ONNX Runtime, on the runtime's own threads.
 *
 *   tidemill::CacheAttention(query, key?, value?, past_key, past_value, seqlens_k, total_sequence_length, cos_cache?,
 *                            sin_cache?) -> (output, present_key, present_value)
 *   attributes: num_heads, kv_num_heads, scale, do_rotary, rotary_interleaved as GroupQueryAttention has them; version
 *
 * Inputs, outputs and numbers are GroupQueryAttention's: past and present may be one buffer (then the new tokens are
 * written into it, else the past is copied first), a query without key and value has them behind it, and a first
 * prompt's rows may end before their last token.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "operators.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LENGTHS, TOTAL, COSINES, SINES, NUM_INPUTS };
enum { TASK_TOKENS = 16, APPEND_TOKENS = 8, MIN_SHARED_NUMBERS = 1 << 17, MIN_APPENDED_NUMBERS = 1 << 15 };

typedef struct {
  const Runtime *runtime;
  Allocator *allocator;
  AttentionShape shape; /* what its attributes say */
} Kernel;

/* What the tasks of one run share. */
typedef struct {
  AttentionShape shape;
  int64_t num_sequences, num_tokens; /* of each sequence, with what a first prompt is filled up by */
  int64_t past_capacity;
  const float *queries, *keys, *values; /* of a token: `stride` numbers from that of the next one */
  int64_t query_stride, key_stride;
  const float *past_keys, *past_values;
  float *present_keys, *present_values;
  const float *cosines, *sines;
  const int32_t *lengths; /* of the sequences, less one */
  float *turned;          /* queries: [num_sequences][num_tokens][heads] */
  float *output;
} Work;

static Sequence sequence_of(const Work *work, int64_t row) {
  const AttentionShape *shape = &work->shape;
  const int64_t place = row * shape->num_kv_heads * shape->capacity * shape->head_size;
  const int64_t length = work->lengths[row] + 1, first = length - work->num_tokens;
  return (Sequence){work->present_keys + place, work->present_values + place, first < 0 ? 0 : first,
                    first < 0 ? length : work->num_tokens};
}

/* Where past and present are two: the sequence's past into the present. */
static void copy_past(const Work *work, int64_t row, const Sequence *sequence) {
  const AttentionShape *shape = &work->shape;
  const size_t bytes = (size_t)(sequence->first * shape->head_size) * sizeof(float);
  for (int64_t head = 0; head < shape->num_kv_heads; head++) {
    const int64_t from = (row * shape->num_kv_heads + head) * work->past_capacity * shape->head_size;
    const int64_t to = head * shape->capacity * shape->head_size;
    memcpy(sequence->keys + to, work->past_keys + from, bytes);
    memcpy(sequence->values + to, work->past_values + from, bytes);
  }
}

static void append_task(void *given, size_t index) {
  const Work *work = given;
  const AttentionShape *shape = &work->shape;
  const int64_t tasks = (work->num_tokens + APPEND_TOKENS - 1) / APPEND_TOKENS;
  const int64_t row = (int64_t)index / tasks, start = (int64_t)index % tasks * APPEND_TOKENS;
  const int64_t width = shape->num_heads * shape->head_size;
  const Sequence sequence = sequence_of(work, row);
  if (start == 0 && work->past_keys != work->present_keys) copy_past(work, row, &sequence);
  for (int64_t token = start; token < least(start + APPEND_TOKENS, sequence.count); token++) {
    const int64_t position = sequence.first + token, place = row * work->num_tokens + token;
    const float *cosines = work->cosines + position * (shape->rotary_size / 2);
    const float *sines = work->sines + position * (shape->rotary_size / 2);
    turn_heads(shape, cosines, sines, work->queries + place * work->query_stride, shape->num_heads,
               work->turned + place * width);
    append_token(shape, &sequence, position, cosines, sines, work->keys + place * work->key_stride,
                 work->values + place * work->key_stride);
  }
}

static void attend_task(void *given, size_t index) {
  const Work *work = given;
  const AttentionShape *shape = &work->shape;
  const int64_t width = work->num_tokens * shape->num_heads * shape->head_size;
  const int64_t head = (int64_t)index % shape->num_kv_heads, place = (int64_t)index / shape->num_kv_heads;
  const int64_t row = place % work->num_sequences, start = place / work->num_sequences * TASK_TOKENS;
  const Sequence sequence = sequence_of(work, row);
  if (start >= sequence.count) return;
  attend(shape, &sequence, head, start, least(start + TASK_TOKENS, sequence.count), work->turned + row * width,
         work->output + row * width);
}

static Status *run(const Kernel *kernel, const KernelContext *context, Work *work) {
  const AttentionShape *shape = &work->shape;
  const int64_t width = shape->num_heads * shape->head_size, num_tokens = work->num_sequences * work->num_tokens;
  int64_t num_seen = 0;
  for (int64_t row = 0; row < work->num_sequences; row++) {
    num_seen += (work->lengths[row] + 1) * work->num_tokens;
    const int64_t count = sequence_of(work, row).count, unused = work->num_tokens - count;
    memset(work->output + (row * work->num_tokens + count) * width, 0, (size_t)(unused * width) * sizeof(float));
  }
  work->turned = kernel->allocator->allocate(kernel->allocator, (size_t)(num_tokens * width) * sizeof(float));
  if (work->turned == NULL) return fail(kernel->runtime, "there is no memory for the queries");
  const int64_t appends = (work->num_tokens + APPEND_TOKENS - 1) / APPEND_TOKENS * work->num_sequences;
  Status *status = share(kernel->runtime, context, work, append_task, appends,
                         num_tokens * width >= MIN_APPENDED_NUMBERS);
  const int64_t pieces = (work->num_tokens + TASK_TOKENS - 1) / TASK_TOKENS;
  if (status == NULL) {
    status = share(kernel->runtime, context, work, attend_task, pieces * work->num_sequences * shape->num_kv_heads,
                   num_seen * width >= MIN_SHARED_NUMBERS);
  }
  kernel->allocator->release(kernel->allocator, work->turned);
  return status;
}

/* Queries, keys and values: apart, or one behind the other. */
static Status *take_tokens(const Runtime *runtime, const Tensor inputs[NUM_INPUTS], Work *work) {
  const AttentionShape *shape = &work->shape;
  const int64_t query = shape->num_heads * shape->head_size, key = shape->num_kv_heads * shape->head_size;
  const int is_packed = inputs[KEY].data == NULL;
  const int64_t expected = is_packed ? query + 2 * key : query;
  if (inputs[QUERY].num_dimensions != 3 || inputs[QUERY].dimensions[2] != expected) {
    return fail(runtime, "the query has another shape than its heads");
  }
  work->num_sequences = inputs[QUERY].dimensions[0];
  work->num_tokens = inputs[QUERY].dimensions[1];
  work->queries = inputs[QUERY].data;
  work->query_stride = expected;
  work->keys = is_packed ? work->queries + query : inputs[KEY].data;
  work->values = is_packed ? work->keys + key : inputs[VALUE].data;
  work->key_stride = is_packed ? expected : key;
  const size_t wanted = (size_t)(work->num_sequences * work->num_tokens * key);
  if (!is_packed && (inputs[KEY].num_elements != wanted || inputs[VALUE].num_elements != wanted)) {
    return fail(runtime, "the key or the value has another shape than the query");
  }
  return NULL;
}

static Status *take_cache(const Runtime *runtime, const Tensor inputs[NUM_INPUTS], Work *work) {
  AttentionShape *shape = &work->shape;
  const Tensor *past = &inputs[PAST_KEY];
  for (size_t each = 0; each < 4; each++) {
    if (past->num_dimensions != 4 || past[1].num_dimensions != 4 || past->dimensions[each] != past[1].dimensions[each]) {
      return fail(runtime, "past keys and values do not have one shape of four dimensions");
    }
  }
  shape->head_size = past->dimensions[3];
  work->past_capacity = past->dimensions[2];
  work->past_keys = past->data;
  work->past_values = past[1].data;
  if (past->dimensions[1] != shape->num_kv_heads) return fail(runtime, "the cache has another number of heads");
  if (inputs[TOTAL].num_elements != 1) return fail(runtime, "the total length is no single number");
  const int64_t total = *(const int32_t *)inputs[TOTAL].data;
  shape->capacity = total > work->past_capacity ? total : work->past_capacity;
  if (shape->scale == 0.0f) shape->scale = 1.0f / sqrtf((float)shape->head_size);
  return NULL;
}

static Status *take_angles(const Runtime *runtime, const Tensor inputs[NUM_INPUTS], Work *work) {
  const Tensor *cosines = &inputs[COSINES];
  work->cosines = cosines->data;
  work->sines = inputs[SINES].data;
  if (cosines->data == NULL) return NULL;
  if (cosines->num_dimensions != 2 || inputs[SINES].num_elements != cosines->num_elements) {
    return fail(runtime, "the tables of angles do not have one shape of two dimensions");
  }
  work->shape.rotary_size = cosines->dimensions[1] * 2;
  return NULL;
}

/* Raises nothing that a caller sends into the kernels: every length is within the cache and the tables. */
static Status *check_lengths(const Runtime *runtime, const Tensor inputs[NUM_INPUTS], Work *work) {
  if (work->past_capacity != 0 && inputs[PAST_KEY].dimensions[0] != work->num_sequences) {
    return fail(runtime, "the cache has another number of sequences");
  }
  if (inputs[LENGTHS].num_elements != (size_t)work->num_sequences) return fail(runtime, "a sequence has no length");
  work->lengths = inputs[LENGTHS].data;
  const int64_t num_angles = work->cosines == NULL ? work->shape.capacity : inputs[COSINES].dimensions[0];
  if (*(const int32_t *)inputs[TOTAL].data > num_angles) return fail(runtime, "the tables of angles are too short");
  for (int64_t row = 0; row < work->num_sequences; row++) {
    const int64_t length = (int64_t)work->lengths[row] + 1, first = length - work->num_tokens;
    if (length < 1 || length > work->shape.capacity || length > num_angles || first > work->past_capacity) {
      return fail(runtime, "a sequence is longer than its cache or than the tables of angles");
    }
  }
  return NULL;
}

static Status *compute(void *given, KernelContext *context) {
  const Kernel *kernel = given;
  const Runtime *runtime = kernel->runtime;
  Tensor inputs[NUM_INPUTS];
  Work work = {.shape = kernel->shape};
  for (size_t index = 0; index < NUM_INPUTS; index++) TRY(read_input(runtime, context, index, &inputs[index]));
  TRY(take_cache(runtime, inputs, &work));
  TRY(take_angles(runtime, inputs, &work));
  if (!attention_is_valid(&work.shape)) return fail(runtime, "there is no such attention");
  TRY(take_tokens(runtime, inputs, &work));
  TRY(check_lengths(runtime, inputs, &work));
  const AttentionShape *shape = &work.shape;
  const int64_t output[] = {work.num_sequences, work.num_tokens, shape->num_heads * shape->head_size};
  const int64_t present[] = {work.num_sequences, shape->num_kv_heads, shape->capacity, shape->head_size};
  TRY(open_output(runtime, context, 0, output, 3, (void **)&work.output));
  TRY(open_output(runtime, context, 1, present, 4, (void **)&work.present_keys));
  TRY(open_output(runtime, context, 2, present, 4, (void **)&work.present_values));
  if (work.num_sequences == 0 || work.num_tokens == 0) return NULL;
  return run(kernel, context, &work);
}

static Status *create_kernel(const Operator *op, const Runtime *runtime, const KernelInfo *info, void **created) {
  (void)op;
  AttentionShape shape = {0};
  int64_t version = 0;
  TRY(CALL(runtime, get_integer)(info, "num_heads", &shape.num_heads));
  TRY(CALL(runtime, get_integer)(info, "kv_num_heads", &shape.num_kv_heads));
  TRY(CALL(runtime, get_integer)(info, "version", &version));
  read_optional(runtime, CALL(runtime, get_integer)(info, "rotary_interleaved", &shape.rotary_interleaved));
  read_optional(runtime, CALL(runtime, get_float)(info, "scale", &shape.scale));
  if (!attention_runs_here()) return fail(runtime, "this processor has no AVX2 and FMA");
  if (version != TIDEMILL_ATTENTION_VERSION) return fail(runtime, "the graph was made for another version");
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(runtime, "there is no memory");
  *kernel = (Kernel){runtime, NULL, shape};
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

static const char *get_name(const Operator *op) { return (void)op, "CacheAttention"; }
static size_t get_num_inputs(const Operator *op) { return (void)op, NUM_INPUTS; }
static size_t get_num_outputs(const Operator *op) { return (void)op, 3; }
static int get_output_type(const Operator *op, size_t index) { return (void)op, (void)index, ELEMENT_FLOAT; }
static int get_output_kind(const Operator *op, size_t index) { return (void)op, (void)index, REQUIRED; }

static int get_input_type(const Operator *op, size_t index) {
  return (void)op, index == LENGTHS || index == TOTAL ? ELEMENT_INT32 : ELEMENT_FLOAT;
}

static int get_input_kind(const Operator *op, size_t index) {
  return (void)op, index == KEY || index == VALUE || index >= COSINES ? OPTIONAL : REQUIRED;
}

const Operator ATTENTION_OPERATOR = {
    .version = RUNTIME_INTERFACE,
    .get_name = get_name,
    .get_provider = provider_of_operators,
    .get_input_type = get_input_type,
    .get_num_inputs = get_num_inputs,
    .get_output_type = get_output_type,
    .get_num_outputs = get_num_outputs,
    .destroy_kernel = destroy_kernel,
    .get_input_characteristic = get_input_kind,
    .get_output_characteristic = get_output_kind,
    .get_input_memory = memory_of_operators,
    .create_kernel_or_fail = create_kernel,
    .compute_or_fail = compute,
    .get_first_version = version_of_operators,
    .get_last_version = version_of_operators,
};

EXPORTED int tidemill_attention_version(void) { return TIDEMILL_ATTENTION_VERSION; }
