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
# # Table 3. Energy efficiency
#
# The paper compares the energy of a dense VGG9 on CIFAR-10 with that of its spiking versions. A spiking layer costs its
# dense operations times its spikes per neuron, at 0.9 instead of 4.6 pJ per operation. The paper's conclusion: BNTT
# needs about nine times less energy than the dense network. Plain surrogate gradients need about as much as the dense
# network. A conversion saves energy only if it stops early and loses accuracy.
#
# The formula can be read in several ways: which layer's spikes are meant, and is the input layer counted? So every
# reading is shown.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from IPython.display import HTML, Markdown

from bntt.drawing.notebook import opened
from bntt.drawing.tables import table3, to_html, write
from bntt.results.facts import sources

found = opened(experiment, results)
table = table3(found)

# %%
Markdown(sources(found))

# %%
HTML(to_html(table))

# %% tags=["files"]
paths = write(table, f"{output}/tables")
Markdown(f"Also as {', '.join(f'[{path.name}](../tables/{path.name})' for path in paths)}.")
