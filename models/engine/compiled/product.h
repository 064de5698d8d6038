// Matrix products of float matrices in rows, the one place where most of the time goes.
//
// Each element is the sum of its terms in order, from the first to the last, by fused multiply-adds.
// So blocks, the width of vectors and the processor change the speed and no bit.
#ifndef DESCENT_PRODUCT_H
#define DESCENT_PRODUCT_H

#include "vector.h"

// Elements that are summed at once: rows times vectors, as many as the registers hold.
#if defined(__AVX512F__)
#define BLOCK_ROWS 8
#define BLOCK_VECTORS 2
#else
#define BLOCK_ROWS 6
#define BLOCK_VECTORS 1
#endif
// Terms that are summed before the next block: so many rows of b stay in the first-level cache.
#define BLOCK_TERMS 128

// c[i][j] = start + the sum over k of a(i, k) * b[k][j]. An element of `a` is at
// i * a_row + k * a_term, where one of both is 1. `columns` is a multiple of LANES.
struct Product {
  int32_t rows, columns, terms;
  const float *a;
  int64_t a_row, a_term;
  const float *b;
  int64_t b_row;
  float *c;
  int64_t c_row;
};

// What a sum starts with: zero, the number of its row in `bias`, or what is in c.
enum Start { FROM_ZERO, FROM_BIAS, FROM_C };

template <int ROWS, int VECTORS, bool IS_TRANSPOSED>
INLINE void add_terms(const float *a, int64_t a_stride, const float *b, int64_t b_row, int terms,
                      Floats (&sum)[ROWS][VECTORS]) {
  for (int k = 0; k < terms; k++) {
    Floats right[VECTORS];
    for (int v = 0; v < VECTORS; v++) right[v] = load(b + k * b_row + v * LANES);
    for (int i = 0; i < ROWS; i++) {
      Floats left = all(IS_TRANSPOSED ? a[k * a_stride + i] : a[i * a_stride + k]);
      for (int v = 0; v < VECTORS; v++) sum[i][v] = fma(left, right[v], sum[i][v]);
    }
  }
}

template <int ROWS, int VECTORS>
INLINE void add_block(const Product &p, Start start, const float *bias, int i, int j, int k,
                      int terms) {
  Floats sum[ROWS][VECTORS];
  float *c = p.c + i * p.c_row + j;
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++)
      sum[r][v] = start == FROM_C      ? load(c + r * p.c_row + v * LANES)
                  : start == FROM_BIAS ? all(bias[i + r])
                                       : zeros();
  const float *a = p.a + i * p.a_row + k * p.a_term, *b = p.b + k * p.b_row + j;
  if (p.a_term == 1)
    add_terms<ROWS, VECTORS, false>(a, p.a_row, b, p.b_row, terms, sum);
  else
    add_terms<ROWS, VECTORS, true>(a, p.a_term, b, p.b_row, terms, sum);
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) store(c + r * p.c_row + v * LANES, sum[r][v]);
}

// The rest of the rows: fewer than BLOCK_ROWS, found by counting down.
template <int ROWS, int VECTORS>
static void add_last_rows(const Product &p, Start start, const float *bias, int i, int j, int k,
                          int terms) {
  if constexpr (ROWS > 0) {
    if (p.rows - i == ROWS)
      add_block<ROWS, VECTORS>(p, start, bias, i, j, k, terms);
    else
      add_last_rows<ROWS - 1, VECTORS>(p, start, bias, i, j, k, terms);
  }
}

template <int VECTORS>
static void add_columns(const Product &p, Start start, const float *bias, int j, int k, int terms) {
  int i = 0;
  for (; i + BLOCK_ROWS <= p.rows; i += BLOCK_ROWS)
    add_block<BLOCK_ROWS, VECTORS>(p, start, bias, i, j, k, terms);
  add_last_rows<BLOCK_ROWS - 1, VECTORS>(p, start, bias, i, j, k, terms);
}

static void multiply(const Product &p, Start start, const float *bias) {
  for (int k = 0; k < p.terms; k += BLOCK_TERMS) {
    int terms = p.terms - k < BLOCK_TERMS ? p.terms - k : BLOCK_TERMS;
    int j = 0;
    for (; j + BLOCK_VECTORS * LANES <= p.columns; j += BLOCK_VECTORS * LANES)
      add_columns<BLOCK_VECTORS>(p, start, bias, j, k, terms);
    for (; j < p.columns; j += LANES) add_columns<1>(p, start, bias, j, k, terms);
    start = FROM_C;
  }
}

#endif
