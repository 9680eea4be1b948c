"""Experiment files: YAML in ``config/`` to a list of runs, validated in one place, without torch.

An experiment is datasets x rows x seeds. A row is a method with overrides of the experiment's protocol, which a dataset
may override too; the row has the last word, or what the row says of a dataset. Every key is declared by the module that
reads it (see `bntt.experiment.declared`), so a typo is an error that names the key.
"""

import contextlib
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bntt.common.errors import UserError
from bntt.experiment import declared

CONFIG = Path(__file__).parents[2] / "config"

TOP_LEVEL = {
    "title": "One line that says what this experiment is.",
    "notes": "Paragraphs for the reader of the overview.",
    "datasets": "Names of datasets, on each of which every row runs; or name -> overrides of the protocol there.",
    "seeds": "Whole numbers; they change initial weights, order and noise, never the split.",
    "threads": "CPU threads of one run. Numbers may depend on it, so it is fixed here and never follows --cores.",
    "protocol": "Options shared by every row whose method knows them.",
    "rows": "Name -> method, overrides of the protocol, `start`, the row whose weights it begins from, and `seeds` and "
    "`datasets` (names, or name -> overrides there), if it is not to run with all of them.",
    "evaluation": "Options of the measurements.",
}

EVALUATION: dict[str, dict[str, Any]] = {
    "batch_size": {"default": 90, "min": 1, "help": "Test images evaluated at once; changes no number."},
    "report_steps": {
        "default": [],
        "min": 1,
        "help": "Time-steps at which spikes, energy and accuracy under noise are reported, besides the last.",
    },
    "draws": {
        "default": 3,
        "min": 1,
        "help": "Draws of the input's Poisson noise over which the spread of the accuracy is measured.",
    },
    "noise_sigmas": {
        "default": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        "min": 0.0,
        "help": "Standard deviations of the Gaussian noise of Fig. 4(b).",
    },
    "noise_space": {
        "default": "pixel",
        "choices": ["pixel", "normalised"],
        "help": "Where noise is added: `pixel`, to images in [0, 1], clipped; `normalised`, after scaling, unclipped.",
    },
    "exit_thresholds": {
        "default": [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5],
        "min": 0.0,
        "help": "Thresholds on gamma swept for early exit, Fig. 6.",
    },
    "exit_threshold": {
        "default": 0.1,
        "min": 0.0,
        "help": "The threshold of the early-exit rows; the paper's is 0.1.",
    },
}


@dataclass(frozen=True)
class Run:
    """One row on one dataset with one seed. ``options`` are the method's, complete."""

    experiment: str
    dataset: str
    row: str
    seed: int
    method: str
    start: str | None
    threads: int
    options: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.row}/seed-{self.seed}"

    def training_config(self) -> dict[str, Any]:
        """Everything that decides what training does, as it is recorded."""
        keys = ("experiment", "dataset", "row", "seed", "method", "start", "threads")
        return {key: getattr(self, key) for key in keys} | {"options": dict(self.options)}


@dataclass(frozen=True)
class Experiment:
    """A validated experiment file and its runs, in the order of the file."""

    name: str
    title: str
    notes: str
    runs: tuple[Run, ...]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(run.dataset for run in self.runs))

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(run.row for run in self.runs))

    def rows_on(self, dataset: str) -> list[str]:
        """The rows that run on a dataset."""
        return list(dict.fromkeys(run.row for run in self.runs if run.dataset == dataset))

    @property
    def evaluation(self) -> Mapping[str, Any]:
        return self.runs[0].evaluation

    def run(self, dataset: str, row: str, seed: int) -> Run:
        """The run of that name; an unknown one is an error that lists what there is."""
        for run in self.runs:
            if (run.dataset, run.row, run.seed) == (dataset, row, seed):
                return run
        check_name("dataset", dataset, self.datasets, f"experiment {self.name}")
        check_name("row", row, self.rows, f"experiment {self.name}")
        of_row = [run for run in self.runs if run.row == row]
        check_name("dataset", dataset, {run.dataset for run in of_row}, f"experiment {self.name}, row {row}")
        seeds = ", ".join(map(str, sorted({run.seed for run in of_row})))
        raise UserError(f"experiment {self.name}, row {row}: no seed {seed}; its seeds are {seeds}")


def experiment_names() -> list[str]:
    """Names of the experiment files in ``config/``."""
    return sorted(path.stem for path in CONFIG.glob("*.yaml"))


def load(name: str) -> Experiment:
    """Read and validate ``config/<name>.yaml``, or the file at a path that ends in ``.yaml``."""
    path = Path(name) if name.endswith(".yaml") else CONFIG / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"no experiment {name!r}; there are {', '.join(experiment_names())}, or give a path to a .yaml file"
        )
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text, an impossible date
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return _experiment(path.stem, str(path), document)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {twice!r} is given twice")
        return super().construct_mapping(node, deep)


def _experiment(name: str, where: str, document: Any) -> Experiment:
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise UserError(f"{where}: an experiment's name is lower-case letters, digits and hyphens, not {name!r}")
    top = _mapping(document, where)
    _known_keys(top, TOP_LEVEL, where)
    for key in ("title", "datasets", "seeds", "rows"):
        if key not in top:
            raise UserError(f"{where}: {key} is missing: {TOP_LEVEL[key]}")
    for key in ("title", "notes"):
        if not isinstance(top.get(key, ""), str):
            raise UserError(f"{where}: {key} must be text, not {top[key]!r}")
    for key in ("datasets", "seeds"):
        if top[key] in ([], {}):
            raise UserError(f"{where}: {key} is empty: {TOP_LEVEL[key]}")
    datasets = _by_name(top["datasets"], f"{where}: datasets")
    for dataset in datasets:
        check_name("dataset", dataset, declared.plugins("data", "DATASET"), where)
    seeds = _list(top["seeds"], f"{where}: seeds")
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise UserError(f"{where}: seeds are whole numbers from 0 on, not {seed!r}")
    threads = top.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise UserError(f"{where}: threads is a whole number from 1 on, not {threads!r}")
    evaluation = complete(top.get("evaluation"), EVALUATION, f"{where}: evaluation")

    protocol = _mapping(top.get("protocol"), f"{where}: protocol")
    bodies = _mapping(top["rows"], f"{where}: rows")
    protocols = {dataset: {**protocol, **own} for dataset, own in datasets.items()}
    rows = {row: _row(row, body, protocols, where) for row, body in bodies.items()}
    seeds_of = {row: _seeds_of(bodies[row], seeds, f"{where}: rows: {row}: seeds") for row in rows}
    datasets_of = {row: list(options) for row, (_, _, options) in rows.items()}
    if not rows:
        raise UserError(f"{where}: rows is empty: {TOP_LEVEL['rows']}")
    used = {key for method, _, _ in rows.values() for key in declared.options(_methods()[method])}
    _known_keys(protocol, used, f"{where}: protocol")
    for dataset, own in datasets.items():
        _known_keys(own, used, f"{where}: datasets: {dataset}")
    for row, (_, start, _) in rows.items():
        if start is not None:
            check_name("row", start, [other for other in rows if other != row], f"{where}: rows: {row}: start")
            for kind, of_rows in (("seed", seeds_of), ("dataset", datasets_of)):
                for one in of_rows[row]:
                    if one not in of_rows[start]:
                        raise UserError(f"{where}: rows: {row}: row {start}, which it starts from, has no {kind} {one}")
    for dataset in datasets:  # or nothing could be compared
        limits = {row: rows[row][2][dataset].get("test_limit") for row in rows if dataset in datasets_of[row]}
        if len(set(limits.values())) > 1:
            given = ", ".join(f"{limit} in row {row}" for row, limit in limits.items())
            raise UserError(f"{where}: datasets: {dataset}: test_limit must be the same in all rows, not {given}")
    ordered = _starts_first(rows, where)
    runs = tuple(
        Run(name, dataset, row, seed, *rows[row][:2], threads, rows[row][2][dataset], evaluation)
        for dataset in datasets
        for row in ordered
        if dataset in datasets_of[row]
        for seed in seeds_of[row]
    )
    return Experiment(name, top["title"], top.get("notes", ""), runs)


def _row(row: Any, body: Any, protocols: Mapping[str, Mapping], where: str) -> tuple[str, str | None, dict[str, dict]]:
    """One row's method, start and, by dataset, complete options."""
    if not (isinstance(row, str) and re.fullmatch(r"[a-z0-9-]+", row)):
        name = " ".join(str(row).split())
        raise UserError(f"{where}: rows: {name}: a row's name is text of lower-case letters, digits and hyphens")
    here = f"{where}: rows: {row}"
    overrides = dict(_mapping(body, here))
    overrides.pop("seeds", None)
    chosen = _by_name(overrides.pop("datasets", dict.fromkeys(protocols)), f"{here}: datasets")
    for dataset in chosen:
        check_name("dataset", dataset, protocols, f"{here}: datasets")
    if not chosen:
        raise UserError(f"{here}: datasets is empty: name some of {', '.join(protocols)}, or leave it out")
    method = overrides.pop("method", None)
    start = overrides.pop("start", None)
    check_name("method", method, _methods(), here)
    known = declared.options(_methods()[method])
    options = {
        dataset: complete({k: v for k, v in protocols[dataset].items() if k in known} | overrides | own, known, here)
        for dataset, own in chosen.items()
    }
    if (start is None) == bool(declared.literal(_methods()[method], "NEEDS_START")):
        need = "needs `start`, the row whose weights it begins from" if start is None else "takes no `start`"
        raise UserError(f"{here}: method {method} {need}")
    return method, start, options


def _seeds_of(body: Mapping, seeds: list, where: str) -> list[int]:
    """The seeds of one row: all, or those of them that it names."""
    own = _list(body.get("seeds", seeds), where)
    for seed in own:
        if seed not in seeds:
            raise UserError(f"{where}: {seed!r} is not among the experiment's seeds, {', '.join(map(str, seeds))}")
    if not own:
        raise UserError(f"{where} is empty: name some of {', '.join(map(str, seeds))}, or leave it out")
    return own


def _by_name(value: Any, where: str) -> dict[Any, dict]:
    """Names with overrides; a plain list of names has none."""
    if isinstance(value, Mapping):
        named: Mapping = value
    else:
        for name in _list(value, where):
            if not isinstance(name, str):
                raise UserError(f"{where} are names, not {name!r}")
        named = dict.fromkeys(value)
    return {name: dict(_mapping(own, f"{where}: {name}")) for name, own in named.items()}


def _starts_first(rows: Mapping[str, tuple], where: str) -> list[str]:
    """Rows in file order, but each after the row it starts from. A circle of starts is an error."""
    ordered: list[str] = []

    def place(row: str, waiting: tuple[str, ...]) -> None:
        if row in waiting:
            raise UserError(f"{where}: rows start from one another in a circle: {' -> '.join([*waiting, row])}")
        if row not in ordered:
            if rows[row][1] is not None:
                place(rows[row][1], (*waiting, row))
            ordered.append(row)

    for row in rows:
        place(row, ())
    return ordered


def _methods() -> dict[str, str]:
    return declared.plugins("methods", "OPTIONS")


def complete(given: Any, known: Mapping[str, Mapping], where: str) -> dict[str, Any]:
    """``given`` checked against its declaration and completed with defaults, in the declaration's order."""
    given = _mapping(given, where)
    _known_keys(given, known, where)
    return {key: _checked(given.get(key, entry["default"]), entry, f"{where}: {key}") for key, entry in known.items()}


def _checked(value: Any, entry: Mapping, where: str) -> Any:
    """A value of its option's type: that of the default, or null where the default is null."""
    default = entry["default"]
    if isinstance(default, list):
        items = _list(value, where)
        kind = "float" if any(isinstance(item, float) for item in default) else entry.get("type", "int")
        return [_scalar(item, kind, entry, where) for item in items]
    if value is None and default is None:
        return None
    return _scalar(value, entry.get("type") or type(default).__name__, entry, where)


def _scalar(value: Any, kind: str, entry: Mapping, where: str) -> Any:
    if kind == "float" and type(value) in (int, str):  # YAML reads 5e-4 as text
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    if type(value).__name__ != kind or (kind == "float" and not math.isfinite(value)):
        raise UserError(f"{where} must be {names[kind]}, not {value!r}")
    if "choices" in entry:
        check_name("value", value, entry["choices"], where)
    if "min" in entry and value < entry["min"]:
        raise UserError(f"{where} must be at least {entry['min']}, not {value!r}")
    if "above" in entry and value <= entry["above"]:
        raise UserError(f"{where} must be above {entry['above']}, not {value!r}")
    if "below" in entry and value >= entry["below"]:
        raise UserError(f"{where} must be below {entry['below']}, not {value!r}")
    if "max" in entry and value > entry["max"]:
        raise UserError(f"{where} must be at most {entry['max']}, not {value!r}")
    return value


def check_name(kind: str, name: Any, known: Iterable[str], where: str) -> None:
    """Raise where ``name`` is not among ``known``, with the nearest match."""
    known = list(known)
    if name not in known:
        raise UserError(f"{where}: unknown {kind} {name!r}{_hint(name, known)}")


def _known_keys(given: Mapping, known: Iterable[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{_hint(key, list(known))}")


def _hint(name: Any, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def _mapping(value: Any, where: str) -> Mapping:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping of keys to values, not {value!r}")
    return value


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{where} must be a list, not {value!r}")
    if len(set(map(repr, value))) != len(value):
        raise UserError(f"{where} names something twice: {value!r}")
    return value
