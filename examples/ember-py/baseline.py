"""What a model must beat: an interpolated byte 5-gram and xz, both in bits per byte of the held-out text."""

import lzma

import numpy as np

ORDER = 5


def grams(text: np.ndarray, order: int) -> np.ndarray:
    """Return the `order` bytes that end at each position as one number. text: [bytes], uint8 -> [bytes], uint64.

    Zeros stand before the text. order: 0 to 8; the empty gram is 0.
    """
    padded = np.concatenate([np.zeros(8, np.uint8), text]).astype(np.uint64)
    number = np.zeros(len(text), np.uint64)
    for back in range(order - 1, -1, -1):
        number = (number << np.uint64(8)) | padded[8 - back : len(padded) - back]
    return number


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 where it is absent. keys: sorted, not empty."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def interpolate(training: np.ndarray, held_out: np.ndarray, order: int, shorter: np.ndarray) -> np.ndarray:
    """Refine the probability of each held-out byte with a context of `order - 1` bytes (Witten and Bell 1991).

    P(byte | context) = (count(context byte) + kinds(context) * shorter) / (count(context) + kinds(context)),
    where kinds is how many different bytes followed the context. shorter: the probability with one byte less.
    """
    keys, counts = np.unique(grams(training, order), return_counts=True)
    contexts, first, kinds = np.unique(keys >> np.uint64(8), return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    wanted = grams(held_out, order)
    seen, total, kind = (
        look_up(keys, counts, wanted),
        look_up(contexts, totals, wanted >> np.uint64(8)),
        look_up(contexts, kinds, wanted >> np.uint64(8)),
    )
    return np.where(total > 0, (seen + kind * shorter) / np.maximum(total + kind, 1), shorter)


def ngram_bits_per_byte(training: bytes, held_out: bytes, order: int = ORDER) -> float:
    """Return what a byte n-gram model trained on `training` needs for a byte of `held_out`."""
    seen, unseen = np.frombuffer(training, np.uint8), np.frombuffer(held_out, np.uint8)
    probability = np.full(len(unseen), 1 / 256)
    for n in range(1, order + 1):
        probability = interpolate(seen, unseen, n, probability)
    return float(-np.log2(probability).mean())


def xz_size(text: bytes) -> int:
    """Return the size in bytes that `xz -9e` makes of the text; its window of 64 MiB holds the whole corpus."""
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def xz_bits_per_byte(held_out: bytes, after: bytes = b"") -> float:
    """Return what xz needs for a byte of the held-out text, alone or once it has read the text `after`."""
    size = xz_size(after + held_out) - (xz_size(after) if after else 0)
    return 8 * size / len(held_out)
