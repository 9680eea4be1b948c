"""Make Markdown tables of the training steps that train_step.py measured."""

import statistics
from typing import Any

NAMES = ("this", "released", "snntorch", "spikingjelly", "limit")
PRECISIONS = ("fp32", "bf16")
PEERS = NAMES[1:4]
UNUSED = "-"
KEYS = ("contestant", "precision", "layout", "batch", "steps", "chunk")
DISTURBED = 0.15  # cores that other processes may use during a measurement


def tables(report: dict[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    rows = summarised(report["measurements"])
    about = report["about"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    out = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['device']}, "
        f"{about['threads']} threads, {about['platform']}; Python {about['python']}, {packages}; {about['date']}, "
        f"commit {about.get('commit', 'unknown')}{' and changes' if about.get('dirty') else ''}.",
        f"Allocator: {about['allocator']}. Rounds: {about['rounds']}; times are medians over rounds (least to most).",
    ]
    disturbed = [one for one in report["measurements"] if (one.get("others") or 0) > DISTURBED]
    if disturbed:
        most = max(one["others"] for one in disturbed)
        out.append(
            f"**{len(disturbed)} of {len(report['measurements'])} measurements were disturbed: other processes used up "
            f"to {most:.1f} cores meanwhile. Do not quote these times; measure again on a quiet machine.**"
        )
    works = sorted({(row["batch"], row["steps"]) for row in rows})
    precisions = [p for p in PRECISIONS if any(row["precision"] == p for row in rows)]
    for precision in precisions:
        out.append(f"### Same precision for all: {precision}")
        for batch, steps in works:
            chosen = [r for r in rows if (r["batch"], r["steps"], r["precision"]) == (batch, steps, precision)]
            out.append(table(fastest_layouts(chosen), batch, steps))
    if len(precisions) > 1:
        out.append("### Each at its best precision and layout")
        for batch, steps in works:
            out.append(table(at_best([r for r in rows if (r["batch"], r["steps"]) == (batch, steps)]), batch, steps))
    out += [cost_of_time(rows), limits(rows)]
    return "\n\n".join(part for part in out if part)


def summarised(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per contestant and setting: the median of each round's steps, and of these the median and range."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for one in measurements:
        groups.setdefault(tuple(one[key] for key in KEYS), []).append(one)
    rows = []
    for identity, group in groups.items():
        row = dict(zip(KEYS, identity, strict=True))
        failed = [one["error"] for one in group if "error" in one]
        if failed:
            row["error"] = failed[0]
        else:
            times = [statistics.median(one["seconds"]) for one in group]
            row |= {"seconds": statistics.median(times), "least": min(times), "most": max(times)}
            for field in ("peak_mb", "base_mb", "gflops", "square_gflops"):
                if field in group[0]:
                    row[field] = statistics.median(one[field] for one in group)
            if "config" in group[0]:
                row["config"] = group[0]["config"]
        rows.append(row)
    return rows


def fastest_layouts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest row of each contestant (and chunk), in the order of NAMES."""
    best: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        name = (NAMES.index(row["contestant"]), row["chunk"] or 0)
        if name not in best or row.get("seconds", float("inf")) < best[name].get("seconds", float("inf")):
            best[name] = row
    return [best[name] for name in sorted(best)]


def at_best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest rows across precisions, with the limit of every precision among them."""
    best = fastest_layouts([row for row in rows if row["contestant"] != "limit"])
    used = {row["precision"] for row in best}
    return best + [row for row in rows if row["contestant"] == "limit" and row["precision"] in used]


def table(rows: list[dict[str, Any]], batch: int, steps: int) -> str:
    limit = {row["precision"]: row.get("seconds") for row in rows if row["contestant"] == "limit"}
    this = next((r for r in rows if r["contestant"] == "this" and not r["chunk"] and "error" not in r), None)
    lines = [
        f"**Batch {batch}, T = {steps}**",
        "",
        "| | step, s | images/s | peak, MB | without imports, MB | x limit | x this, time | x this, memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [line(row, limit, this) for row in rows]
    return "\n".join([*lines, "", *verdicts(rows, this)]).rstrip()


def line(row: dict[str, Any], limit: dict[str, float | None], this: dict[str, Any] | None) -> str:
    label = " ".join(
        str(part)
        for part in (
            row["contestant"],
            f"chunk {row['chunk']}" if row["chunk"] else None,
            row["precision"],
            None if row["layout"] == UNUSED else row["layout"],
        )
        if part
    )
    if "error" in row:
        return f"| {label} | {row['error'].replace('|', '/')} | | | | | | |"
    cells = [f"{row['seconds']:.3f} ({row['least']:.3f} to {row['most']:.3f})", f"{row['batch'] / row['seconds']:.1f}"]
    least = limit.get(row["precision"])
    of_limit = f"{row['seconds'] / least:.2f}" if least else ""
    of_this = f"{row['seconds'] / this['seconds']:.2f}" if this else ""
    if row["contestant"] == "limit":
        cells += ["", "", of_limit, of_this, ""]
    else:
        memory = f"{own_mb(row) / own_mb(this):.2f}" if this else ""
        cells += [f"{row['peak_mb']:.0f}", f"{own_mb(row):.0f}", of_limit, of_this, memory]
    return f"| {label} | {' | '.join(cells)} |"


def own_mb(row: dict[str, Any]) -> float:
    """Peak memory in MB, less the memory that the imports used."""
    return row["peak_mb"] - row["base_mb"]


def verdicts(rows: list[dict[str, Any]], this: dict[str, Any] | None) -> list[str]:
    peers = [row for row in rows if row["contestant"] in PEERS and "error" not in row]
    if this is None or not peers:
        return []
    fast = min(peers, key=lambda row: row["seconds"])
    lean = min(peers, key=own_mb)
    return [
        f"Fastest peer ({fast['contestant']}) / this: {fast['seconds'] / this['seconds']:.2f}. Leanest peer's memory "
        f"({lean['contestant']}) / this: {own_mb(lean) / own_mb(this):.2f}."
    ]


def cost_of_time(rows: list[dict[str, Any]]) -> str:
    """How time and memory grow from T = 25, or the least T, to the largest T."""
    lines = []
    groups: dict[tuple, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if "peak_mb" in row:
            name = tuple(row[key] for key in KEYS if key != "steps")
            groups.setdefault(name, {})[row["steps"]] = row
    for (name, precision, layout, batch, chunk), by_steps in groups.items():
        short, long = 25 if 25 in by_steps else min(by_steps), max(by_steps)
        if short >= long:
            continue
        a, b = by_steps[short], by_steps[long]
        label = " ".join(
            str(p) for p in (name, f"chunk {chunk}" if chunk else "", precision, layout) if p not in ("", UNUSED)
        )
        ratios = f"{b['seconds'] / a['seconds']:.2f} | {own_mb(b) / own_mb(a):.2f}"
        lines.append(f"| {label} | {batch} | {long} / {short} | {ratios} |")
    head = ["| | batch | T | time ratio | memory ratio |", "| --- | ---: | ---: | ---: | ---: |"]
    return _titled("Cost of time-steps", head, lines)


def limits(rows: list[dict[str, Any]]) -> str:
    """Is the limit a limit? Its GFLOP/s beside those of a square matrix product."""
    lines = []
    for row in rows:
        if row["contestant"] != "limit" or "error" in row:
            continue
        share = row["gflops"] / row["square_gflops"]
        config = row["config"]
        lines.append(
            f"| {row['precision']}, batch {row['batch']}, T = {row['steps']} | {row['gflops']:.0f} | "
            f"{row['square_gflops']:.0f} | {share:.2f}{'' if share >= 0.5 else ' (below one half)'} | "
            f"{config['layout']}, {'/'.join(map(str, config['pieces']))} |"
        )
    head = [
        "| | limit, GFLOP/s | product of 2048, GFLOP/s | share | layout, images at once by layer |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    return _titled("The limit beside a square matrix product", head, lines)


def _titled(title: str, head: list[str], lines: list[str]) -> str:
    """A table under its title; empty if it has no line."""
    return "\n".join([f"### {title}", "", *head, *lines]) if lines else ""
