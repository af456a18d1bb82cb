/* Which instruction sets this build and this machine have: the only place that knows of CPUs. */
#include "kernels.h"

extern const Level isopress_generic;
#if defined(__x86_64__) && defined(__GNUC__)
extern const Level isopress_avx2;
#endif

const Level *const *isopress_levels(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    static const Level *const all[] = {&isopress_avx2, &isopress_generic, NULL};
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) return all;
    return all + 1;
#else
    static const Level *const all[] = {&isopress_generic, NULL};
    return all;
#endif
}
