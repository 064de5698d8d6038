// One optimizer step: forward, loss, backward, update. Compiled once for each kind of processor.
#include "engine.h"
#include "product.h"
#include "vector.h"

#ifndef STEPS
#error "STEPS names the table of this build"
#endif

// The rows of one tile: where each lies in the table, and how many columns of vectors they take.
struct Tile {
  int32_t rows, columns, first_in_batch;
  int64_t index[TILE];
};

// Return a code: no row is read that the table does not have, and no class that the net lacks.
static Code choose_rows(Tile &tile, const Plan &plan, const Rows &rows, const int64_t *order,
                        int64_t from, int64_t to, int32_t first_in_batch) {
  tile.rows = (int32_t)(to - from < TILE ? to - from : TILE);
  tile.columns = (int32_t)padded(tile.rows);
  tile.first_in_batch = first_in_batch;
  for (int i = 0; i < tile.rows; i++) {
    int64_t row = order ? order[from + i] : from + i;
    if (row < 0 || row >= rows.rows) return BAD_ORDER;
    __builtin_prefetch(rows.x + row * rows.width); // the rows of an order lie anywhere
    if (rows.classes && (rows.classes[row] < 0 || rows.classes[row] >= outputs_of(plan)))
      return BAD_CLASS;
    tile.index[i] = row;
  }
  return OK;
}

static void turn(const float *from, int64_t from_row, float *to, int64_t to_row, int rows,
                 int columns) {
  for (int i = 0; i < rows; i += LANES)
    for (int j = 0; j < columns; j += LANES)
      transpose_square(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
}

// As memcpy, which takes longer to choose its way for a few numbers than to copy them.
INLINE void copy_row(const float *from, float *to, int64_t count) {
  int64_t j = 0;
  for (; j + LANES <= count; j += LANES) store(to + j, load(from + j));
  for (; j + 4 <= count; j += 4) *(LooseFour *)(to + j) = *(const LooseFour *)(from + j);
#pragma clang loop vectorize(disable) unroll(disable)
  for (; j < count; j++) to[j] = from[j];
}

static void read_inputs(const Engine &engine, const Rows &rows, const Tile &tile, Work &work) {
  int64_t row = engine.place[0].row;
  for (int i = 0; i < tile.rows; i++)
    copy_row(rows.x + tile.index[i] * rows.width, work.rows + i * row, rows.width);
  for (int i = tile.rows; i < tile.columns; i++) memset(work.rows + i * row, 0, row * sizeof(float));
  turn(work.rows, row, work.inputs, TILE, tile.columns, (int)padded(rows.width));
}

// ---- Activations and dropout ----

// Change sums to activations and return the slope.
template <int ACTIVATION> INLINE Floats activate(Floats &x) {
  if constexpr (ACTIVATION == RELU) {
    x = rectified(x);
    return pick(x == zeros(), zeros(), all(1.f));
  } else if constexpr (ACTIVATION == SIGMOID) {
    x = sigmoid(x);
    return x * (all(1.f) - x);
  } else if constexpr (ACTIVATION == TANH) {
    x = hyperbolic_tangent(x);
    return fma(-x, x, all(1.f));
  } else if constexpr (ACTIVATION == GELU) {
    Normal at = normal(x);
    Floats slope = fma(x, at.density, at.below);
    x *= at.below;
    return slope;
  } else {
    return all(1.f);
  }
}

// The hash of models/engine/dropout.py.
struct Dropout {
  uint32_t first_key, second_key;
};

INLINE uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

INLINE Dropout dropout_of(uint64_t seed, uint64_t step, uint64_t layer) {
  uint64_t key = mix(seed * 0x9E3779B97F4A7C15u + step * 0xD1B54A32D192ED03u +
                     layer * 0x8CB92BA72F3D8DD7u);
  return Dropout{(uint32_t)key, (uint32_t)(key >> 32)};
}

INLINE Words hash(Words place, const Dropout &keys) {
  Words x = place * 0x9E3779B9u + keys.first_key;
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x ^= keys.second_key;
  x *= 0x735a2d97u;
  return x ^ (x >> 15);
}

template <int ACTIVATION, bool DROPS>
static void activate_layer(const Layer &layer, const Tile &tile, const Dropout &keys, float *outputs,
                           float *slopes) {
  Words first = (lane_numbers() + (uint32_t)tile.first_in_batch) * (uint32_t)layer.outputs;
  for (int unit = 0; unit < layer.outputs; unit++)
    for (int j = 0; j < tile.columns; j += LANES) {
      int64_t at = (int64_t)unit * TILE + j;
      Floats x = load(outputs + at);
      Floats slope = activate<ACTIVATION>(x);
      if constexpr (DROPS) {
        Words place = first + (uint32_t)j * (uint32_t)layer.outputs + (uint32_t)unit;
        Ints is_kept = hash(place, keys) >= layer.drop_below;
        Floats scale = pick(is_kept, all(layer.keep_scale), zeros());
        x *= scale;
        slope *= scale;
      }
      store(outputs + at, x);
      if (slopes) store(slopes + at, slope);
    }
}

template <int ACTIVATION>
static void activate_with(const Layer &layer, const Tile &tile, const Dropout *keys, float *outputs,
                          float *slopes) {
  if (keys)
    activate_layer<ACTIVATION, true>(layer, tile, *keys, outputs, slopes);
  else
    activate_layer<ACTIVATION, false>(layer, tile, Dropout{}, outputs, slopes);
}

static void activate_any(const Layer &layer, const Tile &tile, const Dropout *keys, float *outputs,
                         float *slopes) {
  switch (layer.activation) {
  case RELU: return activate_with<RELU>(layer, tile, keys, outputs, slopes);
  case SIGMOID: return activate_with<SIGMOID>(layer, tile, keys, outputs, slopes);
  case TANH: return activate_with<TANH>(layer, tile, keys, outputs, slopes);
  case GELU: return activate_with<GELU>(layer, tile, keys, outputs, slopes);
  default:
    if (keys) activate_with<NO_ACTIVATION>(layer, tile, keys, outputs, slopes);
  }
}

// ---- Forward and backward ----

// `step` is null for an evaluation, which has no dropout and needs no slopes.
static void forward(const Engine &engine, const float *values, const Tile &tile, Work &work,
                    const int64_t *step) {
  const Plan &plan = engine.plan;
  const float *inputs = work.inputs;
  for (int l = 0; l < plan.layers; l++) {
    const Layer &layer = plan.layer[l];
    const Place &place = engine.place[l];
    float *outputs = work.outputs[l];
    multiply(Product{layer.outputs, tile.columns, layer.inputs, values + place.weights, place.row, 1,
                     inputs, TILE, outputs, TILE, FROM_BIAS, values + place.biases,
                     is_rectifier(plan, l) ? RECTIFIED : NOTHING, 0});
    if (!is_rectifier(plan, l)) {
      Dropout keys = {};
      bool drops = step && layer.drop_below > 0;
      if (drops) keys = dropout_of(plan.seed, (uint64_t)*step, (uint64_t)l);
      activate_any(layer, tile, drops ? &keys : 0, outputs, step ? work.slopes[l] : 0);
    }
    inputs = outputs;
  }
}

static void scale_by_slopes(const Layer &layer, const Tile &tile, const float *slopes,
                            float *errors) {
  for (int unit = 0; unit < layer.outputs; unit++)
    for (int j = 0; j < tile.columns; j += LANES) {
      int64_t at = (int64_t)unit * TILE + j;
      store(errors + at, load(errors + at) * load(slopes + at));
    }
}

static void add_bias_gradient(int units, const Tile &tile, const float *errors, float *gradient,
                              bool is_first) {
  for (int unit = 0; unit < units; unit += LANES) {
    Floats sums[LANES];
    for (int i = 0; i < LANES; i++) {
      sums[i] = zeros();
      if (unit + i < units)
        for (int j = 0; j < tile.columns; j += LANES)
          sums[i] += load(errors + (int64_t)(unit + i) * TILE + j);
    }
    Floats sum = lane_sums(sums);
    store(gradient + unit, is_first ? sum : load(gradient + unit) + sum);
  }
}

// Add the tile's gradient, from work.errors[0], the slopes of the objective by the outputs.
static void backward(const Engine &engine, const Tile &tile, Work &work, bool is_first) {
  const Plan &plan = engine.plan;
  float *errors = work.errors[0], *next = work.errors[1];
  int last = plan.layers - 1;
  if (work.slopes[last]) scale_by_slopes(plan.layer[last], tile, work.slopes[last], errors);
  for (int l = last; l >= 0; l--) {
    const Layer &layer = plan.layer[l];
    const Place &place = engine.place[l];
    int columns = (int)padded(layer.inputs);
    const float *inputs = work.rows;
    if (l > 0) {
      turn(work.outputs[l - 1], TILE, work.turned, place.row, columns, tile.columns);
      inputs = work.turned;
    }
    multiply(Product{layer.outputs, columns, tile.rows, errors, TILE, 1, inputs, place.row,
                     work.gradient + place.weights, place.row, is_first ? FROM_ZERO : FROM_C, 0,
                     NOTHING, 0});
    add_bias_gradient(layer.outputs, tile, errors, work.gradient + place.biases, is_first);
    if (l > 0) {
      // The activation of the layer below is passed at once.
      bool is_on = is_rectifier(plan, l - 1);
      const float *beside = is_on ? work.outputs[l - 1] : work.slopes[l - 1];
      multiply(Product{layer.inputs, tile.columns, layer.outputs, engine.part[VALUES] + place.weights,
                       1, place.row, errors, TILE, next, TILE, FROM_ZERO, 0,
                       is_on ? WHERE_BESIDE : beside ? TIMES_BESIDE : NOTHING, beside});
    }
    float *free = errors;
    errors = next;
    next = free;
  }
}

// ---- Losses ----

struct Slopes {
  Floats each, slope;
};

INLINE Slopes error_loss(int loss, Floats error, Floats delta) {
  switch (loss) {
  case MEAN_ABSOLUTE: {
    Floats sign = pick(error > zeros(), all(1.f), pick(error < zeros(), all(-1.f), error));
    return Slopes{magnitude(error), sign};
  }
  case HUBER: {
    Floats slope = pick(error > delta, delta, pick(error < -delta, -delta, error));
    return Slopes{slope * fma(all(-0.5f), slope, error), slope};
  }
  default: return Slopes{error * error, error + error};
  }
}

INLINE void read_weights(const Rows &rows, const Tile &tile, float *weights) {
  for (int i = 0; i < tile.columns; i++)
    weights[i] = i >= tile.rows ? 0.f : rows.weights ? rows.weights[tile.index[i]] : 1.f;
}

// Add the loss of the errors to the sums; set work.errors[0] to `share` times the loss's slopes.
static void measure_errors(const Engine &engine, const Rows &rows, const Tile &tile, Work &work,
                           float share) {
  const Plan &plan = engine.plan;
  const float *outputs = work.outputs[plan.layers - 1];
  float weights[TILE], truth[TILE], each[TILE];
  read_weights(rows, tile, weights);
  for (int target = 0; target < outputs_of(plan); target++) {
    for (int i = 0; i < tile.columns; i++)
      truth[i] = i < tile.rows ? rows.truth[tile.index[i] * rows.targets + target] : 0.f;
    for (int j = 0; j < tile.columns; j += LANES) {
      int64_t at = (int64_t)target * TILE + j;
      Ints is_row = (Ints)(lane_numbers() + (uint32_t)j) < tile.rows;
      Floats error = pick(is_row, load(outputs + at) - load(truth + j), zeros());
      Slopes found = error_loss(plan.loss, error, all(engine.deltas[target]));
      store(each + j, found.each * load(weights + j));
      store(work.errors[0] + at, found.slope * all(share) * load(weights + j));
    }
    for (int i = 0; i < tile.rows; i++) work.sums[target] += (double)each[i];
  }
}

// The same for cross entropy, and add the rows whose likeliest class, the first of equals, is true.
static void measure_classes(const Engine &engine, const Rows &rows, const Tile &tile, Work &work,
                            float share) {
  const Plan &plan = engine.plan;
  int classes = outputs_of(plan);
  const float *outputs = work.outputs[plan.layers - 1];
  float weights[TILE], logarithms[TILE], largest[TILE], likeliest[TILE];
  read_weights(rows, tile, weights);
  for (int j = 0; j < tile.columns; j += LANES) {
    Floats most = load(outputs + j), best = zeros();
    for (int c = 1; c < classes; c++) {
      Floats x = load(outputs + (int64_t)c * TILE + j);
      Ints is_more = x > most;
      most = pick(is_more, x, most);
      best = pick(is_more, all((float)c), best);
    }
    Floats sum = zeros();
    for (int c = 0; c < classes; c++) {
      Floats x = exponential(load(outputs + (int64_t)c * TILE + j) - most);
      store(work.errors[0] + (int64_t)c * TILE + j, x);
      sum += x;
    }
    Floats scale = load(weights + j) * all(share) / sum;
    for (int c = 0; c < classes; c++) {
      float *x = work.errors[0] + (int64_t)c * TILE + j;
      store(x, load(x) * scale);
    }
    store(logarithms + j, logarithm(sum));
    store(largest + j, most);
    store(likeliest + j, best);
  }
  for (int i = 0; i < tile.rows; i++) {
    int64_t truth = rows.classes[tile.index[i]];
    float loss = logarithms[i] - (outputs[truth * TILE + i] - largest[i]);
    work.sums[0] += (double)(loss * weights[i]);
    work.errors[0][truth * TILE + i] -= weights[i] * share;
    work.hits += likeliest[i] == (float)truth;
  }
}

static void measure_loss(const Engine &engine, const Rows &rows, const Tile &tile, Work &work,
                         float share) {
  if (engine.plan.loss == CROSS_ENTROPY)
    measure_classes(engine, rows, tile, work, share);
  else
    measure_errors(engine, rows, tile, work, share);
}

static void forget_sums(const Plan &plan, Work &work) {
  memset(work.sums, 0, losses_of(plan) * sizeof(double));
  work.hits = 0;
}

// What a row adds to the objective: the mean over rows and targets, or over rows, or the sum.
static float share_of(const Plan &plan, int rows) {
  if (plan.loss == SUM_SQUARED) return 1.f;
  double targets = plan.loss == CROSS_ENTROPY ? 1. : (double)outputs_of(plan);
  return (float)(1. / ((double)rows * targets));
}

static Code differentiate(Engine *engine, const Batch &batch, int shard) {
  const Plan &plan = engine->plan;
  const Call &call = *batch.call;
  Work &work = engine->work[shard];
  forget_sums(plan, work);
  int32_t most = rows_of_a_shard(plan), from = shard * most;
  int32_t to = batch.size - from < most ? batch.size : from + most;
  if (from >= to) {
    memset(work.gradient, 0, engine->parameters * sizeof(float));
    return OK;
  }
  float share = share_of(plan, batch.size);
  for (int32_t at = from; at < to; at += TILE) {
    Tile tile;
    Code code = choose_rows(tile, plan, call.rows, call.order, batch.at + at, batch.at + to, at);
    if (code != OK) return code;
    read_inputs(*engine, call.rows, tile, work);
    forward(*engine, engine->part[VALUES], tile, work, &batch.step);
    measure_loss(*engine, call.rows, tile, work, share);
    backward(*engine, tile, work, at == from);
  }
  return OK;
}

static Code measure(Engine *engine, const float *values, const Rows &rows, int64_t from, int64_t to,
                    int shard) {
  Work &work = engine->work[shard];
  forget_sums(engine->plan, work);
  for (int64_t at = from; at < to; at += TILE) {
    Tile tile;
    Code code = choose_rows(tile, engine->plan, rows, 0, at, to, 0);
    if (code != OK) return code;
    read_inputs(*engine, rows, tile, work);
    forward(*engine, values, tile, work, 0);
    measure_loss(*engine, rows, tile, work, 1.f);
  }
  return OK;
}

// ---- Updates ----

INLINE Floats sum_of_gradients(const Engine &engine, int64_t k) {
  Floats sum = load(engine.work[0].gradient + k);
  for (int s = 1; s < engine.plan.shards; s++) sum += load(engine.work[s].gradient + k);
  return sum;
}

// The power by repeated squaring: a function of `times` alone, unlike a product that is continued
// from step to step, so that a resumed run has the same bits.
static double power(double base, int64_t times) {
  double result = 1.;
  for (; times > 0 && result > 0.; times >>= 1, base *= base)
    if (times & 1) result *= base;
  return result;
}

static void update_by_descent(Engine &engine, float rate, int64_t from, int64_t to) {
  const Plan &plan = engine.plan;
  float *values = engine.part[VALUES], *velocities = engine.part[VELOCITY];
  for (int64_t k = from; k < to; k += LANES) {
    Floats value = load(values + k);
    Floats slope = fma(all(plan.decay), value, sum_of_gradients(engine, k));
    if (plan.momentum > 0.f) {
      Floats velocity = fma(all(plan.momentum), load(velocities + k), slope);
      store(velocities + k, velocity);
      slope = plan.nesterov ? fma(all(plan.momentum), velocity, slope) : velocity;
    }
    store(values + k, fma(all(-rate), slope, value));
  }
}

// Adam and AdamW, whose decay shrinks the values and stays out of the moments.
static void update_by_moments(Engine &engine, double rate, int64_t updates, int64_t from, int64_t to) {
  const Plan &plan = engine.plan;
  float *values = engine.part[VALUES], *means = engine.part[MEAN], *squares = engine.part[SQUARE];
  // The moments start at zero; divide by the share of the weights that they have seen.
  double mean_share = 1. - power(plan.mean_decay, updates + 1);
  double square_share = 1. - power(plan.square_decay, updates + 1);
  Floats pace = all((float)(rate / mean_share));
  Floats enlarge = all((float)(1. / __builtin_sqrt(square_share)));
  bool is_decoupled = plan.optimizer == ADAMW;
  Floats shrink = all(is_decoupled ? (float)(1. - rate * (double)plan.decay) : 1.f);
  Floats decay = all(is_decoupled ? 0.f : plan.decay);
  Floats new_mean = all((float)(1. - plan.mean_decay));
  Floats new_square = all((float)(1. - plan.square_decay)), old_square = all((float)plan.square_decay);
  Floats epsilon = all((float)plan.epsilon);
  for (int64_t k = from; k < to; k += LANES) {
    Floats value = load(values + k), mean = load(means + k);
    Floats slope = fma(decay, value, sum_of_gradients(engine, k));
    mean = fma(new_mean, slope - mean, mean);
    Floats square = fma(old_square, load(squares + k), new_square * slope * slope);
    store(means + k, mean);
    store(squares + k, square);
    Floats size = fma(root(square), enlarge, epsilon);
    store(values + k, fma(value, shrink, -(pace * mean / size)));
  }
}

static void update_by_size(Engine &engine, float rate, int64_t from, int64_t to) {
  const Plan &plan = engine.plan;
  float *values = engine.part[VALUES], *squares = engine.part[SQUARE];
  float *velocities = engine.part[VELOCITY];
  Floats new_square = all((float)(1. - plan.square_decay)), old_square = all((float)plan.square_decay);
  Floats epsilon = all((float)plan.epsilon);
  for (int64_t k = from; k < to; k += LANES) {
    Floats value = load(values + k);
    Floats slope = fma(all(plan.decay), value, sum_of_gradients(engine, k));
    Floats square = fma(old_square, load(squares + k), new_square * slope * slope);
    store(squares + k, square);
    Floats move = slope / (root(square) + epsilon);
    if (plan.momentum > 0.f) {
      move = fma(all(plan.momentum), load(velocities + k), move);
      store(velocities + k, move);
    }
    store(values + k, fma(all(-rate), move, value));
  }
}

static void update(Engine *engine, const Batch &batch, int64_t from, int64_t to) {
  double rate = batch.call->rate;
  switch (engine->plan.optimizer) {
  case SGD: return update_by_descent(*engine, (float)rate, from, to);
  case RMSPROP: return update_by_size(*engine, (float)rate, from, to);
  default: update_by_moments(*engine, rate, batch.updates, from, to);
  }
}

extern const Steps STEPS;
const Steps STEPS = {differentiate, update, measure};
