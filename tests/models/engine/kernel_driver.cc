// Runs the kernel with random plans, without Python.
//
//   driver digest <nets> [narrow]   prints a hash of every bit of the results
//   driver fuzz <nets> <seed>       calls with valid and invalid arguments, for the sanitizers
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint64_t draw(void) {
  state += 0x9E3779B97F4A7C15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static int between(int least, int most) { return least + (int)(draw() % (uint64_t)(most - least + 1)); }
static bool one_in(int count) { return between(1, count) == 1; }
static float number(void) { return (float)((int64_t)(draw() >> 40) - (1 << 23)) / (float)(1 << 22); }

static float *numbers(int64_t count) {
  float *made = (float *)malloc((size_t)(count > 0 ? count : 1) * sizeof(float));
  for (int64_t i = 0; i < count; i++) made[i] = number();
  return made;
}

static Plan random_plan(void) {
  Plan plan;
  memset(&plan, 0, sizeof plan);
  plan.version = DESCENT_VERSION;
  plan.layers = between(1, 4);
  plan.loss = between(MEAN_SQUARED, CROSS_ENTROPY);
  plan.optimizer = between(SGD, RMSPROP);
  plan.batch = between(1, 150);
  plan.shards = between(1, 4);
  plan.nesterov = between(0, 1);
  plan.momentum = one_in(2) ? 0.9f : 0.f;
  plan.decay = one_in(2) ? 0.01f : 0.f;
  plan.mean_decay = 0.9;
  plan.square_decay = 0.999;
  plan.epsilon = 1e-8;
  plan.seed = draw() % 1000;
  int width = between(1, 40);
  for (int l = 0; l < plan.layers; l++) {
    Layer &layer = plan.layer[l];
    layer.inputs = width;
    layer.outputs = width = between(1, one_in(8) ? 200 : 50);
    layer.activation = l + 1 < plan.layers ? between(NO_ACTIVATION, GELU) : NO_ACTIVATION;
    layer.keep_scale = 1;
    if (one_in(3) && l + 1 < plan.layers) {
      layer.drop_below = 1u << 30;
      layer.keep_scale = 1 / 0.75f;
    }
  }
  return plan;
}

// The arrays of one table, each exactly as long as it must be.
struct Table {
  Rows rows;
  int64_t *order;
  int64_t places;
};

static Table random_table(const Plan &plan) {
  Table table;
  memset(&table, 0, sizeof table);
  Rows &rows = table.rows;
  int outputs = plan.layer[plan.layers - 1].outputs;
  rows.rows = between(1, 400);
  rows.width = plan.layer[0].inputs;
  rows.x_count = rows.rows * rows.width;
  rows.x = numbers(rows.x_count);
  if (plan.loss == CROSS_ENTROPY) {
    int64_t *classes = (int64_t *)malloc((size_t)rows.rows * sizeof(int64_t));
    for (int64_t i = 0; i < rows.rows; i++) classes[i] = between(0, outputs - 1);
    rows.classes = classes;
    rows.classes_count = rows.rows;
  } else {
    rows.targets = outputs;
    rows.truth_count = rows.rows * outputs;
    rows.truth = numbers(rows.truth_count);
  }
  if (one_in(2)) {
    rows.weights = numbers(rows.rows);
    rows.weights_count = rows.rows;
  }
  table.places = between(1, 400);
  table.order = (int64_t *)malloc((size_t)table.places * sizeof(int64_t));
  for (int64_t i = 0; i < table.places; i++) table.order[i] = between(0, (int)rows.rows - 1);
  return table;
}

static void release(Table &table) {
  free((void *)table.rows.x);
  free((void *)table.rows.truth);
  free((void *)table.rows.classes);
  free((void *)table.rows.weights);
  free(table.order);
}

static int64_t count_numbers(const Plan &plan) {
  int64_t count = 0;
  for (int l = 0; l < plan.layers; l++)
    count += (int64_t)(plan.layer[l].inputs + 1) * plan.layer[l].outputs;
  return count;
}

static Call whole_epoch(const Plan &plan, const Table &table, bool is_ordered) {
  Call call;
  memset(&call, 0, sizeof call);
  call.rows = table.rows;
  call.order = is_ordered ? table.order : 0;
  call.places = is_ordered ? table.places : table.rows.rows;
  call.count = (call.places + plan.batch - 1) / plan.batch;
  call.rate = 0.01;
  call.seconds = INFINITY;
  call.threads = between(1, 4);
  return call;
}

// ---- Digests ----

static uint64_t hash = 0xcbf29ce484222325u;

// Processors choose different signs and digits for NaN, which a diverged training has.
template <typename Number> static void add_to_hash(const Number *numbers, int64_t count) {
  for (int64_t n = 0; n < count; n++) {
    Number number = numbers[n] == numbers[n] ? numbers[n] : (Number)12345;
    uint8_t bytes[sizeof(Number)];
    memcpy(bytes, &number, sizeof bytes);
    for (uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  }
}

static int digest(int nets, bool is_narrow) {
  for (int net = 0; net < nets; net++) {
    state = (uint64_t)net;
    Plan plan = random_plan();
    plan.build = is_narrow ? NARROW : BEST;
    Table table = random_table(plan);
    int outputs = plan.layer[plan.layers - 1].outputs, losses = plan.loss == CROSS_ENTROPY ? 1 : outputs;
    int64_t count = count_numbers(plan);
    float *parameters = numbers(count), *deltas = numbers(outputs);
    for (int64_t i = 0; i < count; i++) parameters[i] *= 0.3f;
    for (int i = 0; i < outputs; i++) deltas[i] = fabsf(deltas[i]) + 0.1f;
    double *sums = (double *)calloc((size_t)losses, sizeof(double));
    void *engine = 0;
    if (descent_open(&plan, plan.loss == HUBER ? deltas : 0, outputs, &engine)) return 1;
    if (descent_push(engine, VALUES, parameters, count)) return 1;
    for (int epoch = 0; epoch < 3; epoch++) {
      Call call = whole_epoch(plan, table, epoch > 0);
      call.step = call.updates = epoch * 1000;
      if (descent_advance(engine, &call, sums, losses) != call.count) return 1;
      add_to_hash(sums, losses);
    }
    if (descent_pull(engine, VALUES, parameters, count)) return 1;
    add_to_hash(parameters, count);
    int64_t hits = descent_measure(engine, parameters, count, &table.rows, 2, sums, losses);
    if (hits < 0) return 1;
    add_to_hash(&hits, 1);
    add_to_hash(sums, losses);
    descent_close(engine);
    free(parameters);
    free(deltas);
    free(sums);
    release(table);
  }
  printf("%s %016llx\n", descent_build(is_narrow), (unsigned long long)hash);
  return 0;
}

// ---- Invalid arguments ----

static const int64_t HOSTILE[] = {0,         -1,        1,          65,         66,         1024,
                                  1025,      INT32_MAX, INT32_MIN,  1ll << 40,  1ll << 41,  INT64_MAX,
                                  INT64_MIN, 1ll << 53, 1ll << 31,  1ll << 32,  3,          4096};

static int64_t hostile(void) { return HOSTILE[draw() % (sizeof HOSTILE / sizeof *HOSTILE)]; }
static double hostile_number(void) {
  const double all[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e300, -1e-300, 2};
  return all[draw() % 8];
}

static void spoil(Plan &plan) {
  int32_t *whole[] = {&plan.version, &plan.layers, &plan.loss,     &plan.optimizer,
                      &plan.batch,   &plan.shards, &plan.nesterov, &plan.build};
  Layer &layer = plan.layer[between(0, 3)];
  switch (between(0, 6)) {
  case 0: *whole[between(0, 7)] = (int32_t)hostile(); break;
  case 1: layer.inputs = (int32_t)hostile(); break;
  case 2: layer.outputs = (int32_t)hostile(); break;
  case 3: layer.activation = (int32_t)hostile(); break;
  case 4: layer.keep_scale = (float)hostile_number(); break;
  case 5: plan.momentum = (float)hostile_number(); break;
  default: plan.mean_decay = plan.square_decay = plan.epsilon = hostile_number();
  }
}

// Spoil one field. A count beyond its array is a lie that no check can find, so `places` only
// shrinks; the other counts must equal products of each other.
static void spoil(Call &call, Table &table) {
  Rows &rows = call.rows;
  int64_t *fields[] = {&rows.rows,          &rows.width,         &rows.targets,       &rows.x_count,
                       &rows.truth_count,   &rows.classes_count, &rows.weights_count, &call.first,
                       &call.count,         &call.step,          &call.updates};
  switch (between(0, 7)) {
  case 0: call.threads = (int32_t)hostile(); break;
  case 1: call.rate = hostile_number(); break;
  case 2: call.seconds = hostile_number(); break;
  case 3: table.order[between(0, (int)table.places - 1)] = hostile(); break;
  case 4: call.places = between(-1, (int)(call.order ? table.places : rows.rows)); break;
  case 5:
    if (rows.classes) ((int64_t *)rows.classes)[between(0, (int)rows.rows - 1)] = hostile();
    break;
  case 6: {
    const void **pointers[] = {(const void **)&rows.x, (const void **)&rows.truth,
                               (const void **)&rows.classes, (const void **)&rows.weights};
    *pointers[between(0, 3)] = 0;
    break;
  }
  default: *fields[between(0, 10)] = hostile();
  }
}

static void fuzz(int nets) {
  int64_t refused_plans = 0, calls = 0, refused_calls = 0;
  for (int net = 0; net < nets; net++) {
    Plan plan = random_plan();
    plan.build = between(BEST, NARROW);
    if (one_in(3)) spoil(plan);
    int outputs = 1;
    if (plan.layers >= 1 && plan.layers <= MOST_LAYERS) outputs = plan.layer[plan.layers - 1].outputs;
    if (outputs < 1 || outputs > MOST_WIDTH) outputs = 1;
    float *deltas = numbers(outputs);
    void *engine = 0;
    if (descent_open(&plan, plan.loss == HUBER ? deltas : 0, outputs, &engine)) {
      refused_plans++;
      free(deltas);
      continue;
    }
    int losses = plan.loss == CROSS_ENTROPY ? 1 : outputs;
    int64_t count = count_numbers(plan);
    float *parameters = numbers(count);
    double *sums = (double *)calloc((size_t)losses, sizeof(double));
    for (int part = -1; part <= PARTS; part++) {
      descent_push(engine, part, parameters, count);
      descent_pull(engine, part, parameters, count + (one_in(2) ? 0 : 1));
    }
    for (int i = 0; i < 8; i++) {
      Table table = random_table(plan);
      Rows own = table.rows;
      Call call = whole_epoch(plan, table, one_in(2));
      call.seconds = one_in(2) ? INFINITY : 0;
      if (one_in(2)) spoil(call, table);
      calls++;
      refused_calls += descent_advance(engine, &call, sums, losses + one_in(9)) < 0;
      descent_measure(engine, parameters, count - one_in(9), &call.rows, between(0, 3), sums, losses);
      table.rows = own;
      release(table);
    }
    descent_close(engine);
    free(parameters);
    free(sums);
    free(deltas);
  }
  printf("%d plans, %lld refused; %lld calls, %lld refused\n", nets, (long long)refused_plans,
         (long long)calls, (long long)refused_calls);
}

int main(int count, char **words) {
  if (count < 3) return 2;
  if (!strcmp(words[1], "digest")) return digest(atoi(words[2]), count > 3);
  state = count > 3 ? strtoull(words[3], 0, 10) : 0;
  fuzz(atoi(words[2]));
  return 0;
}
