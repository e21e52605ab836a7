/* The choice from a row on a processor with AVX2, see choose.h. Loading this on an older one does no harm. */
#pragma GCC target("avx2")

#define WITH_AVX2 1
#define CHOOSE_ROW choose_row_avx2
#include "choose_row.h"
