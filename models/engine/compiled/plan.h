// The interface between Python (kernel.py) and the compiled step. Every field is checked in entry.cc
// before anything is computed with it.
#ifndef DESCENT_PLAN_H
#define DESCENT_PLAN_H

#include <stdint.h>

// Raise it with every change of the interface: kernel.py refuses a library of another version.
#define DESCENT_VERSION 1
#define MOST_LAYERS 65
#define MOST_WIDTH 1024
#define MOST_SHARDS 8
#define MOST_THREADS 64

enum Activation { NO_ACTIVATION, RELU, SIGMOID, TANH, GELU };
enum LossKind { MEAN_SQUARED, SUM_SQUARED, MEAN_ABSOLUTE, HUBER, CROSS_ENTROPY };
enum OptimizerKind { SGD, ADAM, ADAMW, RMSPROP };
// The vectors of a state that have one number per parameter.
enum Part { VALUES, VELOCITY, MEAN, SQUARE, PARTS };
// Which build of the step runs; all give the same bits.
enum Build { BEST, NARROW };

enum Code {
  OK = 0,
  BAD_PLAN = -1,
  NO_MEMORY = -2,
  BAD_CALL = -3,
  BAD_ORDER = -4,
  BAD_CLASS = -5,
  NO_PROCESSOR = -6,
};

// A linear layer, then an activation, then dropout.
struct Layer {
  int32_t inputs, outputs, activation;
  // Dropout keeps an activation if its hash is at least this, and multiplies it by `keep_scale`.
  uint32_t drop_below;
  float keep_scale;
};

struct Plan {
  int32_t version, layers, loss, optimizer, batch, shards, nesterov, build;
  float momentum, decay;
  double mean_decay, square_decay, epsilon;
  uint64_t seed;
  struct Layer layer[MOST_LAYERS];
};

// Rows of a table in memory: x (rows, width), truth (rows, targets) or classes (rows,), and weights
// (rows,) or null. Each array comes with the count of its elements.
struct Rows {
  const float *x;
  const float *truth;
  const int64_t *classes;
  const float *weights;
  int64_t rows, width, targets;
  int64_t x_count, truth_count, classes_count, weights_count;
};

// Some batches of an epoch. Batch b has the rows order[b * batch] to order[(b + 1) * batch - 1];
// without an order the rows as they lie. Before the first of them the run has made `step` steps, and
// the optimizer `updates`. `seconds` is the time after which no batch is begun.
struct Call {
  struct Rows rows;
  const int64_t *order;
  int64_t places, first, count, step, updates;
  double rate, seconds;
  int32_t threads;
};

// Each function that can fail returns a code, or a count.
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int32_t descent_version(void);
// The bytes of the structures, so that a difference between C++ and Python is found at once.
EXPORT int64_t descent_sizes(void);
// The name of a build, `none` if this processor runs none.
EXPORT const char *descent_build(int32_t build);
// Make an engine. `deltas` are those of the Huber loss, one per target; null for other losses.
EXPORT int32_t descent_open(const Plan *plan, const float *deltas, int64_t count, void **opened);
EXPORT int32_t descent_close(void *opened);
// Copy one vector of the state, in the order weight (outputs, inputs), bias (outputs,) of each layer.
EXPORT int32_t descent_push(void *opened, int32_t part, const float *numbers, int64_t count);
EXPORT int32_t descent_pull(void *opened, int32_t part, float *numbers, int64_t count);
// Make the batches of a call, at least one; return how many were made. Adds their loss to `totals`,
// one float64 per target, or one for classes.
EXPORT int64_t descent_advance(void *opened, const Call *call, double *totals, int64_t count);
// Set `sums` to the sums of the loss over the rows, of the net with these parameters; return how many
// rows have the true class as their likeliest.
EXPORT int64_t descent_measure(void *opened, const float *numbers, int64_t numbers_count,
                               const Rows *rows, int32_t threads, double *sums, int64_t count);

#endif
