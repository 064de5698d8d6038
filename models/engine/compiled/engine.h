// The state of one engine, its memory, and the functions that each build of the step offers.
#ifndef DESCENT_ENGINE_H
#define DESCENT_ENGINE_H

#include "plan.h"

// Rows of a batch that pass through the net together. Activations of one tile fit the caches, and
// a batch of any size needs the memory of one tile per shard.
#define TILE 32

// Where a layer's parameters are in a vector of the state. Weights lie in rows, one per output,
// each `row` floats long; beyond the inputs they are zero and stay zero.
struct Place {
  int64_t weights, biases, row;
};

// The memory in which one shard computes. Activations lie in rows, one per unit, each TILE
// floats long: one float per row of the tile.
struct Work {
  float *rows;                 // the inputs as they lie in the table, one row of the table per row
  float *inputs;               // the same by unit
  float *outputs[MOST_LAYERS]; // of each layer, after its activation and dropout
  float *slopes[MOST_LAYERS];  // of the outputs by the sums before the activation, if needed
  float *errors[2];            // slopes of the objective by a layer's sums, of two layers in turn
  float *turned;               // a layer's inputs, one row of the table per row
  float *gradient;             // like a vector of the state
  double sums[MOST_WIDTH];     // the loss of each target
  int64_t hits;
};

struct Pool;

struct Engine {
  uint64_t magic;
  Plan plan;
  Place place[MOST_LAYERS];
  int64_t parameters; // floats in a vector of the state, with padding
  int64_t numbers;    // parameters of the net
  float *part[PARTS];
  float *deltas; // of the Huber loss, one per target
  Work *work;    // one per shard
  const struct Steps *steps;
  Pool *pool;
  void *memory;
};

// One batch of a call: `size` places from `at` on.
struct Batch {
  const Call *call;
  int64_t at;
  int32_t size;
  int64_t step, updates;
};

struct Steps {
  // Compute the gradient and the sums of the loss over one shard of a batch.
  Code (*differentiate)(Engine *, const Batch &, int shard);
  // Add the shards' gradients and change the parameters from `from` to `to`, multiples of LANES.
  void (*update)(Engine *, const Batch &, int64_t from, int64_t to);
  // Compute the sums of the loss and the hits of a net with these values over one shard of rows.
  Code (*measure)(Engine *, const float *values, const Rows &, int64_t from, int64_t to, int shard);
};

static inline int64_t padded(int64_t count) { return (count + 15) & ~(int64_t)15; }
static inline int outputs_of(const Plan &plan) { return plan.layer[plan.layers - 1].outputs; }
static inline int losses_of(const Plan &plan) {
  return plan.loss == CROSS_ENTROPY ? 1 : outputs_of(plan);
}
// Whether a hidden layer only sets negative numbers to zero: its outputs tell its slopes.
static inline bool is_rectifier(const Plan &plan, int l) {
  const Layer &layer = plan.layer[l];
  return layer.activation == RELU && layer.drop_below == 0 && l < plan.layers - 1;
}
static inline bool has_slopes(const Plan &plan, int l) {
  const Layer &layer = plan.layer[l];
  return (layer.activation != NO_ACTIVATION || layer.drop_below > 0) && !is_rectifier(plan, l);
}
static inline int32_t rows_of_a_shard(const Plan &plan) {
  return (plan.batch + plan.shards - 1) / plan.shards;
}

#endif
