"""The command line, ``python -m bntt``: prepare data, train, evaluate, and look at what is planned and found."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from bntt import __version__
from bntt.errors import Stopped, UserError, check_name

NOT_FINISHED = 75  # EX_TEMPFAIL of sysexits.h: "try again", for instance as Slurm's RequeueExit


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, as the help's last lines explain it."""
    parsed = _parser().parse_args(arguments)
    try:
        status = parsed.command(parsed) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough; let nothing complain while Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"bntt: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"bntt: {stopped}", file=sys.stderr)
        return 130 if stopped.interrupted else NOT_FINISHED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"bntt: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bntt: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return status


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bntt: {message}; see {self.prog} --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to an option's help, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bntt",
        description="Retrain, measure and compare low-latency spiking networks.",
        epilog="Exit status: 0 done, 1 `check` found something missing, damaged or to fail on, 2 the input was wrong "
        "(one line says what), 75 a training is not finished and its state is saved: run it again, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"bntt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, summary: str, function) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        made.set_defaults(command=function)
        return made

    for name, summary, function in (
        ("train", "Train or convert one run and write its weights and train.json.", _train),
        (
            "evaluate",
            "Measure one trained run on the test images and write its csv files and evaluate.json.",
            _evaluate,
        ),
    ):
        one = command(name, summary, function)
        _add_experiment(one)
        one.add_argument("--dataset", help="dataset of the run; may be left out where the row has one")
        one.add_argument("--row", required=True, help="row of the experiment file")
        one.add_argument("--seed", type=int, help="seed of the run; may be left out where the row has one")
        one.add_argument(
            "--device",
            default="auto",
            choices=["auto", "cpu", "cuda"],
            help="auto takes a free GPU where there is one, and waits its turn",
        )
        if name == "train":
            one.add_argument("--minutes", type=float, help="stop at a saved state after so long, with exit status 75")
            one.add_argument("--save-minutes", type=float, default=5.0, help="how often the state is saved")
            one.add_argument("--save-steps", type=int, help="save it after so many steps too")

    runs = command("runs", "List the runs of an experiment and what is there of each.", _runs)
    _add_experiment(runs)

    check = command("check", "Judge every number of the paper, and every run, by what exists; trains nothing.", _check)
    check.add_argument(
        "folder", type=Path, metavar="RESULTS", help="the results of an experiment, such as results/demo"
    )
    check.add_argument("--experiment", help="its file, where that does not lie in config/")
    check.add_argument("--fail-on", metavar="VERDICT", help="exit with 1 on this verdict too, such as WORSE")

    compare = command("compare", "Paired differences between two folders of results, second minus first.", _compare)
    compare.add_argument("folders", type=Path, nargs=2, metavar="RESULTS", help="such as results/demo")
    compare.add_argument("--experiment", help="file of both, where that does not lie in config/")

    explain = command("explain", "Print where a number of a table comes from, back to weights and data.", _explain)
    explain.add_argument("table", type=Path, metavar="CSV", help="such as results/demo/tables/table1.csv")
    explain.add_argument("--row", required=True, help="row of the experiment")
    explain.add_argument("--column", default="accuracy", help="column of the csv file")
    explain.add_argument("--dataset", help="dataset, where the row has several")
    explain.add_argument("--time-steps", type=float, help="time-steps, where the row has several lines")
    explain.add_argument("--experiment", help="its file, where that does not lie in config/")

    plan = command("plan", "Measure what an experiment will cost, before it is run.", _plan)
    plan.add_argument("experiment", help="name of a file in config/, or a path to a .yaml file")
    plan.add_argument("--results", type=Path, default=Path("results"), help="folder where done runs are looked for")
    plan.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="device to measure on")
    plan.add_argument("--cores", type=int, default=os.cpu_count(), help="that the workflow will be given")

    data = command("data", "List, prepare, verify or look at datasets.", _data)
    data.add_argument(
        "action",
        choices=["list", "prepare", "verify", "show"],
        help="list all; download and make the arrays of one, check them, or draw a contact sheet of them",
    )
    data.add_argument("name", nargs="?", help="dataset, for all but list")
    data.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="prepare from a folder that holds the data: no download"
    )
    data.add_argument("--out", type=Path, metavar="PNG", help="where show writes its picture; None: NAME.png")

    notebook = command("notebook", "Execute a notebook source and render it as an offline page.", _notebook)
    _add_experiment(notebook)
    notebook.add_argument("source", type=Path, help="a file of analysis/")
    notebook.add_argument("--notebook", type=Path, required=True, help="where the executed notebook is written")
    notebook.add_argument("--page", type=Path, required=True, help="where the HTML page is written")

    keys = command("keys", "List every key of an experiment file with its default and meaning, as Markdown.", _keys)
    keys.add_argument("--schema", action="store_true", help="print the JSON schema of the files instead")
    return parser


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", default="demo", help="name of a file in config/, or a path to a .yaml file")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder that results are written under")


def _selected(parsed: argparse.Namespace):
    from bntt.experiment import load

    experiment = load(parsed.experiment)
    check_name("row", parsed.row, experiment.rows, f"experiment {experiment.name}")
    chosen = {}
    for name in ("dataset", "seed"):
        there = list(dict.fromkeys(getattr(run, name) for run in experiment.runs if run.row == parsed.row))
        chosen[name] = getattr(parsed, name)
        if chosen[name] is None:
            if len(there) > 1:
                listed = ", ".join(map(str, there))
                raise UserError(f"row {parsed.row} runs with several {name}s: give --{name}, one of {listed}")
            chosen[name] = there[0]
    return experiment, experiment.run(chosen["dataset"], parsed.row, chosen["seed"])


def _train(parsed: argparse.Namespace) -> None:
    experiment, run = _selected(parsed)
    from bntt.checkpoints import Checkpoints
    from bntt.pipeline import train

    for name in ("minutes", "save_minutes", "save_steps"):
        if (value := getattr(parsed, name)) is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    keep = partial(
        Checkpoints, every_minutes=parsed.save_minutes, every_steps=parsed.save_steps, minutes=parsed.minutes
    )
    print(train(experiment, run, parsed.results, parsed.device, keep))


def _evaluate(parsed: argparse.Namespace) -> None:
    _, run = _selected(parsed)
    from bntt.pipeline import evaluate

    print(evaluate(run, parsed.results, parsed.device))


def _runs(parsed: argparse.Namespace) -> None:
    from bntt.experiment import load
    from bntt.runs import found

    for one in found(load(parsed.experiment), parsed.results):
        print(f"{one.status:9} {one.run.name}{'  ' + one.reason if one.reason and one.status != 'missing' else ''}")


def _check(parsed: argparse.Namespace) -> int:
    from bntt.check import check
    from bntt.collect import Results
    from bntt.verdicts import WORDS

    if parsed.fail_on is not None:
        check_name("verdict", parsed.fail_on, WORDS, "--fail-on")
    found = check(Results.at(parsed.folder, parsed.experiment))
    print(*found.lines, sep="\n")
    return int(found.broken > 0 or found.counts[parsed.fail_on] > 0)


def _compare(parsed: argparse.Namespace) -> None:
    from bntt.collect import Results
    from bntt.comparison import compare
    from bntt.report import interval, number

    first, second = (Results.at(folder, parsed.experiment) for folder in parsed.folders)
    for one in compare(first, second):
        difference = f"{interval(one.estimate)} ({one.pairing})" if one.estimate else number(one.second - one.first)
        numbers = f"{number(one.first)} and {number(one.second)}, difference {difference}, n = {one.seeds}"
        print(f"{one.dataset}, {one.row}, {one.metric}: {numbers}")


def _explain(parsed: argparse.Namespace) -> None:
    from bntt.explain import explain

    where = {"dataset": parsed.dataset, "time_steps": parsed.time_steps, "experiment": parsed.experiment}
    print(*explain(parsed.table, parsed.row, parsed.column, **where), sep="\n")


def _plan(parsed: argparse.Namespace) -> None:
    from bntt.experiment import load
    from bntt.plan import plan, report, slots

    experiment = load(parsed.experiment)
    if parsed.cores < 1:
        raise UserError(f"--cores must be at least 1, not {parsed.cores}")
    at_once = slots(experiment, parsed.device, parsed.cores)
    for line in report(plan(experiment, parsed.results, parsed.device, at_once), at_once):
        print(line, flush=True)


def _data(parsed: argparse.Namespace) -> None:
    from bntt import data

    if parsed.action == "list":
        for name in data.names():
            prepared = "prepared" if data.manifest_path(name).is_file() else "not prepared"
            print(f"{name:20} {prepared:13} {data.facts(name)['title']}")
        return
    if parsed.name is None:
        raise UserError(f"data {parsed.action} needs the name of a dataset; there are {', '.join(data.names())}")
    check_name("dataset", parsed.name, data.names(), f"data {parsed.action}")
    if parsed.action == "prepare":
        if parsed.source is not None and not parsed.source.is_dir():
            raise UserError(f"--from {parsed.source}: there is no such folder")
        there = data.is_current(parsed.name)
        print(data.prepare(parsed.name, parsed.source))
        if there and parsed.source is not None:
            state, place = data.manifest(parsed.name)["state"], data.folder(parsed.name)
            print(f"prepared already, in state {state}; delete {place} to read it from there", file=sys.stderr)
    elif parsed.action == "show":
        from bntt.data._sheet import contact_sheet

        print(contact_sheet(parsed.name, parsed.out or Path(f"{parsed.name}.png")))
    else:
        found = data.verify(parsed.name)
        content = found["content_sha256"][:16]
        print(f"{parsed.name}: {len(found['files'])} files are whole; state {found['state']}, content {content}")


def _notebook(parsed: argparse.Namespace) -> None:
    from bntt.collect import Results
    from bntt.drawings import write_record
    from bntt.notebook import execute
    from bntt.provenance import ROOT

    folder = parsed.results.resolve()
    if folder.is_relative_to(ROOT):
        folder = folder.relative_to(ROOT)  # a notebook's paths start at the repository's root
    results = Results.of(parsed.experiment, folder)
    parameters = {"experiment": parsed.experiment, "results": str(folder), "output": str(results.folder)}
    execute(parsed.source, parsed.notebook, parsed.page, parameters)
    results = Results.of(parsed.experiment, parsed.results)
    record = parsed.notebook.with_suffix(".json")
    write_record(record, parsed.source, parsed.experiment, results, [parsed.notebook, parsed.page])
    print(f"{parsed.notebook} and {parsed.page}")


def _keys(parsed: argparse.Namespace) -> None:
    from bntt.reference import reference, schema

    print(schema() if parsed.schema else reference(), end="")
