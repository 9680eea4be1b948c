"""Print where a number of a table comes from, back to weights and data."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bntt.common.errors import UserError, check_name
from bntt.common.files import sha256
from bntt.common.text import duration, listed
from bntt.drawing.records import read_record, vouched
from bntt.results.collect import Results, at_threshold
from bntt.runs.directory import RunDirectory
from bntt.runs.status import Found

# Where the columns of a table's csv file are measured. What is in no line here is configuration, or the paper's.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The number: its table, row and column."""
    parser.add_argument("table", type=Path, metavar="CSV", help="such as results/demo/tables/table1.csv")
    parser.add_argument("--row", required=True, help="row of the experiment")
    parser.add_argument("--column", default="accuracy", help="column of the csv file")
    parser.add_argument("--dataset", help="dataset, where the row has several")
    parser.add_argument("--time-steps", type=float, help="time-steps, where the row has several lines")
    parser.add_argument("--experiment", help="its file, where that does not lie in config/")


def run(parsed: argparse.Namespace) -> None:
    """Print the chain."""
    where = {"dataset": parsed.dataset, "time_steps": parsed.time_steps, "experiment": parsed.experiment}
    print(*explain(parsed.table, parsed.row, parsed.column, **where), sep="\n")


def explain(
    table: Path, row: str, column: str, dataset: str | None = None, time_steps: float | None = None,
    experiment: str | None = None,
) -> list[str]:  # fmt: skip
    """Lines that tell where a number of a table comes from; one chain for each line of the table that is asked for."""
    folder = table.parent.parent
    if table.parent.name != "tables" or table.suffix != ".csv":
        raise UserError(f"{table} is no table of results; give one like results/demo/tables/table1.csv")
    if not table.is_file():
        raise UserError(f"{table} is missing; `snakemake --cores 8 all` draws it")
    results = Results.at(folder, experiment, here=False)
    record = read_record(folder, table.stem)
    vouched(folder, record, f"tables/{table.name}")
    frame = pd.read_csv(table).astype({"time_steps": float})  # the steps of an early exit are a mean over seeds
    for name in ("row", column):
        check_name("column", name, frame.columns, str(table))
    check_name("row", row, frame["row"].dropna().unique(), str(table))
    found = frame[frame["row"] == row]
    for name, value in (("dataset", dataset), ("time_steps", time_steps)):
        if value is not None:
            written = found[name].map(lambda one: f"{one:g}" if isinstance(one, float) else one)
            value = f"{value:g}" if isinstance(value, float) else value
            check_name(name, value, written.unique(), f"{table}, row {row}")
            found = found[written == value]
    lines: list[str] = []
    for _, line in found.iterrows():
        lines += [*_once(_chain(results, table, record, line, column)), ""]
    return lines[:-1]


def _once(lines: Iterator[str]) -> Iterator[str]:
    """Lines in which what was said already is not said again: seeds mostly share options and data."""
    said: dict[str, str] = {}
    for line in lines:
        kind, text = line[:13], line[13:]
        yield line if said.get(kind) != text or not kind.strip() else f"{kind}as above"
        said[kind] = text


def _chain(results: Results, table: Path, record: Mapping[str, Any], line: pd.Series, column: str) -> Iterator[str]:
    dataset, row = line["dataset"], line["row"]
    steps = f", after {line['time_steps']:g} time-steps" if pd.notna(line.get("time_steps")) else ""
    yield f"{column} = {line[column]} in {table}, row {row} on {dataset}{steps}"
    yield f"  drawn    by {record['source']}, {_code(record)}, {record['drawn']}"
    files = [name for name, columns in MEASURED.items() if column in columns]
    if line.get("early_exit") is not True:  # then the steps are configuration
        files = [name for name in files if name != "early_exit.csv"]
    elif "anytime.csv" in files:
        files.append("early_exit.csv")
    if not files:
        yield "  which is configuration, or printed in the paper; nothing measures it"
    for one in results.of_row(row, dataset):
        yield from _of_run(results, one, files, line, record)


def _of_run(
    results: Results, one: Found, files: Sequence[str], line: pd.Series, record: Mapping[str, Any]
) -> Iterator[str]:
    yield f"  seed {one.run.seed}   {one.directory.path}: {one.status}{f', {one.reason}' if one.reason else ''}"
    if not one.status.measured:
        return
    evaluation = one.directory.evaluation()
    changed = sha256(one.directory.evaluate_json) != record["measured"].get(one.run.name)
    for name in files:
        if name in evaluation["files"]:
            value = _value(one, name, line)
            said = "" if value is None else f"{value:g} in "
            yield f"    measured {said}{one.directory.path / name}, sha256 {evaluation['files'][name][:16]}"
    yield f"             by evaluate, {_code(evaluation)}, {_made(evaluation)}"
    if changed:
        yield "             AGAIN since the table was drawn: draw it again"
    yield from _training(results, one.directory, one.run.dataset, one.run.seed)


def _training(results: Results, directory: RunDirectory, dataset: str, seed: int) -> Iterator[str]:
    """Weights, training, configuration and data of a run, and of the run that it starts from."""
    training = directory.training()
    weights = training["files"].get("model.safetensors", "none")
    yield f"    weights  {directory.path / 'model.safetensors'}, sha256 {weights[:16]}"
    pieces = training.get("pieces", 1)
    spent = f"{training['steps']} steps in {duration(training['seconds'])}" + (f", {pieces} pieces" * (pieces > 1))
    if len(machines := training.get("machines", [])) > 1:
        spent += f" on {listed(machines)}"
    yield f"    trained  {spent}, {_code(training)}, {_made(training)}"
    config = training["config"]
    options = ", ".join(f"{key} {value}" for key, value in config["options"].items())
    yield f"    options  experiment {config['experiment']}, method {config['method']}: {options}"
    data = training["data"]
    yield (
        f"    data     {data['dataset']}, state {data['state']}, content {data['content_sha256'][:16]}, "
        f"split {data['split_sha256'][:16]}"
    )
    if config["start"] is not None:
        start = RunDirectory.of(results.experiment.run(dataset, config["start"], seed), results.root)
        yield f"    start    {start.path}, weights sha256 {training['start_sha256'][:16]}:"
        yield from _training(results, start, dataset, seed)


def _value(one: Found, name: str, line: pd.Series) -> float | None:
    """What a run's measurement says at the line's time-step, where it is a single number."""
    step = line["time_steps"]
    if line.get("early_exit") is True:  # each seed has its own
        exits = one.table("early_exit.csv")
        assert exits is not None
        step = at_threshold(exits, one.run.evaluation["exit_threshold"])["exit_step"].iloc[0]
    if name == "early_exit.csv":
        return float(step)
    frame = one.table(name)
    if name != "anytime.csv" or frame is None:
        return None
    found = frame.loc[frame["time_step"] == step, "accuracy"]
    return float(found.iloc[0]) if len(found) else None


def _code(record: Mapping[str, Any]) -> str:
    made = record.get("provenance", record)
    commit = made.get("commit")
    dirty = " with local changes" if made.get("dirty") else ""
    source = f"commit {commit[:12]}{dirty}" if commit else f"source {made.get('source_sha256', 'unknown')[:12]}"
    return f"code {record['code']} of {source}"


def _made(record: Mapping[str, Any]) -> str:
    made = record["provenance"]
    packages = listed([f"{name} {version}" for name, version in made["packages"].items()])
    return (
        f"{record['started']}, on {made['device']} ({made['processor']}, {made['threads']} threads), "
        f"Python {made['python']}, {packages}"
    )
