/* Work that is done together: 0 where every part of it was done once, whoever asked, and in a child of a fork too. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "choose_share.h"

enum { CALLERS = 3, ROUNDS = 300, MOST_PARTS = 60 };

typedef struct {
  _Atomic int num_taken;
  int num_parts;
  int times_done[MOST_PARTS]; /* plain memory: the thread sanitizer sees who does not wait */
} Work;

static void take_parts(void *what, int number) {
  Work *work = what;
  for (;;) {
    const int part = atomic_fetch_add(&work->num_taken, 1);
    if (part >= work->num_parts || number >= MOST_THREADS) return;
    for (volatile int wait = 0; wait < 2000; wait++) continue;
    work->times_done[part]++;
  }
}

static char what_is_wrong[] = "a part was not done once";

static void *call(void *nothing) {
  for (int round = 0; round < ROUNDS; round++) {
    Work work = {.num_parts = round % MOST_PARTS};
    do_together(take_parts, &work);
    for (int part = 0; part < work.num_parts; part++) {
      if (work.times_done[part] != 1) return what_is_wrong;
    }
  }
  return nothing;
}

static int call_from_many(void) {
  pthread_t threads[CALLERS];
  int is_wrong = 0;
  for (int each = 0; each < CALLERS; each++) {
    if (pthread_create(&threads[each], NULL, call, NULL) != 0) return 2;
  }
  for (int each = 0; each < CALLERS; each++) {
    void *wrong = NULL;
    pthread_join(threads[each], &wrong);
    is_wrong |= wrong != NULL;
  }
  return is_wrong;
}

/* With "fork": what is done once in this process, and then in a child of it. */
int main(int num_given, char **given) {
  const int failure = call_from_many();
  int status = 0;
  if (failure != 0 || num_given < 2 || strcmp(given[1], "fork") != 0) return failure;
  const pid_t child = fork();
  if (child == 0) return call_from_many();
  return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}
