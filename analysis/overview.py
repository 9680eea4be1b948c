# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Overview of the BNTT reproducibility benchmark

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import HTML, Markdown, display

from bntt.common.text import counted, interval, listed
from bntt.drawing.figures.style import drawn_dataset
from bntt.drawing.notebook import opened, titles
from bntt.drawing.overview import (
    claims_list,
    decay_table,
    gamma_decay,
    noise_table,
    provenance_table,
    recordings,
    runs_table,
    scores_table,
    verdict_counts,
    verdicts_table,
    what_ran,
)
from bntt.drawing.page import figure, piece
from bntt.drawing.records import is_study
from bntt.drawing.tables import condensed, table1, to_html
from bntt.paper.claims import BNTT, noise_differences, of_all_seeds, weigh
from bntt.paper.decay import PAPER, RELEASED
from bntt.paper.published import DATASETS
from bntt.paper.reproduction import judge_all
from bntt.paper.verdicts import explained
from bntt.results.collect import select
from bntt.results.facts import sources

found = opened(experiment, results)
datasets = found.experiment.datasets
accuracies = table1(found)
claims = {dataset: weigh(found, dataset) for dataset in datasets}
FIGURES = titles("figure")


def heading(dataset: str) -> str:
    return f"### {dataset}" if len(datasets) > 1 else ""


# %%
Markdown(f"**{found.experiment.title}**\n\n{what_ran(found, accuracies, claims)}")

# %%
cards = [
    figure(Path(output) / f"figures/{name}.png", title, f"notebooks/{name}.html", f"figures/{name}.png", height=8.5)
    for name, title in FIGURES.items()
]
if is_study(found.experiment):
    titled = {"wave-decay": "What decay of gamma does", "wave-law": "The gradient's fall with time, and its law"}
    page = "notebooks/wave.html"
    drawn = {name: f"figures/{name}.png" for name in titled if (Path(output) / f"figures/{name}.png").exists()}
    cards = [figure(Path(output) / file, titled[name], page, file, height=8.5) for name, file in drawn.items()] + cards
shown = f"Figures 1 and 3 to 6 are of {drawn_dataset(datasets)}." if len(datasets) > 1 else ""
display(HTML(piece("grid", cards, 17)), Markdown(shown))

# %% [markdown]
# ## The paper's claims, on this data
#
# Each line is a claim; open it to see what it rests on. A claim is about all its comparisons: every row, layer or noise
# level that it names. It *holds* if in each of them the 95 % interval of the statistic lies completely on the claim's
# side of a limit. It *fails* if in one of them the interval lies completely on the other side, at a level that allows
# for the number of comparisons. Else, or if a run is missing or a network does not work, it is *undecided*; it is *not
# decidable* if a network is silent or at chance. Intervals are over seeds. *One seed* means that the outcome is about a
# single network, which another seed may reverse. *Fails* is a finding about this data and these networks, not an error
# of the benchmark.

# %%
for dataset in datasets:
    display(Markdown(heading(dataset)), HTML(claims_list(claims[dataset])))

# %% [markdown]
# ## What this page is
#
# "Revisiting Batch Normalization for Training Low-latency Deep Spiking Neural Networks from Scratch" (Kim and Panda)
# gives every time-step of a spiking network its own batch normalisation, BNTT. The paper reports that BNTT needs fewer
# time-steps and fewer spikes, and is more robust, than conversions and plain surrogate gradients. This page says which
# of these results were reproduced here. This experiment trained or converted every network and measured every number on
# its test images. The paper's printed numbers stand beside them.

# %%
Markdown(found.experiment.notes)

# %% [markdown]
# ## Accuracy under noise, for each sigma
#
# The table gives the points of accuracy by which `bntt` is better on the same noisy images, each method after all of
# its own time-steps, as a mean over common seeds. A value is **bold** where its 95 % interval does not include 0:
# Student's interval over seeds, or with one seed Tango's interval for paired proportions. The latter is over images and
# not over seeds, so another seed may decide otherwise. Each cell is tested by itself.

# %%
for dataset in datasets:
    differences = noise_differences(of_all_seeds(found, dataset))
    words = select(found.summary, dataset=dataset).set_index("row")["dead"]
    dead = words[words != ""].to_dict()
    display(
        Markdown(heading(dataset)),
        HTML(noise_table(differences, dead))
        if len(differences)
        else Markdown("No two rows to compare under noise. Event recordings get no Gaussian noise."),
    )

# %% [markdown]
# ## The paper's numbers
#
# A printed number gets a verdict only from runs of the paper's own protocol, on data known to be the publisher's.
# Settings match by construction, and a number that the paper repeats counts once. A dead network has an accuracy at
# chance, no spike, and every gamma at 0.01, so that it exits after one step. The last columns say for how many numbers
# it would earn MATCH, CONSISTENT or BETTER, of those that runs of the protocol can decide; and for how many if numbers
# were judged without the accuracy that they were bought at.

# %%
judged = judge_all(found)
answered = [one for one in judged if one.verdict.word != "NOT_RUN"]
display(HTML(scores_table(judged)), Markdown(verdict_counts(judged)))
display(Markdown(explained(one.verdict for one in judged)))
if answered:
    display(HTML(verdicts_table(answered)))

# %% [markdown]
# ## Accuracy: a short form of Table 1

# %%
HTML(to_html(condensed(accuracies)))

# %%
sheets = recordings(datasets, Path(output))
if sheets:
    display(
        Markdown(
            "## Event recordings\n\nOne recording of each class. Its frames, evenly spaced in time, show where pixels "
            "became brighter (ON) and darker (OFF). Networks see whether a square of pixels had an event in a frame."
        ),
        HTML(piece("grid", sheets, 24)),
    )

# %% [markdown]
# ## Weight decay on gamma, and the wave
#
# In the paper's protocol and in the released code, weight decay acts on BNTT's gammas as on weights. Where the loss
# does not drive a gamma, decay alone shrinks it. How far is the decay's budget, in e-folds: the sum over all training
# steps of learning rate times decay, divided by one minus the momentum.
#
# Rows that differ in nothing but the decay on gamma were compared on digits and on a fifth of CIFAR-10 (docs/wave.md):
# it alone makes gamma and the spikes fall. On digits, the decay of the other weights does not. Late steps get little
# gradient, so decay holds their gamma down, and early exit drops these steps. A network trained without them was as
# accurate.

# %%
options = {run.row: run.options for run in found.experiment.runs if run.dataset == datasets[0]}
decay = gamma_decay(options.get(BNTT, {})) or 0.0
steps = found.summary.loc[found.summary["row"] == BNTT, "steps"].max()
text = [
    f"The paper's protocol has a budget of about {PAPER.budget:.0f} e-folds on CIFAR-10, the released code "
    f"{RELEASED.budget:.0f}."
]
if decay > PAPER.decay:
    text.append(
        f"**Here decay was scaled up: row `{BNTT}` decays gamma by {decay:g}, {decay / PAPER.decay:g} times the "
        f"paper's {PAPER.decay:g}**"
        + (f"; its training has {counted(steps, 'step')}, the paper's {PAPER.steps:,}." if steps > 0 else ".")
    )
unscaled = [row for row, own in options.items() if gamma_decay(own) == PAPER.decay and own["norm"] == "bntt"]
if unscaled and BNTT in options and decay != PAPER.decay:
    text.append(f"With the paper's own decay, unscaled: {listed([f'row `{row}`' for row in unscaled])}.")
    if any(options[row]["weight_decay"] != options[BNTT]["weight_decay"] for row in unscaled):
        text.append("The difference is in the decay of all weights.")
Markdown(" ".join(text))

# %%
for dataset in datasets:
    display(Markdown(heading(dataset)), HTML(decay_table(found, dataset)))
    peaks = next(claim for claim in claims[dataset] if claim.name == "gamma-peaks-later")
    taus = [f"`{part.label}` {interval(part.estimate)} ({part.word})" for part in peaks.parts if part.estimate]
    if taus:
        display(Markdown(f"Delay of the peak with depth, Kendall's tau: {listed(taus)}."))

# %% [markdown]
# ## Every run

# %%
HTML(runs_table(found))

# %% [markdown]
# Accuracy is measured on the test images after all T time-steps, ± its binomial standard error. The decay budget of
# gamma is in e-folds; a row without a learned scale has none. A run that *diverged* is shown as n/a in the tables. A
# run that is *missing* has no result yet; `python -m bntt runs` lists such runs.

# %% [markdown] tags=["files"]
# ## Notebooks and tables

# %% tags=["files"]
lines = [
    f"* [{title}](notebooks/{name}.html), and as [csv](tables/{name}.csv), [Markdown](tables/{name}.md), "
    f"[LaTeX](tables/{name}.tex)"
    for name, title in titles("table").items()
]
lines += [
    f"* [{title}](notebooks/{name}.html), and as [png](figures/{name}.png), [svg](figures/{name}.svg), "
    f"[pdf](figures/{name}.pdf)"
    for name, title in FIGURES.items()
]
if is_study(found.experiment):
    lines.append("* [What makes the wave](notebooks/wave.html): rows with and without decay of gamma, by docs/wave.md")
Markdown("\n".join(lines))

# %%
foreign = [dataset for dataset in datasets if dataset not in DATASETS]
Markdown(
    f"The paper has no results on {listed(foreign)}. There its printed numbers are shown, but no verdict is given."
    if foreign
    else ""
)

# %% [markdown]
# ## Where the numbers come from

# %%
display(Markdown(sources(found)), HTML(provenance_table(found)))

# %% [markdown]
# ## How to go on
#
# * **Look closer.** `make lab` opens the notebooks in JupyterLab. Their sources are in `analysis/`.
# * **Change the experiment.** Rows, seeds and every option are in the files in `config/`; `config/README.md` explains
#   them. With more seeds, the tables give mean ± standard deviation over the seeds. Only the runs that a change affects
#   are trained again.
# * **Add a method or a norm of your own.** It needs one file in `bntt/methods/` and one row in the experiment. It then
#   gets a line in every table and figure, and a paired comparison with BNTT in Table 1.
