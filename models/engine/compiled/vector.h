// Sixteen floats at once, and the functions that the step needs of them.
//
// The type is the same on every processor; compilers make one, two or four registers of it. Each
// multiply-add is written out, and nothing else may be contracted (-ffp-contract=off), so the bits
// of a result are the same on every processor too, but for the sign and digits of NaN.
#ifndef DESCENT_VECTOR_H
#define DESCENT_VECTOR_H

#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
// The same at any address that is a multiple of four.
typedef float LooseFloats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));

INLINE Floats load(const float *from) { return *(const LooseFloats *)from; }
INLINE void store(float *to, Floats x) { *(LooseFloats *)to = x; }
INLINE Floats all(float x) {
  return Floats{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
INLINE Words all_words(uint32_t x) {
  return Words{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
INLINE Floats zeros(void) { return Floats{}; }
INLINE Words lane_numbers(void) {
  return Words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

// a * b + c with one rounding.
INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__clang__)
  return __builtin_elementwise_fma(a, b, c);
#else
  for (int i = 0; i < LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

INLINE Floats root(Floats x) {
#if defined(__clang__)
  return __builtin_elementwise_sqrt(x);
#else
  for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

INLINE Floats pick(Ints which, Floats yes, Floats no) { return which ? yes : no; }
INLINE Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
INLINE Floats with_sign_of(Floats x, Floats sign) {
  return (Floats)(((Ints)x & 0x7fffffff) | ((Ints)sign & (int32_t)0x80000000));
}

// e^x within 2 units in the last place (polynomial of Moshier's Cephes library, expf). Arguments are
// clamped to the range whose results are normal numbers; NaN stays NaN.
INLINE Floats exponential(Floats x) {
  x = pick(x > all(88.f), all(88.f), x);
  x = pick(x < all(-87.f), all(-87.f), x);
  // Adding 1.5 · 2^23 leaves the rounded quotient in the low bits, also for NaN without a trap.
  const Floats shift = all(12582912.f);
  Floats shifted = fma(x, all(1.44269504088896341f), shift);
  Ints power = (Ints)shifted - (Ints)shift;
  Floats whole = shifted - shift;
  x = fma(whole, all(-0.693359375f), x);
  x = fma(whole, all(2.12194440e-4f), x);
  Floats y = fma(all(1.9875691500e-4f), x, all(1.3981999507e-3f));
  y = fma(y, x, all(8.3334519073e-3f));
  y = fma(y, x, all(4.1665795894e-2f));
  y = fma(y, x, all(1.6666665459e-1f));
  y = fma(y, x, all(5.0000001201e-1f));
  y = fma(y, x * x, x) + all(1.f);
  return y * (Floats)((power + 127) << 23);
}

// The natural logarithm of normal positive numbers (Cephes, logf); NaN and infinity stay.
INLINE Floats logarithm(Floats x) {
  // Take the power of two for which the rest is between sqrt(1/2) and sqrt(2).
  Ints bits = (Ints)x;
  Ints power = (bits - 0x3f3504f3) >> 23;
  Floats rest = (Floats)(bits - (power << 23)) - all(1.f);
  Floats square = rest * rest;
  Floats y = fma(all(7.0376836292e-2f), rest, all(-1.1514610310e-1f));
  y = fma(y, rest, all(1.1676998740e-1f));
  y = fma(y, rest, all(-1.2420140846e-1f));
  y = fma(y, rest, all(1.4249322787e-1f));
  y = fma(y, rest, all(-1.6668057665e-1f));
  y = fma(y, rest, all(2.0000714765e-1f));
  y = fma(y, rest, all(-2.4999993993e-1f));
  y = fma(y, rest, all(3.3333331174e-1f));
  y = y * rest * square;
  Floats whole = __builtin_convertvector(power, Floats);
  y = fma(whole, all(-2.12194440e-4f), y);
  y = fma(all(-0.5f), square, y);
  y = fma(whole, all(0.693359375f), rest + y);
  Ints is_special = (Words)bits >= all_words(0x7f800000);
  return pick(is_special, x, y);
}

INLINE Floats sigmoid(Floats x) { return all(1.f) / (all(1.f) + exponential(-x)); }

// Cephes, tanhf: a polynomial near zero, where 1 - 2 / (e^2x + 1) would lose digits.
INLINE Floats hyperbolic_tangent(Floats x) {
  Floats size = magnitude(x);
  Floats far = all(1.f) - all(2.f) / (exponential(size + size) + all(1.f));
  Floats square = x * x;
  Floats y = fma(all(-5.70498872745e-3f), square, all(2.06390887954e-2f));
  y = fma(y, square, all(-5.37397155531e-2f));
  y = fma(y, square, all(1.33314422036e-1f));
  y = fma(y, square, all(-3.33332819422e-1f));
  Floats near = fma(y * square, x, x);
  return pick(size < all(0.625f), near, with_sign_of(far, x));
}

struct Normal {
  Floats density, below;
};

// The density of the standard normal distribution, and the probability of a smaller number: within
// 2e-7 of its value also far out, where 1 + erf would lose all digits. P(X > x) / density is a
// polynomial in 1 / (1 + 0.3 x), fitted over 0 to 13 for the least relative error.
INLINE Normal normal(Floats x) {
  Floats size = magnitude(x);
  Floats bell = exponential(x * x * all(-0.5f));
  Floats t = all(1.f) / fma(all(0.30f), size, all(1.f));
  Floats y = fma(all(3.619566436963798e-2f), t, all(-1.593816924162122e-1f));
  y = fma(y, t, all(2.1012424322816736e-1f));
  y = fma(y, t, all(-5.7172788299656836e-2f));
  y = fma(y, t, all(1.3041936284778433e-1f));
  y = fma(y, t, all(9.93462215091726e-2f));
  y = fma(y, t, all(1.208456798537248e-1f));
  y = fma(y, t, all(1.196232524698121e-1f));
  Floats tail = bell * (y * t);
  return Normal{bell * all(0.39894228040143268f), pick(x < zeros(), tail, all(1.f) - tail)};
}

#define PAIRS(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

// Shuffles for transposes: each works within groups of four lanes, or moves whole groups.
INLINE Floats low_ones(Floats a, Floats b) {
  return PAIRS(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
}
INLINE Floats high_ones(Floats a, Floats b) {
  return PAIRS(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
INLINE Floats low_twos(Floats a, Floats b) {
  return PAIRS(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
}
INLINE Floats high_twos(Floats a, Floats b) {
  return PAIRS(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
INLINE Floats low_halves(Floats a, Floats b) {
  return PAIRS(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
INLINE Floats high_halves(Floats a, Floats b) {
  return PAIRS(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
INLINE Floats even_fours(Floats a, Floats b) {
  return PAIRS(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
}
INLINE Floats odd_fours(Floats a, Floats b) {
  return PAIRS(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

// Write the 16 rows of 16 floats at `from` as columns.
INLINE void transpose_square(const float *from, int64_t from_row, float *to, int64_t to_row) {
  // Rows 4a + b, a = 0..3: first transpose each 4 x 4 part, then the 4 x 4 parts themselves.
  Floats part[4][4];
  for (int a = 0; a < 4; a++) {
    const float *row = from + 4 * a * from_row;
    Floats r0 = load(row), r1 = load(row + from_row);
    Floats r2 = load(row + 2 * from_row), r3 = load(row + 3 * from_row);
    Floats low0 = low_ones(r0, r1), high0 = high_ones(r0, r1);
    Floats low1 = low_ones(r2, r3), high1 = high_ones(r2, r3);
    part[a][0] = low_twos(low0, low1);
    part[a][1] = high_twos(low0, low1);
    part[a][2] = low_twos(high0, high1);
    part[a][3] = high_twos(high0, high1);
  }
  for (int b = 0; b < 4; b++) {
    Floats low01 = low_halves(part[0][b], part[1][b]), high01 = high_halves(part[0][b], part[1][b]);
    Floats low23 = low_halves(part[2][b], part[3][b]), high23 = high_halves(part[2][b], part[3][b]);
    store(to + b * to_row, even_fours(low01, low23));
    store(to + (b + 4) * to_row, odd_fours(low01, low23));
    store(to + (b + 8) * to_row, even_fours(high01, high23));
    store(to + (b + 12) * to_row, odd_fours(high01, high23));
  }
}

// The sums of the lanes of 16 vectors, each in the same fixed order.
INLINE Floats lane_sums(const Floats *rows) {
  Floats sums[4];
  for (int a = 0; a < 4; a++) {
    const Floats *r = rows + 4 * a;
    Floats s01 = low_ones(r[0], r[1]) + high_ones(r[0], r[1]);
    Floats s23 = low_ones(r[2], r[3]) + high_ones(r[2], r[3]);
    sums[a] = low_twos(s01, s23) + high_twos(s01, s23);
  }
  Floats s01 = low_halves(sums[0], sums[1]) + high_halves(sums[0], sums[1]);
  Floats s23 = low_halves(sums[2], sums[3]) + high_halves(sums[2], sums[3]);
  return even_fours(s01, s23) + odd_fours(s01, s23);
}

#endif
