# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 1: spikes of each layer over time
#
# How many spikes a neuron emits on average in each time-step, one line for each layer.
#
# **What the paper says** (Figure 1 and Section 1; VGG9 on CIFAR-10). A converted network (a) and one trained with the
# surrogate gradient alone (b) keep firing in all layers until the end. With BNTT (c) the activity of a layer rises,
# peaks and falls again, early layers first and deeper layers later, as if the image passed through the network as a
# wave; after the wave there is little left to compute.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown, display

from bntt import figures
from bntt.collect import Results
from bntt.notebook import at_root

at_root()

found = Results.of(experiment, results)
dataset = figures.paper_dataset(found.experiment.datasets)
summary = figures.of_dataset(found.summary, dataset)
spikes = figures.of_dataset(found.frame("spikes.csv"), dataset)
rows = ["conversion", "surrogate", "bntt"]
further = [row for row in found.experiment.rows_on(dataset) if row in set(spikes["row"]) - set(rows)]

Markdown(figures.sources(summary, rows + further))

# %%
figure = figures.figure1(spikes, summary, rows)
Image(filename=figures.save(figure, Path(output) / "figures", "figure1"), retina=True, alt="Figure 1")

# %% [markdown]
# ## The experiment's other spiking rows
#
# The same for rows that the paper's figure does not have.

# %%
if further:
    figure = figures.figure1(spikes, summary, further)
    path = figures.save(figure, Path(output) / "figures", "figure1-further")
    display(Image(filename=path, retina=True, alt="The same for further rows"))
else:
    print("There are none with a result.")

# %% [markdown]
# ## When each layer is busiest
#
# The time-step with the most spikes. Where activity is flat in time, the largest value is an accident.

# %%
figures.peaks(spikes, "spikes")
