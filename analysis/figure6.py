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
# The early exit ends inference once γ of every layer stays below a threshold (Figure 3). A higher threshold ends it
# earlier; what does that cost?
#
# **What the paper says** (Figure 6, Section 4.5; VGG9 on CIFAR-10). The exit time falls as the threshold rises, and
# accuracy falls only marginally. With the threshold 0.1, used everywhere else, 20 of 25 steps are enough.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown

from bntt.drawing.figures import figure6, style
from bntt.results.collect import Results

found = Results.of(experiment, results)
dataset = style.paper_dataset(found.experiment.datasets)
summary = style.of_dataset(found.summary, dataset)
gamma, early_exit, anytime = (
    style.of_dataset(found.frame(f"{name}.csv"), dataset) for name in ("gamma", "early_exit", "anytime")
)
from bntt.drawing.notebook import at_root

at_root()
rows = style.rows_with_gamma(gamma, summary)

Markdown(style.sources(summary, rows))

# %%
figure = figure6.draw(early_exit, summary, rows, images=style.test_images(anytime))
Image(filename=style.save(figure, Path(output) / "figures", "figure6"), retina=True, alt="Figure 6")

# %% [markdown]
# ## In numbers
#
# `exits` is 0 where γ of some layer reaches the threshold at the last step: no exit, and all time-steps are used.

# %%
early_exit.drop(columns="dataset").round(2)
