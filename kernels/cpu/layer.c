/* The small operations between two linear layers, each row by itself, with the roundings of the torch paths. */
#include "common.h"

#define WIDTH_MAX 256

/* y = bf16(bf16(x / sqrt(mean(x^2) + eps)) * weight). x, y: [rows, width] bf16; weight: [width]. With `added`,
 * x += added comes first, rounded, in place. */
void rms_norm(uint16_t *x, const uint16_t *added, const uint16_t *weight, uint16_t *y, int64_t rows,
              int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > SERIAL)
    for (int64_t r = 0; r < rows; r++) {
        uint16_t *row = x + r * width;
        for (int64_t i = 0; added && i < width; i += 16) {
            __mmask16 some = lanes(width - i);
            __m512 v = widen(_mm256_maskz_loadu_epi16(some, row + i));
            v = _mm512_add_ps(v, widen(_mm256_maskz_loadu_epi16(some, added + r * width + i)));
            _mm256_mask_storeu_epi16(row + i, some, narrow(v));
        }
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += 16) {
            __m512 v = widen(_mm256_maskz_loadu_epi16(lanes(width - i), row + i));
            sum = _mm512_add_ps(sum, _mm512_mul_ps(v, v));
        }
        __m512 by = _mm512_set1_ps(1.0f / sqrtf(total(sum) / (float)width + eps));
        for (int64_t i = 0; i < width; i += 16) {
            __mmask16 some = lanes(width - i);
            __m512 v = widen(_mm256_maskz_loadu_epi16(some, row + i));
            __m512 w = widen(_mm256_maskz_loadu_epi16(some, weight + i));
            v = widen(narrow(_mm512_mul_ps(v, by)));
            _mm256_mask_storeu_epi16(y + r * width + i, some, narrow(_mm512_mul_ps(v, w)));
        }
    }
}

/* y = bf16(bf16(g / (1 + exp(-g))) * u). x: [rows, 2 * width], g first; y: [rows, width]. */
void swiglu(const uint16_t *x, uint16_t *y, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > SERIAL)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i += 16) {
            __mmask16 some = lanes(width - i);
            __m512 g = widen(_mm256_maskz_loadu_epi16(some, x + 2 * r * width + i));
            __m512 u = widen(_mm256_maskz_loadu_epi16(some, x + (2 * r + 1) * width + i));
            __m512 e = expf16(_mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_sub_ps(_mm512_setzero_ps(), g)));
            g = widen(narrow(_mm512_div_ps(g, _mm512_add_ps(e, _mm512_set1_ps(1)))));
            _mm256_mask_storeu_epi16(y + r * width + i, some, narrow(_mm512_mul_ps(g, u)));
        }
}

/* Turn q and k in place and store k and v in the pages' order (attention.c). qkv: [rows, heads + 2 kv_heads, width]
 * bf16; cos, sin: [rows, width] fp32, sin's first half negated; page, slot: [rows]. */
void rope_store(uint16_t *qkv, const float *cos, const float *sin, uint16_t *cache, const int64_t *page,
                const int64_t *slot, int64_t rows, int64_t heads, int64_t kv_heads, int64_t width, int64_t block,
                int64_t page_stride, int threads) {
    int64_t all = heads + 2 * kv_heads;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * all * width > SERIAL)
    for (int64_t h = 0; h < all; h++)
        for (int64_t r = 0; r < rows; r++) {
            uint16_t *x = qkv + (r * all + h) * width;
            if (h < heads + kv_heads) {
                float twice[2 * WIDTH_MAX];
                for (int64_t i = 0; i < width; i += 16) {
                    __m512 v = widen(_mm256_loadu_si256((const __m256i *)(x + i)));
                    _mm512_storeu_ps(twice + i, v);
                    _mm512_storeu_ps(twice + width + i, v);
                }
                for (int64_t i = 0; i < width; i += 16) {
                    __m512 here = _mm512_mul_ps(_mm512_loadu_ps(twice + i), _mm512_loadu_ps(cos + r * width + i));
                    __m512 there = _mm512_loadu_ps(twice + width / 2 + i);
                    there = _mm512_mul_ps(there, _mm512_loadu_ps(sin + r * width + i));
                    _mm256_storeu_si256((__m256i *)(x + i), narrow(_mm512_add_ps(here, there)));
                }
            }
            if (h < heads) continue;
            uint16_t *to = cache + page[r] * page_stride + (h - heads) * block * width;
            if (h >= heads + kv_heads) {
                to += slot[r] / 2 * 2 * width + slot[r] % 2;
                for (int64_t i = 0; i < width; i++) to[2 * i] = x[i];
            } else {
                to += slot[r] / 16 * 16 * width + slot[r] % 16 * 2;
                for (int64_t i = 0; i < width; i += 2) memcpy(to + 16 * i, x + i, 4);
            }
        }
}
