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

// What a sum starts with: zero, the number of its row in `bias`, or what is in c.
enum Start { FROM_ZERO, FROM_BIAS, FROM_C };

// What happens to a sum at its end.
enum End {
  NOTHING,
  RECTIFIED,    // it is zero instead of negative
  TIMES_BESIDE, // it is multiplied by the number of `beside`, which lies as c does
  WHERE_BESIDE, // it is zero where that number is not positive
};

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
  Start start;
  const float *bias;
  End end;
  const float *beside;
};

template <int ROWS, int VECTORS>
INLINE void begin(const Product &p, int row, int64_t place, Floats (&sum)[ROWS][VECTORS]) {
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) sum[r][v] = zeros();
  if (p.start == FROM_BIAS)
    for (int r = 0; r < ROWS; r++)
      for (int v = 0; v < VECTORS; v++) sum[r][v] = all(p.bias[row + r]);
  else if (p.start == FROM_C)
    for (int r = 0; r < ROWS; r++)
      for (int v = 0; v < VECTORS; v++) sum[r][v] = load(p.c + place + r * p.c_row + v * LANES);
}

// Not for NaN, which must reach the loss.
INLINE Floats rectified(Floats x) { return pick(x <= zeros(), zeros(), x); }

template <End END> INLINE Floats ended(Floats sum, const float *beside) {
  switch (END) {
  case RECTIFIED: return rectified(sum);
  case TIMES_BESIDE: return sum * load(beside);
  case WHERE_BESIDE: return pick(load(beside) <= zeros(), zeros(), sum);
  default: return sum;
  }
}

template <End END, int ROWS, int VECTORS>
INLINE void put(const Product &p, int64_t place, const Floats (&sum)[ROWS][VECTORS]) {
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) {
      int64_t at = place + r * p.c_row + v * LANES;
      store(p.c + at, ended<END>(sum[r][v], p.beside + at));
    }
}

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
INLINE void add_block(const Product &p, int i, int j, int k, int terms) {
  Floats sum[ROWS][VECTORS];
  int64_t place = i * p.c_row + j;
  begin(p, i, place, sum);
  const float *a = p.a + i * p.a_row + k * p.a_term, *b = p.b + k * p.b_row + j;
  if (p.a_term == 1)
    add_terms<ROWS, VECTORS, false>(a, p.a_row, b, p.b_row, terms, sum);
  else
    add_terms<ROWS, VECTORS, true>(a, p.a_term, b, p.b_row, terms, sum);
  switch (p.end) {
  case RECTIFIED: return put<RECTIFIED>(p, place, sum);
  case TIMES_BESIDE: return put<TIMES_BESIDE>(p, place, sum);
  case WHERE_BESIDE: return put<WHERE_BESIDE>(p, place, sum);
  default: put<NOTHING>(p, place, sum);
  }
}

// The rest of the rows: fewer than BLOCK_ROWS, found by counting down.
template <int ROWS, int VECTORS>
static void add_last_rows(const Product &p, int i, int j, int k, int terms) {
  if constexpr (ROWS > 0) {
    if (p.rows - i == ROWS)
      add_block<ROWS, VECTORS>(p, i, j, k, terms);
    else
      add_last_rows<ROWS - 1, VECTORS>(p, i, j, k, terms);
  }
}

template <int VECTORS>
static void add_columns(const Product &p, int j, int k, int terms) {
  int i = 0;
  for (; i + BLOCK_ROWS <= p.rows; i += BLOCK_ROWS)
    add_block<BLOCK_ROWS, VECTORS>(p, i, j, k, terms);
  add_last_rows<BLOCK_ROWS - 1, VECTORS>(p, i, j, k, terms);
}

static void multiply(Product p) {
  End end = p.end;
  for (int k = 0; k < p.terms; k += BLOCK_TERMS) {
    int terms = p.terms - k < BLOCK_TERMS ? p.terms - k : BLOCK_TERMS;
    p.end = k + terms == p.terms ? end : NOTHING;
    int j = 0;
    for (; j + BLOCK_VECTORS * LANES <= p.columns; j += BLOCK_VECTORS * LANES)
      add_columns<BLOCK_VECTORS>(p, j, k, terms);
    for (; j < p.columns; j += LANES) add_columns<1>(p, j, k, terms);
    p.start = FROM_C;
  }
}

#endif
