# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 5: distribution of γ over time
#
# The figure shows how the γ of a layer's channels are distributed at each time-step: conv1 in the first line, conv4 in
# the second, conv7 in the third.
#
# **What the paper says** (Figure 5, Section 4.4; VGG9 on CIFAR-10, T = 25). The γ of conv1 is high at first and then
# falls. The γ of conv4 and conv7 start small, peak at t = 9 and t = 13, and shrink to zero. The deeper the layer, the
# later the peak.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown, display

from bntt.drawing.figures import figure3, figure5, style
from bntt.drawing.notebook import opened
from bntt.results.collect import select
from bntt.results.facts import sources

found = opened(experiment, results)
dataset = style.drawn_dataset(found.experiment.datasets)
summary = select(found.summary, dataset=dataset)
gamma = select(found.frame("gamma.csv"), dataset=dataset)
rows = style.rows_with_gamma(gamma, summary)

Markdown(sources(found, dataset, rows))

# %%
figure = figure5.draw(gamma, summary, "bntt")
Image(filename=style.save(figure, Path(output) / "figures", "figure5"), retina=True, alt="Figure 5")

# %% [markdown]
# ## When γ of each layer peaks
#
# The table gives the time-step with the largest mean γ, or `none` if γ does not fall clearly after it. Below it are the
# histograms of the other rows that have a γ for each time-step.

# %%
figure3.peaks(gamma, "gamma")

# %%
for row in rows[1:]:
    figure = figure5.draw(gamma, summary, row)
    name = f"figure5-{row}"
    display(Image(filename=style.save(figure, Path(output) / "figures", name), retina=True, alt=name))
