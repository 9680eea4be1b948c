"""The C++ kernels: against the plain passes in float64 on equal currents; how they are built; when they are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bntt.spiking import kernels
from bntt.spiking.kernels import Dynamics, checks, compiled, plain

from .helpers import native_or_skip, random, relative
from .rounding import bounds

ROOT = Path(kernels.__file__).parent.parent.parent.parent
native = native_or_skip()

STORED = {torch.float32: 0.0, torch.bfloat16: 2**-8}  # the relative error of storing a result, beside computing it
SHAPES = [(1, 1, 1), (5, 7, 3), (4, 33, 10), (7, 300, 16), (3, 1000, 80), (33, 12, 100), (25, 64, 64)]
DYNAMICS = [Dynamics(0.95, 1.0, False, 0.3), Dynamics(1.0, 0.7, True, 0.5), Dynamics(0.0, 1.3, False, 0.3)]


def problem(dtype, steps, rows, channels, halve=None, seed=0):
    """Currents, upstream gradients, scale, shift, first membranes, gradient for the last ones; rounded, in float64."""
    out = rows // 4 if halve else rows
    x, upstream = random(seed, steps, rows, channels), random(seed + 1, steps, out, channels)
    tiny = (random(seed + 2, steps, channels).abs() + 0.3, 0.3 * random(seed + 3, steps, channels))
    tiny += (random(seed + 4, rows, channels), random(seed + 5, rows, channels))
    return [a.to(dtype).double() for a in (x, upstream)] + [a.float().double() for a in tiny]


def away_from_the_threshold(x, scale, shift, dynamics, rest):
    """Zero each current whose membrane would come so near the threshold that rounding decides whether it fires."""
    for t in range(len(x)):
        while True:
            u = rest.clone()
            plain.scan(x[:t], scale[:t], shift[:t], dynamics, u) if t else None
            charged = dynamics.leak * u + scale[t] * x[t] + shift[t]
            near = (charged - dynamics.threshold).abs() < 1e-4
            if not near.any():
                break
            x[t] = torch.where(near, x[t] + 0.5, x[t])


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_every_pass(dtype, shape, dynamics):
    check(dtype, problem(dtype, *shape), dynamics, None)


@pytest.mark.parametrize("dynamics", DYNAMICS[:2], ids=str)
@pytest.mark.parametrize(("width", "maps", "channels"), [(2, 1, 16), (4, 3, 64), (6, 2, 21), (32, 1, 80)])
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_averages_of_two_by_two(dtype, width, maps, channels, dynamics):
    check(dtype, problem(dtype, 5, maps * 2 * width, channels, width), dynamics, width)


def check(dtype, numbers, dynamics, halve):
    x, upstream, scale, shift, rest, left = numbers
    for normed in (True, False):
        affine = (scale, shift) if normed else (torch.ones_like(scale), torch.zeros_like(shift))
        away_from_the_threshold(x, *affine, dynamics, rest)
        x = x.to(dtype).double()
        check_passes(dtype, x, upstream, *(affine if normed else (None, None)), rest, left, dynamics, halve)


def check_passes(dtype, x, upstream, scale, shift, rest, left, dynamics, halve):
    current, grad = x.to(dtype), upstream.to(dtype)
    s, b, u, g = (None if a is None else a.float() for a in (scale, shift, rest, left))
    u, g, first = u.clone(), g.clone(), u.clone()

    mean, variance = native.moments(current)
    close([mean, variance], lambda: plain.moments(x))

    spikes = native.scan(current, s, b, dynamics, u, halve)
    after = rest.clone()
    assert torch.equal(spikes.double(), plain.scan(x, scale, shift, dynamics, after, halve))

    def scan():
        membrane = rest.clone()
        plain.scan(x, scale, shift, dynamics, membrane, halve)
        return [membrane]

    close([u], scan)

    def reverse_scan():
        gradient = left.clone()
        arguments = (x, mean.double(), scale, shift, dynamics, rest, upstream, gradient, halve)
        dy, dscale, dshift = plain.reverse_scan(*arguments)
        return [dy, gradient] if dscale is None else [dy, gradient, dscale, dshift]

    dy, dscale, dshift = native.reverse_scan(current, mean, s, b, dynamics, first, grad, g, halve)
    close([dy, g] if dscale is None else [dy, g, dscale, dshift], reverse_scan)
    if scale is None:
        assert dscale is None and dshift is None
        assert native.combine(dy, current, None, None, None, None) is dy
        return
    for moments in ((mean, b, s), (None, None, None)):
        wide = [None if a is None else a.double() for a in moments]
        given = dy.double()
        close(
            [native.combine(dy.clone(), current, s, *moments)],
            lambda given=given, wide=wide: [plain.combine(given, x, scale, *wide)],
        )


def close(found, compute):
    """Nothing is further from what ``compute()`` gives in float64 than rounding can carry it."""
    for a, b, bound in zip(found, compute(), bounds(compute), strict=True):
        assert ((a.double() - b).abs() <= bound + STORED[a.dtype] * (b.abs() + bound)).all()


def test_nothing_kept_starts_at_rest():
    x, upstream, scale, shift, _, _ = (a.float() for a in problem(torch.float32, 6, 20, 16))
    zeros = torch.zeros_like(x[0])
    for dynamics in DYNAMICS:
        assert torch.equal(
            native.scan(x, scale, shift, dynamics), native.scan(x, scale, shift, dynamics, zeros.clone())
        )
        without = native.reverse_scan(x, None, scale, shift, dynamics, None, upstream)
        with_zeros = native.reverse_scan(x, None, scale, shift, dynamics, zeros.clone(), upstream, zeros.clone())
        assert all(torch.equal(a, b) for a, b in zip(without, with_zeros, strict=True))


@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_poisson_is_the_same_everywhere(dtype):
    rate = random(0, 3, 2, 5, 4).clamp(-1, 1).float()
    rate[0, 0, 0, :3] = torch.tensor([0.0, 1.0, -1.0])
    for key in (0, 1, 2**63 + 12345, 2**64 - 1):
        for start in (0, 7, 2**31):
            arguments = (rate, 4, key, torch.tensor([9, 0, 2**33 + 1]), start)
            spikes = native.poisson(*arguments, dtype)
            assert spikes.dtype == dtype and torch.equal(spikes.float(), plain.poisson(*arguments))
            assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_a_number_stays_so():
    x = torch.full((3, 20, 16), float("nan"))
    ones = torch.ones(3, 16)
    for dtype in STORED:
        dy, dscale, _ = native.reverse_scan(x.to(dtype), None, ones, ones, DYNAMICS[0], None, x.to(dtype))
        assert dy.isnan().all() and dscale.isnan().all()
        assert native.moments(x.to(dtype))[0].isnan().all()
        assert native.combine(dy, dy.clone(), ones, ones, ones, ones).isnan().all()


def test_sums_do_not_depend_on_the_number_of_threads():
    x, upstream, scale, shift, _, _ = (a.float() for a in problem(torch.float32, 9, 5000, 80))
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append([*native.moments(x), *native.reverse_scan(x, None, scale, shift, DYNAMICS[0], None, upstream)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_moments_do_not_cancel():
    far = (random(3, 2, 3000, 20) * 0.1 + 1000).float()
    _, variance = native.moments(far)
    assert relative(variance.double(), far.double().var(1, correction=0)) < 1e-4


def test_views_that_are_not_rows_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        native.moments(torch.zeros(3, 16, 4).transpose(1, 2))


def test_what_does_not_belong_to_the_currents_is_refused():
    x, upstream, scale, shift, rest, _ = (a.float() for a in problem(torch.float32, 6, 20, 16))
    with pytest.raises(ValueError, match="scale must be"):
        native.scan(x, scale[:, :-1].contiguous(), shift, DYNAMICS[0])
    with pytest.raises(ValueError, match="membrane must be"):
        native.scan(x, scale, shift, DYNAMICS[0], rest.double())
    with pytest.raises(ValueError, match="does not belong"):
        native.reverse_scan(x, None, scale, shift, DYNAMICS[0], None, upstream[:, :4].contiguous())
    with pytest.raises(ValueError, match="does not belong"):
        native.combine(upstream.bfloat16(), x, scale, None, None, None)


# -- the self-check ------------------------------------------------------------------------------------------------


def test_the_self_check_passes():
    assert checks.fault(native, torch.device("cpu")) is None
    assert checks.fault(plain, torch.device("cpu")) is None


@pytest.mark.parametrize("name", ["moments", "scan", "reverse_scan", "combine", "poisson"])
def test_the_self_check_finds_a_fault(name, monkeypatch):
    right = getattr(native, name)

    def wrong(*arguments):
        found = right(*arguments)
        first = found[0] if isinstance(found, tuple) else found
        first[(0,) * first.dim()] += 1
        return found

    monkeypatch.setattr(native, name, wrong)
    assert "self-check" in checks.fault(native, torch.device("cpu"))


# -- building, in processes of their own ---------------------------------------------------------------------------

SHOW = "import torch; from bntt.spiking import kernels; print(kernels.name_for(torch.device('cpu')))"


def start(home, code=SHOW, **environment):
    settings = {**os.environ, "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT)} | environment
    settings.pop("XDG_CACHE_HOME", None)
    (home / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip(), err


# In the compiler's place, where what it makes is not the point: the library as it was made, and a line for each call.
STAND_IN = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
    *-shared*) for last; do :; done; cp "{library}" "$last" ;;
esac
"""


@pytest.fixture
def compiler(tmp_path):
    """A compiler that takes no time; ``calls()`` are its calls beside those for its version."""
    script, log = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(STAND_IN.format(log=log, library=compiled.build("kernels", native.SOURCES)))
    script.chmod(0o755)
    return str(script), lambda: [line for line in log.read_text().splitlines() if line != "--version"]


def test_processes_that_build_at_once_build_once(tmp_path, compiler):
    script, calls = compiler
    started = [start(tmp_path, CXX=script) for _ in range(3)]
    assert [finish(process) for process in started] == [("native", "")] * 3
    assert sum("-shared" in call for call in calls()) == 1
    folder = tmp_path / ".cache" / "bntt"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in sorted(folder.iterdir())] == [".so", ".lock"]


def test_without_a_compiler(tmp_path):
    out, err = finish(start(tmp_path, PATH=str(tmp_path)))
    assert out == "plain" and err.count("\n") == 1 and "no C++ compiler" in err


def test_a_compiler_that_fails(tmp_path):
    out, err = finish(start(tmp_path, CXX="false"))
    assert out == "plain" and err.count("\n") == 1 and "false failed" in err


def test_a_folder_that_others_can_write_is_refused(tmp_path, compiler):
    (tmp_path / ".cache" / "bntt").mkdir(parents=True, mode=0o777)
    (tmp_path / ".cache" / "bntt").chmod(0o777)
    assert finish(start(tmp_path, CXX=compiler[0])) == ("native", "")
    assert not list((tmp_path / ".cache" / "bntt").iterdir())
    assert list((tmp_path / "tmp").glob("bntt-*/*.so"))


def test_no_folder_at_all(tmp_path):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"bntt-{os.getuid()}").write_text("another")
    out, err = finish(start(tmp_path))
    assert out == "plain" and err.count("\n") == 1 and ".cache" in err


def test_plain_on_demand(tmp_path):
    assert finish(start(tmp_path, BNTT_KERNELS="plain")) == ("plain", "")
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001])
def test_what_is_not_a_number_stays_so_in_bfloat16(bits, channels):
    """Rounding up a number whose digits are all ones would otherwise carry into the sign."""
    scale = torch.full((1, channels), bits, dtype=torch.int32).view(torch.float32)
    ones = torch.ones(1, 4, channels, dtype=torch.bfloat16)
    assert native.combine(ones.clone(), ones, scale, None, None, None).isnan().all()
