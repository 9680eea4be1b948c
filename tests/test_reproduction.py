"""Which runs may answer a printed number: runs of the declared protocol on data known to be the publisher's."""

import copy
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from made import AT_CHANCE, RIGHT, made

from bntt.commands.check import check
from bntt.data import store
from bntt.drawing.overview import verdict_counts, verdicts_table
from bntt.experiment import schema
from bntt.experiment.schema import CONFIG, load
from bntt.paper import admission
from bntt.paper.admission import PROTOCOL_SHA256, protocol_digest
from bntt.paper.published import Cell, cells, published
from bntt.paper.reproduction import judge_all, judge_cell
from bntt.paper.verdicts import DECIDED
from bntt.results.collect import Results
from bntt.runs.directory import WEIGHTS
from bntt.runs.status import Status

PAPERS = {"paper", "cifar10"}  # experiments of the paper's protocol
PAPER = load("paper")


def bntt(column="accuracy", row="bntt") -> Cell:
    return published("Table 1", f"cifar10/{row}", column)


def test_the_declared_protocol_is_the_file():
    """Whoever changes config/paper.yaml declares a new protocol: here, and in docs/protocol.md."""
    assert protocol_digest(load("paper")) == PROTOCOL_SHA256


def test_numbers_of_the_papers_protocol_are_judged():
    found = made(PAPER)
    verdict = judge_cell(found, bntt()).verdict
    assert (verdict.word, verdict.mean, len(verdict.values)) == ("MATCH", 90.5, 3)
    assert judge_cell(found, bntt("time_steps")).verdict.word == "MATCH"
    assert judge_cell(found, bntt("time_steps", "bntt-early-exit")).verdict.word == "MATCH"
    early = judge_cell(found, bntt(row="bntt-early-exit")).verdict
    assert (early.word, early.weak) == ("CONSISTENT", False)  # 90.3 in 90.5 -+ 0.497
    ratio = judge_cell(found, published("Table 3", "bntt", "energy_ratio")).verdict
    assert (ratio.word, ratio.mean) == ("BETTER" if ratio.mean > 9.14 else "WORSE", pytest.approx(4.6 / (0.9 * 0.56)))
    words = {(one.cell.place, one.cell.row, one.cell.column): one.verdict.word for one in judge_all(found)}
    assert words["Section 4.4", "conv4", "peak_step"] == words["Section 4.4", "conv7", "peak_step"] == "MATCH"
    assert words["Figure 3", "conv1", "9"] == "MATCH"
    assert words["Figure 3", "conv1", "10"] == "DIFFERS"
    assert words["Section 3.4", "cifar10/exit", "exit_step"] == "MATCH"
    settings = [one for one in judge_all(found) if one.cell.metric == "setting" and one.cell.run]
    assert {one.verdict.word for one in settings} == {"MATCH"}
    assert words["Figure 3", "cifar10/exit", "threshold"] == words["Section 3.1", "cifar10/alpha", "value"] == "MATCH"
    saved = judge_cell(found, published("Section 4.2", "cifar10/early-exit", "saved")).verdict
    assert (saved.word, saved.mean) == ("MATCH", 20)  # 25 steps, exit at 20


def test_every_printed_number_gets_a_verdict_and_nothing_underspecified_a_decision():
    judged = judge_all(made(PAPER))
    assert [one.cell for one in judged] == list(cells())
    for one in judged:
        assert one.verdict.reason or one.verdict.word in DECIDED
        if one.cell.underspecified:
            assert one.verdict.word in ("UNDERSPECIFIED", "NOT_RUN")
        if one.cell.value is None:
            assert one.verdict.word not in DECIDED


@pytest.mark.parametrize(
    ("status", "word", "reason"),
    [
        (("missing",) * 3, "NOT_RUN", "no result yet"),
        (("done", "missing", "done"), "INCOMPLETE", "2 of 3 planned seeds"),
        (("done", "damaged", "damaged"), "INCOMPLETE", "1 of 3 planned seeds"),
        (("done", "diverged", "done"), "INCOMPLETE", "1 seed diverged"),
        (("diverged",) * 3, "WORSE", "all 3 seeds diverged"),
    ],
)
def test_seeds_without_a_result(status, word, reason):
    verdict = judge_cell(made(PAPER, row="bntt", status=status), bntt()).verdict
    assert verdict.word == word
    assert reason in verdict.reason


def test_data_that_are_not_known_earn_nothing():
    assert not {one.verdict.word for one in judge_all(made(PAPER, state="unknown"))} & DECIDED


@pytest.mark.parametrize(
    ("right", "word"),
    [
        # Of the first 9,050 images 19 of the 20 items are right: 90.31 to 90.51 %.
        (RIGHT, "NOT_RUN"),  # a match as it is, consistent where all are wrong
        ((8990, 8990, 8991), "WORSE"),
        ((9030, 9050, 9200), "CONSISTENT"),
    ],
)
def test_partial_data_earn_a_verdict_that_does_not_depend_on_the_differing_items(right, word):
    verdict = judge_cell(made(PAPER, right, row="bntt", state="partial"), bntt()).verdict
    assert verdict.word == word
    if word == "NOT_RUN":
        assert (
            verdict.reason
            == "MATCH, but could be CONSISTENT or WORSE, since some test items are not known to be the publisher's"
        )
    # What needs no test image is judged as ever.
    assert judge_cell(made(PAPER, right, row="bntt", state="partial"), bntt("time_steps")).verdict.word == "MATCH"


def of_seeds(change, seeds=(1, 2)) -> Results:
    """Results whose runs of these seeds are changed: ``change(run)`` gives the fields to replace."""
    found = made(PAPER, row="bntt")
    found.runs[:] = [replace(one, **change(one)) if one.run.seed in seeds else one for one in found.runs]
    return found


REMARKS = {
    "training code": (lambda o: {"code": "b"}, "its seeds were trained with 2 versions of the code"),
    "evaluation code": (lambda o: {"measured": {"code": "f"}}, "its seeds were measured with 2 versions of the code"),
    "a dirty tree in training": (
        lambda o: {"records": {"provenance": {"dirty": True}}}, "2 of 3 runs trained with uncommitted changes"),
    "a dirty tree in evaluation": (
        lambda o: {"measured": {"provenance": {"dirty": True}}}, "2 of 3 runs measured with uncommitted changes"),
    "precision": (
        lambda o: {"records": {"precision": "fp32"}}, "its seeds were trained in different precision, bf16 and fp32"),
}  # fmt: skip


@pytest.mark.parametrize("name", REMARKS)
def test_a_verdict_remarks_on_what_differs_among_its_seeds(name):
    change, remark = REMARKS[name]
    assert judge_cell(made(PAPER, row="bntt"), bntt()).verdict.reason == ""
    verdict = judge_cell(of_seeds(change), bntt()).verdict
    assert (verdict.word, verdict.reason) == ("MATCH", remark)
    assert judge_cell(of_seeds(change, (0, 1, 2)), bntt()).verdict.reason == (
        remark.replace("2 of 3", "3 of 3") if "2 of 3" in remark else "")  # fmt: skip


@pytest.mark.parametrize(("what", "record"), [("trained", "records"), ("measured", "measured")])
def test_a_start_run_made_with_uncommitted_changes_is_remarked_on(what, record):
    found, dirty = made(PAPER), {record: {"provenance": {"dirty": True}}}
    found.runs[:] = [replace(one, **dirty) if one.run.row == "ann" else one for one in found.runs]
    reason = judge_cell(found, published("Table 3", "conversion-500", "latency")).verdict.reason
    assert reason == f"3 of 6 runs {what} with uncommitted changes"
    assert judge_cell(found, bntt()).verdict.reason == ""


REFUSED = {
    "steps": (lambda o: {"records": {"steps": 23_399}}, "cifar10/bntt/seed-1 was trained for 23,399 steps, not 23,400"),
    "images": (
        lambda o: {"data": {"images": {"train": 49_000, "validation": 0, "test": 10_000}}},
        "cifar10/bntt/seed-1 had other numbers of images than cifar10 has: 49,000 of 50,000 train, 0 of 0 validation "
        "and 10,000 of 10,000 test",
    ),
    "state": (
        lambda o: {"state": "fine"},
        "the data of cifar10/bntt/seed-1 have the state 'fine', which is none of archive, content, partial and unknown",
    ),
    "content": (
        lambda o: {"data": {"content_sha256": o.run.name}},
        "its seeds were trained on 3 different contents of the data",
    ),
    "weights": (lambda o: {"records": {"files": {WEIGHTS: o.run.row}}}, "seeds 1 and 2 have the same weights"),
    "measurements": (
        lambda o: {"measured": {"files": {"anytime.csv": o.run.row}}}, "seeds 1 and 2 have the same measurements"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_recorded_must_agree_with_the_protocol(name):
    change, reason = REFUSED[name]
    for cell in (bntt(), bntt("time_steps")):
        verdict = judge_cell(of_seeds(change), cell).verdict
        assert (verdict.word, verdict.reason) == ("NOT_RUN", reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": {"content_sha256": "other"}}, "its seeds were trained on 2 different contents of the data"),
        ({"records": {"steps": 1}}, "cifar10/ann/seed-0 was trained for 1 steps, not 23,400"),
    ],
)
def test_a_start_run_is_held_to_the_same(change, reason):
    found = made(PAPER)
    found.runs[:] = [replace(one, **change) if one.run.row == "ann" else one for one in found.runs]
    verdict = judge_cell(found, published("Table 3", "conversion-500", "latency")).verdict
    assert (verdict.word, verdict.reason) == ("NOT_RUN", reason)
    assert judge_cell(found, bntt()).verdict.word == "MATCH"


def test_dead_networks_may_be_equal():
    """They always give the same answer, so equal measurements do not show that a run was copied."""
    same = {"files": {"anytime.csv": "same"}}
    assert judge_cell(made(PAPER, (AT_CHANCE,) * 3, row="bntt", measured=same), bntt()).verdict.word == "WORSE"
    assert (
        judge_cell(made(PAPER, row="bntt", measured=same), bntt()).verdict.reason
        == "seeds 0, 1 and 2 have the same measurements"
    )


def test_partial_data_of_a_dataset_that_lists_no_differing_items_are_refused():
    cell = published("Table 1", "cifar100/bntt", "accuracy")
    assert "partial" not in store.facts("cifar100")
    assert judge_cell(made(PAPER), cell).verdict.word in DECIDED
    verdict = judge_cell(made(PAPER, state="partial"), cell).verdict
    assert verdict.word == "NOT_RUN"
    assert verdict.reason.endswith("have the state 'partial', but cifar100 names no such items")


def test_a_diverged_training_is_shorter_and_still_judged():
    found = made(PAPER, status=("diverged",) * 3, records={"steps": 17})
    verdict = judge_cell(found, bntt()).verdict
    assert (verdict.word, verdict.reason) == ("WORSE", "all 3 seeds diverged")
    assert judge_cell(found, published("Section 4.1", "cifar10/momentum", "value")).verdict.word == "MATCH"


def test_accuracy_must_be_that_of_the_recorded_images():
    found = made(PAPER, tables={"anytime.csv": lambda frame: frame.assign(accuracy=91.0)})
    reason = judge_cell(found, bntt()).verdict.reason
    assert reason == "cifar10/bntt/seed-0 records 91 % at step 25, but 9,040 of 10,000 right"


@pytest.mark.parametrize(
    ("right", "word"),
    [
        ((9015, 9015, 9016), "NOT_RUN"),  # the accuracy is WORSE than 90.3, or if some items are wrong CONSISTENT
        ((8900, 8902, 8904), "INCOMPARABLE"),  # whatever the items are
        ((9030, 9050, 9200), "MATCH"),  # CONSISTENT, whatever they are
    ],
)
def test_a_cost_on_partial_data_must_not_depend_on_the_differing_items(right, word):
    verdict = judge_cell(made(PAPER, right, state="partial"), bntt("time_steps", "bntt-early-exit")).verdict
    assert verdict.word == word


def edited(tmp_path: Path, change) -> Results:
    document = yaml.safe_load((CONFIG / "paper.yaml").read_text())
    change(document)
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return made(load(str(path)))


CHANGES = {
    "fewer epochs": (lambda d: d["datasets"]["cifar10"].update(epochs=119), "epochs of bntt is 119, not 120"),
    "more time-steps": (
        lambda d: d["datasets"]["cifar10"].update(time_steps=30), "time_steps of bntt is 30, not 25"),
    "a subset of the training images": (lambda d: d["protocol"].update(train_limit=10_000), "train_limit"),
    "a subset of the test images": (lambda d: d["protocol"].update(test_limit=9_728), "test_limit of bntt is 9728"),
    "selection on test images": (lambda d: d["protocol"].update(selection="best-test"), "selection"),
    "a narrower network": (lambda d: d["datasets"]["cifar10"].update(width=0.5), "width of bntt is 0.5, not 1.0"),
    "another norm": (lambda d: d["rows"]["bntt"].update(norm="tebn"), "norm of bntt is 'tebn'"),
    "another method": (lambda d: d["rows"].update(bntt={"method": "ann"}), "row bntt uses method ann"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_another_protocol_earns_nothing(tmp_path, name):
    change, reason = CHANGES[name]
    verdict = judge_cell(edited(tmp_path, change), bntt()).verdict
    assert verdict.word == "NOT_RUN"
    assert reason in verdict.reason


def test_a_conversion_of_another_network_earns_nothing(tmp_path):
    cell = published("Table 3", "conversion-1000", "accuracy")
    assert judge_cell(made(PAPER), cell).verdict.word == "UNDERSPECIFIED"
    found = edited(tmp_path, lambda d: d["rows"]["ann"].update(dropout=0.5))
    assert "dropout of ann is 0.5, not 0.2" in judge_cell(found, cell).verdict.reason


def test_a_shorter_conversion_answers_where_it_is_measured(tmp_path):
    found = edited(tmp_path, lambda d: d["rows"]["conversion"].update(time_steps=1000))
    for row in ("conversion-1000", "conversion-500"):
        verdict = judge_cell(found, published("Table 3", row, "accuracy")).verdict
        assert (verdict.word, verdict.mean) == ("UNDERSPECIFIED", 90.5)
    assert judge_cell(found, published("Table 3", "conversion-500", "latency")).verdict.word == "MATCH"


def test_what_changes_numbers_by_rounding_alone_is_allowed(tmp_path):
    found = edited(tmp_path, lambda d: (d["protocol"].update(precision="fp32"), d.update(threads=1)))
    assert judge_cell(found, bntt()).verdict.word == "MATCH"


def test_more_seeds_than_declared_are_planned_seeds(tmp_path):
    found = edited(tmp_path, lambda d: d.update(seeds=[0, 1, 2, 3, 4]))
    assert judge_cell(found, bntt()).verdict.word == "MATCH"
    found.runs[:] = [replace(one, status=Status.MISSING) if one.run.seed == 4 else one for one in found.runs]
    assert judge_cell(found, bntt()).verdict.reason == "4 of 5 planned seeds; at least 3 are needed"


@pytest.mark.parametrize(("seeds", "reason"), [([0, 1], "2 of 3 planned seeds"), ([3, 4, 5], "3 of 6 planned seeds")])
def test_seeds_that_the_protocol_declares_are_planned_even_where_others_were_run(tmp_path, seeds, reason):
    """So nobody chooses seeds."""

    def other(document):
        document["seeds"] = seeds
        for row in document["rows"].values():
            row.pop("seeds", None)

    verdict = judge_cell(edited(tmp_path, other), bntt()).verdict
    assert (verdict.word, verdict.reason) == ("INCOMPLETE", f"{reason}; at least 3 are needed")


def test_an_edited_paper_yaml_is_not_the_paper(tmp_path, monkeypatch):
    """Even where it is edited in its place."""
    document = yaml.safe_load((CONFIG / "paper.yaml").read_text())
    document["protocol"]["learning_rate"] = 0.1
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    monkeypatch.setattr(schema, "CONFIG", tmp_path)
    monkeypatch.chdir(tmp_path)
    admission.the_paper.cache_clear()
    try:
        verdict = judge_cell(made(PAPER, row="bntt"), bntt()).verdict
        assert "not the declared protocol" in verdict.reason
    finally:
        admission.the_paper.cache_clear()


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIG.glob("*.yaml")) if path.stem not in PAPERS])
def test_no_other_experiment_of_this_repository_earns_a_verdict(name):
    for one in judge_all(made(load(name))):
        assert one.verdict.word not in DECIDED or one.cell.metric == "setting", one


@pytest.mark.parametrize("seed", range(60))
def test_no_random_change_of_options_or_data_earns_a_verdict(tmp_path, seed):
    """A property: change one option of bntt on CIFAR-10, or take another dataset, and the cell is not judged."""
    draws = random.Random(seed)
    loaded = load("paper")
    run = loaded.run("cifar10", "bntt", 0)
    name = draws.choice([name for name in run.options if name not in admission.ONLY_ROUNDING])
    value = run.options[name]
    other = {
        bool: lambda: not value,
        int: lambda: value + draws.randint(1, 5),
        float: lambda: value * draws.uniform(0.1, 0.9) + 1e-6,
        str: lambda: f"{value}-other",
        list: lambda: [*value, 0.5],
        type(None): lambda: 7,
    }[type(value)]()
    runs = []
    for one in loaded.runs:
        options = copy.deepcopy(dict(one.options))
        if (one.dataset, one.row) == ("cifar10", "bntt"):
            options[name] = other
        runs.append(type(one)(**{**one.__dict__, "options": options}))
    changed = type(loaded)(loaded.name, loaded.title, loaded.notes, tuple(runs))
    verdict = judge_cell(made(changed), bntt()).verdict
    assert verdict.word == "NOT_RUN"
    assert name in verdict.reason


def test_what_the_paper_does_not_print_is_named_and_not_awaited(tmp_path):
    """Also where the experiment has the row, as with a row of one's own that is called surrogate."""
    everywhere = edited(tmp_path, lambda d: d["rows"]["surrogate"].pop("datasets"))
    for found in (made(PAPER), everywhere):
        for dataset in ("cifar100", "tiny-imagenet"):
            verdict = judge_cell(found, published("Table 1", f"{dataset}/surrogate", "accuracy")).verdict
            assert verdict.word == "NOT_RUN"
            assert verdict.reason.startswith("the paper prints n/a here, no number that a row could reproduce: it does")
    named = edited(tmp_path, lambda d: d["rows"].update({"hybrid-vgg16": {"method": "ann", "datasets": ["cifar10"]}}))
    verdict = judge_cell(named, published("Table 1", "cifar10/rathi-2020", "accuracy")).verdict
    assert verdict.reason == "not the paper's protocol: row hybrid-vgg16 uses method ann"


# -- check ------------------------------------------------------------------------------------------------


def test_check_prints_a_verdict_for_every_number_and_what_chance_would_do():
    found = check(made(PAPER))
    lines = "\n".join(found.lines)
    assert "[MATCH] Table 1, cifar10/bntt, accuracy: printed 90.5, reproduced 90.50 ± 0.50 (n = 3)" in found.lines
    assert (
        "[UNDERSPECIFIED] Table 1, dvs-cifar10/bntt, accuracy: printed 63.2, reproduced 90.50 ± 0.50 (n = 3), "
        "difference 27.30; network" in lines
    )
    assert "[NOT_RUN] Table 2, 4 numbers: a constant of the energy formula" in lines
    assert "chance alone would make about" in lines
    assert sum(found.counts.values()) == len(cells())
    assert found.broken == 0


def test_check_names_what_is_missing_or_damaged():
    found = check(made(PAPER, status=("done", "missing", "damaged")))
    assert found.broken == sum(run.seed > 0 for run in load("paper").runs)
    assert "[missing] cifar10/bntt/seed-1: " in found.lines
    assert "[damaged] cifar10/bntt/seed-2: " in found.lines
    assert "[INCOMPLETE] Table 1, cifar10/bntt, accuracy: printed 90.5, reproduced 90.40 (n = 1); 1 of 3" in "\n".join(
        found.lines
    )


# -- the overview's parts ---------------------------------------------------------------------------------


def test_the_overview_counts_verdicts_and_shows_each_with_its_reason():
    judged = judge_all(made(PAPER))
    text = verdict_counts(judged)
    assert "numbers that the paper repeats count once" in text
    assert "chance alone would make about" in text
    html = verdicts_table([one for one in judged if one.verdict.word != "NOT_RUN"])
    assert "Table 1, cifar10/bntt, accuracy" in html
    assert "90.50 (n = 3)" in html and "[90.00, 91.00]" in html
    assert "baseline&#39;s learning rate" in html and "&amp;#39;" not in html
    nothing = verdict_counts(judge_all(made(load("demo"))))
    assert "Chance" not in nothing and "for NOT_RUN: experiment demo has no dataset cifar10" in nothing
