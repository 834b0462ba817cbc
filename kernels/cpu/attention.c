/* Causal grouped-query attention over pages in which a tile's operands lie in the order they are read.
 *
 * A page of one kv head holds `block` keys and values of `width` elements, bf16, as
 *     keys  [block / 16][width / 2][16][2]        values  [block / 2][width][2]
 * so both products are the linear layers' loop: 64 bytes of memory, a broadcast pair, vdpbf16ps. For each row
 *     m' = max(m, max_j s_j),  p_j = bf16(exp(s_j - m')),  l = l exp(m - m') + sum_j p_j,
 *     o = o exp(m - m') + sum_j p_j v_j
 * over the keys of one page after the other from position 0 (Milakov and Gimelshein, arXiv 1805.02867), so a
 * row's arithmetic depends on its position alone. A key that a row does not see has p_j = 0, and adding 0 * v
 * changes no bit: how many of them a neighbour makes the tile read does not matter.
 */
#include "common.h"

#define BLOCK_MAX 512
#define WIDTH_MAX 256

struct shape {
    int64_t heads, kv_heads, width, block, page_stride, q_stride;
};

struct look {
    int64_t window;     /* positions seen, the row's own included; 0 is all */
    float scale, cap;   /* cap 0 is none */
    const float *sinks; /* [heads] or null */
};

/* Products of rows of x, [rows, 2 * steps] bf16, with four streams of words of 16 lanes each. */
#define TILE(rows)                                                                                            \
    static void tile_##rows(const uint16_t *x, int64_t stride, int64_t steps, const uint16_t *const w[4],       \
                            int64_t stride_w, __m512 a[][4]) {                                                  \
        __m512 s[rows][4];                                                                                      \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) s[r][j] = a[r][j];                              \
        const uint16_t *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];                                          \
        for (int64_t i = 0; i < steps; i++) {                                                                   \
            __m512bh b[4];                                                                                      \
            b[0] = (__m512bh)_mm512_loadu_si512(w0 + i * stride_w);                                             \
            b[1] = (__m512bh)_mm512_loadu_si512(w1 + i * stride_w);                                             \
            b[2] = (__m512bh)_mm512_loadu_si512(w2 + i * stride_w);                                             \
            b[3] = (__m512bh)_mm512_loadu_si512(w3 + i * stride_w);                                             \
            _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) {                                            \
                int32_t word;                                                                                   \
                memcpy(&word, x + r * stride + 2 * i, 4);                                                       \
                __m512bh v = (__m512bh)_mm512_set1_epi32(word);                                                 \
                _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) s[r][j] = _mm512_dpbf16_ps(s[r][j], v, b[j]); \
            }                                                                                                   \
        }                                                                                                       \
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)                                                  \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) a[r][j] = s[r][j];                              \
    }

TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)

typedef void (*tile)(const uint16_t *, int64_t, int64_t, const uint16_t *const[4], int64_t, __m512[][4]);
static const tile tiles[] = {0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

struct state {
    float m[ROWS], l[ROWS];
    uint16_t q[ROWS][WIDTH_MAX];
    float o[ROWS][WIDTH_MAX];
    float s[ROWS][BLOCK_MAX];
    uint16_t p[ROWS][BLOCK_MAX];
};

/* Scores of all rows with keys 16 * from .. 16 * to of a page. */
static void score(struct state *t, int rows, const uint16_t *keys, int64_t width, int64_t from, int64_t to) {
    for (int64_t g = from; g < to; g += 4) {
        const uint16_t *w[4];
        __m512 a[ROWS][4];
        for (int j = 0; j < 4; j++) w[j] = keys + (g + j < to ? g + j : to - 1) * 16 * width;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < 4; j++) a[r][j] = _mm512_setzero_ps();
        tiles[rows](t->q[0], WIDTH_MAX, width / 2, w, 32, a);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < 4 && g + j < to; j++) _mm512_storeu_ps(&t->s[r][16 * (g + j)], a[r][j]);
    }
}

/* Weights of one row for the keys low .. high of the page, of which 16 * from .. 16 * to are read. */
static void weigh(struct state *t, int r, const struct look *look, int64_t low, int64_t high, int64_t from,
                  int64_t to, int64_t width) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    if (high < low) {
        memset(&t->p[r][16 * from], 0, 32 * (to - from));
        return;
    }
    for (int64_t g = from; g < to; g++) {
        __mmask16 seen = lanes(high + 1 - 16 * g) & ~lanes(low - 16 * g);
        __m512 s = _mm512_mul_ps(_mm512_loadu_ps(&t->s[r][16 * g]), _mm512_set1_ps(look->scale));
        if (look->cap != 0) {
            __m512 e = expf16(_mm512_mul_ps(s, _mm512_set1_ps(2 / look->cap)));
            e = _mm512_div_ps(_mm512_set1_ps(2), _mm512_add_ps(e, _mm512_set1_ps(1)));
            s = _mm512_mul_ps(_mm512_sub_ps(_mm512_set1_ps(1), e), _mm512_set1_ps(look->cap));
        }
        s = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), s);
        _mm512_storeu_ps(&t->s[r][16 * g], s);
        top = _mm512_max_ps(top, s);
    }
    float most = _mm512_reduce_max_ps(top), before = t->m[r];
    t->m[r] = most > before ? most : before;
    for (int64_t g = from; g < to; g++) {
        __mmask16 seen = lanes(high + 1 - 16 * g) & ~lanes(low - 16 * g);
        __m512 e = expf16(_mm512_sub_ps(_mm512_loadu_ps(&t->s[r][16 * g]), _mm512_set1_ps(t->m[r])));
        __m256i p = narrow(_mm512_maskz_mov_ps(seen, e));
        _mm256_storeu_si256((__m256i *)&t->p[r][16 * g], p);
        sum = _mm512_add_ps(sum, widen(p));
    }
    if (t->m[r] != before) {
        __m512 fade = expf16(_mm512_set1_ps(before - t->m[r]));
        t->l[r] = t->l[r] * _mm512_cvtss_f32(fade);
        for (int64_t i = 0; i < width; i += 16)
            _mm512_storeu_ps(&t->o[r][i], _mm512_mul_ps(_mm512_loadu_ps(&t->o[r][i]), fade));
    }
    t->l[r] = t->l[r] + total(sum);
}

static void gather(struct state *t, int rows, const uint16_t *values, int64_t width, int64_t from, int64_t to) {
    for (int64_t i = 0; i < width; i += 64) {
        const uint16_t *w[4];
        __m512 a[ROWS][4];
        for (int j = 0; j < 4; j++) {
            int64_t at = i + 16 * j < width ? i + 16 * j : width - 16;
            w[j] = values + 16 * from * width + 2 * at;
            for (int r = 0; r < rows; r++) a[r][j] = _mm512_loadu_ps(&t->o[r][at]);
        }
        tiles[rows](&t->p[0][16 * from], BLOCK_MAX, 8 * (to - from), w, 2 * width, a);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < 4 && i + 16 * j < width; j++) _mm512_storeu_ps(&t->o[r][i + 16 * j], a[r][j]);
    }
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Rows f .. f + rows of a span folded as (token, head of the group), for one kv head. */
static void attend_tile(const uint16_t *q, uint16_t *out, const uint16_t *cache, const struct shape *shape,
                        const struct look *look, int64_t start, const int64_t *pages, int64_t kv, int64_t f,
                        int rows) {
    int64_t group = shape->heads / shape->kv_heads, width = shape->width, block = shape->block;
    int64_t position[ROWS], head[ROWS], token[ROWS];
    struct state t;
    for (int r = 0; r < rows; r++) {
        token[r] = (f + r) / group;
        head[r] = kv * group + (f + r) % group;
        position[r] = start + token[r];
        memcpy(t.q[r], q + token[r] * shape->q_stride + head[r] * width, 2 * width);
        memset(t.o[r], 0, 4 * width);
        t.m[r] = look->sinks ? look->sinks[head[r]] : -INFINITY;
        t.l[r] = look->sinks ? 1 : 0;
    }
    int64_t oldest = look->window ? most(0, position[0] - look->window + 1) : 0;
    for (int64_t c = oldest / block; c <= position[rows - 1] / block; c++) {
        const uint16_t *keys = cache + pages[c] * shape->page_stride + kv * block * width;
        const uint16_t *values = keys + shape->kv_heads * block * width;
        int64_t from = most(0, oldest - c * block) / 16;
        int64_t to = least(block, position[rows - 1] - c * block + 16) / 16;
        score(&t, rows, keys, width, from, to);
        for (int r = 0; r < rows; r++) {
            int64_t low = look->window ? most(0, position[r] - look->window + 1 - c * block) : 0;
            weigh(&t, r, look, low, least(block - 1, position[r] - c * block), from, to, width);
        }
        gather(&t, rows, values, width, from, to);
    }
    for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i += 16) {
            __m512 o = _mm512_div_ps(_mm512_loadu_ps(&t.o[r][i]), _mm512_set1_ps(t.l[r]));
            uint16_t *to = out + (token[r] * shape->heads + head[r]) * width + i;
            _mm256_storeu_si256((__m256i *)to, narrow(o));
        }
}

/* q: rows of [heads, width] bf16, `q_stride` elements apart; out: [rows, heads, width]; cache: one layer's pages.
 * spans: [count, 5] of start, tokens, first row, first tile, first entry in pages; tiles: their total for one kv
 * head. width is a multiple of 16 up to 256, block one up to 512. */
void attend(const uint16_t *q, uint16_t *out, const uint16_t *cache, const int64_t *spans, const int64_t *pages,
            int64_t count, int64_t tiles_all, int64_t heads, int64_t kv_heads, int64_t width, int64_t block,
            int64_t page_stride, int64_t q_stride, float scale, float cap, int64_t window, const float *sinks,
            int threads) {
    struct shape shape = {heads, kv_heads, width, block, page_stride, q_stride};
    struct look look = {window, scale, cap, sinks};
    int64_t group = heads / kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t item = tiles_all * kv_heads - 1; item >= 0; item--) {
        int64_t tile = item % tiles_all, kv = item / tiles_all, s = 0, end = count;
        while (end - s > 1) {
            int64_t middle = (s + end) / 2;
            if (spans[5 * middle + 3] <= tile) s = middle;
            else end = middle;
        }
        const int64_t *span = spans + 5 * s;
        int64_t f = (tile - span[3]) * ROWS, rows = least(ROWS, span[1] * group - f);
        attend_tile(q + span[2] * q_stride, out + span[2] * heads * width, cache, &shape, &look, span[0],
                    pages + span[4], kv, f, (int)rows);
    }
}
