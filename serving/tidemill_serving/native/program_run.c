/* A program's run: what is given to it is looked at, and its rows go through the program slab by slab. */
#include <string.h>

#include "program_run.h"

/* Rows that go through all steps before the next ones do; tasks for as many threads as may come; multiplications. */
enum { SLAB_ROWS = 512, MOST_THREADS = 64, MIN_SHARED_PRODUCTS = 1 << 18 };

/* One run: tables of all rows, and what a slab's turn fills anew. */
typedef struct {
  Tensor *inputs;
  AttentionRun *attentions;
  float **all_values; /* inputs and outputs, of all rows */
  float **values;
  QuantizedRows *forms;
  Stage *stages;
  int64_t num_sequences, num_tokens; /* of each */
  size_t turned_bytes;               /* of a row */
  int is_large;
} Run;

/* Memory of the runtime's, given back however the run ends. The runtime throws where it has none: that goes through
 * our functions to the runtime, which makes an error of it (so this is compiled with -fexceptions). */
typedef struct {
  Allocator *allocator;
  char *start; /* NULL: there was none */
} Memory;

static void release_memory(const Memory *memory) {
  if (memory->start != NULL) memory->allocator->release(memory->allocator, memory->start);
}

#define RELEASED __attribute__((cleanup(release_memory)))

static Memory take_memory(const Kernel *kernel, size_t bytes) {
  return (Memory){kernel->allocator, kernel->allocator->allocate(kernel->allocator, bytes)};
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* The tables in one piece of memory; returns its size, without any memory too. */
static size_t lay_out(const Program *program, char *memory, Run *run) {
  const size_t inputs = aligned((size_t)program->num_inputs * sizeof *run->inputs);
  const size_t attentions = aligned((size_t)program->num_attentions * sizeof *run->attentions);
  const size_t values = aligned((size_t)program->num_values * sizeof *run->values);
  const size_t forms = aligned((size_t)program->num_forms * sizeof *run->forms);
  const size_t stages = (size_t)most_stages(program) * sizeof *run->stages;
  if (memory != NULL) {
    char *place = (char *)aligned((size_t)memory);
    run->inputs = (void *)place;
    run->attentions = (void *)(place += inputs);
    run->all_values = (void *)(place += attentions);
    run->values = (void *)(place += values);
    run->forms = (void *)(place += values);
    run->stages = (void *)(place += forms);
  }
  return inputs + attentions + 2 * values + forms + stages + 64;
}

static Status *check_bias(const Runtime *runtime, const Step *step, const Tensor *inputs, int64_t width) {
  if (step->inputs[2] == NONE) return NULL;
  const Tensor *bias = &inputs[step->inputs[2]];
  TRY(check_type(runtime, bias, ELEMENT_FLOAT));
  return bias->num_elements == (size_t)width ? NULL : fail(runtime, "a bias has another size");
}

static Status *check_step(const Runtime *runtime, const Step *step, const Tensor *inputs) {
  if (step->kind == NORM) {
    const Tensor *gamma = &inputs[step->inputs[1]];
    TRY(check_type(runtime, gamma, ELEMENT_FLOAT));
    if (gamma->num_elements != (size_t)step->width) return fail(runtime, "a norm's weights have another size");
  }
  if (step->kind == FLOAT_PRODUCT) {
    const Tensor *packed = &inputs[step->inputs[1]];
    TRY(check_type(runtime, packed, ELEMENT_UINT8));
    if (packed->num_elements != packed_float_bytes(&step->float_matrix)) {
      return fail(runtime, "the packed matrix has another size");
    }
    return check_bias(runtime, step, inputs, step->float_matrix.width);
  }
  if (step->kind != PRODUCT) return NULL;
  for (int64_t each = 1; each < 4; each += 2) {
    if (step->inputs[each] == NONE) continue;
    const Tensor *packed = &inputs[step->inputs[each]];
    TRY(check_type(runtime, packed, ELEMENT_UINT8));
    if (packed->num_elements != packed_bytes(&step->matrix)) return fail(runtime, "the packed matrix has another size");
  }
  return check_bias(runtime, step, inputs, step->matrix.width);
}

/* Count the rows, and look at everything that is read. */
static Status *take_inputs(const Kernel *kernel, const KernelContext *context, Run *run) {
  const Program *program = &kernel->program;
  const Runtime *runtime = kernel->runtime;
  for (int64_t index = 0; index < program->num_inputs; index++)
    TRY(read_input(runtime, context, (size_t)index, &run->inputs[index]));
  const Tensor *rows = &run->inputs[program->rows_input];
  const size_t count = rows->num_dimensions;
  if (count == 0 || (program->num_attentions > 0 && count != 3)) return fail(runtime, "rows have no such dimensions");
  int64_t num_rows = 1;
  for (size_t each = 0; each + 1 < count; each++) num_rows *= rows->dimensions[each];
  run->num_sequences = program->num_attentions > 0 ? rows->dimensions[0] : num_rows;
  run->num_tokens = program->num_attentions > 0 ? rows->dimensions[1] : 1;
  for (int64_t index = 0; index < program->num_inputs; index++) {
    const int64_t width = program->values[index].width;
    if (width == 0) continue;
    TRY(check_type(runtime, &run->inputs[index], ELEMENT_FLOAT));
    if (run->inputs[index].num_elements != (size_t)(num_rows * width)) {
      return fail(runtime, "rows have another number or width");
    }
    run->all_values[index] = run->inputs[index].data;
  }
  for (int64_t index = 0; index < program->num_steps; index++)
    TRY(check_step(runtime, &program->steps[index], run->inputs));
  return NULL;
}

static Status *take_attentions(const Kernel *kernel, Run *run) {
  const Program *program = &kernel->program;
  double products = 0;
  for (int64_t index = 0; index < program->num_steps; index++) {
    const Step *step = &program->steps[index];
    const double num_rows = (double)(run->num_sequences * run->num_tokens);
    if (step->kind == PRODUCT) products += num_rows * (double)step->matrix.depth * (double)step->matrix.width;
    const FloatMatrixShape *floats = &step->float_matrix;
    if (step->kind == FLOAT_PRODUCT) products += num_rows * (double)floats->depth * (double)floats->width;
    if (step->kind != ATTENTION) continue;
    AttentionRun *attention = &run->attentions[step->ordinal];
    const int64_t rows[2] = {run->num_sequences, run->num_tokens};
    TRY(take_attention(kernel->runtime, step, run->inputs, program->num_inputs, rows, attention));
    for (int64_t each = 0; each < 3; each++) {
      const int64_t input = step->inputs[each];
      if (input != NONE && input < program->num_inputs) run->all_values[input] = run->inputs[input].data;
    }
    const int64_t width = attention->shape.num_heads * attention->shape.head_size;
    const size_t bytes = aligned((size_t)width * sizeof(float));
    if (bytes > run->turned_bytes) run->turned_bytes = bytes;
    for (int64_t row = 0; row < run->num_sequences; row++)
      products += 2.0 * (double)(attention->lengths[row] + 1) * (double)(run->num_tokens * width);
  }
  run->is_large = products >= MIN_SHARED_PRODUCTS;
  return NULL;
}

/* The maker of an output that has no rows: the past's shape, and the run's length. */
static Status *open_present(const Kernel *kernel, KernelContext *context, const Step *step, Run *run) {
  AttentionRun *attention = &run->attentions[step->ordinal];
  const AttentionShape *shape = &attention->shape;
  const int64_t dims[] = {run->num_sequences, shape->num_kv_heads, shape->capacity, shape->head_size};
  for (int64_t each = 1; each < MOST_OUTPUTS; each++) {
    void *data = NULL;
    const int64_t output = kernel->program.values[step->outputs[each]].output;
    TRY(open_output(kernel->runtime, context, (size_t)output, dims, 4, &data));
    *(each == 1 ? &attention->present_keys : &attention->present_values) = data;
  }
  return NULL;
}

static Status *open_outputs(const Kernel *kernel, KernelContext *context, Run *run) {
  const Program *program = &kernel->program;
  const Tensor *rows = &run->inputs[program->rows_input];
  int64_t dims[MAX_DIMENSIONS];
  memcpy(dims, rows->dimensions, sizeof dims);
  for (int64_t index = 0; index < program->num_outputs; index++) {
    const int64_t value = program->outputs[index];
    const Step *maker = &program->steps[program->values[value].maker];
    if (maker->kind == ATTENTION && value != maker->outputs[0]) {
      if (value == maker->outputs[1]) TRY(open_present(kernel, context, maker, run));
      continue;
    }
    const AttentionShape *shape = maker->kind == ATTENTION ? &run->attentions[maker->ordinal].shape : NULL;
    dims[rows->num_dimensions - 1] = shape ? shape->num_heads * shape->head_size : program->values[value].width;
    TRY(open_output(kernel->runtime, context, (size_t)index, dims, rows->num_dimensions,
                    (void **)&run->all_values[value]));
  }
  return NULL;
}

static void go_through_task(void *given, size_t index) {
  (void)index;
  go_through(given);
}

/* The slab's part of each value; what is neither an input nor an output lies in `memory`. */
static void place_rows(const Program *program, const Run *run, char *memory, int64_t first_row, int64_t num_rows) {
  for (int64_t index = 0; index < program->num_values; index++) {
    const ProgramValue *value = &program->values[index];
    float *all = run->all_values[index];
    const int64_t width = value->width;
    run->values[index] = all != NULL ? all + first_row * width
                                     : (float *)(void *)(memory + value->offset * (size_t)num_rows);
  }
  for (int64_t index = 0; index < program->num_forms; index++) {
    const Form *form = &program->forms[index];
    run->forms[index] = rows_in(memory + form->offset * (size_t)num_rows, &form->matrix, num_rows);
  }
}

static Status *run_slab(const Kernel *kernel, const KernelContext *context, const Run *run, char *memory, Slab *slab) {
  const Program *program = &kernel->program;
  slab->num_rows = slab->num_sequences * slab->num_tokens;
  place_rows(program, run, memory, slab->first_sequence * run->num_tokens + slab->first_token, slab->num_rows);
  slab->turned = (float *)(void *)(memory + program->row_bytes * (size_t)slab->num_rows);
  memset(run->stages, 0, (size_t)most_stages(program) * sizeof *run->stages);
  Stages stages = {run->stages, 0, 0, 0};
  plan_stages(slab, &stages);
  return share(kernel->runtime, context, &stages, go_through_task, run->is_large ? MOST_THREADS : 1, run->is_large);
}

static Status *run_slabs(const Kernel *kernel, const KernelContext *context, const Run *run) {
  const Program *program = &kernel->program;
  const int64_t tokens = least(run->num_tokens, SLAB_ROWS);
  const int64_t sequences = least(run->num_sequences, SLAB_ROWS / tokens);
  const size_t row_bytes = program->row_bytes + run->turned_bytes;
  RELEASED const Memory memory = take_memory(kernel, row_bytes * (size_t)(tokens * sequences) + 64);
  if (memory.start == NULL) return fail(kernel->runtime, "there is no memory for the rows");
  for (int64_t sequence = 0; sequence < run->num_sequences; sequence += sequences) {
    for (int64_t token = 0; token < run->num_tokens; token += tokens) {
      Slab slab = {.program = program, .inputs = run->inputs, .attentions = run->attentions};
      slab.values = run->values;
      slab.forms = run->forms;
      slab.first_sequence = sequence;
      slab.num_sequences = least(sequences, run->num_sequences - sequence);
      slab.first_token = token;
      slab.num_tokens = least(tokens, run->num_tokens - token);
      slab.tokens_of_sequence = run->num_tokens;
      TRY(run_slab(kernel, context, run, (char *)aligned((size_t)memory.start), &slab));
    }
  }
  return NULL;
}

static Status *run_all(const Kernel *kernel, KernelContext *context, Run *run) {
  TRY(take_inputs(kernel, context, run));
  TRY(take_attentions(kernel, run));
  TRY(open_outputs(kernel, context, run));
  if (run->num_sequences == 0 || run->num_tokens == 0) return NULL;
  return run_slabs(kernel, context, run);
}

Status *run_program(const Kernel *kernel, KernelContext *context) {
  Run run = {0};
  const size_t bytes = lay_out(&kernel->program, NULL, &run);
  RELEASED const Memory tables = take_memory(kernel, bytes);
  if (tables.start == NULL) return fail(kernel->runtime, "there is no memory for the run");
  memset(tables.start, 0, bytes);
  lay_out(&kernel->program, tables.start, &run);
  return run_all(kernel, context, &run);
}
