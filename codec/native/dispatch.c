/* Which instruction sets this build and this machine have: the only place that knows of CPUs. */
#include "kernels.h"

extern const Level isopress_generic;
#if defined(__x86_64__) && defined(__GNUC__)
extern const Level isopress_avx2, isopress_avx512;

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

const Level *const *isopress_levels(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    static const Level *const all[] = {&isopress_avx512, &isopress_avx2, &isopress_generic, NULL};
    static const Level *const no_avx512[] = {&isopress_avx2, &isopress_generic, NULL};
    static const Level *const only_generic[] = {&isopress_generic, NULL};
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return only_generic;
    return has_avx512() ? all : no_avx512;
#else
    static const Level *const only_generic[] = {&isopress_generic, NULL};
    return only_generic;
#endif
}
