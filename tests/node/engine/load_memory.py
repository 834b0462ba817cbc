"""What a load really takes, and what was reckoned: `python -m tests.node.engine.load_memory DIRECTORY DTYPE CACHE`."""

import sys
import threading
from pathlib import Path

from kernels import native
from node.engine import runner as runners
from node.engine.memory import weights_bytes
from node.engine.runner import Runner

BLOCKS = 2


def private_bytes() -> int:
    """Bytes of this process that no file holds."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def main(directory: Path, dtype: str, keep: Path) -> None:
    """Load once; print the peak beyond the cache, the table's mapped bytes included, and what was reckoned."""
    native.load(keep)  # compiled before, not by the load
    reckoned: list[int] = []

    def reckon(*arguments: object) -> int:
        reckoned.append(weights_bytes(*arguments))  # type: ignore[arg-type]
        return reckoned[-1]

    runners.weights_bytes = reckon  # type: ignore[attr-defined]
    before, peak, over = private_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, private_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    runner = Runner(directory, dtype=dtype, threads=1, kv_blocks=BLOCKS, keep=keep)
    over.set()
    thread.join()
    mapped = runner._model.embedding.nbytes if runner.dtype != "fp32" else 0
    cache = runner._cache.nbytes
    print(peak - before + mapped - cache, reckoned[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
