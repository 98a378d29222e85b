/* Slower clocks for one program: klab preloads this into QEMU (see slow_clock.py).
 *
 *     shown time = epoch + (real time - epoch) * rate     the clocks that tell the date
 *     shown time = real time * rate                       the clocks that only count
 *
 * and what the program waits for takes 1 / rate times as long. KLAB_EPOCH (seconds since 1970) and
 * KLAB_RATE come from the environment. There is no state and no lock: each answer follows from the
 * kernel's alone, so any thread may ask at any moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>

typedef long long nanoseconds;
#define SECOND 1000000000LL
/* No host has been up for so long, and no date is so early: tells the two kinds of clocks apart. */
#define THIRTY_YEARS (1000000000 * SECOND)

static double rate; /* 0 until `prepare` has run */
static nanoseconds epoch;
static struct {
    int (*clock_gettime)(clockid_t, struct timespec *);
    int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    int (*poll)(struct pollfd *, nfds_t, int);
    int (*epoll_wait)(int, struct epoll_event *, int, int);
    int (*pthread_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
} real;

/* Other libraries' constructors may ask for the time before this one has run, hence the calls below. */
__attribute__((constructor)) static void prepare(void) {
    if (rate) return;
    real.clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real.ppoll = dlsym(RTLD_NEXT, "ppoll");
    real.poll = dlsym(RTLD_NEXT, "poll");
    real.epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    /* The version by name: the first of two has another layout of conditions. */
    real.pthread_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    const char *since = getenv("KLAB_EPOCH"), *wanted = getenv("KLAB_RATE");
    epoch = since ? (nanoseconds)(strtod(since, NULL) * SECOND) : 0;
    double number = wanted ? strtod(wanted, NULL) : 1;
    rate = number > 0 ? number : 1;
}

static nanoseconds count(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }

static struct timespec split(nanoseconds n) {
    struct timespec t = {n / SECOND, n % SECOND};
    return t;
}

static nanoseconds slowed(nanoseconds n) { return (nanoseconds)((double)n * rate); }

/* Rounded up: who wakes a little early only waits again. */
static nanoseconds stretched(nanoseconds n) { return (nanoseconds)ceil((double)n / rate); }

static int stretched_milliseconds(int n) { return n > 0 ? (int)ceil(n / rate) : n; }

int clock_gettime(clockid_t clock, struct timespec *t) {
    prepare();
    int failed = real.clock_gettime(clock, t);
    if (failed) return failed;
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
        *t = split(epoch + slowed(count(t) - epoch));
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        *t = split(slowed(count(t)));
        break;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}

int ppoll(struct pollfd *files, nfds_t number, const struct timespec *timeout, const sigset_t *mask) {
    prepare();
    if (!timeout) return real.ppoll(files, number, NULL, mask);
    struct timespec longer = split(stretched(count(timeout)));
    return real.ppoll(files, number, &longer, mask);
}

int poll(struct pollfd *files, nfds_t number, int timeout) {
    prepare();
    return real.poll(files, number, stretched_milliseconds(timeout));
}

int epoll_wait(int set, struct epoll_event *events, int number, int timeout) {
    prepare();
    return real.epoll_wait(set, events, number, stretched_milliseconds(timeout));
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    prepare();
    nanoseconds until = count(deadline), zero = until < THIRTY_YEARS ? 0 : epoch;
    struct timespec later = split(zero + stretched(until - zero));
    return real.pthread_cond_timedwait(condition, mutex, &later);
}
