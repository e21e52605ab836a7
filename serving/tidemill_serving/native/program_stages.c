/* The stages of a program's run, but for those of its attentions. */
#include "program_run.h"
#include "rows.h"

enum { TASK_ROWS = 4, TASK_BYTES = 1 << 16, FLOAT_ROWS = 96 };
enum { LEAST_TASKS = 16 }; /* of a product, where it has so many panels: of a few large ones threads end apart */

static const Slab *slab_of(const Stage *stage) { return stage->run; }
static const Step *step_of(const Stage *stage) { return stage->step; }

void make_forms(const Slab *slab, int64_t value, int64_t first_row, int64_t end_row, int64_t first, int64_t end) {
  const Program *program = slab->program;
  for (int64_t each = program->values[value].first_form; each != NONE; each = program->forms[each].next) {
    const Form *form = &program->forms[each];
    if (form->is_made_with_value)
      quantize_rows(&form->matrix, slab->values[value], first_row, end_row, first, end, slab->forms[each]);
  }
}

static void norm_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const int64_t width = step->width, first = index * TASK_ROWS, end = least(first + TASK_ROWS, slab->num_rows);
  const float *skip = step->inputs[2] == NONE ? NULL : slab->values[step->inputs[2]];
  float *sum = step->outputs[1] == NONE ? NULL : slab->values[step->outputs[1]];
  for (int64_t row = first; row < end; row++) {
    const int64_t place = row * width;
    normalize_row(slab->values[step->inputs[0]] + place, skip == NULL ? NULL : skip + place,
                  slab->inputs[step->inputs[1]].data, width, step->epsilon, sum == NULL ? NULL : sum + place,
                  slab->values[step->outputs[0]] + place);
  }
  make_forms(slab, step->outputs[0], first, end, 0, width);
  if (sum != NULL) make_forms(slab, step->outputs[1], first, end, 0, width);
}

static void gate_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const int64_t width = step->width, first = index * TASK_ROWS, end = least(first + TASK_ROWS, slab->num_rows);
  const int64_t place = first * width;
  gate_numbers(slab->values[step->inputs[0]] + place, slab->values[step->inputs[1]] + place, (end - first) * width,
               slab->values[step->outputs[0]] + place);
  make_forms(slab, step->outputs[0], first, end, 0, width);
}

static void quantize_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const int64_t first = index * TASK_ROWS, end = least(first + TASK_ROWS, slab->num_rows);
  quantize_rows(&step->matrix, slab->values[step->inputs[0]], first, end, 0, step->matrix.depth,
                slab->forms[step->form]);
}

/* The rows and panels of one task of a product: blocks of rows are as even as can be, and so their tiles. */
static Part part_of(const Stage *stage, int64_t index, int64_t panels, int64_t most_rows) {
  const int64_t num_rows = slab_of(stage)->num_rows, blocks = (num_rows + most_rows - 1) / most_rows;
  const int64_t tasks = (panels + stage->task_panels - 1) / stage->task_panels;
  const int64_t block = index / tasks, panel = index % tasks * stage->task_panels;
  return (Part){block * num_rows / blocks, (block + 1) * num_rows / blocks, panel,
                least(panel + stage->task_panels, panels)};
}

static void product_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const MatrixShape *matrix = &step->matrix;
  const Part part = part_of(stage, index, num_panels(matrix), MOST_PART_ROWS);
  float *output = slab->values[step->outputs[0]];
  const uint8_t *packed = slab->inputs[step->inputs[1]].data;
  if (step->inputs[3] == NONE) {
    const float *bias = step->inputs[2] == NONE ? NULL : slab->inputs[step->inputs[2]].data;
    multiply_panels(matrix, packed, bias, slab->forms[step->form], part, output);
  } else {
    multiply_gated_panels(matrix, packed, slab->inputs[step->inputs[3]].data, slab->forms[step->form], part, output);
    make_forms(slab, step->outputs[0], part.first_row, part.end_row, part.first_panel * PANEL_COLUMNS,
               least(part.end_panel * PANEL_COLUMNS, matrix->width));
  }
}

static void float_product_task(const Stage *stage, int64_t index) {
  const Slab *slab = slab_of(stage);
  const Step *step = step_of(stage);
  const FloatMatrixShape *matrix = &step->float_matrix;
  const Part part = part_of(stage, index, num_float_panels(matrix), FLOAT_ROWS);
  float *output = slab->values[step->outputs[0]];
  multiply_float_panels(matrix, slab->inputs[step->inputs[1]].data, slab->values[step->inputs[0]], part.first_row,
                        part.end_row, part.first_panel, part.end_panel, output);
  if (step->inputs[2] == NONE) return;
  const float *bias = slab->inputs[step->inputs[2]].data;
  for (int64_t row = part.first_row; row < part.end_row; row++) {
    for (int64_t column = part.first_panel * FLOAT_PANEL_COLUMNS;
         column < least(part.end_panel * FLOAT_PANEL_COLUMNS, matrix->width); column++)
      output[row * matrix->width + column] += bias[column];
  }
}

Stage *add_stage(Stages *stages, const Slab *slab, const Step *step, void (*task)(const Stage *stage, int64_t index),
                 int64_t num_tasks) {
  Stage *stage = &stages->stages[stages->num_stages++];
  stage->task = task;
  stage->run = slab;
  stage->step = step;
  stage->num_tasks = num_tasks;
  return stage;
}

/* A task of a gated product ends where blocks of the forms end that are made with it. */
static int64_t panels_of_task(const Slab *slab, const Step *step) {
  const Program *program = slab->program;
  const int64_t panel_bytes = (int64_t)packed_bytes(&step->matrix) / num_panels(&step->matrix);
  const int64_t wanted = least(TASK_BYTES / panel_bytes, num_panels(&step->matrix) / LEAST_TASKS);
  int64_t panels = wanted < 1 ? 1 : wanted, unit = 1;
  if (step->inputs[3] == NONE) return panels;
  for (int64_t form = program->values[step->outputs[0]].first_form; form != NONE; form = program->forms[form].next) {
    const int64_t block = program->forms[form].matrix.block / PANEL_COLUMNS;
    int64_t both = unit;
    while (both % block != 0) both += unit;
    unit = both;
  }
  return (panels + 2 * unit - 1) / (2 * unit) * unit;
}

/* The stage of a product, cut as part_of has it. */
static void add_product(Stages *stages, const Slab *slab, const Step *step,
                        void (*task)(const Stage *stage, int64_t index), int64_t panels, int64_t task_panels,
                        int64_t most_rows) {
  const int64_t blocks = (slab->num_rows + most_rows - 1) / most_rows;
  Stage *stage = add_stage(stages, slab, step, task, blocks * ((panels + task_panels - 1) / task_panels));
  stage->is_beside = step->is_beside;
  stage->task_panels = task_panels;
}

static void plan_product(const Slab *slab, const Step *step, Stages *stages) {
  const Form *form = &slab->program->forms[step->form];
  const int64_t row_tasks = (slab->num_rows + TASK_ROWS - 1) / TASK_ROWS;
  if (!form->is_made_with_value && &slab->program->steps[form->first_reader] == step)
    add_stage(stages, slab, step, quantize_task, row_tasks);
  add_product(stages, slab, step, product_task, num_panels(&step->matrix), panels_of_task(slab, step), MOST_PART_ROWS);
}

static void plan_float_product(const Slab *slab, const Step *step, Stages *stages) {
  const FloatMatrixShape *matrix = &step->float_matrix;
  const int64_t panels = num_float_panels(matrix);
  const int64_t wanted = TASK_BYTES * panels / (int64_t)packed_float_bytes(matrix);
  add_product(stages, slab, step, float_product_task, panels, wanted < 1 ? 1 : wanted, FLOAT_ROWS);
}

int64_t most_stages(const Program *program) { return program->num_steps * 2 + program->num_attentions; }

void plan_stages(const Slab *slab, Stages *stages) {
  const Program *program = slab->program;
  const int64_t row_tasks = (slab->num_rows + TASK_ROWS - 1) / TASK_ROWS;
  for (int64_t index = 0; index < program->num_steps; index++) {
    const Step *step = &program->steps[index];
    switch (step->kind) {
      case PRODUCT:
        plan_product(slab, step, stages);
        break;
      case FLOAT_PRODUCT:
        plan_float_product(slab, step, stages);
        break;
      case ATTENTION:
        plan_attention(slab, step, stages);
        break;
      default:
        add_stage(stages, slab, step, step->kind == NORM ? norm_task : gate_task, row_tasks);
    }
  }
}
