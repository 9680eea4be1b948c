"""Print where a number of a table comes from, back to weights and data."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bntt.common.errors import UserError, check_name
from bntt.common.files import sha256
from bntt.common.text import counted, duration, listed
from bntt.drawing.records import read_record, vouched
from bntt.experiment.schema import Run
from bntt.results.collect import Results, at_threshold
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Found

# For each measurement, the columns of tables that come from it. Others are configuration, or the paper's numbers.
MEASURED = {
    "anytime.csv": (
        "accuracy", "uncertainty", "interval_low", "interval_high", "minus_bntt", "minus_bntt_low", "minus_bntt_high",
        "verdict", "verdict_weak",
    ),
    "draws.csv": ("over_draws",),
    "energy.csv": (
        "own", "own_hidden", "events", "events_hidden", "mass", "mass_hidden", "spikes", "own_deviation", "paper_ratio",
    ),
    "early_exit.csv": ("time_steps",),
}  # fmt: skip
RECORDED = ("training_seconds", "start_seconds", "machines", "peak_memory_mb", "parameters")  # by training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a number: its table, row and column."""
    parser.add_argument("table", type=Path, metavar="CSV", help="such as results/demo/tables/table1.csv")
    parser.add_argument("--row", required=True, help="row of the experiment")
    parser.add_argument("--column", default="accuracy", help="column of the csv file")
    parser.add_argument("--dataset", help="dataset, if the row has several")
    parser.add_argument("--time-steps", type=float, help="time-steps, if the row has several lines")
    parser.add_argument("--experiment", help="its experiment file, if that is not in config/")


def run(parsed: argparse.Namespace) -> None:
    """Print the origin of the number in each line of the table that the options name."""
    table = parsed.table
    folder = table.parent.parent
    if table.parent.name != "tables" or table.suffix != ".csv":
        raise UserError(f"{table} is not a table of results; give one like results/demo/tables/table1.csv")
    if not table.is_file():
        raise UserError(f"{table} is missing; `snakemake --cores 8 all` draws it")
    results = Results.at(folder, parsed.experiment, here=False)
    record = read_record(folder, table.stem)
    vouched(folder, record, f"tables/{table.name}")
    frame = pd.read_csv(table).astype({"time_steps": float})  # the steps of an early exit are a mean over seeds
    for name in ("row", parsed.column):
        check_name("column", name, frame.columns, str(table))
    check_name("row", parsed.row, frame["row"].dropna().unique(), str(table))
    found = frame[frame["row"] == parsed.row]
    for name, value in (("dataset", parsed.dataset), ("time_steps", parsed.time_steps)):
        if value is not None:
            written = found[name].map(_text)
            check_name(name, _text(value), written.unique(), f"{table}, row {parsed.row}")
            found = found[written == _text(value)]
    chains = ["\n".join(_once(_chain(results, table, record, line, parsed.column))) for _, line in found.iterrows()]
    print("\n\n".join(chains))


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _once(lines: Iterator[str]) -> Iterator[str]:
    """The lines, with ``as above`` for text that repeats the last line of its kind, as options and data often do."""
    said: dict[str, str] = {}
    for line in lines:
        kind, text = line[:13], line[13:]
        yield line if said.get(kind) != text or not kind.strip() else f"{kind}as above"
        said[kind] = text


def _chain(results: Results, table: Path, record: Mapping[str, Any], line: pd.Series, column: str) -> Iterator[str]:
    dataset, row = line["dataset"], line["row"]
    steps = f", after {counted(line['time_steps'], 'time-step')}" if pd.notna(line.get("time_steps")) else ""
    early = ", with early exit" if line.get("early_exit") is True else ""
    dead = f", {line['dead']}" if pd.notna(line.get("dead")) else ""
    yield f"{column} = {line[column]} in {table}, row {row} on {dataset}{steps}{early}{dead}"
    yield f"  drawn    by {record['source']}, {_code(record)}, {record['drawn']}"
    files = [name for name, columns in MEASURED.items() if column in columns]
    if line.get("early_exit") is not True:  # without early exit, the steps are configuration
        files = [name for name in files if name != "early_exit.csv"]
    elif "anytime.csv" in files:
        files.append("early_exit.csv")
    if column in RECORDED:
        yield "  which training recorded"
    elif not files:
        yield "  which is configuration, or printed in the paper; no measurement gives it"
    for one in results.of_row(row, dataset):
        yield f"  seed {one.run.seed}   {one.directory.path}: {one.status}{f', {one.reason}' if one.reason else ''}"
        if not one.status.measured:
            continue
        evaluation = one.directory.evaluation()
        for name in files:
            if name in evaluation["files"]:
                value = _value(one, name, line)
                said = "" if value is None else f"{value:g} in "
                yield f"    measured {said}{one.directory.path / name}, sha256 {evaluation['files'][name][:16]}"
        yield f"             by evaluate, {_made(evaluation)}"
        if sha256(one.directory.evaluate_json) != record["measured"].get(one.run.name):
            yield "             AGAIN since the table was drawn: draw the table again"
        yield from _training(results, one.run)


def _training(results: Results, run: Run) -> Iterator[str]:
    """Weights, training, configuration and data of a run, and of the run that it starts from."""
    directory = RunDirectory.of(run, results.root)
    training = directory.training()
    config, data, pieces = training["config"], training["data"], training.get("pieces", 1)
    yield f"    weights  {directory.path / WEIGHTS}, sha256 {training['files'].get(WEIGHTS, 'none')[:16]}"
    spent = f"{counted(training['steps'], 'step')} in {duration(training['seconds'])}"
    spent += f", {pieces} pieces" * (pieces > 1)
    if len(machines := training.get("machines", [])) > 1:
        spent += f" on {listed(machines)}"
    yield f"    trained  {spent}, {_made(training)}"
    options = ", ".join(f"{key} {value}" for key, value in config["options"].items())
    yield f"    options  experiment {config['experiment']}, method {config['method']}: {options}"
    content, split = data["content_sha256"][:16], data["split_sha256"][:16]
    yield f"    data     {data['dataset']}, state {data['state']}, content {content}, split {split}"
    if config["start"] is not None:
        start = results.experiment.run(run.dataset, config["start"], run.seed)
        path = RunDirectory.of(start, results.root).path
        yield f"    start    {path}, weights sha256 {training['start_sha256'][:16]}:"
        yield from _training(results, start)


def _value(one: Found, name: str, line: pd.Series) -> float | None:
    """A run's measured value at the line's time-step; None if it is not a single number."""
    step = line["time_steps"]
    if line.get("early_exit") is True:  # each seed has its own exit step
        exits = one.directory.table("early_exit.csv")
        step = at_threshold(exits, one.run.evaluation["exit_threshold"])["exit_step"].iloc[0]
    if name == "early_exit.csv":
        return float(step)
    if name != "anytime.csv":
        return None
    found = one.directory.table(name).set_index("time_step")["accuracy"]
    return float(found[step]) if step in found else None


def _code(record: Mapping[str, Any]) -> str:
    made = record.get("provenance", record)
    commit = made.get("commit")
    dirty = " with local changes" if made.get("dirty") else ""
    source = f"commit {commit[:12]}{dirty}" if commit else f"source {made.get('source_sha256', 'unknown')[:12]}"
    return f"code {record['code']} of {source}"


def _made(record: Mapping[str, Any]) -> str:
    made = record["provenance"]
    packages = listed([f"{name} {version}" for name, version in made["packages"].items()])
    machine = f"{made['device']} ({made['processor']}, {counted(made['threads'], 'thread')})"
    return f"{_code(record)}, {record['started']}, on {machine}, Python {made['python']}, {packages}"
