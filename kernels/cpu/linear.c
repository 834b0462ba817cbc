/* Linear layers for CPUs with AVX-512: y = x @ weight.T, the weights packed once.
 *
 * Weights lie in panels of 64 outputs. A panel is walked along k in steps of four bytes for each output (four
 * int8 or two bf16), so a step is 256 consecutive bytes and a whole panel one stream from memory:
 *     int8  [n / 64][k / 4][64][4]        bf16  [n / 64][k / 2][64][2]
 * n and k are filled up with zeros. Up to ROWS rows are computed at a time, each with four accumulators that
 * walk k from the left: a row's arithmetic is the same in any company, by construction. Threads divide panels,
 * never k.
 */
#include "common.h"

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#define PANEL 64
#define STEP 256

/* One row of bf16 as bytes q + 128, where q = round(x / scale) and scale = max |x| / 127. Returns the scale. */
static float quantise_row(const uint16_t *x, uint8_t *q, int64_t k, int64_t filled) {
    __m512 top = _mm512_setzero_ps();
    __mmask16 bad = 0;
    for (int64_t i = 0; i < k; i += 16) {
        __m512 v = widen(_mm256_maskz_loadu_epi16(lanes(k - i), x + i));
        bad |= _mm512_cmp_ps_mask(_mm512_sub_ps(v, v), _mm512_setzero_ps(), _CMP_UNORD_Q);
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
    }
    float scale = _mm512_reduce_max_ps(top) / 127.0f;
    if (bad) {
        memset(q, 128, filled);
        return __builtin_nanf("");
    }
    __m512 by = _mm512_set1_ps(scale == 0 ? 1.0f : scale);
    for (int64_t i = 0; i < filled; i += 16) {
        __m512 v = widen(_mm256_maskz_loadu_epi16(lanes(k - i), x + i));
        __m512i whole = _mm512_cvt_roundps_epi32(_mm512_div_ps(v, by), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
        _mm_mask_storeu_epi8(q + i, lanes(filled - i), bytes);
    }
    return scale;
}

/* y[0..63] of one row, from four vectors of fp32. */
static inline void put(void *y, int wide, int64_t at, int64_t left, const float *bias, __m512 v[4]) {
    for (int j = 0; j < 4; j++) {
        __mmask16 some = lanes(left - 16 * j);
        if (bias) v[j] = _mm512_add_ps(v[j], _mm512_maskz_loadu_ps(some, bias + 16 * j));
        if (wide)
            _mm512_mask_storeu_ps((float *)y + at + 16 * j, some, v[j]);
        else
            _mm256_mask_storeu_epi16((uint16_t *)y + at + 16 * j, some, narrow(v[j]));
    }
}

#define BOTH(body) _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) { _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) { body; } }

struct ahead {
    const char *next;
    int lines;
};

/* What to fetch from memory while rows `first ..` of a panel are computed: lines of the next panel, spread over
 * the first passes; with a single pass the panel itself is the stream, some steps ahead. */
static inline struct ahead look_ahead(const void *panel, int64_t steps, int64_t rows, int64_t first, int more) {
    int64_t passes = (rows + ROWS - 1) / ROWS, pass = first / ROWS;
    int lines = passes < 4 ? 2 : 1;
    const char *next = (const char *)panel + steps * STEP + pass * steps * 64 * lines;
    if (passes == 1 || !more || pass * lines >= 4) lines = 0;
    return (struct ahead){next, lines};
}

#define INT8_ROWS(rows)                                                                                       \
    static void int8_##rows(const uint8_t *q, int64_t stride, const int8_t *w, int64_t steps, __m512i a[][4],   \
                            const char *next, int lines) {                                                               \
        __m512i s[rows][4];                                                                                     \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) s[r][j] = a[r][j];                              \
        for (int64_t i = 0; i < steps; i++, w += STEP) {                                                        \
            __m512i b[4];                                                                                       \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) b[j] = _mm512_loadu_si512(w + 64 * j);          \
            if (lines > 0) _mm_prefetch(next + i * 64 * lines, _MM_HINT_T1);                                    \
            if (lines > 1) _mm_prefetch(next + i * 64 * lines + 64, _MM_HINT_T1);                               \
            _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) {                                            \
                int32_t word;                                                                                   \
                memcpy(&word, q + r * stride + 4 * i, 4);                                                       \
                __m512i x = _mm512_set1_epi32(word);                                                            \
                _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)                                             \
                    s[r][j] = _mm512_dpbusd_epi32(s[r][j], x, b[j]);                                            \
            }                                                                                                   \
        }                                                                                                       \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) a[r][j] = s[r][j];                              \
    }

INT8_ROWS(1) INT8_ROWS(2) INT8_ROWS(3) INT8_ROWS(4) INT8_ROWS(5) INT8_ROWS(6)

static void (*const int8_tile[])(const uint8_t *, int64_t, const int8_t *, int64_t, __m512i[][4], const char *, int) = {
    0, int8_1, int8_2, int8_3, int8_4, int8_5, int8_6};

/* x: [rows, k] bf16; weight: packed; sums: [n filled] int32, 128 * the sum of each output's weights; w_scale,
 * bias: [n filled] fp32, bias may be null; y: [rows, n] bf16, or fp32 if `wide`; work: rows * (k filled + 4) bytes. */
void linear_int8(const uint16_t *x, const int8_t *weight, const int32_t *sums, const float *w_scale,
                 const float *bias, void *y, uint8_t *work, int64_t rows, int64_t k, int64_t n, int wide,
                 int threads) {
    int64_t filled = (k + 3) / 4 * 4, panels = (n + PANEL - 1) / PANEL;
    float *scale = (float *)(work + rows * filled);
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * k > SERIAL)
    for (int64_t r = 0; r < rows; r++) scale[r] = quantise_row(x + r * k, work + r * filled, k, filled);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        const int8_t *panel = weight + p * PANEL * filled;
        for (int64_t first = 0; first < rows; first += ROWS) {
            int64_t some = rows - first < ROWS ? rows - first : ROWS;
            __m512i a[ROWS][4];
            for (int r = 0; r < some; r++)
                for (int j = 0; j < 4; j++)
                    a[r][j] = _mm512_sub_epi32(_mm512_setzero_si512(),
                                               _mm512_loadu_si512(sums + p * PANEL + 16 * j));
            struct ahead ahead = look_ahead(panel, filled / 4, rows, first, p + 1 < panels);
            int8_tile[some](work + first * filled, filled, panel, filled / 4, a, ahead.next, ahead.lines);
            for (int r = 0; r < some; r++) {
                __m512 v[4];
                for (int j = 0; j < 4; j++) {
                    __m512 by = _mm512_loadu_ps(w_scale + p * PANEL + 16 * j);
                    v[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(a[r][j]), _mm512_set1_ps(scale[first + r]));
                    v[j] = _mm512_mul_ps(v[j], by);
                }
                put(y, wide, (first + r) * n + p * PANEL, n - p * PANEL, bias ? bias + p * PANEL : 0, v);
            }
        }
    }
}

#define BF16_ROWS(rows)                                                                                       \
    static void bf16_##rows(const uint16_t *x, int64_t stride, const uint16_t *w, int64_t steps,                \
                            __m512 a[][4], const char *next, int lines) {                                              \
        __m512 s[rows][4];                                                                                      \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) s[r][j] = _mm512_setzero_ps();                  \
        for (int64_t i = 0; i < steps; i++, w += STEP / 2) {                                                    \
            __m512i b[4];                                                                                       \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) b[j] = _mm512_loadu_si512(w + 32 * j);          \
            if (lines > 0) _mm_prefetch(next + i * 64 * lines, _MM_HINT_T1);                                    \
            if (lines > 1) _mm_prefetch(next + i * 64 * lines + 64, _MM_HINT_T1);                               \
            _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) {                                            \
                int32_t word;                                                                                   \
                memcpy(&word, x + r * stride + 2 * i, 4);                                                       \
                __m512bh v = (__m512bh)_mm512_set1_epi32(word);                                                 \
                _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)                                             \
                    s[r][j] = _mm512_dpbf16_ps(s[r][j], v, (__m512bh)b[j]);                                     \
            }                                                                                                   \
        }                                                                                                       \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) a[r][j] = s[r][j];                              \
    }

BF16_ROWS(1) BF16_ROWS(2) BF16_ROWS(3) BF16_ROWS(4) BF16_ROWS(5) BF16_ROWS(6)

static void (*const bf16_tile[])(const uint16_t *, int64_t, const uint16_t *, int64_t, __m512[][4],
                                 const char *, int) = {0, bf16_1, bf16_2, bf16_3, bf16_4, bf16_5, bf16_6};

/* x: [rows, k] bf16, k even; weight: packed bf16; bias: [n filled] fp32 or null; y: as `linear_int8`. */
void linear_bf16(const uint16_t *x, const uint16_t *weight, const float *bias, void *y, int64_t rows, int64_t k,
                 int64_t n, int wide, int threads) {
    int64_t panels = (n + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        const uint16_t *panel = weight + p * PANEL * k;
        for (int64_t first = 0; first < rows; first += ROWS) {
            int64_t some = rows - first < ROWS ? rows - first : ROWS;
            __m512 a[ROWS][4];
            struct ahead ahead = look_ahead(panel, k / 2, rows, first, p + 1 < panels);
            bf16_tile[some](x + first * k, k, panel, k / 2, a, ahead.next, ahead.lines);
            for (int r = 0; r < some; r++)
                put(y, wide, (first + r) * n + p * PANEL, n - p * PANEL, bias ? bias + p * PANEL : 0, a[r]);
        }
    }
}

/* Rows of x as words of four bytes, into the panels from output `first` on. x: [rows, words], word w of row r at
 * x + r * stride + 4 * w bytes. */
static void place(const char *x, int64_t stride, int64_t words, int64_t from, int64_t to, char *panel) {
    for (int64_t w = 0; w < words; w++)
        for (int64_t lane = from; lane < to; lane++)
            memcpy(panel + w * STEP + 4 * lane, x + (lane - from) * stride + 4 * w, 4);
}

/* weight: [n, k] bf16, k even, becomes outputs `first` .. `first + n` of packed, which was zeros. */
void pack_bf16(const uint16_t *weight, uint16_t *packed, int64_t n, int64_t k, int64_t first, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = first / PANEL; p < (first + n + PANEL - 1) / PANEL; p++) {
        int64_t from = p * PANEL < first ? first - p * PANEL : 0;
        int64_t to = first + n - p * PANEL < PANEL ? first + n - p * PANEL : PANEL;
        const uint16_t *x = weight + (p * PANEL + from - first) * k;
        place((const char *)x, 2 * k, k / 2, from, to, (char *)(packed + p * PANEL * k));
    }
}

/* As `pack_bf16`, quantised for each output; also fills w_scale and sums (see `linear_int8`).
 * work: threads * 64 * (k filled) bytes. Panels are of one call only if first and n are multiples of 64. */
void pack_int8(const uint16_t *weight, int8_t *packed, float *w_scale, int32_t *sums, uint8_t *work, int64_t n,
               int64_t k, int64_t first, int threads) {
    int64_t filled = (k + 3) / 4 * 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = first / PANEL; p < (first + n + PANEL - 1) / PANEL; p++) {
        int64_t from = p * PANEL < first ? first - p * PANEL : 0;
        int64_t to = first + n - p * PANEL < PANEL ? first + n - p * PANEL : PANEL;
        uint8_t *bytes = work + THREAD * PANEL * filled;
        for (int64_t lane = from; lane < to; lane++) {
            uint8_t *row = bytes + (lane - from) * filled;
            int32_t sum = 0;
            w_scale[p * PANEL + lane] = quantise_row(weight + (p * PANEL + lane - first) * k, row, k, filled);
            for (int64_t i = 0; i < filled; i++) {
                row[i] ^= 128; /* less 128, as int8 */
                sum += (int8_t)row[i];
            }
            sums[p * PANEL + lane] = 128 * sum;
        }
        place((const char *)bytes, filled, filled / 4, from, to, (char *)(packed + p * PANEL * filled));
    }
}
