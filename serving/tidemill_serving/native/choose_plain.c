/* The choice from a row on any processor of x86-64, see choose.h. */
#define WITH_AVX2 0
#define CHOOSE_ROW choose_row_plain
#include "choose_row.h"
