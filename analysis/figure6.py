# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 6: accuracy and early exit time against the threshold
#
# The early exit ends inference once the γ of every layer stays below a threshold (Figure 3). A higher threshold ends it
# earlier. How much accuracy does that cost?
#
# **What the paper says** (Figure 6, Section 4.5; VGG9 on CIFAR-10). The exit time falls as the threshold rises, and
# accuracy falls only slightly. With the threshold 0.1, which the paper uses everywhere else, 20 of 25 steps are enough.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown

from bntt.drawing.figures import figure6, style
from bntt.drawing.notebook import opened
from bntt.results.collect import select
from bntt.results.facts import sources, test_images

found = opened(experiment, results)
dataset = style.drawn_dataset(found.experiment.datasets)
summary = select(found.summary, dataset=dataset)
gamma = select(found.frame("gamma.csv"), dataset=dataset)
early_exit = select(found.frame("early_exit.csv"), dataset=dataset)
rows = style.rows_with_gamma(gamma, summary)

Markdown(sources(found, dataset, rows))

# %%
figure = figure6.draw(early_exit, summary, rows, test_images(found, dataset))
Image(filename=style.save(figure, Path(output) / "figures", "figure6"), retina=True, alt="Figure 6")

# %% [markdown]
# ## In numbers
#
# `exits` is 0 where the γ of some layer still reaches the threshold at the last step. Then there is no early exit, and
# all time-steps are used.

# %%
early_exit.drop(columns="dataset").round(2)
