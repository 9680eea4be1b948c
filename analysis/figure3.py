# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 3: average γ of each layer over time, and the early exit
#
# BNTT gives each channel a scale γ for each time-step. The heat map shows γ averaged over the channels of a layer.
#
# **What the paper says** (Figure 3, Section 3.4; VGG9 on CIFAR-10, T = 25). The average γ of a layer rises and falls,
# later in deeper layers. Inference can end once the γ of every layer is below a threshold and stays there. With the
# threshold 0.1 this is after t = 20 (yellow dotted line). This step is known before any image is seen.
#
# How far weight decay alone can shrink γ is the *decay budget*: the sum of learning rate times weight decay on γ over
# all updates, divided by one minus the momentum. It is about 18 e-folds in the paper's protocol. Each panel names its
# own budget.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown

from bntt.drawing.figures import figure3, style
from bntt.drawing.notebook import opened
from bntt.results.collect import select
from bntt.results.facts import sources

found = opened(experiment, results)
dataset = style.drawn_dataset(found.experiment.datasets)
summary = select(found.summary, dataset=dataset)
gamma = select(found.frame("gamma.csv"), dataset=dataset)
early_exit = select(found.frame("early_exit.csv"), dataset=dataset)
threshold = found.experiment.evaluation["exit_threshold"]
rows = style.rows_with_gamma(gamma, summary)

Markdown(sources(found, dataset, rows))

# %%
figure = figure3.draw(gamma, early_exit, summary, rows, threshold)
Image(filename=style.save(figure, Path(output) / "figures", "figure3"), retina=True, alt="Figure 3")

# %% [markdown]
# ## When γ of each layer peaks
#
# The table gives the time-step with the largest average γ, or `none` if γ does not fall clearly after it.

# %%
figure3.peaks(gamma, "gamma")
