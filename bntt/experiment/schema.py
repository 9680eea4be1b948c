"""From an experiment file (YAML in ``config/``) to a list of runs, validated in one place, without torch.

An experiment is datasets x rows x seeds. A row is a method with options. Each of these overrides the ones before: the
method's defaults, the protocol, what the file says of the dataset, the row, what the row says of the dataset. Every key
is declared by the module that reads it (see `bntt.experiment.declared`), so a typo is an error that names the key.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, create_model

from bntt.common.errors import UserError, check_name, unknown
from bntt.common.files import read_yaml
from bntt.experiment import declared
from bntt.experiment.options import (
    NAMED,
    Distinct,
    Strict,
    each_once,
    either,
    mapping,
    one_of,
    options_model,
    shared_model,
    validated,
)

CONFIG = Path(__file__).parents[2] / "config"

EVALUATION: dict[str, dict[str, Any]] = {
    "batch_size": {"default": 90, "min": 1, "help": "Test images evaluated at once, at most; changes no number."},
    "report_steps": {
        "default": [],
        "type": "int",
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
    "noise_draws": {
        "default": 0,
        "min": 0,
        "help": "Realisations of the noise under which the accuracy is measured in both spaces; 0: only that of "
        "Fig. 4(b), in `noise_space`.",
    },
    "exit_thresholds": {
        "default": [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5],
        "min": 0.0,
        "help": "Thresholds on the mean gamma that early exit is measured at, Fig. 6.",
    },
    "measurements": {
        "default": [],
        "type": "str",
        "choices": list(declared.plugins("measurements", "COLUMNS")),
        "help": "Those that are taken, besides `anytime`; empty: all that apply.",
    },
    "exit_threshold": {"default": 0.1, "min": 0.0, "help": "The threshold of the early-exit rows; the paper's is 0.1."},
}


INPUT = ("image_size", "event_counts", "statistics", "coding")  # options that decide what a network is given
NAME = "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"  # the name of a folder, also with what is added to it
Name = Annotated[str, Field(pattern=NAME)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Row(Strict):
    """A method with overrides of the protocol; a derived model of each method has its options too."""

    method: str
    seeds: Distinct[Seed] = Field(
        default_factory=list,
        description="Some of the experiment's seeds, if not all.",
        json_schema_extra={"minItems": 1},
    )
    datasets: dict[str, Strict | None] = Field(
        default_factory=dict, description="Some of the experiment's datasets, if not all; or name -> overrides for it."
    )


class StartedRow(Row):
    """A row of a method that begins from another row's weights."""

    start: str = Field(description="The row whose weights this one begins from.")


class File(Strict):
    """An experiment file; a derived model says which datasets, methods and options the plug-ins declare."""

    title: str = Field(description="One line that says what this experiment is.")
    notes: str = Field("", description="Paragraphs for the reader of the overview.")
    datasets: dict[str, Strict | None] = Field(
        description="Names of datasets; every row runs on each of them. Or name -> overrides of the protocol for it."
    )
    seeds: Distinct[Seed] = Field(
        min_length=1, description="Whole numbers; they change initial weights, order and noise, never the split."
    )
    threads: int = Field(
        1,
        ge=1,
        le=1024,
        description="CPU threads of one run. Results may depend on them, so they are fixed here, whatever --cores is.",
    )
    protocol: Strict | None = Field(None, description="Options of every row whose method has them.")
    rows: dict[Name, Row] = Field(
        min_length=1,
        json_schema_extra={"additionalProperties": False},
        description="Name -> `method`, overrides of the protocol, `start` (the row from whose weights it begins), and, "
        "if it runs with only some of them, `seeds` and `datasets` (names, or name -> overrides for it).",
    )
    evaluation: Strict | None = Field(None, description="Options of the measurements.")


class Models(NamedTuple):
    """The models that the plug-ins' declarations make: of a file, and of complete options; and the broken methods."""

    file: type[File]
    evaluation: type[Strict]
    options: Mapping[str, type[Strict]]
    broken: Mapping[str, UserError]  # why a method cannot be used


def models() -> Models:
    """The models of all plug-ins that exist. A broken one raises its error only where it is used."""
    return _models(declared.PACKAGE)


@cache  # per package, because tests read copies of it
def _models(package: Path) -> Models:
    modules = declared.plugins("methods", "OPTIONS")
    dataset = one_of("dataset", declared.plugins("data", "DATASET"))
    started, broken = set(), {}
    options: dict[str, type[Strict]] = {}
    rows: list[type[Row]] = []
    for name, module in modules.items():
        try:
            own, needs_start = declared.options(module), bool(declared.literal(module, "NEEDS_START"))
            of_method = options_model(f"options of {name}", own, Strict)
            method = Literal[name], Field(description=declared.summary(module))
            datasets = _by_name(dataset, of_method), Row.model_fields["datasets"]
            base = StartedRow if needs_start else Row
            rows.append(options_model(f"row of {name}", own, base, method=method, datasets=datasets))
        except UserError as error:
            broken[name] = error
        except Exception as error:  # whatever a declaration makes pydantic say
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            broken[name] = UserError(f"{declared.place(module, 'OPTIONS')}: OPTIONS: {reason}")
        else:
            options[name] = of_method
            started |= {name} if needs_start else set()
    if not rows:
        raise next(iter(broken.values()))
    evaluation = options_model("evaluation", EVALUATION, Strict)
    protocol = shared_model("protocol", (declared.options(modules[name]) for name in options))

    def with_method(row: Any) -> Any:
        row = mapping({} if row is None else row)
        if (method := row.get("method")) not in list(modules):
            raise ValueError(unknown("method", method, modules))
        if method in broken:
            raise broken[method]
        if "start" in row and method not in started:
            raise ValueError(f"method {method} takes no `start`")
        return row

    row: Any = Annotated[either(rows), Field(discriminator="method"), BeforeValidator(with_method)]
    narrowed = {
        "datasets": _by_name(dataset, protocol),
        "protocol": protocol | None,
        "rows": dict[Name, row],
        "evaluation": evaluation | None,
    }
    fields: dict[str, Any] = {key: (kind, File.model_fields[key]) for key, kind in narrowed.items()}
    return Models(create_model("experiment", __base__=File, **fields), evaluation, options, broken)


def _by_name(names: Any, options: Any) -> Any:
    """The type of a mapping from names to overrides; a plain list of names means no overrides."""

    def named(given: Any) -> Any:
        if isinstance(given, Mapping):
            return given
        if not isinstance(given, list):
            raise ValueError(f"must be a list of names, or a mapping of names to overrides, not {given!r}")
        for name in given:
            if not isinstance(name, str):
                raise ValueError(f"must be names, not {name!r}")
        return dict.fromkeys(each_once(given))

    kinds = (Distinct[names], dict[names, options | None])
    written = either(Annotated[kind, Field(min_length=1)] for kind in kinds)
    return Annotated[kinds[1], BeforeValidator(named, json_schema_input_type=written)]


@dataclass(frozen=True)
class Run:
    """One row on one dataset with one seed. ``options`` holds every option of the method."""

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
        """The complete configuration of the training, as ``train.json`` records it."""
        keys = ("experiment", "dataset", "row", "seed", "method", "start", "threads")
        return {key: getattr(self, key) for key in keys} | {"options": dict(self.options)}

    def has_config(self, recorded: Mapping[str, Any] | None) -> bool:
        """Whether a recorded configuration is that of this training.

        An option that is not recorded is newer than the training, and counts as its default: a new option's default is
        what was done before.
        """
        declarations = declared.options(declared.plugins("methods", "OPTIONS")[self.method])
        options = _defaults(declarations, self.options) | ((recorded or {}).get("options") or {})
        return {**(recorded or {}), "options": options} == self.training_config()

    def has_evaluation(self, recorded: Mapping[str, Any] | None) -> bool:
        """Whether recorded options of an evaluation are those of this one; see `has_config` for new options."""
        return _defaults(EVALUATION, self.evaluation) | dict(recorded or {}) == self.evaluation


def _defaults(declarations: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    return {name: declarations[name]["default"] for name in names if name in declarations}


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

    def first_seeds(self) -> "Experiment":
        """The part with the first seed of every row on every dataset, and with the runs that these start from."""
        wanted = set({(run.dataset, run.row): run.name for run in reversed(self.runs)}.values())
        for run in reversed(self.runs):  # a run comes after the one that it starts from
            if run.name in wanted and run.start is not None:
                wanted.add(replace(run, row=run.start).name)
        return replace(self, runs=tuple(run for run in self.runs if run.name in wanted))

    def run(self, dataset: str, row: str, seed: int) -> Run:
        """The run with this dataset, row and seed; if there is none, raises a UserError that lists those there are."""
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
    """Names of the experiment files in ``config/`` here and beside the package."""
    found = (path for folder in (Path("config"), CONFIG) for path in folder.glob("*.yaml"))
    return sorted({path.stem for path in found if path.is_file() and re.fullmatch(NAME, path.stem)})


def load(name: str) -> Experiment:
    """Read and validate ``config/<name>.yaml``, or a path that ends in ``.yaml``; raises UserError if it is wrong.

    A file in ``config/`` of the working folder comes before one beside the package.
    """
    path = file_of(name)
    return _experiment(path.stem, str(path), read_yaml(path.read_bytes(), str(path)))


def file_of(name: str) -> Path:
    """The experiment file that `load` reads; raises UserError if there is none."""
    places = (
        [Path(name)] if name.endswith(".yaml") else [folder / f"{name}.yaml" for folder in (Path("config"), CONFIG)]
    )
    path = next(filter(Path.is_file, places), None)
    if path is None:
        raise UserError(
            f"no experiment {name!r}; there are {', '.join(experiment_names())}, or give a path to a .yaml file"
        )
    return path


def _experiment(name: str, where: str, document: Any) -> Experiment:
    if not re.fullmatch(NAME, name):
        raise UserError(f"{where}: an experiment's name must be {NAMED}, not {name!r}")
    known = models()
    file = validated(known.file, {} if document is None else document, where)
    for dataset in file.datasets:
        if not re.fullmatch(NAME, dataset):
            raise UserError(f"{where}: datasets: {dataset}: a dataset's name must be {NAMED}; rename its file")
        declared.facts(declared.plugins("data", "DATASET")[dataset])  # raises its error, if it is broken
    evaluation = (file.evaluation or known.evaluation()).model_dump()
    protocol = _given(file.protocol)
    used = {key for row in file.rows.values() for key in known.options[row.method].model_fields}
    protocols = {dataset: protocol | _given(own) for dataset, own in file.datasets.items()}
    for place, keys in {"protocol": protocol, **{f"datasets: {name}": own for name, own in protocols.items()}}.items():
        for key in keys:
            check_name("key", key, used, f"{where}: {place}")
    options = {row: _options(body, protocols, f"{where}: rows: {row}") for row, body in file.rows.items()}
    for row, body in file.rows.items():
        _check_events(body.method, options[row], f"{where}: rows: {row}")
    seeds = {row: _chosen(body, "seeds", file.seeds, f"{where}: rows: {row}") for row, body in file.rows.items()}
    starts = {row: body.start if isinstance(body, StartedRow) else None for row, body in file.rows.items()}
    for row, start in starts.items():
        if start is not None:
            check_name("row", start, [other for other in starts if other != row], f"{where}: rows: {row}: start")
            for kind, of_rows in (("seed", seeds), ("dataset", options)):
                for one in of_rows[row]:
                    if one not in of_rows[start]:
                        raise UserError(f"{where}: rows: {row}: row {start}, which it starts from, has no {kind} {one}")
            _check_input(row, start, options, f"{where}: rows: {row}")
    for dataset in protocols:  # otherwise nothing could be compared
        limits = {row: of_row[dataset].get("test_limit") for row, of_row in options.items() if dataset in of_row}
        if len(set(limits.values())) > 1:
            given = ", ".join(f"{limit} in row {row}" for row, limit in limits.items())
            raise UserError(f"{where}: datasets: {dataset}: test_limit must be the same in all rows, not {given}")
    ordered = [(row, file.rows[row]) for row in _starts_first(starts, where)]
    runs = tuple(
        Run(name, dataset, row, seed, body.method, starts[row], file.threads, options[row][dataset], evaluation)
        for dataset in protocols
        for row, body in ordered
        if dataset in options[row]
        for seed in seeds[row]
    )
    return Experiment(name, file.title, file.notes, runs)


def _given(model: Strict | None) -> dict[str, Any]:
    """The keys that the file gives, without defaults."""
    return model.model_dump(exclude_unset=True) if model else {}


def _options(row: Row, protocols: Mapping[str, dict[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    """The complete options of a row on each of its datasets, in the order of their declaration."""
    model = models().options[row.method]
    defaults = model().model_dump()
    options = {}
    for dataset, there in _chosen(row, "datasets", dict.fromkeys(protocols), where).items():
        shared = protocols[dataset] | _given(row)
        known = {key: shared.get(key, default) for key, default in defaults.items()}
        options[dataset] = validated(model, known | _given(there), where).model_dump()
    return options


def _check_input(row: str, start: str, options: Mapping[str, Mapping[str, Mapping[str, Any]]], where: str) -> None:
    """Raise UserError if the weights of ``start`` were trained on data that a row codes otherwise, on a dataset."""
    for dataset, own in options[row].items():
        other = options[start][dataset]
        for name in INPUT:
            if name in own and name in other and own[name] != other[name]:
                raise UserError(
                    f"{where}: {name} is {json.dumps(own[name])} on {dataset}, and {json.dumps(other[name])} in row "
                    f"{start}, whose weights it starts from: give both rows the same"
                )


def _check_events(method: str, datasets: Iterable[str], where: str) -> None:
    """Raise UserError if a method works on single events and one of its datasets keeps none."""
    if declared.needs_events(method):
        having = declared.with_events()
        for dataset in datasets:
            if dataset not in having:
                raise UserError(
                    f"{where}: method {method} works on single events, and {dataset} keeps none; limit the row by "
                    f"`datasets` to those that do: {', '.join(having)}"
                )


def _chosen(row: Row, key: str, known: Any, where: str) -> Any:
    """The experiment's seeds or datasets that a row names, or all if it names none; UserError for unknown ones."""
    if key not in row.model_fields_set:
        return known
    chosen, names = getattr(row, key), ", ".join(map(str, known))
    if not chosen:
        raise UserError(f"{where}: {key} is empty: name some of {names}, or leave it out")
    for one in chosen:
        if one not in known:
            raise UserError(f"{where}: {key}: {one!r} is not among the experiment's {key}, {names}")
    return chosen


def _starts_first(starts: Mapping[str, str | None], where: str) -> list[str]:
    """Rows in file order, but each after the row it starts from. Raises UserError for a circle of starts."""
    ordered: dict[str, None] = {}
    for row in starts:
        chain = [row]
        while (start := starts[chain[-1]]) is not None:
            chain.append(start)
            if start in chain[:-1]:
                raise UserError(f"{where}: rows start from one another in a circle: {' -> '.join(chain)}")
        ordered |= dict.fromkeys(reversed(chain))
    return list(ordered)
