/* Which instruction sets this build and this machine have: the only place that knows of CPUs. */
#include "kernels.h"

extern const Level isopress_generic, isopress_avx2, isopress_avx512;

#if BUILDS_AVX512
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

const Level *const *isopress_levels(void) {
    static const Level *const all[] = {
#if BUILDS_AVX512
        &isopress_avx512,
#endif
#if BUILDS_AVX2
        &isopress_avx2,
#endif
        &isopress_generic, NULL,
    };
    const Level *const *best = all;
#if BUILDS_AVX512
    __builtin_cpu_init();
    if (!has_avx512()) best++;
#endif
#if BUILDS_AVX2
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) best = all + BUILDS_AVX512 + 1;
#endif
    return best;
}
