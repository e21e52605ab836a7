/* Attention as a step of a program: what GroupQueryAttention computes, of the same inputs.
 *
 * Past and present may be one buffer (then the new tokens are written into it, else the past is copied first), a query
 * without key and value has them behind it, and a first prompt's rows may end before their last token.
 */
#include <math.h>
#include <string.h>

#include "program_run.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LENGTHS, TOTAL, COSINES, SINES };
enum { TASK_TOKENS = 16, APPEND_ROWS = 8 };

static const Slab *slab_of(const Stage *stage) { return stage->run; }
static const Step *step_of(const Stage *stage) { return stage->step; }

static const AttentionRun *attention_of(const Stage *stage) {
  return &slab_of(stage)->attentions[step_of(stage)->ordinal];
}

/* A sequence, and its new tokens: all of the run. */
static Sequence sequence_of(const Slab *slab, const AttentionRun *run, int64_t row) {
  const AttentionShape *shape = &run->shape;
  const int64_t place = row * shape->num_kv_heads * shape->capacity * shape->head_size;
  const int64_t length = run->lengths[row] + 1, first = length - slab->tokens_of_sequence;
  return (Sequence){run->present_keys + place, run->present_values + place, first < 0 ? 0 : first,
                    first < 0 ? length : slab->tokens_of_sequence};
}

/* Where past and present are two: one head of a sequence's past into the present. */
static void copy_task(const Stage *stage, int64_t index) {
  const AttentionRun *run = attention_of(stage);
  const AttentionShape *shape = &run->shape;
  const Slab *slab = slab_of(stage);
  const int64_t row = slab->first_sequence + index / shape->num_kv_heads, head = index % shape->num_kv_heads;
  const Sequence sequence = sequence_of(slab, run, row);
  const size_t bytes = (size_t)(sequence.first * shape->head_size) * sizeof(float);
  const int64_t from = (row * shape->num_kv_heads + head) * run->past_capacity * shape->head_size;
  const int64_t to = head * shape->capacity * shape->head_size;
  if (bytes == 0) return;
  memcpy(sequence.keys + to, run->past_keys + from, bytes);
  memcpy(sequence.values + to, run->past_values + from, bytes);
}

/* The queries of the heads that share `kv_head`, turned, and its key and value into the cache: of one row. */
static void append(const Stage *stage, int64_t row, int64_t kv_head) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const AttentionRun *run = attention_of(stage);
  const AttentionShape *shape = &run->shape;
  const int64_t group = shape->num_heads / shape->num_kv_heads, size = shape->head_size;
  const int64_t query_width = shape->num_heads * size, key_width = shape->num_kv_heads * size;
  const int is_packed = step->inputs[KEY] == NONE;
  const int64_t stride = is_packed ? query_width + 2 * key_width : query_width;
  const int64_t key_stride = is_packed ? stride : key_width;
  const float *queries = slab->values[step->inputs[QUERY]];
  const float *keys = is_packed ? queries + query_width : slab->values[step->inputs[KEY]];
  const float *values = is_packed ? keys + key_width : slab->values[step->inputs[VALUE]];
  const Sequence sequence = sequence_of(slab, run, slab->first_sequence + row / slab->num_tokens);
  const int64_t token = slab->first_token + row % slab->num_tokens, position = sequence.first + token;
  if (token >= sequence.count) return;
  const float *cosines = run->cosines + position * (shape->rotary_size / 2);
  const float *sines = run->sines + position * (shape->rotary_size / 2);
  const int64_t place = kv_head * group * size;
  turn_heads(shape, cosines, sines, queries + row * stride + place, group, slab->turned + row * query_width + place);
  append_token(shape, &sequence, kv_head, position, cosines, sines, keys + row * key_stride + kv_head * size,
               values + row * key_stride + kv_head * size);
}

static void append_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const AttentionRun *run = attention_of(stage);
  const int64_t width = run->shape.num_heads * run->shape.head_size;
  for (int64_t row = index * APPEND_ROWS; row < least((index + 1) * APPEND_ROWS, slab->num_rows); row++) {
    for (int64_t head = 0; head < run->shape.num_kv_heads; head++) append(stage, row, head);
    const Sequence sequence = sequence_of(slab, run, slab->first_sequence + row / slab->num_tokens);
    if (slab->first_token + row % slab->num_tokens >= sequence.count)
      memset(slab->values[step_of(stage)->outputs[0]] + row * width, 0, (size_t)width * sizeof(float));
  }
}

/* Some tokens of a sequence of the slab, and the heads that share `kv_head`. */
static void attend_to_all(const Stage *stage, int64_t row, int64_t kv_head, int64_t start, int64_t end) {
  const Slab *slab = slab_of(stage);
  const AttentionRun *run = attention_of(stage);
  const AttentionShape *shape = &run->shape;
  const int64_t group_width = shape->num_heads / shape->num_kv_heads * shape->head_size;
  const int64_t first_row = row * slab->num_tokens, place = first_row * shape->num_heads * shape->head_size;
  const int64_t value = step_of(stage)->outputs[0];
  Sequence sequence = sequence_of(slab, run, slab->first_sequence + row);
  const int64_t count = least(sequence.count - slab->first_token, end);
  sequence.first += slab->first_token;
  if (start < count)
    attend(shape, &sequence, kv_head, start, count, slab->turned + place, slab->values[value] + place);
  make_forms(slab, value, first_row + start, first_row + end, kv_head * group_width, (kv_head + 1) * group_width);
}

/* Several tokens of each sequence: their keys are in the cache. */
static void attend_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const int64_t heads = attention_of(stage)->shape.num_kv_heads, place = index / heads;
  const int64_t start = place / slab->num_sequences * TASK_TOKENS;
  attend_to_all(stage, place % slab->num_sequences, index % heads, start, least(start + TASK_TOKENS, slab->num_tokens));
}

/* One token of each sequence: a head needs nothing of the others. */
static void decode_task(const Stage *stage, int64_t index) {
  const int64_t heads = attention_of(stage)->shape.num_kv_heads;
  append(stage, index / heads, index % heads);
  attend_to_all(stage, index / heads, index % heads, 0, 1);
}

void plan_attention(const Slab *slab, const Step *step, Stages *stages) {
  const AttentionRun *run = &slab->attentions[step->ordinal];
  const int64_t heads = run->shape.num_kv_heads, pieces = (slab->num_tokens + TASK_TOKENS - 1) / TASK_TOKENS;
  if (run->past_keys != run->present_keys && slab->first_token == 0)
    add_stage(stages, slab, step, copy_task, slab->num_sequences * heads);
  if (slab->tokens_of_sequence == 1) {
    add_stage(stages, slab, step, decode_task, slab->num_sequences * heads);
  } else {
    add_stage(stages, slab, step, append_task, (slab->num_rows + APPEND_ROWS - 1) / APPEND_ROWS);
    add_stage(stages, slab, step, attend_task, pieces * slab->num_sequences * heads);
  }
}

static Status *take_cache(const Runtime *runtime, const Step *step, const Tensor *inputs, AttentionRun *run) {
  AttentionShape *shape = &run->shape;
  const Tensor *keys = &inputs[step->inputs[PAST_KEY]], *values = &inputs[step->inputs[PAST_VALUE]];
  TRY(check_type(runtime, keys, ELEMENT_FLOAT));
  TRY(check_type(runtime, values, ELEMENT_FLOAT));
  for (size_t each = 0; each < 4; each++) {
    if (keys->num_dimensions != 4 || values->num_dimensions != 4 || keys->dimensions[each] != values->dimensions[each]) {
      return fail(runtime, "past keys and values do not have one shape of four dimensions");
    }
  }
  if (shape->head_size != 0 && keys->dimensions[3] != shape->head_size) {
    return fail(runtime, "the cache has heads of another size");
  }
  shape->head_size = keys->dimensions[3];
  run->past_capacity = keys->dimensions[2];
  run->past_keys = keys->data;
  run->past_values = values->data;
  if (keys->dimensions[1] != shape->num_kv_heads) return fail(runtime, "the cache has another number of heads");
  const Tensor *length = &inputs[step->inputs[TOTAL]];
  TRY(check_type(runtime, length, ELEMENT_INT32));
  if (length->num_elements != 1) return fail(runtime, "the total length is no single number");
  const int64_t total = *(const int32_t *)length->data;
  shape->capacity = total > run->past_capacity ? total : run->past_capacity;
  if (shape->scale == 0.0f) shape->scale = 1.0f / sqrtf((float)shape->head_size);
  return NULL;
}

static Status *take_angles(const Runtime *runtime, const Step *step, const Tensor *inputs, AttentionRun *run) {
  if (step->inputs[COSINES] == NONE) return NULL;
  const Tensor *cosines = &inputs[step->inputs[COSINES]], *sines = &inputs[step->inputs[SINES]];
  TRY(check_type(runtime, cosines, ELEMENT_FLOAT));
  TRY(check_type(runtime, sines, ELEMENT_FLOAT));
  run->cosines = cosines->data;
  run->sines = sines->data;
  if (cosines->num_dimensions != 2 || sines->num_elements != cosines->num_elements) {
    return fail(runtime, "the tables of angles do not have one shape of two dimensions");
  }
  run->shape.rotary_size = cosines->dimensions[1] * 2;
  return NULL;
}

/* Every length is within the cache and the tables. `rows`: the sequences, and the tokens of each. */
static Status *check_lengths(const Runtime *runtime, const Step *step, const Tensor *inputs, const int64_t *rows,
                             AttentionRun *run) {
  if (run->past_capacity != 0 && inputs[step->inputs[PAST_KEY]].dimensions[0] != rows[0]) {
    return fail(runtime, "the cache has another number of sequences");
  }
  const Tensor *lengths = &inputs[step->inputs[LENGTHS]];
  TRY(check_type(runtime, lengths, ELEMENT_INT32));
  if (lengths->num_elements != (size_t)rows[0]) return fail(runtime, "a sequence has no length");
  run->lengths = lengths->data;
  const int64_t num_angles =
      step->inputs[COSINES] == NONE ? run->shape.capacity : inputs[step->inputs[COSINES]].dimensions[0];
  if (*(const int32_t *)inputs[step->inputs[TOTAL]].data > num_angles) {
    return fail(runtime, "the tables of angles are too short");
  }
  for (int64_t row = 0; row < rows[0]; row++) {
    const int64_t length = (int64_t)run->lengths[row] + 1, first = length - rows[1];
    if (length < 1 || length > run->shape.capacity || length > num_angles || first > run->past_capacity) {
      return fail(runtime, "a sequence is longer than its cache or than the tables of angles");
    }
  }
  return NULL;
}

/* Where the heads' size is the cache's, nothing is known of the rows' width before. */
static Status *check_rows(const Runtime *runtime, const Step *step, const Tensor *inputs, int64_t num_inputs,
                          const int64_t *rows, const AttentionShape *shape) {
  const int64_t query = shape->num_heads * shape->head_size, key = shape->num_kv_heads * shape->head_size;
  const int64_t widths[] = {step->inputs[KEY] == NONE ? query + 2 * key : query, key, key};
  for (int64_t each = 0; each < 3; each++) {
    if (step->inputs[each] == NONE || step->inputs[each] >= num_inputs) continue;
    const Tensor *tensor = &inputs[step->inputs[each]];
    TRY(check_type(runtime, tensor, ELEMENT_FLOAT));
    if (tensor->num_dimensions != 3 || tensor->num_elements != (size_t)(rows[0] * rows[1] * widths[each])) {
      return fail(runtime, "a query, a key or a value has another shape than its heads");
    }
  }
  return NULL;
}

Status *take_attention(const Runtime *runtime, const Step *step, const Tensor *inputs, int64_t num_inputs,
                       const int64_t *rows, AttentionRun *run) {
  *run = (AttentionRun){.shape = step->attention};
  TRY(take_cache(runtime, step, inputs, run));
  TRY(take_angles(runtime, step, inputs, run));
  if (!attention_is_valid(&run->shape)) return fail(runtime, "there is no such attention");
  TRY(check_rows(runtime, step, inputs, num_inputs, rows, &run->shape));
  return check_lengths(runtime, step, inputs, rows, run);
}
