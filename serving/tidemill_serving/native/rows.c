/* See rows.h. */
#include "rows.h"

#include <math.h>
#include <string.h>

#include "vectors.h"

/* The first `count` of eight numbers, and zeros behind them. */
INLINED __m256 first_numbers(const float *numbers, int64_t count) {
  float lanes[LANES] = {0};
  memcpy(lanes, numbers, (size_t)count * sizeof *lanes);
  return _mm256_loadu_ps(lanes);
}

INLINED void write_first(__m256 numbers, int64_t count, float *target) {
  float lanes[LANES];
  _mm256_storeu_ps(lanes, numbers);
  memcpy(target, lanes, (size_t)count * sizeof *lanes);
}

INLINED float sum_of_squares(const float *numbers, int64_t width) {
  __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
  int64_t k = 0;
  for (; k + 2 * LANES <= width; k += 2 * LANES) {
    const __m256 left = _mm256_loadu_ps(numbers + k), right = _mm256_loadu_ps(numbers + k + LANES);
    even = _mm256_fmadd_ps(left, left, even);
    odd = _mm256_fmadd_ps(right, right, odd);
  }
  for (; k < width; k += LANES) {
    const __m256 last = k + LANES <= width ? _mm256_loadu_ps(numbers + k) : first_numbers(numbers + k, width - k);
    even = _mm256_fmadd_ps(last, last, even);
  }
  return sum_of_lanes(_mm256_add_ps(even, odd));
}

INLINED void add_rows(const float *one, const float *other, int64_t width, float *sum) {
  int64_t k = 0;
  for (; k + LANES <= width; k += LANES)
    _mm256_storeu_ps(sum + k, _mm256_add_ps(_mm256_loadu_ps(one + k), _mm256_loadu_ps(other + k)));
  for (; k < width; k++) sum[k] = one[k] + other[k];
}

FAST void normalize_row(const float *input, const float *skip, const float *gamma, int64_t width, float epsilon,
                        float *sum, float *output) {
  const float *numbers = input;
  if (skip != NULL) {
    float *added = sum == NULL ? output : sum;
    add_rows(input, skip, width, added);
    numbers = added;
  } else if (sum != NULL) {
    memcpy(sum, input, (size_t)width * sizeof *sum);
  }
  const float factor = 1.0f / sqrtf(sum_of_squares(numbers, width) / (float)width + epsilon);
  const __m256 factors = _mm256_set1_ps(factor);
  int64_t k = 0;
  for (; k + LANES <= width; k += LANES) {
    const __m256 normal = _mm256_mul_ps(_mm256_loadu_ps(numbers + k), factors);
    _mm256_storeu_ps(output + k, _mm256_mul_ps(normal, _mm256_loadu_ps(gamma + k)));
  }
  for (; k < width; k++) output[k] = numbers[k] * factor * gamma[k];
}

INLINED __m256 gated(__m256 gate, __m256 up) {
  const __m256 one = _mm256_set1_ps(1.0f), negative = _mm256_or_ps(gate, _mm256_set1_ps(-0.0f));
  const __m256 power = exponentials(negative);
  const __m256 above = _mm256_blendv_ps(one, power, gate); /* by the gate's sign */
  const __m256 share = _mm256_div_ps(above, _mm256_add_ps(one, power));
  return _mm256_mul_ps(_mm256_mul_ps(gate, share), up);
}

FAST void gate_numbers(const float *gate, const float *up, int64_t count, float *output) {
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES)
    _mm256_storeu_ps(output + k, gated(_mm256_loadu_ps(gate + k), _mm256_loadu_ps(up + k)));
  if (k < count)
    write_first(gated(first_numbers(gate + k, count - k), first_numbers(up + k, count - k)), count - k, output + k);
}
