"""Every Triton kernel compiles for every chip, fits it, spills nothing and holds the instructions it needs."""

import attrs
import pytest

import kernels
from kernels import attention_triton, choose_triton, gate, narrow_cache
from kernels._triton import installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="Triton is not installed"),
]


def chip(name: str) -> gate.Chip:
    return next(chip for chip in gate.CHIPS if chip.name == name)


@pytest.mark.timeout(900)  # half a minute on two idle cores
def test_every_kernel_passes_on_every_chip():
    verdicts = [*gate.verdicts()]
    failed = [gate.line(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    built = {launch.kernel.name for op in kernels.OPS for build in op.builds for launch in build.launches()}
    assert {(verdict.kernel, verdict.chip) for verdict in verdicts} == {
        (name, chip.name) for name in built for chip in gate.CHIPS
    }


def prefill(warps: int, stages: int, **changed: object) -> gate.Launch:
    """Prefill's launch at a head width of 128, changed for the worse."""
    build = next(build for build in attention_triton.OP.builds if "heads of 128" in build.name)
    launch = build.launches()[2]
    return attrs.evolve(launch, arguments=launch.arguments | changed, warps=warps, stages=stages)


def narrow_decode(**changed: object) -> gate.Launch:
    """Decode's launch over a cache of int8, changed for the worse."""
    launch = narrow_cache.OP.builds[0].launches()[0]
    return attrs.evolve(launch, arguments=launch.arguments | changed)


def survey(**changed: object) -> gate.Launch:
    """The sampler's first launch, changed for the worse."""
    launch = choose_triton.OP.builds[0].launches()[0]
    return attrs.evolve(launch, arguments=launch.arguments | changed)


@pytest.mark.parametrize(
    ("chip_name", "launch", "problem"),
    [
        ("sm_80", lambda: prefill(4, 2, ROWS=128), "in a loop"),
        ("gfx942", lambda: prefill(8, 3, ROWS=256), "spills"),
        ("gfx942", lambda: prefill(8, 5), "bytes of shared memory, gfx942 has"),
        ("sm_90", lambda: attrs.evolve(prefill(8, 2), tile_bytes=1 << 20), "tiles in flight"),
        ("sm_90", lambda: prefill(4, 2, ROWS=32), "no group matrix"),
        ("sm_80", lambda: narrow_decode(page_stride=4097), "tiles in flight"),
        ("sm_100", lambda: attrs.evolve(narrow_decode(), tile_bytes=1 << 20), "tiles in flight"),
        ("sm_90", lambda: survey(logits_stride=128_257), "no wide loads"),
        ("gfx942", lambda: attrs.evolve(survey(), warps=4), "no wide loads"),
        ("sm_80", lambda: prefill(8, 2, q_stride=4097, page_stride=4097), "no wide loads"),
    ],
)
def test_the_gate_objects_to(chip_name: str, launch: object, problem: str):
    verdict = gate.judge(launch(), "for the worse", chip(chip_name))
    assert any(problem in each for each in verdict.problems), gate.line(verdict)


SPILL = """
        /*0010*/                   STL [R1], R2 ;                  /* 0x000 */
        /*0020*/                   {inside} ;                      /* 0x000 */
        /*0030*/                   BRA.U !UP0, 0x60 ;              /* 0x000 */
        /*0040*/               @P0 BRA 0x20 ;                      /* 0x000 */
        /*0050*/                   LDL.LU R2, [R1] ;               /* 0x000 */
        /*0060*/                   EXIT ;                          /* 0x000 */
"""


@pytest.mark.parametrize(("inside", "spills"), [("FADD R1, R2, R3", False), ("@P1 LDL R5, [R1+0x4]", True)])
def test_a_register_may_be_put_away_across_a_loop_but_not_within_it(inside: str, spills: bool):
    assert gate._spills_in_a_loop(SPILL.format(inside=inside), chip("sm_90")) is spills
