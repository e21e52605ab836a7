/* Work that two threads do together, where a second one comes in time.
 *
 * The second thread is ours, sleeps while there is nothing to do, and is made when it is wanted first. Nobody waits for
 * it to wake up: what it has not begun is done without it.
 */
#ifndef TIDEMILL_CHOOSE_SHARE_H
#define TIDEMILL_CHOOSE_SHARE_H

enum { MOST_THREADS = 2 };

/* Call `work` here as number 0, and at the same time as number 1 in the second thread if that comes. Each takes parts of
 * the work until none is left. Returns when all of it is done. Callers in other threads meanwhile work alone. */
void do_together(void (*work)(void *what, int number), void *what);

#endif
