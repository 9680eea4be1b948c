# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What makes the wave
#
# The paper says that a BNTT network learns its temporal dynamics: γ and the spikes form a wave that travels to later
# steps in deeper layers, and the steps after it can be left out. This notebook tests another explanation, by the rules
# that `docs/wave.md` fixed before the runs: late steps get almost no gradient, and weight decay removes what gets none.

# %% tags=["parameters"]
experiment = "wave-digits"
results = "results/reference"
output = "results/reference/wave-digits"

# %%
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Image, Markdown, display

from bntt.common.errors import UserError
from bntt.common.text import DASH, counted, interval, number
from bntt.drawing.figures import style
from bntt.drawing.figures import wave_study as figures
from bntt.drawing.notebook import opened
from bntt.drawing.page import table
from bntt.drawing.records import is_study
from bntt.results import wave_study as wave
from bntt.results.facts import sources

found = opened(experiment, results)
if not is_study(found.experiment):
    raise UserError(
        f"experiment {found.experiment.name} has no rows {wave.NEITHER} and {wave.GAMMA} on one dataset, which this "
        "notebook compares; draw wave-digits or wave-cifar10"
    )
dataset = style.drawn_dataset(found.experiment.datasets)
runs = wave.by_seed(found)
planned = found.experiment.rows_on(dataset)
Markdown(sources(found, dataset))


# %%
def shown(frame: pd.DataFrame, **digits: int) -> HTML:
    """A frame as a table, its numbers with the digits given for their columns."""
    text = {name: frame[name].map(lambda value, to=to: number(value, to)) for name, to in digits.items()}
    return HTML(table(frame.assign(**text), right=list(digits)))


def picture(figure, name: str) -> Image:
    return Image(filename=style.save(figure, Path(output) / "figures", f"wave-{name}"), retina=True, alt=name)


# %% [markdown]
# ## Every prediction, and its outcome
#
# The predictions and the rules by which they are called right, wrong or undecided are in `docs/wave.md`. Differences
# are paired by seed, with Student's 95 % interval. *Preliminary*: planned runs are missing.

# %%
made = wave.outcomes(found, runs)
HTML(table(pd.DataFrame(made, columns=["", "predicted", "found", "outcome"])))

# %% [markdown]
# ## The law
#
# No gradient flows through the reset, so a membrane passes its gradient back in time through the leak alone. The
# gradient that reaches γ at step t is then proportional to P_m(T − t), the leak-weighted number of paths from there to
# the end through m leaky layers. *The law holds* in a layer if the correlation of the logarithms is at least 0.95,
# before training, as a mean over five seeds; the smallest of them is beside it. *Last* and *law*: γ's gradient at the
# last step as a share of that at the first, measured and by the law. Exploratory, as correlation hardly tells one m
# from another: *factor* is by how much the shares of all steps are off in the mean, and *own* in how many seeds no
# other m has a nearer law.

# %%
of_law = wave.law(found)
for column in ("last", "law"):
    of_law[column] = of_law[column].map("{:.1e}".format)
of_law["holds"] = of_law["holds"].map({True: "yes", False: "no"})
shown(of_law.rename(columns={"leaky_layers": "m"}), gamma=4, least=4, membrane=4, factor=2)

# %%
leaks = {
    run.row: run.options["leak"]
    for run in found.experiment.runs
    if run.row in ("leak-0", "leak-0-5", "leak-0-8", "centre", "leak-1")
} or {wave.GAMMA: next(run.options["leak"] for run in found.experiment.runs)}
leaks = dict(sorted(leaks.items(), key=lambda one: one[1]))
picture(figures.draw_law(found.frame("gradients.csv", dataset=dataset), leaks), "law")

# %% [markdown]
# ## Which decay makes the fall
#
# F is the mean over layers of the spikes in the last fifth of the steps, as a share of those at the layer's peak: 1
# where spikes do not fall, 0 where they end.

# %%
if (difference := wave.difference(runs, wave.GAMMA, wave.NEITHER, "F")) is not None:
    accuracy, spikes = (wave.difference(runs, wave.GAMMA, wave.NEITHER, what) for what in ("accuracy", "spikes"))
    display(
        Markdown(
            f"`{wave.GAMMA}` minus `{wave.NEITHER}`: F {interval(difference)}, accuracy {interval(accuracy)} points, "
            f"spikes per neuron {interval(spikes)}."
        )
    )
compared = [row for row in wave.FACTORIAL if row in planned]
frames = [found.frame(name, dataset=dataset) for name in ("gamma_quartiles.csv", "spikes.csv", "anytime.csv")]
picture(figures.draw_rows(*frames, found.summary, compared), "decay")

# %%
every = [row for row in planned if not row.startswith("no-norm")]
of_rows = wave.rows(runs, every)
HTML(table(of_rows, right=list(of_rows.columns[1:])))

# %% [markdown]
# ## How far gamma is driven, and where it falls: predicted and measured
#
# *Reach*: the last step at which γ of a layer is 0.01 away from the value that decay alone gives it. *Fall*: the step
# after its peak at which mean γ is first below half its peak. Both are predicted from one setting, `centre` or
# `decay-gamma`, for other leaks, lengths and depths: *absolute* from the gradients measured before training, *first
# step* (exploratory) from their size at t = 1 and the law's shape, *relative* from the law's shape alone. Two
# predictions know no law.

# %%
WORDS = {"reach": ("reach", wave.VERSIONS), "half_fall": ("γ below half its peak", ("relative",))}
predicted = {outcome: wave.predicted(found, outcome) for outcome in WORDS}
predicted = {outcome: steps for outcome, steps in predicted.items() if steps["row"].nunique() > 1}
if not predicted:
    print("No two settings of leak, T or depth have a result in this experiment.")
for outcome, steps in predicted.items():
    words, versions = WORDS[outcome]
    for version in versions:
        one = wave.verdict(steps, version)
        minus = "; ".join(f"of *{rival}* {interval(estimate)}" for rival, estimate in one.minus.items())
        display(
            Markdown(
                f"**{words}, {version}.** Median error {number(one.median_error, 1)} steps; its mean error, "
                f"minus that {minus} (over {counted(steps['row'].nunique(), 'setting')})."
            )
        )
    display(picture(figures.draw_steps(steps, words, [*versions, *wave.RIVALS]), outcome.replace("_", "-")))
    columns = ["measured", *versions, *wave.RIVALS]
    of_layers = steps[["row", "leaky_layers", *columns]].rename(columns={"leaky_layers": "m"})
    display(shown(of_layers, **dict.fromkeys(columns, 1)))

# %% [markdown]
# ## Early exit, and the remedies
#
# Trained at the exit step against trained at T and stopped there; and networks whose γ decays as its gradient falls, or
# is moved alike at every step. *Not worse* means that the interval of the difference lies above −1 point.

# %%
lines = []
if (exited := wave.difference(runs, wave.TRAINED_AT_EXIT, wave.GAMMA, "accuracy", "accuracy_at_exit")) is not None:
    lines.append({"compared": f"{wave.TRAINED_AT_EXIT} minus {wave.GAMMA}, stopped", "accuracy": interval(exited)})
for row in wave.REMEDIES:
    columns = ["accuracy", "F", "spikes", *(name for name in runs.columns if name.startswith("accuracy at"))]
    differences = {what: wave.difference(runs, row, wave.GAMMA, what) for what in columns}
    if differences["accuracy"] is not None:
        lines.append({"compared": f"{row} minus {wave.GAMMA}"} | {k: interval(v) for k, v in differences.items()})
if lines:
    display(HTML(table(pd.DataFrame(lines).fillna(DASH))))
    remedies = [wave.NEITHER, wave.GAMMA, *(row for row in wave.REMEDIES if row in planned)]
    display(picture(figures.draw_rows(*frames, found.summary, remedies), "remedies"))
else:
    print("No row of this section has a result in this experiment.")
