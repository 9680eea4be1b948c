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
# # Table 2. Energy per operation
#
# The paper takes the energy of an operation from a table for a 45 nm process. A dense network multiplies and adds; a
# spiking network only adds. All energy ratios of the paper depend on these constants. They count nothing else: no
# memory access, no leak, no norm.
#
# Below are the printed constants beside those that the energy formula of this benchmark uses.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from IPython.display import HTML, Markdown

from bntt.drawing.notebook import at_working_folder
from bntt.drawing.tables import table2, to_html, write

at_working_folder(results)

table = table2()

# %% [markdown]
# **Data drawn.** None. These are constants: the paper's are from `bntt/paper/`, the benchmark's from
# `bntt/measurements/operations.py`. They are the same for every experiment, dataset and seed.

# %%
HTML(to_html(table))

# %% tags=["files"]
paths = write(table, f"{output}/tables")
Markdown(f"Also as {', '.join(f'[{path.name}](../tables/{path.name})' for path in paths)}.")
