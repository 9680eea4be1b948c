"""An evaluation that was stopped, killed or asked to end continues with the next batch, and gives the same numbers."""

import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny import EXPERIMENT, FORKED, assert_one_line, experiment, images, one_row, write_experiment

from bntt.classifiers import DenseClassifier, SpikingClassifier
from bntt.commands import NOT_FINISHED, main
from bntt.common.errors import Stopped, UserError
from bntt.experiment.schema import load
from bntt.measurements import Subject
from bntt.measurements.observation import right_at_reported_steps
from bntt.measurements.passes import Passes
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory

torch.set_num_threads(1)

EVALUATION = EXPERIMENT["evaluation"] | {"noise_draws": 1, "draws": 2, "batch_size": 250}  # three batches of 540 images
ROWS = {
    "bntt": EXPERIMENT["rows"]["bntt"],
    "ann": {"method": "ann", "dropout": 0.0},
    "rmp": EXPERIMENT["rows"]["rmp"],
}
# The images as they are; another draw of the spikes; noise of 0.4 on pixels; the same after scaling.
BATCHES = {"bntt": 3 * 4, "ann": 3 * 3, "rmp": 3 * 4}
AT_ONCE = partial(Checkpoints, minutes=1e-9)  # stops as soon as it can


@pytest.fixture
def of(tmp_path, monkeypatch):
    """An experiment whose rows are trained, and the classifications of batches that evaluations make, one by one."""
    used, made = experiment(tmp_path, rows=ROWS, evaluation=EVALUATION), []
    for run in used.runs:
        pipeline.train(used, run, tmp_path, "cpu")
    for kind in (SpikingClassifier, DenseClassifier):
        whole = kind.running_logits

        def counted(self, scaled, samples, *rest, whole=whole):
            made.append(len(samples))
            yield from whole(self, scaled, samples, *rest)

        monkeypatch.setattr(kind, "running_logits", counted)
    return used, tmp_path, made


def files(used, row, root):
    """The hashes of all measurements of a row."""
    return RunDirectory.of(used.run("digits", row, 0), root).evaluation()["files"]


def again(used, row, root):
    """Measure a row that is measured: its manifest goes, as if it had never been written."""
    run = used.run("digits", row, 0)
    RunDirectory.of(run, root).evaluate_json.unlink()
    return run


def states(root):
    return list(root.rglob("state-*.pt"))


@pytest.mark.parametrize("row", ROWS)
def test_an_evaluation_of_one_batch_at_a_time_is_the_whole_one(of, row):
    used, root, made = of
    pipeline.evaluate(used, used.run("digits", row, 0), root, "cpu")
    whole, run = files(used, row, root), again(used, row, root)
    assert made == [250, 250, 40] * (BATCHES[row] // 3)
    assert not states(root)
    record = RunDirectory.of(run, root)
    for piece in range(BATCHES[row]):
        made.clear()
        with pytest.raises(Stopped, match=f"{run.name}: stopped because its minutes are over; run it again"):
            pipeline.evaluate(used, run, root, "cpu", AT_ONCE)
        assert len(made) == 1, piece
        assert not record.evaluate_json.exists()
    pipeline.evaluate(used, run, root, "cpu", AT_ONCE)  # no batch is left
    assert len(made) == 1
    assert files(used, row, root) == whole
    evaluation = record.evaluation()
    assert (evaluation["pieces"], len(evaluation["machines"])) == (BATCHES[row] + 1, 1)
    assert not states(root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_an_evaluation_after_its_batch(of, number, monkeypatch, capsys):
    used, root, made = of
    path = write_experiment(root, rows=ROWS, evaluation=EVALUATION)
    command = ["evaluate", "--experiment", str(path), "--row", "bntt", "--results", str(root), "--device", "cpu"]
    assert main(command) == 0
    whole = files(used, "bntt", root)
    again(used, "bntt", root)
    made.clear()
    scaled = SpikingClassifier.scaled
    with monkeypatch.context() as patched:  # the signal arrives within the fifth batch

        def signalled(self, *arguments):
            if len(made) == 4:
                signal.raise_signal(number)
            return scaled(self, *arguments)

        patched.setattr(SpikingClassifier, "scaled", signalled)
        assert main(command) == (130 if number == signal.SIGINT else NOT_FINISHED)
    assert f"stopped by {number.name}; run it again to continue" in capsys.readouterr().err
    assert len(made) == 5
    assert main(command) == 0
    assert len(made) == BATCHES["bntt"]
    assert files(used, "bntt", root) == whole


@pytest.mark.parametrize("option", [("--minutes", "1e-9"), ("--save-steps", "1"), ("--save-minutes", "1e-9")])
def test_its_options_say_when_a_state_is_saved(of, option, capsys, monkeypatch):
    _, root, made = of
    path, saved, save = root / "tiny.yaml", [], Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", lambda self, state: saved.append(len(made)) or save(self, state))
    command = ["evaluate", "--experiment", str(path), "--row", "ann", "--results", str(root), "--device", "cpu"]
    stops = option[0] == "--minutes"
    assert main([*command, *option]) == (NOT_FINISHED if stops else 0)
    assert ("its minutes are over; run it again" in capsys.readouterr().err) == stops
    assert saved == ([1] if stops else [*range(1, BATCHES["ann"] + 1)])


def _killed(path, root):
    """Evaluate, saving after each batch, and die within the eighth."""
    used = load(str(path))
    begun, whole = [], SpikingClassifier.running_logits

    def deadly(self, *arguments):
        begun.append(1)
        if len(begun) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, *arguments)

    SpikingClassifier.running_logits = deadly
    pipeline.evaluate(used, used.run("digits", "bntt", 0), root, "cpu", partial(Checkpoints, every_steps=1))


def test_a_killed_evaluation_continues_from_the_newest_state(of):
    used, root, made = of
    pipeline.evaluate(used, used.run("digits", "bntt", 0), root, "cpu")
    whole, run = files(used, "bntt", root), again(used, "bntt", root)
    process = FORKED.Process(target=_killed, args=(root / "tiny.yaml", root))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    made.clear()
    pipeline.evaluate(used, run, root, "cpu")
    assert len(made) == BATCHES["bntt"] - 7
    assert files(used, "bntt", root) == whole


def test_a_state_of_other_options_or_weights_is_not_used(of, capsys):
    used, root, made = of
    run = used.run("digits", "bntt", 0)

    def stopped(row):
        with pytest.raises(Stopped):
            pipeline.evaluate(used, row, root, "cpu", AT_ONCE)

    stopped(run)
    other = experiment(root, rows=ROWS, evaluation=EVALUATION | {"batch_size": 270})
    made.clear()
    pipeline.evaluate(other, other.run("digits", "bntt", 0), root, "cpu")
    assert "of another configuration, code or data and not used" in capsys.readouterr().err
    assert len(made) == 2 * 4
    again(used, "bntt", root)
    used, run = one_row(root, "tiny", evaluation=EVALUATION, **ROWS["bntt"], learning_rate=0.2)
    pipeline.train(used, run, root, "cpu")
    stopped(run)
    weights = RunDirectory.of(run, root).weights()
    made.clear()
    RunDirectory.of(run, root).train_json.unlink()
    pipeline.train(used, run, root, "cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(weights.values(), RunDirectory.of(run, root).weights().values(), strict=True)
    )
    pipeline.evaluate(used, run, root, "cpu")  # the same weights, and so the same evaluation
    assert len(made) == BATCHES["bntt"] - 1


def test_a_pass_is_known_by_its_name():
    def add(gathered, batch):
        gathered["sum"] += batch.sum()

    passes, batches = Passes(), torch.arange(6).split(2)
    begin = lambda: {"sum": torch.tensor(0)}  # noqa: E731
    for name in ("a", "b", "a"):
        assert passes.gather(name, batches, begin, add)["sum"] == 15


def test_another_scaling_needs_a_name(of):
    used, root, _ = of
    run = used.run("digits", "bntt", 0)
    subject = pipeline.subject(run, RunDirectory.of(run, root), torch.device("cpu"))
    with pytest.raises(UserError) as error:
        right_at_reported_steps(subject, scaled=lambda unit, batch: unit)
    assert_one_line(error.value, "right_at_reported_steps", "needs a `name`")


@pytest.mark.parametrize(
    ("size", "steps", "batch"), [(250, 400, 250), (250, 401, 249), (1000, 1000, 100), (9, 10**6, 1)]
)
def test_batches_are_small_where_there_are_many_time_steps(size, steps, batch):
    run = SimpleNamespace(evaluation={"batch_size": size})
    subject = Subject(run, images(test=2 * batch + 1), SimpleNamespace(time_steps=steps))
    assert [len(one) for one in subject.batches] == [batch, batch, 1]
    assert torch.equal(torch.cat(subject.batches), torch.arange(2 * batch + 1))


def test_a_subject_made_from_another_shares_no_passes(of):
    used, root, made = of
    run = used.run("digits", "bntt", 0)
    one = pipeline.subject(run, RunDirectory.of(run, root), torch.device("cpu"))
    other = replace(one, run=replace(run, seed=5))
    assert not torch.equal(one.observation.loss, other.observation.loss)
    assert len(made) == 2 * 3
