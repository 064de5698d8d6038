// Threads that wait for work, and a barrier at which the threads of one job meet.
#ifndef DESCENT_POOL_H
#define DESCENT_POOL_H

#include "plan.h"


struct Pool;
typedef void (*Job)(void *context, int32_t thread, int32_t threads);


// Return a pool without threads, or null. `run` makes them when it first needs them, because a
// process that is forked later would lack them.
Pool *make_pool(void);
void end_pool(Pool *pool);
// Run the job on as many threads as can be had, this one included, and return after the last ends.
void run_on_pool(Pool *pool, int32_t threads, Job job, void *context);
// Wait until every thread of the job is here.
void meet(Pool *pool, int32_t threads);

#endif
