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
# # Table 1. Classification accuracy
#
# The paper compares BNTT with conversions from dense networks, with surrogate-gradient training without BNTT, and with
# published methods. It compares accuracy and the number of time-steps that each method needs. Its conclusion: BNTT
# comes close to the conversions' accuracy with a hundredth of their time-steps, and trains where plain surrogate
# gradients do not. Early exit saves another fifth of the time-steps.
#
# The first table has the paper's lines in the paper's order, each beside the row of this experiment that stands for it.
# The second has every row, with what it needs to reach its accuracy: time-steps, spikes, energy, training time and
# memory. Click on a column to sort by it; the field above searches in all columns.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from IPython.display import HTML, Markdown

from bntt.drawing.notebook import opened
from bntt.drawing.tables import table1, to_html, write
from bntt.results.facts import sources

found = opened(experiment, results)
table = table1(found)

# %%
Markdown(sources(found))

# %%
HTML(to_html(table))

# %% tags=["files"]
paths = write(table, f"{output}/tables")
Markdown(f"Also as {', '.join(f'[{path.name}](../tables/{path.name})' for path in paths)}.")
