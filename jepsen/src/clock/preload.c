/*
 * The clocks of one process, moved by what a file says.
 *
 * Loaded before the C library, this answers for it wherever time is told or
 * waited for at a point in time. The file holds two counts of nanoseconds, by
 * which the wall clock and the monotonic one are ahead; whoever writes it moves
 * the clocks of the process at once. Waits of a length need no change.
 *
 * The kernel is asked directly: the allocator wants to know the time before
 * symbols can be looked up. What the monotonic clock is ahead may only grow.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct offsets {
    _Atomic int64_t wall;
    _Atomic int64_t monotonic;
};

static struct offsets none;
static struct offsets *offsets = &none;

static long ask_kernel(long number, long a, long b, long c, long d, long e, long f) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    result = x0;
#else
#error "no system calls for this processor"
#endif
    return result;
}

static long or_errno(long result) {
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("JEPSEN_CLOCK");
    if (!path) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct offsets), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) offsets = mapped;
}

/* How far ahead a clock is; clocks of processor time are nobody's business. */
static int64_t ahead(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
        return offsets->wall;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        return offsets->monotonic;
    default:
        return 0;
    }
}

static void add(struct timespec *time, int64_t nanos) {
    int64_t sum = time->tv_nsec + nanos % 1000000000;
    time->tv_sec += nanos / 1000000000;
    if (sum < 0) {
        sum += 1000000000;
        time->tv_sec -= 1;
    } else if (sum >= 1000000000) {
        sum -= 1000000000;
        time->tv_sec += 1;
    }
    time->tv_nsec = sum;
}

/* The kernel's time for a point in time of the process. */
static struct timespec kernels(const struct timespec *at, clockid_t clock) {
    struct timespec time = *at;
    add(&time, -ahead(clock));
    if (time.tv_sec < 0) time = (struct timespec){0, 0};
    return time;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = ask_kernel(SYS_clock_gettime, clock, (long)time, 0, 0, 0, 0);
    if (result == 0) add(time, ahead(clock));
    return (int)or_errno(result);
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    *time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    struct timespec time = *until;
    if (flags & TIMER_ABSTIME) time = kernels(until, clock);
    return (int)-ask_kernel(SYS_clock_nanosleep, clock, flags, (long)&time, (long)left, 0, 0);
}

/* Rust's standard library waits with futexes until a point in time. */
long syscall(long number, ...) {
    va_list list;
    long arg[6];
    va_start(list, number);
    for (int at = 0; at < 6; at++) arg[at] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (number == SYS_futex && arg[3] && (arg[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
        clockid_t clock = arg[1] & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
        until = kernels((const struct timespec *)arg[3], clock);
        arg[3] = (long)&until;
    }
    return or_errno(ask_kernel(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]));
}

typedef int timed_wait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
typedef int clock_wait(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

/* Of conditions, only those of the wall clock come here: C++ has the other call for the rest. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static timed_wait *next;
    if (!next) next = (timed_wait *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec time = kernels(until, CLOCK_REALTIME);
    return next(condition, mutex, &time);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    static clock_wait *next;
    if (!next) next = (clock_wait *)dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec time = kernels(until, clock);
    return next(condition, mutex, clock, &time);
}
