"""The allocator of large buffers: no two share memory, none is lost, and the next step finds the place of the last."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import PROJECT

from bntt.training.arithmetic import settle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere malloc is left as it is")
MB = 2**20
SIZES = [0, 1, 4096, MB - 1, MB, MB + 1, 2 * MB - 64, 3 * MB + 17, 8 * MB]


@pytest.fixture(autouse=True)
def _settled():
    settle(torch.get_num_threads())


def buffer(size):
    return torch.empty(size, dtype=torch.uint8)


def in_a_process(script, **variables):
    command = [sys.executable, "-c", f"import torch\nfrom bntt.training.arithmetic import settle\n{script}"]
    settings = os.environ | {"PYTHONPATH": str(PROJECT)} | variables
    return subprocess.run(command, env=settings, capture_output=True, text=True)


def test_a_buffer_takes_the_place_of_one_of_its_size():
    """malloc does not: it looks for more than the size."""
    below, freed, above = buffer(8 * MB), buffer(12 * MB), buffer(8 * MB)
    place = freed.data_ptr()
    del freed
    small = [buffer(100) for _ in range(1000)]  # which malloc might put there
    assert buffer(12 * MB).data_ptr() == place
    assert below.data_ptr() < place < above.data_ptr() and len(small) == 1000


def test_neighbours_become_one_place_in_whatever_order_they_were_freed():
    draws = random.Random(0)
    for _ in range(5):
        sizes = [draws.choice([MB, 2 * MB, 8 * MB]) for _ in range(60)]
        place = buffer(sum(sizes)).data_ptr()
        buffers = [buffer(size) for size in sizes]
        draws.shuffle(buffers)
        while buffers:
            buffers.pop()
        assert buffer(sum(sizes)).data_ptr() == place


def test_a_process_that_settles_twice_keeps_its_buffers():
    """As one does that trains and evaluates."""
    held = torch.ones(MB)
    settle(torch.get_num_threads())
    other = torch.zeros(MB)
    assert held.sum() == MB and other.data_ptr() != (place := held.data_ptr())
    del held
    assert buffer(4 * MB).data_ptr() == place


def churned(seed):
    """Buffers made and freed at random; each keeps the value that it was filled with."""
    draws, live = random.Random(seed), []
    for _ in range(20_000):
        buffer(MB)  # is found without the GIL while other threads find theirs
    for number in range(150):
        value = (seed * 50 + number) % 256
        live.append((torch.full((draws.choice(SIZES),), value, dtype=torch.uint8), value))
        if len(live) > 8:
            freed, value = live.pop(draws.randrange(len(live)))
            assert bool((freed == value).all())
    assert all(bool((b == value).all()) for b, value in live)
    return True


def test_buffers_of_several_threads_share_no_memory():
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(churned, range(4)))


def test_a_buffer_grows_and_is_cloned_with_its_values():
    x = torch.arange(MB)
    y = x.clone()
    x.resize_(3 * MB)
    assert torch.equal(x[:MB], y) and torch.equal(y, torch.arange(MB))


def test_the_profiler_sees_every_buffer():
    with torch.profiler.profile(profile_memory=True) as profiler:
        made = buffer(8 * MB)
        del made
    changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert changes == [8 * MB, -8 * MB]


def test_no_room_for_a_buffer():
    """With as little memory as that, PyTorch says so as ever, and what it has stays in use."""
    script = """if True:
    import resource
    settle(1)
    held = torch.ones(2**24)
    limit = (2**31, 2**31)
    resource.setrlimit(resource.RLIMIT_DATA, limit)
    for size in (2**31, 2**50):
        try:
            torch.empty(size, dtype=torch.uint8)
        except RuntimeError as error:
            print("can't allocate memory" in str(error))
    print(bool((held == 1).all()), torch.ones(2**20).sum().item())
    """
    done = in_a_process(script)
    assert (done.stdout.split(), done.stderr) == (["True", "True", "True", "1048576.0"], "")


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"CXX": "false"}, "false failed"), ({"CXX": "false", "BNTT_KERNELS": "plain"}, None)],
    ids=["told", "turned off"],
)
def test_without_a_compiler(variables, said):
    done = in_a_process("settle(1)\nprint(torch.ones(2**20).sum().item())", **variables)
    assert done.stdout.strip() == "1048576.0"
    assert not done.stderr if said is None else done.stderr.count("\n") == 1 and said in done.stderr
