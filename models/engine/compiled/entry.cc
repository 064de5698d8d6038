// The functions that Python calls. They check every argument, choose the build of the step for this
// processor, and run batches on the pool.
#include "engine.h"
#include "pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>
#endif

#define MAGIC 0x6465736365656e74u
#define ALIGNMENT 64
#define MOST_ROWS ((int64_t)1 << 40)
#define MOST_STEPS ((int64_t)1 << 53)
// Rows of an evaluation from which it uses more than one thread, times the parameters.
#define PARALLEL_WORK 20000000

#if defined(__x86_64__)
extern const Steps avx2_steps, avx512_steps;
#else
extern const Steps plain_steps;
#endif

// ---- The processor ----

#if defined(__x86_64__)
// The bits of cpuid's answers that stand for the instructions of a build, and those of XCR0 that say
// that the system saves the registers.
#define FIRST_LEAF (1u << 12 | 1u << 22 | 1u << 23 | 1u << 27 | 1u << 28 | 1u << 29)
#define AVX2_LEAF (1u << 3 | 1u << 5 | 1u << 8)
#define AVX512_LEAF (AVX2_LEAF | 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31)
#define LZCNT_LEAF (1u << 5)
#define AVX2_STATE 0x06u
#define AVX512_STATE 0xe6u

static bool has(unsigned bits, unsigned needed) { return (bits & needed) == needed; }

// Return the widest build that this processor runs, or null.
static const Steps *choose_steps(int build) {
  unsigned a, b, c, d, state, unused;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, FIRST_LEAF)) return 0;
  __asm__("xgetbv" : "=a"(state), "=d"(unused) : "c"(0));
  if (!has(state, AVX2_STATE)) return 0;
  if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, LZCNT_LEAF)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, AVX2_LEAF)) return 0;
  bool is_wide = has(b, AVX512_LEAF) && has(state, AVX512_STATE);
  return build == BEST && is_wide ? &avx512_steps : &avx2_steps;
}
#else
static const Steps *choose_steps(int) { return &plain_steps; }
#endif

// Numbers below the smallest normal one are zero inside the step: with them Adam's moments of dead
// units would take ten times as long.
#if defined(__x86_64__)
typedef unsigned Mode;
static Mode flush_subnormals(void) {
  Mode before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
}
static void restore(Mode before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
typedef uint64_t Mode;
static Mode flush_subnormals(void) {
  Mode before;
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  __asm__ volatile("msr fpcr, %0" ::"r"(before | (uint64_t)1 << 24));
  return before;
}
static void restore(Mode before) { __asm__ volatile("msr fpcr, %0" ::"r"(before)); }
#else
#error "this processor has no build of the step"
#endif

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// ---- Checks ----

static bool is_between(double x, double least, double most) { return x >= least && x <= most; }

static bool is_good(const Layer &layer) {
  return layer.inputs >= 1 && layer.inputs <= MOST_WIDTH && layer.outputs >= 1 &&
         layer.outputs <= MOST_WIDTH && layer.activation >= NO_ACTIVATION &&
         layer.activation <= GELU && is_between(layer.keep_scale, 1, 1e12);
}

static bool is_good(const Plan &plan) {
  if (plan.version != DESCENT_VERSION || plan.layers < 1 || plan.layers > MOST_LAYERS) return false;
  for (int l = 0; l < plan.layers; l++) {
    if (!is_good(plan.layer[l])) return false;
    if (l > 0 && plan.layer[l].inputs != plan.layer[l - 1].outputs) return false;
  }
  return plan.loss >= MEAN_SQUARED && plan.loss <= CROSS_ENTROPY && plan.optimizer >= SGD &&
         plan.optimizer <= RMSPROP && plan.batch >= 1 && plan.shards >= 1 &&
         plan.shards <= MOST_SHARDS && plan.build >= BEST && plan.build <= NARROW &&
         is_between(plan.momentum, 0, 1) && is_between(plan.decay, 0, 1e6) &&
         is_between(plan.mean_decay, 0, 1) && is_between(plan.square_decay, 0, 1) &&
         is_between(plan.epsilon, 0, 1);
}

static bool is_good(const Plan &plan, const Rows &rows) {
  bool is_classes = plan.loss == CROSS_ENTROPY;
  if (rows.rows < 1 || rows.rows > MOST_ROWS || rows.width != plan.layer[0].inputs) return false;
  if (!rows.x || rows.x_count != rows.rows * rows.width) return false;
  if (rows.weights && rows.weights_count != rows.rows) return false;
  if (is_classes) return rows.classes && rows.classes_count == rows.rows;
  return !rows.classes && rows.truth && rows.targets == outputs_of(plan) &&
         rows.truth_count == rows.rows * rows.targets;
}

static bool is_good(const Plan &plan, const Call &call) {
  if (!is_good(plan, call.rows) || call.places < 1 || call.places > MOST_ROWS) return false;
  if (!call.order && call.places > call.rows.rows) return false;
  int64_t batches = (call.places + plan.batch - 1) / plan.batch;
  return call.first >= 0 && call.count >= 1 && call.first < batches &&
         call.count <= batches - call.first && call.step >= 0 && call.step <= MOST_STEPS &&
         call.updates >= 0 && call.updates <= MOST_STEPS &&
         isfinite(call.rate) && !isnan(call.seconds) && call.threads >= 1 &&
         call.threads <= MOST_THREADS;
}

static bool is_open(const Engine *engine) { return engine && engine->magic == MAGIC; }

// ---- Memory ----

// Rows whose length is a multiple of a large power of two would share few lines of the caches.
static int64_t row_of(int64_t inputs) {
  int64_t row = padded(inputs);
  return row % 128 == 0 ? row + 16 : row;
}

static void place_parameters(Engine &engine) {
  for (int l = 0; l < engine.plan.layers; l++) {
    const Layer &layer = engine.plan.layer[l];
    int64_t row = row_of(layer.inputs), weights = engine.parameters;
    int64_t biases = weights + row * layer.outputs;
    engine.place[l] = Place{weights, biases, row};
    engine.parameters = biases + padded(layer.outputs);
    engine.numbers += (int64_t)(layer.inputs + 1) * layer.outputs;
  }
}

// Hands out parts of one block. Without a block it only counts, so the same code measures the block
// and divides it.
struct Parts {
  float *block;
  int64_t used;
  float *take(int64_t count) {
    float *part = block ? block + used : 0;
    used += padded(count);
    return part;
  }
};

static void divide(Parts &parts, const Engine &engine, Work &work) {
  const Plan &plan = engine.plan;
  int64_t widest = 0, longest = 0;
  for (int l = 0; l < plan.layers; l++) {
    const Layer &layer = plan.layer[l];
    int64_t outputs = padded(layer.outputs), row = engine.place[l].row;
    if (padded(layer.inputs) > widest) widest = padded(layer.inputs);
    if (outputs > widest) widest = outputs;
    if (row > longest) longest = row;
    work.outputs[l] = parts.take(outputs * TILE);
    work.slopes[l] = has_slopes(plan, l) ? parts.take(outputs * TILE) : 0;
  }
  work.rows = parts.take(TILE * engine.place[0].row);
  work.inputs = parts.take(padded(plan.layer[0].inputs) * TILE);
  work.errors[0] = parts.take(widest * TILE);
  work.errors[1] = parts.take(widest * TILE);
  work.turned = parts.take(TILE * longest);
  work.gradient = parts.take(engine.parameters);
}

static bool uses(const Plan &plan, int part) {
  switch (part) {
  case VALUES: return true;
  case VELOCITY: return (plan.optimizer == SGD || plan.optimizer == RMSPROP) && plan.momentum > 0;
  case MEAN: return plan.optimizer == ADAM || plan.optimizer == ADAMW;
  default: return plan.optimizer != SGD;
  }
}

static void divide(Parts &parts, Engine &engine) {
  for (int part = 0; part < PARTS; part++)
    engine.part[part] = uses(engine.plan, part) ? parts.take(engine.parameters) : 0;
  engine.deltas = parts.take(outputs_of(engine.plan));
  for (int s = 0; s < engine.plan.shards; s++) divide(parts, engine, engine.work[s]);
}

static bool take_memory(Engine &engine) {
  engine.work = (Work *)calloc(engine.plan.shards, sizeof(Work));
  engine.pool = make_pool();
  if (!engine.work || !engine.pool) return false;
  Parts count = {0, 0};
  divide(count, engine);
  engine.memory = calloc((size_t)count.used * sizeof(float) + ALIGNMENT, 1);
  if (!engine.memory) return false;
  uintptr_t aligned = ((uintptr_t)engine.memory + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
  Parts parts = {(float *)aligned, 0};
  divide(parts, engine);
  return true;
}

static void release(Engine *engine) {
  end_pool(engine->pool);
  free(engine->memory);
  free(engine->work);
  engine->magic = 0;
  free(engine);
}

// ---- Running ----

struct Training {
  Engine *engine;
  const Call *call;
  double *totals;
  double until;
  int64_t done;
  bool stops;
  Code codes[MOST_SHARDS];
};

static Code worst_of(const Code *codes, int count) {
  for (int s = 0; s < count; s++)
    if (codes[s] != OK) return codes[s];
  return OK;
}

static void add_sums(const Engine &engine, double *totals) {
  for (int target = 0; target < losses_of(engine.plan); target++) {
    double sum = 0;
    for (int s = 0; s < engine.plan.shards; s++) sum += engine.work[s].sums[target];
    totals[target] += sum;
  }
}

// Each thread computes every n-th shard and then changes one part of the parameters.
static void train(void *context, int32_t thread, int32_t threads) {
  Training &training = *(Training *)context;
  Engine &engine = *training.engine;
  const Call &call = *training.call;
  const Plan &plan = engine.plan;
  Mode before = flush_subnormals();
  int64_t share = padded((engine.parameters + threads - 1) / threads);
  int64_t from = share * thread < engine.parameters ? share * thread : engine.parameters;
  int64_t to = engine.parameters - from < share ? engine.parameters : from + share;
  for (int64_t b = call.first; b < call.first + call.count; b++) {
    int64_t at = b * plan.batch, left = call.places - at;
    Batch batch = {&call, at, left < plan.batch ? (int32_t)left : plan.batch,
                   call.step + (b - call.first), call.updates + (b - call.first)};
    for (int s = thread; s < plan.shards; s += threads)
      training.codes[s] = engine.steps->differentiate(&engine, batch, s);
    meet(engine.pool, threads);
    if (worst_of(training.codes, plan.shards) != OK) break;
    if (thread == 0) {
      add_sums(engine, training.totals);
      training.done++;
      training.stops = call.count > 1 && now() >= training.until;
    }
    engine.steps->update(&engine, batch, from, to);
    meet(engine.pool, threads);
    if (training.stops) break;
  }
  restore(before);
}

struct Measuring {
  Engine *engine;
  const Rows *rows;
  const float *values;
  Code codes[MOST_SHARDS];
};

static void measure_shards(void *context, int32_t thread, int32_t threads) {
  Measuring &measuring = *(Measuring *)context;
  Engine &engine = *measuring.engine;
  Mode before = flush_subnormals();
  int64_t shards = engine.plan.shards, rows = measuring.rows->rows;
  int64_t share = ((rows + shards - 1) / shards + TILE - 1) / TILE * TILE;
  for (int s = thread; s < shards; s += threads) {
    int64_t from = share * s < rows ? share * s : rows;
    int64_t to = rows - from < share ? rows : from + share;
    measuring.codes[s] = engine.steps->measure(&engine, measuring.values, *measuring.rows, from, to, s);
  }
  restore(before);
}

// Copy between a vector of the state and the net's parameters, which lie in the order weight
// (outputs, inputs), bias (outputs,) of each layer.
template <bool PUSHES> static void copy(const Engine &engine, float *part, float *numbers) {
  for (int l = 0; l < engine.plan.layers; l++) {
    const Layer &layer = engine.plan.layer[l];
    const Place &place = engine.place[l];
    for (int o = 0; o <= layer.outputs; o++) {
      bool is_bias = o == layer.outputs;
      float *here = part + (is_bias ? place.biases : place.weights + o * place.row);
      int64_t count = is_bias ? layer.outputs : layer.inputs;
      if (PUSHES)
        memcpy(here, numbers, (size_t)count * sizeof(float));
      else
        memcpy(numbers, here, (size_t)count * sizeof(float));
      numbers += count;
    }
  }
}

// ---- What Python calls, as plan.h describes it ----

EXPORT int32_t descent_version(void) { return DESCENT_VERSION; }

EXPORT int64_t descent_sizes(void) { return (int64_t)(sizeof(Plan) << 16 | sizeof(Call)); }

EXPORT const char *descent_build(int32_t build) {
  const Steps *steps = choose_steps(build);
#if defined(__x86_64__)
  return steps == &avx512_steps ? "avx512" : steps == &avx2_steps ? "avx2" : "none";
#else
  return steps ? "neon" : "none";
#endif
}

EXPORT int32_t descent_open(const Plan *plan, const float *deltas, int64_t count, void **opened) {
  if (!plan || !opened || !is_good(*plan)) return BAD_PLAN;
  if ((plan->loss == HUBER) != (deltas != 0)) return BAD_PLAN;
  if (deltas && count != outputs_of(*plan)) return BAD_PLAN;
  const Steps *steps = choose_steps(plan->build);
  if (!steps) return NO_PROCESSOR;
  Engine *engine = (Engine *)calloc(1, sizeof(Engine));
  if (!engine) return NO_MEMORY;
  engine->plan = *plan;
  engine->steps = steps;
  place_parameters(*engine);
  if (!take_memory(*engine)) {
    release(engine);
    return NO_MEMORY;
  }
  if (deltas) memcpy(engine->deltas, deltas, (size_t)count * sizeof(float));
  engine->magic = MAGIC;
  *opened = engine;
  return OK;
}

EXPORT int32_t descent_close(void *opened) {
  if (!is_open((Engine *)opened)) return BAD_CALL;
  release((Engine *)opened);
  return OK;
}

static bool is_part(const Engine *engine, int32_t part, const float *numbers, int64_t count) {
  return is_open(engine) && part >= VALUES && part < PARTS && engine->part[part] && numbers &&
         count == engine->numbers;
}

EXPORT int32_t descent_push(void *opened, int32_t part, const float *numbers, int64_t count) {
  Engine *engine = (Engine *)opened;
  if (!is_part(engine, part, numbers, count)) return BAD_CALL;
  copy<true>(*engine, engine->part[part], (float *)numbers);
  return OK;
}

EXPORT int32_t descent_pull(void *opened, int32_t part, float *numbers, int64_t count) {
  Engine *engine = (Engine *)opened;
  if (!is_part(engine, part, numbers, count)) return BAD_CALL;
  copy<false>(*engine, engine->part[part], numbers);
  return OK;
}

EXPORT int64_t descent_advance(void *opened, const Call *call, double *totals, int64_t count) {
  Engine *engine = (Engine *)opened;
  if (!is_open(engine) || !call || !totals || !is_good(engine->plan, *call) ||
      count != losses_of(engine->plan))
    return BAD_CALL;
  Training training = {engine, call, totals, now() + call->seconds, 0, false, {}};
  int32_t threads = call->threads < engine->plan.shards ? call->threads : engine->plan.shards;
  run_on_pool(engine->pool, threads, train, &training);
  Code code = worst_of(training.codes, engine->plan.shards);
  return code == OK ? training.done : code;
}

EXPORT int64_t descent_measure(void *opened, const float *numbers, int64_t numbers_count,
                               const Rows *rows, int32_t threads, double *sums, int64_t count) {
  Engine *engine = (Engine *)opened;
  if (!is_part(engine, VALUES, numbers, numbers_count) || !rows || !sums || threads < 1 ||
      threads > MOST_THREADS || !is_good(engine->plan, *rows) || count != losses_of(engine->plan))
    return BAD_CALL;
  // Gradients are not in use between two batches; their memory holds the parameters.
  float *values = engine->work[0].gradient;
  copy<true>(*engine, values, (float *)numbers);
  Measuring measuring = {engine, rows, values, {}};
  if (threads > engine->plan.shards) threads = engine->plan.shards;
  if (rows->rows * engine->numbers < PARALLEL_WORK) threads = 1;
  run_on_pool(engine->pool, threads, measure_shards, &measuring);
  Code code = worst_of(measuring.codes, engine->plan.shards);
  if (code != OK) return code;
  memset(sums, 0, (size_t)count * sizeof(double));
  add_sums(*engine, sums);
  int64_t hits = 0;
  for (int s = 0; s < engine->plan.shards; s++) hits += engine->work[s].hits;
  return hits;
}
