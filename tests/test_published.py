"""The published numbers are the paper's: against its text where that is at hand, by spot checks always."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bntt.common.errors import UserError
from bntt.experiment.schema import load
from bntt.paper import decay, figures
from bntt.paper.published import TABLES, Cell, cells, check_names, parse, published, repeated, table

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / ".." / "shared" / "paper" / "paper.txt"


@pytest.fixture(scope="module")
def source() -> str:
    """The paper's text, with LaTeX."""
    if not PAPER.is_file():
        pytest.skip("the paper's text is not at hand; it is not part of the repository")
    return PAPER.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines(source: str) -> list[str]:
    """The paper's text, one printed line each, LaTeX reduced to what the eye sees."""
    text = source.replace(r" \times", "×").replace("$", "")
    return re.sub(r"E_\{(\w+)\}", r"E_\1", text).splitlines()


@pytest.fixture(scope="module")
def prose(source: str) -> str:
    """The paper's text without its tables, equations and references, and with ~ for about."""
    text = re.sub(r"(?s)\$\$.*?\$\$", "", source[: source.index("\nREFERENCES")])
    text = "\n".join(line for line in text.splitlines() if "\t" not in line)
    for latex, seen in ((r" \times", "×"), ("$", ""), (r"\sim ", "~"), ("~ ", "~"), (r"\%", "%"), (r"\sigma >", "σ >")):
        text = text.replace(latex, seen)
    return re.sub(r"(?<=\d) - (?=\d)", "-", text)


# Against the paper's text.


def test_table_1_is_the_papers_line_by_line(lines: list[str]) -> None:
    frame = table(1)
    printed = ["\t".join(frame.columns), *("\t".join(row) for row in frame.itertuples(index=False))]
    start = lines.index(printed[0])
    # The first column has no header, and the line after the table belongs to Figure 4.
    assert lines[start : start + len(printed)] == printed
    assert lines[start + len(printed)].startswith("BNTT (90.5% / 25 s")


def _tables_2_and_3(lines: list[str]) -> list[list[str]]:
    """The two tables stand side by side in the text: six columns, five lines."""
    start = next(i for i, line in enumerate(lines) if line.startswith("Operation\tEnergy(pJ)"))
    return [line.split("\t") for line in lines[start : start + 5]]


def test_table_2_is_the_papers_line_by_line(lines: list[str]) -> None:
    frame = table(2)
    assert [line[:2] for line in _tables_2_and_3(lines)] == [list(frame.columns), *frame.to_numpy().tolist()]


def test_table_3_is_the_papers_column_by_column(lines: list[str]) -> None:
    """The text has run some of its lines together, so columns are compared, without what is lost."""
    frame = table(3)
    text = list(zip(*(line[2:] for line in _tables_2_and_3(lines)), strict=True))
    assert [column[0] for column in text] == list(frame.columns)
    for column, header in zip(text, frame.columns, strict=True):
        assert " ".join(column[1:]) == " ".join(frame[header][frame[header] != "illegible"])


def test_titles_are_the_papers(lines: list[str]) -> None:
    titles = re.findall(r"^(Table \d):\n  title: (.+)$", TABLES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [place for place, _ in titles] == ["Table 1", "Table 2", "Table 3"]
    for place, title in titles:
        assert f"{place}: {title}" in lines


def test_what_notes_say_of_the_text_is_there(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert "(91.2% / 1000 steps)" in text  # Figure 4a, for the latency that Table 3 lost
    assert "all averaged γ^t values are lower than threshold 0.1 after t > 20" in text
    assert "ANN with VGG16 architecture used for ANN-SNN conversion achieves 51.9% accuracy" in text
    assert "further reduces the latency by \\sim 20\\%" in text
    assert "about 40× and 2× faster inference speed" in text
    assert "performs better than the surrogate gradient method across all datasets" in text
    assert "with just few 25-30 time-steps" in text
    assert "The base learning rate is set to 0.3" in text
    assert "only converges on CIFAR-10" in text


def test_figure_3_is_the_papers_cell_by_cell(lines: list[str]) -> None:
    """A cell's place in the line is its time-step; the name of the layer is in the first two, misread."""
    start = next(i for i, line in enumerate(lines) if "Threshold: 0.1" in line)
    header = lines[start + 9].split("\t")
    assert header[4:27] == [str(t) for t in range(3, 26)]
    text = [
        (layer, str(t), printed)
        for layer, line in zip((*(f"conv{k}" for k in range(1, 8)), "fc1"), lines[start + 1 : start + 9], strict=True)
        for t, printed in enumerate(line.split("\t")[2:27], 1)
        if printed
    ]
    found = [cell for cell in cells() if cell.metric == "mean_gamma"]
    assert [(cell.row, cell.column, cell.printed) for cell in found] == text
    assert all((cell.place, cell.layer, cell.time_step) == ("Figure 3", cell.row, int(cell.column)) for cell in found)


# Where each number of the text stands; {} is the number.
SENTENCES = {
    ("Abstract", "conversion-steps", "value"): "conversion method requires {} of time-steps for inference",
    ("Abstract", "bntt-steps", "value"): "with {} time-steps",
    ("Section 1", "energy-over-anns", "value"): "to yield {} energy efficiency over ANNs",
    ("Section 1", "conversion-steps", "value"): "large number of time-steps ({}) for inference",
    ("Section 1", "surrogate-steps", "value"): "lesser number of time-steps ({})",
    ("Section 1", "hybrid-steps", "value"): "at reasonable latency ({} time-steps)",
    ("Section 1", "bntt-steps", "value"): "with low latency ({} time-steps)",
    ("Section 3.1", "cifar10/leak", "value"): "λ is a leak factor with value {}",
    ("Section 3.1", "cifar10/alpha", "value"): "we set α to {}",
    ("Figure 3", "cifar10/exit", "exit_step"): "Early exit time can be calculated as t = {} since",
    ("Figure 3", "cifar10/exit", "threshold"): "lower value than threshold {} after time-step 20",
    ("Section 3.4", "cifar10/exit", "exit_step"): "we define the early exit time at t = {}",
    ("Section 3.4", "cifar10/exit", "threshold"): "are lower than threshold {} after t > 20",
    ("Section 4.1", "cifar10/learning-rate", "value"): "The base learning rate is set to {}",
    ("Section 4.1", "cifar10/momentum", "value"): "standard SGD with momentum {}",
    ("Section 4.1", "cifar10/weight-decay", "value"): "weight decay {} and",
    ("Section 4.1", "cifar10/decay-factor", "value"): "with a decay factor {} at 50%",
    ("Section 4.1", "cifar10/milestone-1", "value"): "decay factor 10 at {}, 70%",
    ("Section 4.1", "cifar10/milestone-2", "value"): "at 50%, {}, and 90%",
    ("Section 4.1", "cifar10/milestone-3", "value"): "and {} of the total number of epochs",
    ("Section 4.1", "cifar10/epochs", "value"): "{}, 240, 90, and 60 for CIFAR-10, CIFAR-100, Tiny-ImageNet, and DVS-",
    ("Section 4.1", "cifar100/epochs", "value"): "120, {}, 90, and 60",
    ("Section 4.1", "tiny-imagenet/epochs", "value"): "120, 240, {}, and 60",
    ("Section 4.1", "dvs-cifar10/epochs", "value"): "120, 240, 90, and {} for",
    ("Section 4.1", "cifar10/images", "images"): "**CIFAR-10** (Krizhevsky et al. 2009) consists of {} images",
    ("Section 4.1", "cifar10/images", "train"): "({} for training /",
    ("Section 4.1", "cifar10/images", "test"): "/ {} for testing)",
    ("Section 4.1", "cifar10/images", "classes"): "with {} categories. All images are RGB",
    ("Section 4.1", "cifar10/images", "size"): "RGB color images whose size are {} . **CIFAR-100**",
    ("Section 4.1", "cifar100/images", "images"): "**CIFAR-100** has {}, except it contains",
    ("Section 4.1", "cifar100/images", "classes"): "images from {} categories. **Tiny-ImageNet**",
    ("Section 4.1", "tiny-imagenet/images", "classes"): "there are {} different classes of ImageNet dataset",
    ("Section 4.1", "tiny-imagenet/images", "train"): "with {} training and",
    ("Section 4.1", "tiny-imagenet/images", "test"): "training and {} validation images",
    ("Section 4.1", "tiny-imagenet/images", "size"): "The resolution of the images is {} pixels",
    ("Section 4.1", "dvs-cifar10/images", "images"): "**DVS-CIFAR10** (Li et al. 2017) has {}.",
    ("Section 4.2", "hybrid-steps", "value"): "still requires {} of time-steps",
    ("Section 4.2", "cifar10/bntt-steps", "value"): "BNTT can be trained with {} time-steps",
    ("Section 4.2", "tiny-imagenet/ann-vgg16", "value"): "ANN-SNN conversion achieves {} accuracy",
    ("Section 4.2", "cifar100/speed-over-conversion", "value"): "we achieve {} and 2×",
    ("Section 4.2", "cifar100/speed-over-hybrid", "value"): "about 40× and {} faster",
    ("Section 4.2", "cifar10/early-exit", "saved"): "an early exit algorithm further reduces the latency by {}",
    ("Section 4.2", "cifar100/early-exit", "saved"): "an early exit algorithm further reduces the latency by {}",
    ("Section 4.2", "tiny-imagenet/early-exit", "saved"): "an early exit algorithm further reduces the latency by {}",
    ("Figure 5", "cifar10/bntt-steps", "value"): "The experiments are conducted on CIFAR-10 with {} time-steps",
    ("Section 4.3", "cifar10/conversion-spikes", "value"): "it still requires {} of spikes for each layer",
    ("Section 4.3", "cifar10/energy", "value"): "we get {} improvement in energy efficiency compared to ANNs",
    ("Section 4.4", "conv4", "peak_step"): "peak at t = {} and t = 13",
    ("Section 4.4", "conv7", "peak_step"): "t = 9 and t = {}, respectively",
    ("Section 4.6", "cifar10/conversion-noise", "value"): "conversion method degrades considerably for {}.",
}

# What is a number in the text, and no cell.
NO_CELL = "|".join(
    (
        r"\([^()]*(?:19|20)\d\d[^()]*\)",  # citations
        r"(?:VGG|CIFAR-?|conv|row|Fig\. ?|Figure |Table |Eq\. |Section |Algorithm )\d[\d.]*",  # names
        r"(?m:^\d(?:\.\d)? [A-Z ()]+$)",  # headings
        r"(?m:^ ?\(\d+\)$)",  # numbers of equations
        r"[_^]\d|x_\{1,...,m\}|\(0, \\sigma\^2\)|\\\{1, 0\\\}",  # parts of formulas
        r"t = 1, 2|t [=>] 1\b|t = 2\b",  # steps of the examples in Sections 3.2 and 3.3
        r"after t > 20|after time-step 20",  # the exit at t = 20, once more
        r"45nm",  # the title of Table 2
    )
)


def test_numbers_of_the_text_stand_in_it(prose: str) -> None:
    in_text = [cell for cell in cells() if not cell.place.startswith(("Table", "Figure 4")) and not cell.time_step]
    energy = [published("Section 4.3", "cifar10/energy", "value")]
    assert {(cell.place, cell.row, cell.column) for cell in in_text + energy} == set(SENTENCES)
    for cell in in_text + energy:
        assert SENTENCES[cell.place, cell.row, cell.column].format(cell.printed) in prose, cell.name


def test_every_number_in_the_text_is_a_cell_or_has_a_reason_not_to_be(prose: str) -> None:
    left = list(prose)
    for place, sentence in SENTENCES.items():
        printed, before = published(*place).printed, sentence.index("{}")
        start = prose.index(sentence.format(printed)) + before
        left[start : start + len(printed)] = "#" * len(printed)
    found = re.findall(r".{,40}(?:\d|hundreds|order of magnitude).{,20}", re.sub(NO_CELL, "#", "".join(left)))
    assert found == []


def test_the_legend_of_figure_4_is_the_papers(lines: list[str]) -> None:
    legend = {(cell.row.partition("/")[2], cell.column): cell.printed for cell in cells() if cell.place == "Figure 4"}
    text = "".join(lines).replace("\t", "")
    for row in ("bntt", "surrogate", "conversion"):
        assert re.search(rf"\({legend[row, 'accuracy']}%6? / {legend[row, 'time_steps']} steps\)", text)  # 6: misread


# Spot checks, read from the paper by eye.


@pytest.mark.parametrize(
    ("number", "row", "column", "printed", "value"),
    [
        (1, "cifar10/cao-2015", "accuracy", "77.4", 77.4),
        (1, "cifar10/rathi-2020", "accuracy", "92.0", 92.0),  # a trailing zero survives
        (1, "cifar10/han-2020", "time_steps", "2048", 2048),
        (1, "cifar10/bntt", "accuracy", "90.5", 90.5),
        (1, "cifar10/bntt", "time_steps", "25", 25),
        (1, "cifar10/bntt-early-exit", "accuracy", "90.3", 90.3),
        (1, "cifar10/bntt-early-exit", "time_steps", "20", 20),
        (1, "cifar100/surrogate", "accuracy", "n/a", None),
        (1, "cifar100/bntt-early-exit", "accuracy", "65.8", 65.8),
        (1, "tiny-imagenet/bntt", "accuracy", "57.8", 57.8),
        (1, "dvs-cifar10/bntt", "accuracy", "63.2", 63.2),
        (1, "dvs-cifar10/bntt", "time_steps", "-", None),
        (2, "ac", "energy", "0.9", 0.9),
        (2, "mac", "energy", "4.6 (= E_MULT + E_ADD)", 4.6),
        (3, "ann", "energy_ratio", "1×", 1),
        (3, "conversion-1000", "accuracy", "91.2", 91.2),
        (3, "conversion-1000", "energy_ratio", "illegible", None),
        (3, "conversion-500", "energy_ratio", "0.55×", 0.55),
        (3, "bntt", "energy_ratio", "9.14×", 9.14),
        (3, "bntt", "latency", "25", 25),
    ],
)
def test_spot_checks(number: int, row: str, column: str, printed: str, value: float | None) -> None:
    cell = published(f"Table {number}", row, column)
    assert (cell.printed, cell.value) == (printed, value)


def test_sizes() -> None:
    assert [table(number).shape for number in (1, 2, 3)] == [(25, 6), (4, 2), (6, 4)]
    counts = [sum(cell.place == f"Table {number}" for cell in cells()) for number in (1, 2, 3)]
    assert counts == [25 * 2, 4, 6 * 3]


def test_cells_are_the_tables_numbers() -> None:
    headers = {
        "Table 1": {"time_steps": "Time-steps", "accuracy": "Accuracy(%)"},
        "Table 2": {"energy": "Energy(pJ)"},
        "Table 3": {"latency": "Latency", "accuracy": "Accuracy (%)", "energy_ratio": "E_ANN/E_method"},
    }
    for cell in cells():
        if cell.place in headers:
            frame = table(int(cell.place.removeprefix("Table ")))
            assert frame.loc[cell.row, headers[cell.place][cell.column]] == cell.printed


def test_every_number_that_stands_in_two_tables_is_the_same() -> None:
    for column, other in (("accuracy", "accuracy"), ("time_steps", "latency")):
        for row in ("surrogate", "bntt"):
            first = published("Table 1", f"cifar10/{row}", column)
            assert first.value == published("Table 3", row, other).value


# The arithmetic inside the tables.


def test_a_multiply_accumulate_costs_its_two_parts() -> None:
    energy = {row: published("Table 2", row, "energy").value for row in ("mult", "add", "mac", "ac")}
    assert energy["mac"] == pytest.approx(energy["mult"] + energy["add"]) == pytest.approx(4.6)
    assert energy["ac"] == energy["add"]


@pytest.mark.parametrize(
    ("row", "spikes"),
    [("conversion-500", 9.29), ("conversion-100", 1.886), ("surrogate", 4.87), ("bntt", 0.559)],
)
def test_energy_ratios_imply_spike_counts(row: str, spikes: float) -> None:
    """E_ANN / E_SNN = MAC / (AC * R), with R the spikes per neuron weighted by each layer's operations."""
    mac, ac = (published("Table 2", name, "energy").value for name in ("mac", "ac"))
    ratio = published("Table 3", row, "energy_ratio").value
    assert mac / (ac * ratio) == pytest.approx(spikes, rel=2e-3)


# What a verdict needs to know.


def test_bntt_on_cifar10_in_full() -> None:
    cell = published("Table 1", "cifar10/bntt", "accuracy")
    assert cell == Cell(
        place="Table 1",
        row="cifar10/bntt",
        column="accuracy",
        printed="90.5",
        metric="accuracy",
        unit="%",
        direction="higher",
        tolerance=0.05,
        tolerance_reason="printed to one decimal, so every value within 0.05 points prints the same",
        dataset="cifar10",
        run="bntt",
        time_step=25,
        note="The released code's README trains 100 epochs, and its training script sets weight decay 1e-4; the text "
        "says 120 and 5e-4.",
    )
    assert not cell.quoted


def test_early_exit_is_read_by_rule_where_the_threshold_is_known_and_at_its_step_elsewhere() -> None:
    step, accuracy = (published("Table 1", "cifar10/bntt-early-exit", column) for column in ("time_steps", "accuracy"))
    assert (step.metric, step.threshold, step.tolerance) == ("exit_step", 0.1, 0.5)
    assert (accuracy.metric, accuracy.threshold, accuracy.time_step) == ("exit_accuracy", 0.1, None)
    elsewhere = published("Table 1", "cifar100/bntt-early-exit", "accuracy")
    assert (elsewhere.metric, elsewhere.run, elsewhere.time_step) == ("accuracy", "bntt", 30)


def test_quoted_rows_are_those_with_a_citation() -> None:
    for name, row in table(1).iterrows():
        cited = re.search(r"\(\d{4}\)", row[""]) is not None
        assert {cell.quoted for cell in cells() if cell.place == "Table 1" and cell.row == name} == {cited}


def test_a_row_is_about_the_dataset_it_prints() -> None:
    names = {
        "CIFAR-10": "cifar10",
        "CIFAR-100": "cifar100",
        "Tiny-ImageNet": "tiny-imagenet",
        "DVS-CIFAR10": "dvs-cifar10",
    }
    printed = table(1)["Dataset"]
    for cell in cells():
        if cell.place == "Table 1":
            assert cell.dataset == names[printed[cell.row]]
        assert cell.dataset == {"Table 2": "", "Table 3": "cifar10"}.get(cell.place, cell.dataset)


def test_every_cell_can_be_judged_or_says_why_not() -> None:
    better = dict.fromkeys(("accuracy", "exit_accuracy", "energy_ratio"), "higher")
    better |= dict.fromkeys(("time_steps", "exit_step"), "lower")
    better |= dict.fromkeys(("energy_per_operation", "mean_gamma", "peak_step", "setting"), "none")
    better |= dict.fromkeys(("images", "classes", "pixels", "noise"), "none")
    better |= {"saved_steps": "higher", "spikes": "lower"}
    for cell in cells():
        assert cell.direction == better.get(cell.metric, cell.direction)
        assert bool(cell.layer) == (cell.metric in ("mean_gamma", "peak_step"))
        assert bool(cell.option) == (cell.metric == "setting")
        assert (cell.tolerance is None) == (cell.value is None)
        assert bool(cell.run) != bool(cell.not_run)
        if cell.value is None:
            assert cell.not_run or cell.underspecified, cell
        if cell.metric == "accuracy" and cell.run and not cell.underspecified:
            assert cell.time_step, cell


@pytest.mark.parametrize(
    ("cell", "accuracy"),
    [
        (("Table 1", "cifar10/bntt-early-exit", "time_steps"), "Table 1, cifar10/bntt-early-exit, accuracy"),
        (("Table 3", "conversion-500", "energy_ratio"), "Table 3, conversion-500, accuracy"),
        (("Table 3", "ann", "energy_ratio"), ""),  # 1 by definition: no run is judged
        (("Table 1", "cifar10/bntt", "accuracy"), ""),
        (("Table 1", "cifar10/bntt", "time_steps"), ""),
        (("Figure 3", "conv7", "13"), "Table 1, cifar10/bntt, accuracy"),
        (("Section 3.4", "cifar10/exit", "exit_step"), "Table 1, cifar10/bntt-early-exit, accuracy"),
        (("Section 4.4", "conv4", "peak_step"), "Table 1, cifar10/bntt, accuracy"),
    ],
)
def test_what_a_network_buys_with_accuracy_names_that_accuracy(cell: tuple[str, str, str], accuracy: str) -> None:
    assert published(*cell).bought_at == accuracy


def test_a_cell_has_a_name_of_its_own() -> None:
    check_names(cells())
    with pytest.raises(ValueError, match="Table 1, cifar10/bntt, accuracy: 2 cells have this name"):
        check_names([*cells(), published("Table 1", "cifar10/bntt", "accuracy").model_copy()])


def test_a_number_is_bought_at_an_accuracy_of_its_own_run() -> None:
    ratio = published("Table 3", "bntt", "energy_ratio")
    for other in ("Table 3, surrogate, accuracy", "Table 3, bntt, latency", "Table 1, cifar100/bntt, accuracy", "row"):
        wrong = ratio.model_copy(update={"bought_at": other})
        message = f"Table 3, bntt, energy_ratio, bought_at: '{other}' is no accuracy of row bntt on cifar10"
        with pytest.raises(ValueError, match=message):
            check_names([wrong if cell == ratio else cell for cell in cells()])


@pytest.mark.parametrize(
    ("cell", "first"),
    [
        (("Table 3", "bntt", "accuracy"), "Table 1, cifar10/bntt, accuracy"),
        (("Table 3", "bntt", "latency"), "Table 1, cifar10/bntt, time_steps"),
        (("Figure 4", "cifar10/bntt", "accuracy"), "Table 1, cifar10/bntt, accuracy"),
        (("Figure 4", "cifar10/conversion", "accuracy"), "Table 3, conversion-1000, accuracy"),
        (("Section 3.4", "cifar10/exit", "exit_step"), "Table 1, cifar10/bntt-early-exit, time_steps"),
        (("Table 1", "cifar10/bntt", "accuracy"), None),
        (("Table 2", "ac", "energy"), None),  # the same 0.9 as ADD, of another operation
        (("Figure 3", "conv2", "25"), None),  # the same 0.01 as others, of another layer or step
        (("Table 3", "conversion-100", "latency"), None),  # of the same run as 500
        (("Section 4.3", "cifar10/energy", "value"), None),  # about 9, where Table 3 prints 9.14
        (("Table 1", "tiny-imagenet/surrogate", "accuracy"), None),  # n/a, as elsewhere
        (("Table 1", "cifar100/han-2020", "accuracy"), None),  # the same 70.9 as Sengupta et al., of another method
    ],
)
def test_a_number_that_is_printed_again_is_found(cell: tuple[str, str, str], first: str | None) -> None:
    found = repeated(published(*cell))
    assert (found and found.name) == first


def test_a_cell_belongs_to_a_table_the_figures_the_text_or_the_settings() -> None:
    assert published("Table 1", "cifar10/bntt", "accuracy").kind == "Table 1"
    assert published("Table 1", "cifar10/bntt", "time_steps").kind == "settings"
    assert published("Table 1", "cifar10/cao-2015", "time_steps").kind == "settings"
    assert published("Table 2", "mac", "energy").kind == "Table 2"
    assert published("Table 3", "bntt", "latency").kind == "settings"
    assert published("Table 3", "bntt", "energy_ratio").kind == "Table 3"
    assert published("Figure 3", "conv2", "25").kind == published("Figure 4", "cifar10/bntt", "accuracy").kind
    assert published("Figure 3", "conv2", "25").kind == "figures"
    assert published("Section 4.4", "conv4", "peak_step").kind == "text"
    assert published("Section 4.1", "cifar10/images", "test").kind == "text"
    assert published("Section 4.1", "cifar10/momentum", "value").kind == "settings"


def test_every_line_of_table_1_names_the_row_that_runs_it() -> None:
    rows = {
        "cifar10/cao-2015": "cao",
        "cifar10/sengupta-2019": "conversion-vgg16",
        "cifar10/lee-2020": "lee",
        "cifar10/rathi-2020": "hybrid-vgg16",
        "cifar10/han-2020": "rmp-vgg16",
        "dvs-cifar10/orchard-2015": "hfirst-forest",
        "dvs-cifar10/lagorce-2016": "hots",
        "dvs-cifar10/sironi-2018-hats": "hats",
        "dvs-cifar10/sironi-2018-gabor-snn": "gabor-snn",
        "dvs-cifar10/wu-2019": "neunorm",
    }
    found = {cell.row: cell.run for cell in cells() if cell.place == "Table 1"}
    assert len(found) == 25 and all(found.values())
    assert rows.items() <= found.items()
    for row in set(found) - set(rows):
        method = row.partition("/")[2].removesuffix("-early-exit")
        assert found[row] == {"sengupta-2019": "conversion-vgg16", "rathi-2020": "hybrid-vgg16",
                              "han-2020": "rmp-vgg16"}.get(method, method)  # fmt: skip


def test_nothing_of_dvs_cifar10_is_specified_well_enough_to_be_judged() -> None:
    """The dataset has no official split, so whoever is quoted tested other images."""
    for cell in cells():
        if cell.place == "Table 1" and cell.dataset == "dvs-cifar10":
            assert "no official split" in cell.underspecified, cell


def test_what_rests_on_a_training_that_no_source_describes_is_underspecified() -> None:
    """The dense network's, and so that of its conversions; a dense network's energy needs no training."""
    dense = {
        *(("Table 3", row, "accuracy") for row in ("ann", "conversion-1000", "conversion-500", "conversion-100")),
        *(("Table 3", row, "energy_ratio") for row in ("conversion-500", "conversion-100")),
        *(("Table 1", f"{dataset}/sengupta-2019", "accuracy") for dataset in ("cifar100", "tiny-imagenet")),
        ("Figure 4", "cifar10/conversion", "accuracy"),
        ("Section 4.2", "tiny-imagenet/ann-vgg16", "value"),
    }
    reason = published("Table 3", "ann", "accuracy").underspecified
    assert {(cell.place, cell.row, cell.column) for cell in cells() if cell.underspecified == reason} == dense
    for cell in cells():
        if cell.metric not in ("time_steps", "setting") and not cell.quoted and cell.run and cell.run != "bntt":
            assert cell.underspecified, cell
        if cell.run == "bntt" and cell.dataset in ("cifar10", "cifar100"):
            assert not cell.underspecified or cell.metric in ("exit_step", "saved_steps"), cell
        if cell.metric == "setting":
            assert not cell.underspecified, cell


# The schema.

SMALL = """
Table 9:
  title: An example.
  columns:
    method: {header: Method}
    accuracy: {header: Accuracy, metric: accuracy, unit: "%", direction: higher, tolerance: half-digit,
               tolerance_reason: rounding}
  rows:
    bntt: {printed: BNTT | 90.50, run: bntt}
    ann: {printed: ANN | n/a, run: ann, note: one, cells: {accuracy: {not_run: reason, note: two}}}
"""


def test_fields_go_from_general_to_particular() -> None:
    bntt, ann = parse(SMALL, "small.yaml")
    assert (bntt.printed, bntt.value, bntt.tolerance, bntt.run) == ("90.50", 90.5, 0.005, "bntt")
    assert (ann.value, ann.tolerance, ann.run, ann.not_run, ann.note) == (None, None, "", "reason", "one two")


@pytest.mark.parametrize(
    ("printed", "value", "exact", "about"),
    [
        ("90.50", 90.5, 0.005, 0.005),
        ("20", 20, 0.5, 5),
        ("~20%", 20, 0.5, 5),
        ("about 40×", 40, 0.5, 5),
        ("~9×", 9, 0.5, 0.5),
        ("~250", 250, 0.5, 5),
        ("10,000", 10_000, 0.5, 5000),
        ("32×32", 32, 0.5, 0.5),
        ("4.6 (= E_MULT + E_ADD)", 4.6, 0.05, 0.05),
        *((text, None, None, None) for text in ("~25-50", "25-30", "0.5 - 1.5", "12.5-30", "about", "n/a", "> 0.4")),
    ],
)
def test_a_printed_text_has_a_value_and_a_tolerance(
    printed: str, value: float | None, exact: float | None, about: float | None
) -> None:
    """Half a unit of the last digit; of an approximate number, of the last digit that is not a padding zero."""
    for word, tolerance in (("half-digit", exact), ("about", about)):
        text = SMALL.replace("BNTT | 90.50", f'"BNTT | {printed}"').replace("half-digit", word)
        cell = parse(text, "small.yaml")[0]
        assert (cell.value, cell.tolerance) == (value, tolerance)


def test_a_comma_ends_the_name_of_a_place() -> None:
    assert {cell.place for cell in parse(SMALL.replace("Table 9:", "Section 9, examples:"), "s.yaml")} == {"Section 9"}


def test_the_floor_of_figure_3_is_where_decay_alone_takes_gamma() -> None:
    """SGD on a gamma of 1 without a gradient: momentum and coupled weight decay, 195 batches an epoch."""
    ends = []
    for weight_decay, epochs, late in ((5e-4, 120, 0), (1e-4, 100, 1)):
        gamma, velocity = 1.0, 0.0
        for epoch in range(epochs):
            rate = 0.3 / 10 ** sum(epoch >= round(share * epochs) + late for share in (0.5, 0.7, 0.9))
            for _ in range(195):
                velocity = 0.9 * velocity + weight_decay * gamma
                gamma -= rate * velocity
        ends.append(f"{gamma:.0e}".replace("e-0", "e-") if gamma < 1e-3 else f"{gamma:.3f}")
    assert ends == ["9e-9", "0.044"]
    for cell in cells():
        if cell.metric == "mean_gamma":
            assert all(end in cell.note for end in ends)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("title: An", "titel: An", "small.yaml, Table 9, title: Field required"),
        ("header: Method", "heading: Method", "small.yaml, Table 9, columns, method, header: Field required"),
        (
            "90.50, run: bntt",
            "90.50, runs: bntt",
            "small.yaml, Table 9, row bntt, column accuracy, runs: Extra inputs are not permitted",
        ),
        (
            "{accuracy: {not_run",
            "{acuracy: {not_run",
            "small.yaml, Table 9, row ann, cells: unknown key 'acuracy'",
        ),
        ("note: two", "notes: two", "row ann, column accuracy, notes: Extra inputs are not permitted"),
        ("    ann: {", "    bntt: {", "small.yaml: not valid YAML: line 10: key 'bntt' is given twice"),
        ("    method:", "    accuracy:", "small.yaml: not valid YAML: line 6: key 'accuracy' is given twice"),
        ("note: one", "note: one, note: one", "small.yaml: not valid YAML: line 10: key 'note' is given twice"),
        ("BNTT | 90.50", "BNTT 90.50", "small.yaml, Table 9, row bntt: 1 printed columns, the table has 2"),
        ("90.50, run: bntt", "90.50", "row bntt, column accuracy: Value error, expected one of run"),
        (
            "90.50, run: bntt",
            "90.50, run: bntt, not_run: so",
            "row bntt, column accuracy: Value error, expected one of run",
        ),
        ("90.50, run: bntt", "90.50, run: BN TT", "run: String should match pattern '^[a-z0-9-]*$'"),
        ("metric: accuracy", "metric: acc", "metric: Input should be 'accuracy', "),
        ("direction: higher", "direction: up", "direction: Input should be 'higher', 'lower' or 'none'"),
        (
            "tolerance: half-digit",
            "tolerance: half",
            "tolerance: Input should be a valid number, unable to parse string as a number",
        ),
        (
            "metric: accuracy",
            "metric: energy_ratio",
            "row bntt, column accuracy: Value error, expected bought_at (the accuracy cell of the same run)",
        ),
        (
            "90.50, run: bntt",
            "90.50, run: bntt, bought_at: column accuracy",
            "row bntt, column accuracy: Value error, bought_at is not expected",
        ),
        ("metric: accuracy, ", "", "row bntt, column accuracy, metric: Field required"),
        ('unit: "%", ', "", "column accuracy, unit: Field required"),
        ("run: bntt", "run: bntt, quoted: perhaps", "quoted: Input should be a valid boolean"),
        (
            "run: bntt",
            "run: bntt, time_step: column latency",
            "time_step: Input should be a valid integer, unable to parse string as an integer",
        ),
        (
            "run: bntt",
            "run: [bntt]",
            "small.yaml, Table 9, row bntt, column accuracy, run: Input should be a valid string",
        ),
        ("title: An example.", "title: An: example.", "small.yaml: not valid YAML: mapping values are not allowed"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_named(right: str, wrong: str, message: str) -> None:
    assert SMALL.count(right) >= 1
    with pytest.raises((ValueError, UserError), match=re.escape(message)):
        parse(SMALL.replace(right, wrong, 1), "small.yaml")


@pytest.mark.parametrize("text", ["", "[]", "Table 9:", "Table 9: {title: a, columns: b, rows: c}"])
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"small\.yaml"):
        parse(text, "small.yaml")


def test_an_unknown_cell_or_table_is_named() -> None:
    with pytest.raises(ValueError, match=r"Table 1 has no cell bntt, accuracy\. Its rows: cifar10/cao-2015"):
        published("Table 1", "bntt", "accuracy")
    with pytest.raises(ValueError, match="no Table 4 among the published tables: Table 1, Table 2, Table 3"):
        table(4)


def test_reading_the_numbers_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, bntt.paper.published as p; p.cells(); print(*{'torch', 'pandas', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("name", "stated"), [("paper", decay.PAPER), ("released-code", decay.RELEASED)])
def test_the_decay_that_is_stated_is_the_protocols(name: str, stated: decay.Decay) -> None:
    """50,000 images in batches of 256 are 195 whole ones, and 80 images that are left out."""
    from bntt.training.schedule import decay_budget

    options = next(run for run in load(name).runs if (run.dataset, run.row) == ("cifar10", "bntt")).options
    assert options["batch_size"] == 256
    gamma = options["weight_decay"] if options["gamma_decay"] is None else options["gamma_decay"]
    assert (gamma, options["epochs"] * 195) == (stated.decay, stated.steps)
    assert decay_budget(options, 50_000) == pytest.approx(stated.budget, abs=0.05)


def test_what_is_printed_of_the_figures_is_found_among_the_numbers() -> None:
    assert (figures.THRESHOLD, figures.EXIT_STEP, figures.STEPS) == (0.1, 20, 25)
    assert figures.PEAK_STEPS == {"conv4": 9, "conv7": 13}
    with pytest.raises(ValueError, match="'n/a' is not a number"):
        _ = next(cell for cell in cells() if cell.printed == "n/a").number
