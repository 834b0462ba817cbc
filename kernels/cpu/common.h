/* What the sources beside share: bf16 in and out of fp32, masks for the end of a row, exp.
 *
 * Floating-point contraction must be off (-ffp-contract=off): every rounding is written where it happens.
 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROWS 6        /* computed together: 24 accumulators, four of weights, and a broadcast fill the registers */
#define SERIAL 16384  /* elements below which one thread does all: waking another costs more */

static inline __m512 widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* To bf16, half to even, subnormals kept (vcvtneps2bf16 would flush them); a NaN stays one. */
static inline __m256i narrow(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    bits = _mm512_mask_blend_epi32(nan, _mm512_add_epi32(bits, half), _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

static inline __mmask16 lanes(int64_t count) {
    return count >= 16 ? 0xffff : (__mmask16)((1u << (count > 0 ? count : 0)) - 1);
}

/* e^x for x <= 88, within two units in the last place; below -103 it is zero. Cody and Waite's reduction by
 * ln 2, then the polynomial of Cephes' expf (Moshier). */
static inline __m512 expf16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-110.0f), x); /* a NaN in the second operand stays one */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* The sum of 16 lanes, halves first: an order of its own, whatever the compiler's. */
static inline float total(__m512 v) {
    float x[16];
    _mm512_storeu_ps(x, v);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
