/* One run of a program: its tensors, and its stages for some of the rows. */
#ifndef TIDEMILL_PROGRAM_RUN_H
#define TIDEMILL_PROGRAM_RUN_H

#include "operators.h"
#include "program.h"
#include "stages.h"

/* The operator of one node. */
typedef struct {
  const Runtime *runtime;
  Allocator *allocator;
  Program program;
} Kernel;

Status *run_program(const Kernel *kernel, KernelContext *context);

/* What an attention of the run works with; of all its sequences. */
typedef struct {
  AttentionShape shape;
  int64_t past_capacity;
  const float *past_keys, *past_values;
  float *present_keys, *present_values;
  const float *cosines, *sines;
  const int32_t *lengths; /* of the sequences, less one */
} AttentionRun;

/* Rows that go through the program together: some whole sequences, or some tokens of one. */
typedef struct {
  const Program *program;
  const Tensor *inputs;
  const AttentionRun *attentions;
  int64_t first_sequence, num_sequences, first_token, num_tokens; /* tokens: of each sequence */
  int64_t tokens_of_sequence;                                     /* of the whole run, what it is filled up by too */
  int64_t num_rows;
  float **values;       /* of these rows */
  QuantizedRows *forms; /* of these rows */
  float *turned;        /* queries of an attention, of these rows */
} Slab;

/* As many as the stages of a program can be. */
int64_t most_stages(const Program *program);

/* The stages in which the slab's rows go through the program; `stages` are zeros. */
void plan_stages(const Slab *slab, Stages *stages);

/* For stages that make rows of a value: the forms that are made with it, of whole blocks of these rows. */
void make_forms(const Slab *slab, int64_t value, int64_t first_row, int64_t end_row, int64_t first, int64_t end);

/* The stages of one attention. */
void plan_attention(const Slab *slab, const Step *step, Stages *stages);
Stage *add_stage(Stages *stages, const Slab *slab, const Step *step, void (*task)(const Stage *stage, int64_t index),
                 int64_t num_tasks);

/* Look at an attention's inputs, of `rows[0]` sequences of `rows[1]` tokens: nothing that a caller sends gets into the
 * kernels unseen. */
Status *take_attention(const Runtime *runtime, const Step *step, const Tensor *inputs, int64_t num_inputs,
                       const int64_t *rows, AttentionRun *run);

#endif
