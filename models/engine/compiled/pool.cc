#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

// Looks at a number before a thread sleeps: some microseconds, about what waking costs.
#define LOOKS 2000

// A number on which threads wait until it changes. They look at it for a while before they sleep.
struct Signal {
  int64_t number;
  int32_t sleepers;
  pthread_mutex_t lock;
  pthread_cond_t changed;
};

// Without a job it ends the threads.
struct Task {
  Job job;
  void *context;
  int32_t threads;
};

struct Member {
  Pool *pool;
  int32_t number;
  int64_t born; // the number of the last task before it
};

struct Pool {
  Signal started, meeting;
  Task task;
  int32_t arrived, made;
  pthread_t thread[MOST_THREADS];
  Member member[MOST_THREADS];
};

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t number_of(const Signal &signal) {
  return __atomic_load_n(&signal.number, __ATOMIC_SEQ_CST);
}

static bool make_signal(Signal &signal) {
  if (pthread_mutex_init(&signal.lock, 0)) return false;
  if (pthread_cond_init(&signal.changed, 0) == 0) return true;
  pthread_mutex_destroy(&signal.lock);
  return false;
}

static void end_signal(Signal &signal) {
  pthread_cond_destroy(&signal.changed);
  pthread_mutex_destroy(&signal.lock);
}

// Whoever changes the number calls this next. A sleeper counts itself before it looks at the number,
// and this looks at the count after the change: one of both sees the other.
static void wake(Signal &signal) {
  if (__atomic_load_n(&signal.sleepers, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&signal.lock);
  pthread_cond_broadcast(&signal.changed);
  pthread_mutex_unlock(&signal.lock);
}

static void wait_beyond(Signal &signal, int64_t number) {
  for (int i = 0; i < LOOKS; i++) {
    if (number_of(signal) != number) return;
    pause_briefly();
  }
  pthread_mutex_lock(&signal.lock);
  __atomic_add_fetch(&signal.sleepers, 1, __ATOMIC_SEQ_CST);
  while (number_of(signal) == number) pthread_cond_wait(&signal.changed, &signal.lock);
  __atomic_sub_fetch(&signal.sleepers, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&signal.lock);
}

// A task and its number are written and read together, so a thread that a task does not need, and
// that wakes late, sees either task whole.
static void start(Pool &pool, const Task &task) {
  pthread_mutex_lock(&pool.started.lock);
  pool.task = task;
  __atomic_add_fetch(&pool.started.number, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&pool.started.lock);
  wake(pool.started);
}

static Task next_task(Pool &pool, int64_t &seen) {
  wait_beyond(pool.started, seen);
  pthread_mutex_lock(&pool.started.lock);
  Task task = pool.task;
  seen = number_of(pool.started);
  pthread_mutex_unlock(&pool.started.lock);
  return task;
}

static void *work(void *argument) {
  Member &member = *(Member *)argument;
  int64_t seen = member.born;
  for (;;) {
    Task task = next_task(*member.pool, seen);
    if (!task.job) return 0;
    if (member.number >= task.threads) continue;
    task.job(task.context, member.number, task.threads);
    meet(member.pool, task.threads);
  }
}

// Make threads until there are this many with the calling one; return how many there are.
static int32_t make_threads(Pool &pool, int32_t wanted) {
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before); // signals stay with the threads of the program
  while (pool.made + 1 < wanted) {
    Member &member = pool.member[pool.made];
    member = Member{&pool, pool.made + 1, number_of(pool.started)};
    if (pthread_create(&pool.thread[pool.made], 0, work, &member)) break;
    pool.made++;
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  return pool.made + 1 < wanted ? pool.made + 1 : wanted;
}

Pool *make_pool(void) {
  Pool *pool = (Pool *)calloc(1, sizeof(Pool));
  if (!pool) return 0;
  if (!make_signal(pool->started)) {
    free(pool);
    return 0;
  }
  if (!make_signal(pool->meeting)) {
    end_signal(pool->started);
    free(pool);
    return 0;
  }
  return pool;
}

void end_pool(Pool *pool) {
  if (!pool) return;
  start(*pool, Task{0, 0, 0});
  for (int i = 0; i < pool->made; i++) pthread_join(pool->thread[i], 0);
  end_signal(pool->started);
  end_signal(pool->meeting);
  free(pool);
}

void run_on_pool(Pool *pool, int32_t threads, Job job, void *context) {
  if (threads > 1) threads = make_threads(*pool, threads);
  if (threads > 1) start(*pool, Task{job, context, threads});
  job(context, 0, threads);
  meet(pool, threads);
}

void meet(Pool *pool, int32_t threads) {
  if (threads == 1) return;
  int64_t meeting = number_of(pool->meeting);
  if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_SEQ_CST) < threads)
    return wait_beyond(pool->meeting, meeting);
  __atomic_store_n(&pool->arrived, 0, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&pool->meeting.number, 1, __ATOMIC_SEQ_CST);
  wake(pool->meeting);
}
