"""Methods: what every plug-in must do, a norm of one's own as one small file, and the conversions."""

import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from tiny import EXPERIMENT, PROJECT, assert_one_line, experiment, images, python, result, same, write_experiment

from bntt import methods
from bntt.common.errors import UserError
from bntt.data import store
from bntt.data.events.streams import joined
from bntt.data.images import ImageData, Images
from bntt.experiment import declared, schema
from bntt.measurements import measure_all
from bntt.methods import Task, _balancing, ann, surrogate
from bntt.runs import contract, pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.spiking import randomness
from bntt.spiking.kernels import plain
from bntt.spiking.networks import initialise
from bntt.spiking.norms import BNTT
from bntt.spiking.randomness import key
from bntt.training import loop

torch.set_num_threads(1)
METHODS = declared.plugins("methods", "OPTIONS")
CPU = torch.device("cpu")
SEED = 3  # not 0, with which a seed that is lost on the way would not be missed


# -- the contract -----------------------------------------------------------------------------------------


def given_alike(options, known):
    """The options that decide what a network is given, of a row that starts from another, for that one."""
    default = {name: entry["default"] for name, entry in known.items()}
    return {name: options.get(name, default[name]) for name in schema.INPUT if name in options or name == "coding"}


def trained(method, tmp_path, data=None, **options):
    """A method's weights on random images, or on other data, by the calls that the pipeline makes."""
    data = data or images(train=12, classes=3)
    protocol = {k: EXPERIMENT["protocol"][k] for k in ("architecture", "width", "image_size")}
    known = declared.options(METHODS[method])
    small = {"epochs": 1, "batch_size": 6, "time_steps": 3, "calibration_images": 4, "calibration_steps": 6} | options
    rows = {"row": {"method": method, **{k: v for k, v in small.items() if k in known}}}
    start = None
    if declared.literal(METHODS[method], "NEEDS_START"):
        rows["row"]["start"] = "base"
        rows["base"] = {"method": "ann", "epochs": 1, "batch_size": 6, "gain": 3.0, "learning_rate": 0.01}
        rows["base"] |= given_alike(rows["row"], known)
    loaded = experiment(tmp_path, protocol=protocol, rows=rows, seeds=[SEED])
    if "base" in rows:
        start = ann.train(Task(loaded.run("digits", "base", SEED), data, Checkpoints(tmp_path / "base"))).weights
    run = loaded.run("digits", "row", SEED)
    module = import_module(METHODS[method])
    return run, data, module, module.train(Task(run, data, Checkpoints(tmp_path), start))


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A function that gives the results of a check by kind of data, made once; a method trains once for all checks."""

    @cache
    def trials(method):
        return [contract.Trial(method, kind, tmp_path_factory.mktemp("trial")) for kind in contract.KINDS]

    @cache
    def results(method, check):
        if check == ACCEPTS:
            return {"": contract.accepts_some_data(trials(method))}
        return {trial.kind: contract.check(check, trial) for trial in trials(method)}

    return results


ACCEPTS = "accepts some kind of data"


@pytest.mark.parametrize("check", [*contract.CHECKS, ACCEPTS])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_contract(method, check, checked):
    """On every kind of data; `tests/test_contract.py` proves that each check finds what it is for."""
    assert not [result for result in checked(method, check).values() if result.word == "failed"]


@pytest.mark.parametrize("method", ["surrogate", "ann", "conversion"])
def test_the_papers_methods_accept_every_kind_of_data_and_no_check_is_left_out(method, checked):
    for kind in contract.KINDS:
        left_out = {name for name in contract.CHECKS if checked(method, name)[kind].word != "passed"}
        assert left_out == {"rejects data without events"} | ({"resumes"} if method == "conversion" else set())
        assert checked(method, "trains")[kind].text == ""  # it is not refused


@pytest.mark.parametrize("norm", declared.options("bntt.methods.surrogate")["norm"]["choices"])
def test_every_norm_trains_and_its_decay_budget_is_recorded(norm, tmp_path):
    run, _, _, made = trained("surrogate", tmp_path, norm=norm, batch_size=5)
    assert made.outcome.diverged is None
    steps, rate = 3, run.options["learning_rate"]  # the last batch has two of twelve images
    expected = None if norm == "none" else pytest.approx(steps * rate * run.options["weight_decay"] / 0.1)
    assert made.facts.get("decay_budget") == expected


def recordings():
    """Random recordings of four frames of event counts, with the parts of `images`."""
    draws = torch.Generator().manual_seed(0)

    def part(count):
        counts = torch.randint(0, 3, (count, 4, 2, 8, 8), generator=draws, dtype=torch.uint8)
        return Images(counts, torch.arange(count) % 3)

    blank = torch.zeros(2, 1, 1)
    return ImageData("recordings", 3, part(12), part(4), part(6), blank + 0.25, blank + 2, "none", "none")


@pytest.mark.parametrize("coding", ["signed", "unsigned"])
@pytest.mark.parametrize("of", [images, recordings])
@pytest.mark.parametrize("method", ["surrogate", "ann", "conversion"])
def test_a_network_is_given_the_coded_data_in_training_and_evaluation(method, of, coding, tmp_path, monkeypatch):
    """Pixel by pixel, and with the keys of their purposes: spikes, or for a dense network their expected values."""
    module, given, weights = import_module(METHODS[method]), [], []
    holder = _balancing if method == "conversion" else module
    build = holder.build

    def watch(connection, inputs):
        given.append(inputs[0].float())
        weights.append(connection.weight.detach().clone())

    def watched(*arguments):
        network = build(*arguments)
        network.layers["conv1"].get_submodule("connection").register_forward_pre_hook(watch)
        return network

    monkeypatch.setattr(holder, "build", watched)
    options = {"coding": coding, "precision": "fp32", "batch_size": 12}  # one step, whose input is of the weights' type
    run, data, _, made = trained(method, tmp_path, of(), **options)
    assert run.options["coding"] == coding

    def expected(part, samples, steps, noise):
        frames = part.pixels[samples].float()
        if of is recordings:
            if method == "surrogate":
                return frames[:, :steps].transpose(0, 1).flatten(0, 1)
            rate = frames.mean(1).clamp(max=1)
        else:
            unit = frames / 255
            rate = ((unit - data.mean) / data.deviation / 2).clamp(-1, 1) if coding == "signed" else unit
        return rate if method == "ann" else plain.poisson(rate, steps, noise, samples).flatten(0, 1)

    if method == "conversion":
        assert torch.equal(given[0], expected(data.train, torch.arange(4), 6, key(run.seed, "calibration")))
    else:
        order = randomness.permutation(key(run.seed, "order", 0), 12)
        training = expected(data.train, order, 3, key(run.seed, "training noise", 0))
        validation = expected(data.validation, torch.arange(4), 3, key(run.seed, "validation noise"))
        torch.testing.assert_close(given, [training, validation])
        start = build(run.options, data)
        initialise(start, SEED, run.options["gain"])
        assert torch.equal(weights[0], start.state_dict()["layers.conv1.connection.weight"])
    given.clear()
    classifier, samples = module.classifier(run, data, made.weights), torch.arange(6)
    [*classifier.running_logits(classifier.scaled(data, data.test.unit(samples)), samples, 7)]
    torch.testing.assert_close(given, [expected(data.test, samples, run.options.get("time_steps"), 7)])


def test_dropout_is_keyed_by_seed_epoch_and_first_sample_of_the_batch(tmp_path, monkeypatch):
    """The state of a resumed training holds no generator's."""
    build, seeds = ann.build, []

    def watch(dropout, _):
        if dropout.training:
            seeds.append(torch.initial_seed())

    def watched(*arguments):
        network = build(*arguments)
        network.layers["conv1"].get_submodule("dropout").register_forward_pre_hook(watch)
        return network

    monkeypatch.setattr(ann, "build", watched)
    trained("ann", tmp_path, epochs=2, batch_size=5)
    expected = []
    for epoch in (0, 1):
        order, noise = randomness.permutation(key(SEED, "order", epoch), 12), key(SEED, "training noise", epoch)
        expected += [key(noise, "dropout", int(order[first])) >> 1 for first in (0, 5, 10)]
    assert seeds == expected
    assert len(set(seeds)) == 6


@pytest.mark.parametrize(("method", "given"), [("surrogate", {}), ("ann", {"dropout": 0.0}), ("lee", {"dropout": 0.0})])
def test_without_dropout_no_step_waits_to_know_its_first_sample(method, given, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "seed_torch", lambda *_: pytest.fail("a generator is seeded, and nothing draws"))
    trained(method, tmp_path, **given)


def test_the_dense_network_has_neither_biases_nor_norms(tmp_path):
    _, _, _, made = trained("ann", tmp_path)
    assert made.weights
    assert not any("bias" in name or "norm" in name for name in made.weights)


# -- every option arrives ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What another value of an option changes, in a training of two epochs and in measurements of the same weights."""

    value: object
    training: bool = True  # weights or history
    evaluation: bool = True  # measurements; or the weights no longer fit
    given: dict = field(default_factory=dict)  # options with which it matters
    refused: str = ""  # training refuses the value, in these words
    data: str = "images"  # see DATA


ONLY_TRAINING, ONLY_EVALUATION = {"evaluation": False}, {"training": False}
NOTHING = {"training": False, "evaluation": False}
# An option that methods share has one entry, or one of its own for a method on which it acts otherwise.
EFFECTS = {
    # bntt.training.loop
    "epochs": Effect(3, **ONLY_TRAINING),
    "batch_size": Effect(5, **ONLY_TRAINING),
    "drop_last": Effect(True, **ONLY_TRAINING, given={"batch_size": 5}),
    "learning_rate": Effect(0.2, **ONLY_TRAINING),
    "optimiser": Effect("adam", **ONLY_TRAINING),
    "momentum": Effect(0.5, **ONLY_TRAINING),
    "weight_decay": Effect(0.1, **ONLY_TRAINING),
    "gamma_decay": Effect(0.1, **ONLY_TRAINING),
    "ann.gamma_decay": Effect(0.1, **NOTHING),  # a dense network has no temporal norm
    "milestones": Effect([], **ONLY_TRAINING),
    "decay_factor": Effect(2.0, **ONLY_TRAINING),
    "selection": Effect("best-test", **ONLY_TRAINING, given={"epochs": 3}),  # at the second, here
    # bntt.data.images
    "image_size": Effect(4),
    "crop_padding": Effect(1, **ONLY_TRAINING),
    "conversion.crop_padding": Effect(1, **NOTHING),  # thresholds are found on images that are not augmented
    "flip": Effect(True, **ONLY_TRAINING),
    "conversion.flip": Effect(True, **NOTHING),
    "train_limit": Effect(6),  # in evaluation, mean and deviation for z-scoring
    "held_out": Effect(4, data="without validation"),
    "test_limit": Effect(5, **ONLY_EVALUATION),
    "event_counts": Effect(True, data="recordings"),
    "statistics": Effect("cifar10-released", data="colour"),
    # bntt.spiking
    "architecture": Effect("vgg9"),
    "conversion.architecture": Effect("vgg9", refused="architecture, width"),
    "width": Effect(0.2),
    "conversion.width": Effect(0.2, refused="width"),
    "coding": Effect("unsigned"),
    # bntt.methods
    "ann.batch_norm": Effect(True),
    "ann.dropout": Effect(0.5, **ONLY_TRAINING),
    "gain": Effect(1.0, **ONLY_TRAINING),
    "surrogate.time_steps": Effect(4),
    "conversion.time_steps": Effect(13, **ONLY_EVALUATION),
    "reset": Effect("hard", given={"reset": "soft"}),
    "norm": Effect("none"),
    "classifier_norm": Effect(True),
    "tracking": Effect("deviation", **ONLY_TRAINING),  # of the moments; they are used alike
    "leak": Effect(0.3),
    "threshold": Effect(0.5),
    "alpha": Effect(0.6, **ONLY_TRAINING),
    "readout": Effect("sum"),
    "precision": Effect("bf16", **ONLY_TRAINING, given={"precision": "fp32"}),
    # It changes numbers by rounding only; but norms that pool over time refuse it.
    "time_chunk": Effect(1, **ONLY_TRAINING, given={"norm": "bn-pooled"}, refused="pools over time-steps"),
    "conversion.calibration_images": Effect(2, **ONLY_TRAINING),
    "conversion.calibration_steps": Effect(9, **ONLY_TRAINING),
    "conversion.percentile": Effect(80.0, **ONLY_TRAINING),
    "conversion.threshold_scale": Effect(0.5, **ONLY_TRAINING),
    # bntt.methods.surrogate, tet, weight_standardised and mpbn
    "window": Effect(2, **ONLY_TRAINING, given={"norm": "tsbn"}),  # moments are tracked for each step
    "gradient_epochs": Effect([0], **NOTHING),  # test_gradients shows what it writes
    "even-gamma.time_steps": Effect(4),
    "even-gamma.norm": Effect("bn-pooled-step-gamma"),
    "even-gamma.window": Effect(2, **NOTHING),  # it has no norm that pools a window
    "even-gamma.gamma_init": Effect(0.5, **ONLY_TRAINING),
    "even-gamma.gamma_updates": Effect("normalised", **ONLY_TRAINING),
    "even-gamma.gamma_decay_shape": Effect("paths", **ONLY_TRAINING),
    "even-gamma.optimiser": Effect("adam", **ONLY_TRAINING, refused="SGD"),
    "even-gamma.time_chunk": Effect(
        1, **ONLY_TRAINING, given={"norm": "bn-pooled-step-gamma"}, refused="pools over time-steps"
    ),
    "tet.time_steps": Effect(4),
    "tet.tet_lambda": Effect(0.5, **ONLY_TRAINING),
    "tet.tet_mean": Effect(3.0, **ONLY_TRAINING, given={"tet_lambda": 0.5}),
    "weight-standardised.time_steps": Effect(4),
    "weight-standardised.norm": Effect("bntt"),
    "weight-standardised.classifier_norm": Effect(True, given={"norm": "bntt"}),
    "weight-standardised.tracking": Effect("deviation", **ONLY_TRAINING, given={"norm": "bntt"}),
    "mpbn.time_steps": Effect(4),
    "mpbn.threshold": Effect(0.8),
    "mpbn.reset": Effect("soft"),
    # bntt.methods.hats, hots, hfirst and gabor_snn: they see events, not frames
    **{
        f"{method}.{option}": effect
        for method in ("hats", "hots", "hfirst", "gabor-snn")
        for option, effect in {
            "image_size": Effect(8, **NOTHING, data="events"),
            "crop_padding": Effect(1, **NOTHING, data="events"),
            "flip": Effect(True, **NOTHING, data="events"),
            "train_limit": Effect(6, **ONLY_TRAINING, data="events"),
            "held_out": Effect(4, **ONLY_TRAINING, given={"held_out": 3}, data="events without validation"),
            "test_limit": Effect(5, **ONLY_EVALUATION, data="events"),
            "event_counts": Effect(True, **NOTHING, data="events"),
            "statistics": Effect("cifar10-released", **NOTHING, data="events"),
        }.items()
    },
    "hats.cell": Effect(20, data="events"),
    "hats.radius": Effect(1, data="events"),
    "hats.window": Effect(5.0, data="events"),
    "hats.tau": Effect(1.0, data="events"),
    "hats.penalties": Effect([1e-6], **ONLY_TRAINING, data="events"),
    "hots.radius": Effect(1, **ONLY_TRAINING, data="events"),
    "hots.radius_factor": Effect(1, **ONLY_TRAINING, data="events"),
    "hots.prototypes": Effect(2, **ONLY_TRAINING, data="events"),
    "hots.prototypes_factor": Effect(1, **ONLY_TRAINING, data="events"),
    "hots.tau": Effect(1.0, data="events"),
    "hots.tau_factor": Effect(1.0, data="events"),
    "hots.layers": Effect(2, **ONLY_TRAINING, data="events"),
    "hots.rate": Effect(0.5, **ONLY_TRAINING, data="events"),
    "hots.slowing": Effect(10.0, **ONLY_TRAINING, data="events"),
    "hots.clustering_events": Effect(100, **ONLY_TRAINING, data="events"),
    "hots.distance": Effect("euclidean", **ONLY_EVALUATION, data="events"),
    # bntt.methods.hfirst and gabor_snn
    "noise_filter": Effect(0.05, data="events"),
    "s1_threshold": Effect(100.0, data="events"),
    "s1_decay": Effect(1.0, data="events"),
    "refractory": Effect(1.0, data="events"),
    "hfirst.decision": Effect("forest", data="events"),
    "hfirst.s2_threshold": Effect(300.0, **ONLY_EVALUATION, given={"s2_threshold": 60.0}, data="events"),
    "hfirst.s2_decay": Effect(20.0, **ONLY_EVALUATION, given={"s2_threshold": 60.0}, data="events"),
    "hfirst.trees": Effect(3, **ONLY_TRAINING, given={"decision": "forest", "trees": 2}, data="events"),
    # bntt.methods.lee
    "lee.gamma_decay": Effect(0.1, **NOTHING),  # there is no temporal norm
    "lee.time_steps": Effect(4),
    "lee.leak": Effect(0.5),
    "lee.threshold": Effect(0.5, given={"learning_rate": 0.001}),
    "lee.pool_threshold": Effect(0.3),
    "lee.dropout": Effect(0.5, **ONLY_TRAINING),
    # bntt.methods.neunorm
    "neunorm.gamma_decay": Effect(0.1, **NOTHING),  # NeuNorm's weights are no temporal norm's
    "neunorm.time_steps": Effect(4),
    "neunorm.decay": Effect(0.7),
    "neunorm.threshold": Effect(0.3),
    "neunorm.surrogate_width": Effect(0.6, **ONLY_TRAINING),
    "neunorm.trace_decay": Effect(0.5),
    "neunorm.votes": Effect(4),
    "neunorm.dropout": Effect(0.2, **ONLY_TRAINING),
    "neunorm.gain": Effect(3.0, **ONLY_TRAINING),
    # bntt.methods.conversion, cao and hybrid
    "conversion.event_counts": Effect(True, data="recordings", given={"calibration_steps": 60}),
    "hybrid.event_counts": Effect(True, data="recordings", given={"calibration_steps": 60, "time_steps": 4}),
    "conversion.balancing": Effect("local", **ONLY_TRAINING),
    "tune": Effect("validation", **ONLY_TRAINING),
    "tune_images": Effect(1, **ONLY_TRAINING, given={"tune": "validation"}),
    "tune_steps": Effect(2, **ONLY_TRAINING, given={"tune": "validation", "time_steps": 30}),
    "cao.time_steps": Effect(4, **ONLY_EVALUATION),
    "cao.coding": Effect("signed"),  # the row it starts from is trained on the same
    "cao.architecture": Effect("vgg9", refused="architecture, width"),
    "cao.width": Effect(0.2, refused="width"),
    "cao.crop_padding": Effect(1, **NOTHING),  # weights are copied, and no training image is looked at
    "cao.flip": Effect(True, **NOTHING),
    "cao.train_limit": Effect(6, **ONLY_EVALUATION, given={"coding": "signed"}),  # mean and deviation for z-scoring
    "cao.held_out": Effect(4, **ONLY_EVALUATION, data="without validation", given={"coding": "signed"}),
    "cao.statistics": Effect("cifar10-released", data="colour", given={"coding": "signed"}),
    # A layer answers one step later, so with the three steps of these tests nothing comes out of five layers.
    "hybrid.time_steps": Effect(9, given={"time_steps": 8}),
    "hybrid.crop_padding": Effect(1, **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.flip": Effect(True, **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.milestones": Effect([0.5], **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.decay_factor": Effect(2.0, **ONLY_TRAINING, given={"time_steps": 8, "milestones": [0.5]}),
    "hybrid.surrogate": Effect("stdb", **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.alpha": Effect(0.6, **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.beta": Effect(0.5, **ONLY_TRAINING, given={"surrogate": "stdb", "time_steps": 8}),
    "hybrid.leak": Effect(0.5, given={"time_steps": 8}),
    "hybrid.dropout": Effect(0.5, **ONLY_TRAINING, given={"time_steps": 8}),
    "hybrid.calibration_images": Effect(1, **ONLY_TRAINING),
    "hybrid.calibration_steps": Effect(9, **ONLY_TRAINING),
    "hybrid.threshold_scale": Effect(0.5, **ONLY_TRAINING),
    "hybrid.optimiser": Effect("sgd", **ONLY_TRAINING),
    "hybrid.momentum": Effect(0.5, **ONLY_TRAINING, given={"optimiser": "sgd", "time_steps": 8}),
    "hybrid.gamma_decay": Effect(0.1, **NOTHING),  # there are no norms
    "hybrid.architecture": Effect("vgg9", refused="architecture, width"),
    "hybrid.width": Effect(0.2, refused="width"),
}


def moving_lines():
    """The recordings of `recordings`, with single events: a line that moves, whose place depends on the class."""
    data, draws = recordings(), np.random.default_rng(0)

    def part(images):
        found = []
        for label in images.labels.tolist():
            time = np.sort(draws.integers(0, 60_000, 1500))
            x, y = draws.integers(30, 60, 1500), 40 + 9 * label + time // 4000 + draws.integers(0, 2, 1500)
            x, y = (y, x) if draws.random() < 0.3 else (x, y)  # so that no method is always right
            found.append((time << 15 | y << 8 | x << 1 | draws.integers(0, 2, 1500)).astype(np.uint32))
        return replace(images, events=joined(found))

    parts = {name: part(getattr(data, name)) for name in ("train", "validation", "test")}
    return replace(data, **parts)


# Options with which a small network fires within three steps, for methods whose own take it more.
FIRING = {
    "lee": {"threshold": 0.1, "pool_threshold": 0.1},
    "neunorm": {"threshold": 0.1, "gain": 2.5},
}
DATA = {
    "images": images,
    "colour": lambda: images(channels=3),
    "without validation": lambda: images(validation=0),
    "recordings": recordings,
    "events": moving_lines,
    "events without validation": lambda: replace(moving_lines(), validation=recordings().validation.some(slice(0))),
}
OPTIONS = [(method, option) for method, module in METHODS.items() for option in declared.options(module)]


def effect_of(method, option):
    """The table's entry for an option of a method, if it has one."""
    return EFFECTS.get(f"{method}.{option}", EFFECTS.get(option))


def run_of(method, folder, name, options):
    """A run of this method on a few images, after its start, if it needs one; and its experiment."""
    protocol = {"architecture": "vgg5", "width": 0.1, "epochs": 2, "batch_size": 6, "learning_rate": 0.1}
    small = {"time_steps": 3, "calibration_images": 4, "calibration_steps": 6} | FIRING.get(method, {})
    known = declared.options(METHODS[method])
    rows = {"row": {"method": method} | {k: v for k, v in small.items() if k in known} | options}
    if declared.literal(METHODS[method], "NEEDS_START"):
        rows["row"]["start"] = "base"
        rows["base"] = {"method": "ann", "gain": 3.0, "learning_rate": 0.01}
        rows["base"] |= {k: v for k, v in options.items() if k == "test_limit"}  # must be the same in all rows
        rows["base"] |= given_alike(rows["row"], known)
    evaluation = {"noise_sigmas": [0.4], "draws": 1}
    if "base" not in rows:
        protocol = {k: v for k, v in protocol.items() if k in known}
    datasets = ["digits-dvs" if declared.literal(METHODS[method], "NEEDS_EVENTS") else "digits"]
    used = experiment(folder, name, datasets=datasets, protocol=protocol, rows=rows, evaluation=evaluation)
    return used, used.run(datasets[0], "row", 0)


def trained_by_pipeline(used, root):
    """Weights and history of the experiment's row, or the words with which its training is refused."""
    try:
        for run in used.runs:
            pipeline.train(used, run, root, "cpu")
    except UserError as refused:
        return str(refused)
    return result(next(run for run in used.runs if run.row == "row"), root)


def measured(run, directory):
    """All measurements of these weights as text, or the words with which they are refused."""
    try:
        return repr(measure_all(pipeline.subject(run, directory, CPU)))
    except UserError as refused:
        assert "cannot load it" in str(refused)
        return str(refused)


@pytest.fixture(scope="module")
def defaults(tmp_path_factory):
    """A function that gives a method's run before an option is changed, what training it gives and what it measures."""
    made = {}

    def default(method, effect):
        key = f"{method} {effect.data} {effect.given}"
        if key not in made:
            folder = tmp_path_factory.mktemp("defaults")
            used, run = run_of(method, folder, "default", effect.given)
            trained = trained_by_pipeline(used, folder)
            assert not isinstance(trained, str), trained
            directory = RunDirectory.of(run, folder)
            assert directory.training()["status"] == "done"
            found = measured(run, directory)
            assert found.startswith("("), found
            made[key] = run, directory, trained, found
        return made[key]

    return default


def once(method, option):
    """The marks of a test: options that a method takes over are tried quickly for the first methods only."""
    own = option in (declared.literal(METHODS[method], "OPTIONS") or {})
    return [] if own or method in ("surrogate", "ann", "conversion") else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("method", "option"), [pytest.param(*pair, id=".".join(pair), marks=once(*pair)) for pair in OPTIONS]
)
def test_every_option_reaches_training_and_evaluation(method, option, defaults, tmp_path, monkeypatch):
    """And what is said to concern only one of them changes no bit of the other."""
    effect = effect_of(method, option)
    assert effect is not None, f"say in EFFECTS what another value of {option} of method {method} changes"
    monkeypatch.setattr(store, "prepare", lambda name: None)
    monkeypatch.setattr(store, "manifest", lambda name: dict.fromkeys(store._KEYS, "made by hand"))
    monkeypatch.setattr(store, "load", lambda name, events=False: DATA[effect.data]())
    monkeypatch.setattr(loop, "SELECTION_EPOCHS", 2)
    run, directory, trained, found = defaults(method, effect)
    used, changed = run_of(method, tmp_path, "changed", effect.given | {option: effect.value})
    assert run.options[option] != effect.value

    retrained = trained_by_pipeline(used, tmp_path)
    if effect.refused:
        assert isinstance(retrained, str) and effect.refused in retrained
    else:
        assert not isinstance(retrained, str), retrained
        assert same(trained, retrained) != effect.training
    assert (measured(changed, directory) != found) == effect.evaluation


def test_no_entry_of_the_table_is_about_an_option_that_is_gone():
    known = {option for _, option in OPTIONS} | {".".join(pair) for pair in OPTIONS}
    assert EFFECTS.keys() <= known


# -- a norm of one's own ----------------------------------------------------------------------------------

OWN_NORM = '''"""BNTT whose scale is the same at all steps but the first: an example of a norm of one's own."""
from bntt.methods import surrogate
from bntt.spiking.norms import BNTT
EXTENDS = ["bntt.methods.surrogate"]
OPTIONS = {"boost": {"default": 2.0, "above": 0.0, "help": "Initial scale of the first step."}}
class Boosted(BNTT):
    boost = 2.0
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.gamma.data[0] *= self.boost
def norm_of(run): return type("Own", (Boosted,), {"boost": run.options["boost"]})
def train(task): return surrogate.train(task, norm=norm_of(task.run))
def classifier(run, data, weights): return surrogate.classifier(run, data, weights, norm=norm_of(run))
'''


def test_a_norm_of_ones_own_is_one_small_file(tmp_path):
    tree = tmp_path / "my copy"
    shutil.copytree(PROJECT / "bntt", tree / "bntt", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "bntt" / "methods" / "boosted.py").write_text(OWN_NORM)
    rows = {"mine": {"method": "boosted", "boost": 3.0, "time_steps": 3}}
    write_experiment(tree / "config", rows=rows, protocol=EXPERIMENT["protocol"] | {"test_limit": 40})
    script = (
        "from bntt.commands import main\n"
        "assert main(['train', '--experiment', 'tiny', '--row', 'mine']) == 0\n"
        "assert main(['evaluate', '--experiment', 'tiny', '--row', 'mine']) == 0\n"
        "from bntt.results.collect import Results\n"
        "gamma = Results.of('tiny').frame('gamma.csv')\n"
        "print(gamma.groupby('time_step')['gamma'].mean().round().tolist())\n"
    )
    ran = python("-c", script, cwd=tree)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[3.0, 1.0, 1.0]"


@pytest.mark.parametrize("given", ["tdbn", "none"])
def test_a_norm_that_ones_own_would_replace_is_refused(given, tmp_path):
    run, data, _, _ = trained("surrogate", tmp_path, norm=given)
    task = Task(run, data, Checkpoints(tmp_path / "own"))
    with pytest.raises(UserError) as refused:
        surrogate.train(task, norm=BNTT)
    assert_one_line(refused.value, f"row {run.row}", f"norm {given} would have no effect", "its default, bntt")


def test_a_methods_own_option_norm_may_choose_a_norm_of_its_own(tmp_path):
    run, data, _, made = trained("surrogate", tmp_path)
    own = replace(run, options={**run.options, "norm": "mine"})
    again = surrogate.train(Task(own, data, Checkpoints(tmp_path / "own")), norm=BNTT)
    assert all(torch.equal(value, again.weights[name]) for name, value in made.weights.items())
