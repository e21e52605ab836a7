/* See choose_share.h. */
#define _GNU_SOURCE /* names of threads */
#include "choose_share.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>

enum { STACK_BYTES = 1 << 18 };

typedef enum { NONE, OFFERED, BEGUN } Stage;

typedef struct {
  pthread_mutex_t turn; /* of who offers work */
  pthread_mutex_t lock; /* of all below */
  pthread_cond_t offered, done;
  Stage stage;
  void (*work)(void *what, int number);
  void *what;
  int has_thread, knows_forks;
  pthread_t thread;
  int away_from; /* the processor that it may not use, + 1 */
} Second;

static Second second = {
    .turn = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .offered = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

static void *help(void *nothing) {
  pthread_mutex_lock(&second.lock);
  for (;;) {
    while (second.stage != OFFERED) pthread_cond_wait(&second.offered, &second.lock);
    second.stage = BEGUN;
    pthread_mutex_unlock(&second.lock);
    second.work(second.what, 1);
    pthread_mutex_lock(&second.lock);
    second.stage = NONE;
    pthread_cond_signal(&second.done);
  }
  return nothing;
}

/* A child of a fork has this thread only, whatever the others were doing. */
static void begin_anew(void) {
  second = (Second){.knows_forks = 1};
  pthread_mutex_init(&second.turn, NULL);
  pthread_mutex_init(&second.lock, NULL);
  pthread_cond_init(&second.offered, NULL);
  pthread_cond_init(&second.done, NULL);
}

/* Signals are for the threads of Python. */
static int start_thread(void) {
  pthread_attr_t attributes;
  sigset_t all, before;
  if (!second.knows_forks && pthread_atfork(NULL, NULL, begin_anew) != 0) return 0;
  second.knows_forks = 1;
  if (pthread_attr_init(&attributes) != 0) return 0;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int failure = pthread_create(&second.thread, &attributes, help, NULL);
  if (failure == 0) pthread_setname_np(second.thread, "tidemill-choose");
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return failure == 0;
}

/* Some systems wake a thread where the one that wakes it runs, so that one waits for the other. 0: there is no other
 * processor for us. */
static int keep_away(void) {
  cpu_set_t others;
  const int here = sched_getcpu();
  if (here + 1 == second.away_from) return 1;
  if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof others, &others) != 0) return 0;
  CPU_CLR(here, &others);
  if (CPU_COUNT(&others) == 0 || pthread_setaffinity_np(second.thread, sizeof others, &others) != 0) return 0;
  second.away_from = here + 1;
  return 1;
}

void do_together(void (*work)(void *what, int number), void *what) {
  if (pthread_mutex_trylock(&second.turn) != 0) {
    work(what, 0);
    return;
  }
  if (!second.has_thread) second.has_thread = start_thread();
  if (!second.has_thread || !keep_away()) {
    pthread_mutex_unlock(&second.turn);
    work(what, 0);
    return;
  }
  pthread_mutex_lock(&second.lock);
  second.work = work;
  second.what = what;
  second.stage = OFFERED;
  pthread_cond_signal(&second.offered);
  pthread_mutex_unlock(&second.lock);
  work(what, 0);
  pthread_mutex_lock(&second.lock);
  if (second.stage == OFFERED) second.stage = NONE;
  while (second.stage != NONE) pthread_cond_wait(&second.done, &second.lock);
  pthread_mutex_unlock(&second.lock);
  pthread_mutex_unlock(&second.turn);
}
