# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 2: the neuron and its gradient
#
# (a) The membrane potential of a leaky integrate-and-fire neuron while input spikes arrive, and the spikes that it
# emits. (b) The surrogate gradient that training uses instead of the spike's true derivative, which is zero or
# infinite.
#
# **What the paper says** (Figure 2, Section 3.1, Equations 4 and 8). The potential leaks and adds the weighted input.
# Where it exceeds the threshold, the neuron fires, and the threshold is subtracted from the potential, so that the
# excess is kept. The gradient is a triangle with its highest value, α = 0.3, at the threshold.
#
# Nothing here is measured: both panels are computed with this project's own neuron, (b) by automatic differentiation.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown

from bntt.drawing.figures import figure2, style
from bntt.drawing.notebook import at_working_folder
from bntt.spiking.neurons import LIF

at_working_folder(results)

neuron = LIF(leak=0.95, threshold=1.0, reset="soft", alpha=0.3)  # the released code's values

Markdown(f"**Data.** None of the experiment's: this is an illustration, computed with `{neuron}`, α = {neuron.alpha}.")

# %%
figure = figure2.draw(neuron)
Image(filename=style.save(figure, Path(output) / "figures", "figure2"), retina=True, alt="Figure 2")
