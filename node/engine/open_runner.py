"""The choice of a device: which runner serves a model here, and why not the other."""

from collections.abc import Callable
from pathlib import Path

import attrs

from kernels.device import objection
from node.engine.config_hf import ModelError
from node.engine.device_runner import DeviceOptions, DeviceRunner, open_device_runner
from node.engine.runner import Runner


@attrs.frozen
class Choice:
    """A device, and what spoke against a better one."""

    device: str
    objection: str = ""


def choose_device(wanted: str, against: Callable[[str], str] = objection) -> Choice:
    """wanted: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes the first GPU that can be used, else the CPU.

    `ModelError` for a device that is unknown or cannot be used, with the reason.
    """
    if wanted == "cpu":
        return Choice("cpu")
    if wanted == "auto":
        reason = against("cuda")
        return Choice("cpu", reason) if reason else Choice("cuda:0")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or not (index.isdecimal() or wanted == "cuda"):
        raise ModelError(
            f"device `{wanted}` is not supported", "choose `auto`, `cpu` or `cuda:N`; leave it at `auto`"
        )
    reason = against(wanted)
    if reason:
        raise ModelError(f"device `{wanted}` cannot be used: {reason}", "leave it at `auto`, or choose `cpu`")
    return Choice(f"cuda:{index or 0}")


def open_runner(
    directory: Path | str,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    block_tokens: int | None = None,
    kv_bytes: int | None = None,
    step_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
    loading: Callable[[str, int, int], None] | None = None,
    keep: Path | None = None,
    kv_dtype: str = "auto",
) -> tuple[Runner | DeviceRunner, Choice]:
    """Load a model on the device that was asked for; return its runner, and how the device was chosen.

    Arguments as `Runner`'s; what is None is the device's own default. kv_dtype: `auto`, or on a GPU `bf16`,
    `int8` or `fp8`. `ModelError` if it cannot be run.
    """
    choice = choose_device(device)
    common = {"dtype": dtype, "block_tokens": block_tokens, "kv_bytes": kv_bytes}
    if choice.device == "cpu":
        if kv_dtype != "auto":
            raise ModelError(
                f"kv_dtype `{kv_dtype}` is for GPUs: the CPU holds keys and values in what it computes in",
                "leave it at `auto`" + (f" (no GPU is used: {choice.objection})" if choice.objection else ""),
            )
        given = {
            name: value for name, value in (common | {"threads": threads, "keep": keep}).items() if value
        }
        return Runner(directory, "cpu", progress=progress, loading=loading, **given), choice
    given = {name: value for name, value in (common | {"step_tokens": step_tokens}).items() if value}
    options = DeviceOptions(kv_dtype=kv_dtype, **given)
    return open_device_runner(directory, choice.device, options, progress, loading, keep), choice
