/* See program.h: a program is read, and each part of it looked at once, so that runs may trust it. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition, message) \
  do {                            \
    if (!(condition)) return message; \
  } while (0)

enum { LARGEST_WIDTH = 1 << 30, MOST_HEADS = 1 << 16 };

/* How many outputs, inputs and numbers a kind has, and a bit for each input that may be missing. */
typedef struct {
  int64_t outputs, inputs, numbers;
  unsigned int optional_outputs, optional_inputs;
} StepForm;

static const StepForm FORMS_OF_STEPS[] = {
    [NORM] = {2, 3, 2, 1 << 1, 1 << 2},
    [PRODUCT] = {1, 4, 5, 0, 1 << 2 | 1 << 3},
    [GATE] = {1, 2, 1, 0, 0},
    [ATTENTION] = {3, 9, 5, 0, 1 << 1 | 1 << 2 | 1 << 7 | 1 << 8},
    [FLOAT_PRODUCT] = {1, 3, 2, 0, 1 << 2},
};

static float float_of(int64_t bits) {
  const uint32_t low = (uint32_t)bits;
  float number;
  memcpy(&number, &low, sizeof number);
  return number;
}

static void read_numbers(const int64_t *numbers, Step *step) {
  if (step->kind == PRODUCT) {
    step->matrix = (MatrixShape){numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
  } else if (step->kind == FLOAT_PRODUCT) {
    step->float_matrix = (FloatMatrixShape){numbers[0], numbers[1]};
  } else if (step->kind == ATTENTION) {
    step->attention.num_heads = numbers[0];
    step->attention.num_kv_heads = numbers[1];
    step->attention.head_size = numbers[2];
    step->attention.rotary_interleaved = numbers[3];
    step->attention.scale = float_of(numbers[4]);
  } else {
    step->width = numbers[0];
    step->epsilon = float_of(numbers[1]);
  }
}

static const char *check_numbers(const Step *step) {
  const AttentionShape *attention = &step->attention;
  switch (step->kind) {
    case PRODUCT:
      CHECK(matrix_is_valid(&step->matrix), "there is no such matrix");
      CHECK(step->inputs[2] == NONE || step->inputs[3] == NONE, "a gated product has no bias");
      return NULL;
    case ATTENTION:
      CHECK(attention->num_heads > 0 && attention->num_heads <= MOST_HEADS && attention->num_kv_heads > 0 &&
                attention->num_kv_heads <= attention->num_heads && attention->head_size >= 0 &&
                attention->head_size <= LARGEST_HEAD,
            "there is no such attention");
      CHECK((step->inputs[1] == NONE) == (step->inputs[2] == NONE), "an attention has a key or a value alone");
      CHECK((step->inputs[7] == NONE) == (step->inputs[8] == NONE), "an attention has cosines or sines alone");
      return NULL;
    case FLOAT_PRODUCT:
      CHECK(float_matrix_is_valid(&step->float_matrix), "there is no such matrix");
      return NULL;
    default:
      CHECK(step->width > 0 && step->width <= LARGEST_WIDTH, "there is no such width");
      return NULL;
  }
}

/* A step's integers; its outputs become the next values. */
static const char *read_step(const int64_t *integers, Program *program, Step *step) {
  CHECK(integers[0] >= NORM && integers[0] <= FLOAT_PRODUCT, "there is no such step");
  const StepForm *form = &FORMS_OF_STEPS[integers[0]];
  const int64_t *outputs = integers + 1, *inputs = outputs + MOST_OUTPUTS;
  step->kind = integers[0];
  for (int64_t each = 0; each < MOST_INPUTS; each++) {
    const int is_optional = each >= form->inputs || (form->optional_inputs >> each & 1);
    const int is_there = each < form->inputs && inputs[each] >= 0 && inputs[each] < program->num_values;
    CHECK(is_there || (is_optional && inputs[each] == NONE), "a step reads what is not there");
    step->inputs[each] = inputs[each];
  }
  for (int64_t each = 0; each < MOST_OUTPUTS; each++) {
    const int is_optional = each >= form->outputs || (form->optional_outputs >> each & 1);
    const int is_next = each < form->outputs && outputs[each] == program->num_values;
    CHECK(is_next || (is_optional && outputs[each] == NONE), "a step's output is not the next value");
    step->outputs[each] = outputs[each];
    if (is_next) {
      program->values[program->num_values++] =
          (ProgramValue){0, step - program->steps, step - program->steps, NONE, 0, NONE};
    }
  }
  read_numbers(inputs + MOST_INPUTS, step);
  if (step->kind == ATTENTION) step->ordinal = program->num_attentions++;
  return check_numbers(step);
}

/* The step reads rows of so many numbers. */
static const char *use_rows(Program *program, int64_t step, int64_t input, int64_t width) {
  ProgramValue *value = &program->values[input];
  if (value->maker == NONE && value->width == 0) {
    value->width = width;
    if (program->rows_input == NONE) program->rows_input = input;
  }
  CHECK(value->width == width, "a step reads rows of another width");
  value->last_reader = step;
  return NULL;
}

static const char *use_rows_of_attention(Program *program, int64_t index) {
  const Step *step = &program->steps[index];
  const AttentionShape *shape = &step->attention;
  const int64_t query = shape->num_heads * shape->head_size, key = shape->num_kv_heads * shape->head_size;
  const int is_packed = step->inputs[1] == NONE;
  const char *wrong = NULL;
  if (shape->head_size == 0) { /* then all are inputs and outputs, whose shapes each run looks at */
    for (int64_t each = 0; each < 3; each++) {
      CHECK(step->inputs[each] < program->num_inputs, "an attention's head has no size");
    }
    if (program->rows_input == NONE) program->rows_input = step->inputs[0];
    return NULL;
  }
  wrong = use_rows(program, index, step->inputs[0], is_packed ? query + 2 * key : query);
  if (wrong == NULL && !is_packed) wrong = use_rows(program, index, step->inputs[1], key);
  if (wrong == NULL && !is_packed) wrong = use_rows(program, index, step->inputs[2], key);
  program->values[step->outputs[0]].width = query;
  return wrong;
}

static const char *use_rows_of_step(Program *program, int64_t index) {
  const Step *step = &program->steps[index];
  const char *wrong = NULL;
  switch (step->kind) {
    case PRODUCT:
      wrong = use_rows(program, index, step->inputs[0], step->matrix.depth);
      program->values[step->outputs[0]].width = step->matrix.width;
      return wrong;
    case FLOAT_PRODUCT:
      wrong = use_rows(program, index, step->inputs[0], step->float_matrix.depth);
      program->values[step->outputs[0]].width = step->float_matrix.width;
      return wrong;
    case ATTENTION:
      return use_rows_of_attention(program, index);
    case NORM:
      wrong = use_rows(program, index, step->inputs[0], step->width);
      if (wrong == NULL && step->inputs[2] != NONE) wrong = use_rows(program, index, step->inputs[2], step->width);
      program->values[step->outputs[0]].width = step->width;
      if (step->outputs[1] != NONE) program->values[step->outputs[1]].width = step->width;
      return wrong;
    default:
      wrong = use_rows(program, index, step->inputs[0], step->width);
      if (wrong == NULL) wrong = use_rows(program, index, step->inputs[1], step->width);
      program->values[step->outputs[0]].width = step->width;
      return wrong;
  }
}

/* Whether the tasks that make a value make whole blocks of it. */
static int makes_blocks(const Program *program, int64_t value, const MatrixShape *matrix) {
  const int64_t maker = program->values[value].maker;
  if (maker == NONE) return 0;
  const Step *step = &program->steps[maker];
  if (step->kind == FLOAT_PRODUCT) return 0;
  if (step->kind == PRODUCT) return step->inputs[3] != NONE;
  if (step->kind != ATTENTION) return 1;
  const AttentionShape *shape = &step->attention;
  return shape->num_heads / shape->num_kv_heads * shape->head_size % matrix->block == 0;
}

/* The form that a product reads: one that is there, or a new one. */
static void use_form(Program *program, int64_t index) {
  Step *step = &program->steps[index];
  ProgramValue *value = &program->values[step->inputs[0]];
  for (int64_t form = value->first_form; form != NONE; form = program->forms[form].next) {
    const MatrixShape *matrix = &program->forms[form].matrix;
    if (matrix->bits != step->matrix.bits || matrix->block != step->matrix.block) continue;
    const Step *before = step - 1; /* there is one, which made the form */
    step->is_beside = before->kind == PRODUCT && before->form == form;
    step->form = form;
    program->forms[form].last_reader = index;
    return;
  }
  step->form = program->num_forms++;
  program->forms[step->form] = (Form){step->inputs[0],    index, index, step->matrix,
                                      makes_blocks(program, step->inputs[0], &step->matrix), 0, value->first_form};
  value->first_form = step->form;
}

static const char *read_outputs(const int64_t *outputs, Program *program) {
  for (int64_t each = 0; each < program->num_outputs; each++) {
    CHECK(outputs[each] >= program->num_inputs && outputs[each] < program->num_values, "there is no such output");
    ProgramValue *value = &program->values[outputs[each]];
    CHECK(value->output == NONE, "an output is there twice");
    value->output = each;
    program->outputs[each] = outputs[each];
  }
  for (int64_t index = program->num_inputs; index < program->num_values; index++) {
    const ProgramValue *value = &program->values[index];
    CHECK(value->width > 0 || value->output != NONE, "what has no width is no output");
  }
  return NULL;
}

static const char *fill(const int64_t *integers, const int64_t *outputs, Program *program) {
  const char *wrong = NULL;
  for (int64_t input = 0; input < program->num_inputs; input++)
    program->values[input] = (ProgramValue){0, NONE, NONE, NONE, 0, NONE};
  for (int64_t index = 0; index < program->num_steps && wrong == NULL; index++) {
    wrong = read_step(integers + index * STEP_INTEGERS, program, &program->steps[index]);
    if (wrong == NULL) wrong = use_rows_of_step(program, index);
    Step *step = &program->steps[index];
    if (wrong == NULL && step->kind == PRODUCT) use_form(program, index);
    if (step->kind == FLOAT_PRODUCT && index > 0)
      step->is_beside = step[-1].kind == FLOAT_PRODUCT && step[-1].inputs[0] == step->inputs[0];
  }
  if (wrong == NULL) wrong = read_outputs(outputs, program);
  CHECK(wrong != NULL || program->rows_input != NONE, "a program reads no rows");
  return wrong;
}

const char *read_program(const int64_t *integers, size_t num_integers, const int64_t *outputs, size_t num_outputs,
                         int64_t num_inputs, Program *program) {
  const size_t num_steps = num_integers / STEP_INTEGERS;
  CHECK(num_integers % STEP_INTEGERS == 0 && num_steps > 0 && num_steps <= MOST_STEPS, "a program has no whole steps");
  CHECK(num_inputs > 0 && num_inputs <= MOST_VALUES && num_outputs > 0 && num_outputs <= MOST_VALUES,
        "a program has too many inputs or outputs");
  const size_t most_values = (size_t)num_inputs + num_steps * MOST_OUTPUTS;
  *program = (Program){.num_inputs = num_inputs, .num_values = num_inputs, .num_steps = (int64_t)num_steps};
  program->num_outputs = (int64_t)num_outputs;
  program->rows_input = NONE;
  program->steps = calloc(num_steps, sizeof *program->steps);
  program->values = calloc(most_values, sizeof *program->values);
  program->forms = calloc(num_steps, sizeof *program->forms);
  program->outputs = calloc(num_outputs, sizeof *program->outputs);
  const char *wrong = "there is no memory for the program";
  if (program->steps && program->values && program->forms && program->outputs) {
    wrong = fill(integers, outputs, program);
    if (wrong == NULL) wrong = place_values(program);
  }
  if (wrong != NULL) free_program(program);
  return wrong;
}

void free_program(Program *program) {
  free(program->steps);
  free(program->values);
  free(program->forms);
  free(program->outputs);
  *program = (Program){0};
}
