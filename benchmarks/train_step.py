"""Time and memory of one training step of the paper's VGG9, with this project and with other code.

    python benchmarks/train_step.py --steps 25 --json results.json     # the main figures
    python benchmarks/train_step.py --check                            # do all compute the same?
    python benchmarks/train_step.py --table results.json               # the tables of earlier measurements
    python benchmarks/train_step.py --profile 10 --device cuda --batches 256 --steps 25 --precisions bf16

README.md beside this file says what is compared, and how. Every measurement is a process of its own: this module starts
itself with ``--worker``. The starting process does not load torch.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

from step_tables import DISTURBED, KEYS, NAMES, PEERS, PRECISIONS, UNUSED, tables  # noqa: E402

from bntt.runs import provenance  # noqa: E402

LAYOUTS = ("contiguous", "channels-last")
KERNELS = 25  # listed in a profile
BUDGET = 12.0  # seconds of timed steps in one process, after which it times no more
REPEATS = {"cpu": 3, "cuda": 20}  # timed steps in one process at most
WARM_AGAIN = 4.0  # after a first step that is shorter than this ...
WARM = {"cpu": 1, "cuda": 5}  # ... this many more are not timed; on a GPU always, because the first compiles kernels


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))), flush=True)
    elif options.table:
        print(tables(json.loads(Path(options.table).read_text())))
    elif options.profile:
        print(profiled(options))
    elif options.check:
        sys.exit(0 if check() else 1)
    else:
        measured = measure(options)
        print(tables(measured))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--batches", type=int, nargs="+", default=[16, 64], metavar="N", help="images per step")
    add("--steps", type=int, nargs="+", default=[10, 25, 50, 100], metavar="T", help="time-steps of the network")
    add("--contestants", nargs="+", choices=NAMES, default=list(NAMES), help="what to measure")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="peers' bf16 is autocast")
    add(
        "--layouts",
        choices=("found", "all"),
        default="found",
        help="layouts of the peers: found, the faster in a short trial and any within 10 %% of it; all, both",
    )
    add(
        "--chunk",
        type=int,
        nargs="*",
        default=[25],
        metavar="K",
        help="also this project with time in chunks of K, if T > K",
    )
    add("--rounds", type=int, default=3, help="how often everything is measured, in turns")
    add("--threads", type=int, default=cores(), help="threads of every process")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to run")
    add(
        "--allocator",
        choices=("own", "ours"),
        default="own",
        help="allocator of the peers: own, theirs; ours, with the setting of this project's training",
    )
    add(
        "--memory-limit",
        type=float,
        default=None,
        metavar="GB",
        help="memory limit of a process on the CPU, so that only it fails; None: 85 %% of what is available",
    )
    add("--timeout", type=float, default=900, metavar="S", help="seconds after which a process is given up")
    add("--width", type=float, default=1.0, help="multiplies the widths of the layers")
    add("--json", metavar="FILE", help="write all raw times to this file, after every measurement")
    add("--table", metavar="FILE", help="print the tables of such a file as Markdown, and measure nothing")
    add("--check", action="store_true", help="compare logits and gradients of all on the same weights and spikes")
    add("--profile", type=int, metavar="N", help="only profile N steps of this project")
    add("--quick", action="store_true", help="a small network, batch and T, one round, to see whether it runs")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.batches, options.steps, options.width, options.rounds, options.chunk = [4], [4, 8], 0.25, 1, [4]
    return options


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- the starting process ----------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, in rounds; each round starts its contestants in another order."""
    report = {"about": about(options), "measurements": []}
    shared = settings(options)
    layouts = found_layouts(options, shared)
    report["about"]["layouts"] = {f"{name} {precision}": found for (name, precision), found in layouts.items()}
    specs = [shared | spec for spec in planned(options, layouts)]
    given_up: dict[str, dict] = {}
    for number in range(options.rounds):
        turned = specs[number % len(specs) :] + specs[: number % len(specs)]
        for count, spec in enumerate(turned, 1):
            identity = json.dumps({key: spec[key] for key in KEYS})
            result = given_up.get(identity) or started(spec, options.timeout)
            if "error" in result:
                given_up[identity] = result  # it would fail again, and a failure may take long
            elif spec["contestant"] == "limit":
                spec["config"] = result["config"]  # searched once
            report["measurements"].append({key: spec[key] for key in KEYS} | {"round": number} | result)
            note(f"round {number + 1}/{options.rounds} {count}/{len(specs)} {told(spec)}: {outcome(result)}")
            if options.json:
                Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return report


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What is the same for all measurements."""
    return {
        "threads": options.threads,
        "device": options.device,
        "width": options.width,
        "allocator": options.allocator,
        "memory_limit": options.memory_limit or available_gb() * 0.85,
    }


def planned(options: argparse.Namespace, layouts: dict[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    """What one round measures, contestants of the same work next to each other."""
    specs = []
    for batch, steps, precision in itertools.product(options.batches, options.steps, options.precisions):
        same = {"batch": batch, "steps": steps, "precision": precision, "chunk": None}
        for name in options.contestants:
            for layout in layouts.get((name, precision), [UNUSED]):
                specs.append(same | {"contestant": name, "layout": layout})
            if name == "this":
                specs += [
                    same | {"contestant": name, "layout": UNUSED, "chunk": size}
                    for size in options.chunk
                    if size < steps
                ]
    return specs


def found_layouts(options: argparse.Namespace, shared: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """The layouts to measure, by peer and precision."""
    pairs = [(name, p) for name in options.contestants if name in PEERS for p in options.precisions]
    if options.layouts == "all":
        return {pair: list(LAYOUTS) for pair in pairs}
    found = {}
    for name, precision in pairs:
        times = {}
        for layout in LAYOUTS:
            spec = {"contestant": name, "precision": precision, "layout": layout, "chunk": None}
            spec |= {"batch": min(options.batches), "steps": min(10, *options.steps)}
            result = started(shared | spec, options.timeout)
            note(f"trial {told(spec)}: {outcome(result)}")
            if "error" not in result:
                times[layout] = min(result["seconds"])
        near = [layout for layout in times if times[layout] <= 1.1 * min(times.values())]
        found[name, precision] = near or [LAYOUTS[0]]
    return found


def started(spec: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What a fresh process measures; if it fails, the reason in one line."""
    threads = str(spec["threads"])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--worker", json.dumps(spec)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:.0f} s"}
    if done.returncode < 0:
        return {"error": f"ended by signal {-done.returncode}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return {"error": (lines or ["no output"])[-1][:200]}


def about(options: argparse.Namespace) -> dict[str, Any]:
    packages = {}
    for name in ("snntorch", "spikingjelly"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    facts = provenance.environment(options.device, options.threads)
    facts["packages"] |= packages
    return {
        "date": provenance.now(),
        **facts,
        "cores": cores(),
        "memory_gb": round(total_gb(), 1),
        "kernel": platform.release(),
        "allocator": {"own": "the peers' as they come", "ours": "the same in every process"}[options.allocator],
        "command": " ".join(Path(word).name if word == options.json else word for word in sys.argv[1:]),
        "rounds": options.rounds,
        "width": options.width,
    }


def total_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def available_gb() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024 / 1e9
    except OSError:
        pass
    return total_gb()


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def told(spec: dict[str, Any]) -> str:
    chunk = f" chunk {spec['chunk']}" if spec["chunk"] else ""
    layout = "" if spec["layout"] == UNUSED else f" {spec['layout']}"
    return f"{spec['contestant']}{chunk} {spec['precision']}{layout} batch {spec['batch']} T {spec['steps']}"


def outcome(result: dict[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    memory = f", {result['peak_mb']:.0f} MB" if "peak_mb" in result else f", {result['gflops']:.0f} GFLOP/s"
    others = result["others"] or 0
    disturbed = f", DISTURBED: others used {others} cores" if others > DISTURBED else ""
    return f"{statistics.median(result['seconds']):.3f} s{memory}{disturbed}"


# -- a measuring process -----------------------------------------------------------------------------------------


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure what the specification says."""
    import torch

    if spec["device"] == "cpu":
        size = int(spec["memory_limit"] * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    try:
        return measured_limit(spec) if spec["contestant"] == "limit" else measured_steps(spec)
    except (MemoryError, torch.OutOfMemoryError):
        return {"error": out_of_memory(spec)}
    except Exception as error:  # whatever a peer raises is its result
        line = " ".join(str(error).split()) or type(error).__name__
        return {
            "error": out_of_memory(spec) if "can't allocate memory" in line else f"{type(error).__name__}: {line}"[:200]
        }


def out_of_memory(spec: dict[str, Any]) -> str:
    return "out of memory" + (f" (limit {spec['memory_limit']:.1f} GB)" if spec["device"] == "cpu" else "")


def layers_of(spec: dict[str, Any]) -> list:
    from bntt.spiking.networks import weight_layers

    return weight_layers("vgg9", (3, 32, 32), 10, spec["width"])


def measured_steps(spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds of single training steps, and the peak of memory."""
    import torch
    from contestants import timed

    step, base = prepared(spec)
    first = timed(step, spec["device"])
    for _ in range(WARM[spec["device"]] if first < WARM_AGAIN or spec["device"] == "cuda" else 0):
        timed(step, spec["device"])
    seconds: list[float] = []
    disturbance = Disturbance()
    while not seconds or (len(seconds) < REPEATS[spec["device"]] and sum(seconds) + seconds[-1] < BUDGET):
        seconds.append(timed(step, spec["device"]))
    others = disturbance.cores()
    peak = memory_mb("VmHWM")
    if spec["device"] == "cuda":
        peak, base = torch.cuda.max_memory_allocated() / 1e6, 0.0
    return {"seconds": seconds, "first": first, "peak_mb": peak, "base_mb": base, "others": others}


def prepared(spec: dict[str, Any]) -> tuple[Callable[[], None], float]:
    """One training step of a contestant; and the memory in MB that the process held before it was built."""
    import torch
    from contestants import CONTESTANTS
    from torch.nn import functional as F

    from bntt.training.arithmetic import settle

    if spec["contestant"] == "this" or spec["allocator"] == "ours":
        settle(spec["threads"])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    kind, layout = CONTESTANTS[spec["contestant"]], spec["layout"] if spec["layout"] != UNUSED else "channels-last"
    for module in (*kind.needs, "torch._dynamo"):  # which the first optimiser imports
        import_module(module)
    before = memory_mb("VmRSS")
    more = {"chunk": spec["chunk"]} if spec["chunk"] else {}
    contestant = kind(layers_of(spec), spec["steps"], spec["precision"], layout, spec["device"], **more)
    contestant.start()
    optimiser = torch.optim.SGD(contestant.network.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(spec["batch"], 3, 32, 32, device=spec["device"])
    classes = torch.randint(10, (spec["batch"],), device=spec["device"])

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(contestant.logits(images), classes).backward()
        optimiser.step()

    return step, before


def profiled(options: argparse.Namespace) -> str:
    """The kernels that a few steps of this project spend most time in, and how long the device waited for the next."""
    from contestants import timed
    from torch.profiler import ProfilerActivity, profile

    spec = settings(options) | {
        "contestant": "this", "layout": UNUSED, "chunk": None,
        "batch": options.batches[0], "steps": options.steps[0], "precision": options.precisions[0],
    }  # fmt: skip
    step, _ = prepared(spec)
    for _ in range(1 + WARM[options.device]):
        timed(step, options.device)
    alone = [timed(step, options.device) for _ in range(options.profile)]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (options.device == "cuda")
    with profile(activities=activities) as profiler:
        seconds = timed(lambda: [step() for _ in range(options.profile)], options.device)
    events = profiler.key_averages()
    of = "self_device_time_total" if options.device == "cuda" else "self_cpu_time_total"
    kernels = [e for e in events if getattr(e, of) > 0 and (options.device == "cpu" or e.device_type.name == "CUDA")]
    busy = sum(getattr(e, of) for e in kernels) / 1e6
    lines = [
        f"{told(spec)}: {statistics.median(alone) * 1e3:.2f} ms a step without the profiler, "
        f"{seconds / options.profile * 1e3:.2f} ms with it; busy {busy / options.profile * 1e3:.2f} ms of it, "
        f"waiting {100 * (1 - busy / seconds):.1f} %; "
        f"{sum(e.count for e in kernels) / options.profile:.0f} kernels a step",
        f"{'ms a step':>10} {'share':>6} {'calls':>6}  kernel",
    ]
    for event in sorted(kernels, key=lambda e: getattr(e, of), reverse=True)[:KERNELS]:
        time_of = getattr(event, of) / 1e6
        lines.append(
            f"{time_of / options.profile * 1e3:>10.3f} {100 * time_of / busy:>5.1f}% "
            f"{event.count / options.profile:>6.0f}  {event.key[:100]}"
        )
    return "\n".join(lines)


class Disturbance:
    """How many cores other processes used since this object was made; their work spoils timings."""

    def __init__(self) -> None:
        self.began, self.own, self.all = time.perf_counter(), time.process_time(), self._busy()

    @staticmethod
    def _busy() -> float | None:
        """Seconds that all cores together were not idle, including those taken by other virtual machines."""
        try:
            user, nice, system, _, _, irq, soft, steal, *_ = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
        except (OSError, ValueError):
            return None
        return sum(map(int, (user, nice, system, irq, soft, steal))) / os.sysconf("SC_CLK_TCK")

    def cores(self) -> float | None:
        now = self._busy()
        if now is None or self.all is None:
            return None
        others = (now - self.all) - (time.process_time() - self.own)
        return round(max(0.0, others) / (time.perf_counter() - self.began), 2)


def memory_mb(field: str) -> float:
    """Memory of this process in MB: VmRSS, or its peak VmHWM. (getrusage's peak includes the starting process.)"""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return provenance.peak_memory_mb()


def measured_limit(spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the layers' arithmetic alone, and its GFLOP/s."""
    from contestants import Limit

    from bntt.training.arithmetic import settle

    settle(spec["threads"])
    limit = Limit(layers_of(spec), spec["batch"] * spec["steps"], spec["precision"], spec["device"])
    config = spec.get("config") or limit.search()
    disturbance = Disturbance()
    seconds = limit.seconds(config)
    others = disturbance.cores()
    return {
        "seconds": [seconds],
        "config": config,
        "others": others,
        "gflops": limit.flops() / seconds / 1e9,
        "square_gflops": limit.square_gflops(),
    }


# -- do all compute the same? ------------------------------------------------------------------------------------


def check() -> bool:
    """Compare logits and gradients of all contestants on the same weights and spikes; print the largest differences."""
    exact = compared("fp64")
    compared("fp32")
    print("fp64 differences are rounding alone: the contestants compute the same" if exact else "NOT the same in fp64")
    print(
        "fp32 differences are larger where rounding makes a spike appear or vanish; that is information, not a verdict"
    )
    return exact


def compared(precision: str) -> bool:
    """Compare all in one precision. In float64 rounding flips no spike, so all must agree; float32 has fast kernels."""
    import torch
    from contestants import CONTESTANTS, PRECISIONS

    torch.set_default_dtype(PRECISIONS[precision])
    torch.manual_seed(0)
    layers, steps = layers_of({"width": 0.125}), 5
    spikes = (torch.rand(steps, 4, 3, 32, 32) < 0.4) * torch.randn(4, 3, 32, 32).sign()
    classes = torch.randint(10, (4,))
    gammas = [torch.rand(steps, layer.outputs) + 0.5 for layer in layers[:-1]]
    results = {}
    for name, kind in CONTESTANTS.items():
        for layout in kind.layouts:
            try:
                contestant = kind(layers, steps, precision, layout, "cpu")
                results[f"{name} {layout}"] = logits_and_gradients(contestant, spikes, classes, gammas)
            except Exception as error:  # a peer that cannot run is named
                print(f"{precision} {name} {layout}: {type(error).__name__}: {error}")
    reference = results.pop("this channels-last")
    agree = bool(results)
    for name, arrays in results.items():
        logits, *gradients = (relative(a, b) for a, b in zip(arrays, reference, strict=True))
        print(f"{precision} {name} against this: logits {logits:.1e}, gradients {max(gradients):.1e} (relative)")
        agree = agree and all(difference < 1e-9 for difference in (logits, *gradients))  # false for nan
    return agree


def logits_and_gradients(contestant, spikes, classes, gammas) -> list:
    import torch
    from torch.nn import functional as F

    contestant.start()
    with torch.no_grad():
        for mine, given in zip(contestant.gammas(), gammas, strict=True):
            for t, gamma in enumerate(mine):
                gamma.copy_(given[t])
    logits = contestant.logits_of(spikes)
    F.cross_entropy(logits, classes).backward()
    gradients = [weight.grad for weight in contestant.weights()] + contestant.gamma_gradients()
    return [logits.detach(), *gradients]


def relative(a, b) -> float:
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    if "--worker" not in sys.argv:
        note(f"{time.perf_counter() - began:.0f} s")
