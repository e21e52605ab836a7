/* A stretch of a decoder's graph as a list of steps, and where what they make lies.
 *
 * Values are numbered: first the operator's inputs, then what the steps make, in their order. All but weights, caches
 * and lengths have one row for each token. Memory of the run is shared by values that are not needed at once.
 */
#ifndef TIDEMILL_PROGRAM_H
#define TIDEMILL_PROGRAM_H

#include "attention.h"
#include "float_product.h"
#include "product.h"

/* To be counted up when a step's integers mean otherwise, packed weights look otherwise, or other numbers come out. */
#define TIDEMILL_PROGRAM_VERSION 3

enum { NONE = -1, MOST_STEPS = 1 << 16, MOST_VALUES = 1 << 18, MOST_OUTPUTS = 3, MOST_INPUTS = 9, MOST_NUMBERS = 5 };
enum { STEP_INTEGERS = 1 + MOST_OUTPUTS + MOST_INPUTS + MOST_NUMBERS };

/* What a step does; and its outputs, inputs and numbers, NONE where there is none.
 *   norm: outputs normalized, sum; inputs rows, gamma, skip; numbers width, epsilon as bits
 *   product: outputs rows; inputs rows, packed, bias, packed of what is gated by it; numbers depth, width, bits, block,
 *            has_zero_points
 *   gate: outputs rows; inputs gate, up; numbers width
 *   attention: outputs rows, present keys, present values; inputs query, key, value, past keys, past values, lengths,
 *              total length, cosines, sines; numbers heads, heads of keys, size of a head (0: as the cache has it),
 *              interleaved, scale as bits
 *   product of floats: outputs rows; inputs rows, packed, bias; numbers depth, width
 */
typedef enum { NORM = 1, PRODUCT, GATE, ATTENTION, FLOAT_PRODUCT } StepKind;

typedef struct {
  int64_t kind, outputs[MOST_OUTPUTS], inputs[MOST_INPUTS];
  MatrixShape matrix;
  FloatMatrixShape float_matrix;
  AttentionShape attention;
  int64_t width; /* of norms and gates */
  float epsilon;
  int64_t form;    /* of a product's input */
  int is_beside;   /* a product that reads what the product before it reads */
  int64_t ordinal; /* among the attentions */
} Step;

/* A value's rows in 8 bits, as products read them. */
typedef struct {
  int64_t value, first_reader, last_reader; /* steps */
  MatrixShape matrix;     /* one of those that are multiplied with it */
  int is_made_with_value; /* by the tasks that make the value; else by a stage of its own */
  size_t offset;          /* in the run's memory, bytes for each row */
  int64_t next;           /* of the same value, or NONE */
} Form;

typedef struct {
  int64_t width;              /* numbers of a row; 0: no rows, or as the cache says */
  int64_t maker, last_reader; /* steps; NONE: an input; nobody reads it */
  int64_t output;             /* of the operator, or NONE */
  size_t offset;              /* of what is neither an input nor an output, as a form's */
  int64_t first_form;         /* or NONE */
} ProgramValue;

typedef struct {
  int64_t num_inputs, num_values, num_steps, num_outputs, num_forms, num_attentions;
  Step *steps;
  ProgramValue *values;
  Form *forms;
  int64_t *outputs;   /* values */
  int64_t rows_input; /* the input whose rows are counted */
  size_t row_bytes;   /* of the run's memory */
} Program;

/* NULL, or what is wrong. Of a program that is wrong nothing is kept. */
const char *read_program(const int64_t *integers, size_t num_integers, const int64_t *outputs, size_t num_outputs,
                         int64_t num_inputs, Program *program);
void free_program(Program *program);

/* Find places for what a program makes. NULL, or what is wrong. */
const char *place_values(Program *program);

#endif
