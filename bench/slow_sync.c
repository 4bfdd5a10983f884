/* Preloaded by bench/disk.py: every sync of a file takes SLOW_SYNC_MICROSECONDS longer, as on a slower disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slowly(const char *name, int file)
{
    const char *asked = getenv("SLOW_SYNC_MICROSECONDS");
    long micros = asked ? atol(asked) : 0;
    struct timespec pause = {micros / 1000000, (micros % 1000000) * 1000};
    int (*sync_file)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = sync_file(file);
    nanosleep(&pause, NULL);
    return result;
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
