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
# The figure shows how many spikes a neuron emits on average in each time-step, with one line for each layer.
#
# **What the paper says** (Figure 1 and Section 1; VGG9 on CIFAR-10). A converted network (a) and a network trained with
# the surrogate gradient alone (b) keep firing in all layers until the end. With BNTT (c), the activity of a layer
# rises, peaks and falls again. Early layers peak first and deeper layers later, as if the image passed through the
# network as a wave. After the wave there is little left to compute.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown, display

from bntt.drawing.figures import figure1, figure3, style
from bntt.drawing.notebook import opened
from bntt.results.collect import select
from bntt.results.facts import sources

found = opened(experiment, results)
dataset = style.drawn_dataset(found.experiment.datasets)
summary = select(found.summary, dataset=dataset)
spikes = select(found.frame("spikes.csv"), dataset=dataset)
rows = ["conversion", "surrogate", "bntt"]
further = [row for row in found.experiment.rows_on(dataset) if row in set(spikes["row"]) - set(rows)]

Markdown(sources(found, dataset, rows + further))

# %%
figure = figure1.draw(spikes, summary, rows)
Image(filename=style.save(figure, Path(output) / "figures", "figure1"), retina=True, alt="Figure 1")

# %% [markdown]
# ## The experiment's other spiking rows
#
# The same figure for the rows that the paper's figure does not have.

# %%
if further:
    figure = figure1.draw(spikes, summary, further)
    path = style.save(figure, Path(output) / "figures", "figure1-further")
    display(Image(filename=path, retina=True, alt="The same for further rows"))
else:
    print("No other spiking row has a result.")

# %% [markdown]
# ## When each layer is busiest
#
# The table gives the time-step with the most spikes. Where the activity hardly changes over time, the position of the
# largest value is a matter of chance.

# %%
figure3.peaks(spikes, "spikes")
