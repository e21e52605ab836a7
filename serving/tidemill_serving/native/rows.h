/* What is done to a row number by number: norms and gates, on processors with AVX2 and FMA.
 *
 * Each number is made by one sequence of operations, whatever rows stand beside its own.
 */
#ifndef TIDEMILL_ROWS_H
#define TIDEMILL_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* output = (input + skip) / sqrt(mean of its squares + epsilon) * gamma. skip: or NULL; sum: the input and skip
 * together, or NULL. */
void normalize_row(const float *input, const float *skip, const float *gamma, int64_t width, float epsilon, float *sum,
                   float *output);

/* output = gate / (1 + e^-gate) * up. The output may be one of the others. */
void gate_numbers(const float *gate, const float *up, int64_t count, float *output);

#endif
