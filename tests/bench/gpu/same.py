"""One text, whatever shares its steps or moves it: ember-py on the device, beside the CPU."""

from kernels.record import Record
from node.engine.device_runner import DeviceOptions, open_device_runner
from node.engine.plan import Plan, Row, Sampling
from node.engine.runner import Runner
from tests.node.engine.tiny import by, generate
from tests.tidy.tree import ROOT

MODEL = ROOT / "node" / "models" / "ember-py"
DRAWN = Sampling(seed=77, temperature=0.9, top_p=0.95)


def texts(record: Record) -> None:
    """Alone, in company, in chunks, replayed; then one request from CPU to device and back, and the reverse."""
    dry = record.dry
    options = DeviceOptions("fp32" if dry else "bf16", kv_blocks=256, step_tokens=1024)
    device = open_device_runner(MODEL, str(record.device), options)
    prompt = [index * 37 % device.vocabulary for index in range(9 if dry else 700)]
    count = 2 if dry else 100

    def say(strangers: int = 0, chunk: int = 10**6) -> list[int]:
        def beside(step: int) -> tuple[Row, ...]:
            held = [(n, tuple(range(20 + 4 * n, 24 + 4 * n))) for n in range(strangers)]
            return tuple(Row(100 + n, (n,), step, blocks, True, Sampling(n)) for n, blocks in held)

        return generate(device, prompt, count, DRAWN, chunks=by(chunk), beside=beside, blocks=range(16))

    alone = say()
    found = {"again": say() == alone}
    if not dry:
        found |= {"among 40": say(40) == alone, "in chunks": say(chunk=61) == alone}
        found |= {"in chunks among 5": say(5, 33) == alone}
    cpu = Runner(MODEL, device="cpu", dtype="fp32" if dry else "bf16", threads=1, kv_blocks=8)
    try:
        from tests.node.engine import moves
    except ImportError as error:  # of the tokeniser's or the grammars' library
        record.facts["ember-py: moves"] = f"not tried: {error}"
    else:
        for order in ((cpu, device),) if dry else ((cpu, device, cpu), (device, cpu, device)):
            legs = moves.move(order)  # asserts that it is gapless
            found[" to ".join("cpu" if one is cpu else "device" for one in order)] = len(legs) == len(order)
    logits = [
        one.logits(Plan((Row(0, tuple(prompt), 0, tuple(range(16)), True, DRAWN),))) for one in (cpu, device)
    ]
    record.facts["ember-py"] = found | {
        "exact": device.exact,
        "largest difference of logits": float((logits[0] - logits[1]).abs().max()),
        "largest logit": float(logits[0].abs().max()),
    }
    record.say(f"  {record.facts['ember-py']}")
    wrong = [name for name, right in found.items() if not right]
    record.promise("ember-py says one text", "that differ", 0, len(wrong), least=False, note=", ".join(wrong))
