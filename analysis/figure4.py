# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 4: spikes of each layer, and accuracy under noise
#
# (a) How often a neuron of each layer fires over all time-steps; this decides the energy. (b) Test accuracy when
# Gaussian noise is added to the input image.
#
# **What the paper says** (Figure 4, Sections 4.3 and 4.6; VGG9 on CIFAR-10). (a) BNTT has the fewest spikes in every
# layer; in a converted network a neuron fires up to hundreds of times. (b) BNTT is the most accurate at every noise
# level. The converted network loses much accuracy above σ = 0.4. Under strong noise, surrogate training without BNTT is
# more accurate than the ANN.
#
# The paper does not say whether noise is added before or after the pixels are scaled. This choice makes the noise
# several times stronger or weaker; the caption says what was done here.

# %% tags=["parameters"]
experiment = "demo"
results = "results"
output = "results/demo"

# %%
from pathlib import Path

from IPython.display import Image, Markdown, display

from bntt.common.text import counted, interval, listed
from bntt.drawing.figures import figure4, style
from bntt.drawing.notebook import opened
from bntt.results import realisations as of_noise
from bntt.results.collect import select
from bntt.results.facts import sources, test_images

found = opened(experiment, results)
dataset = style.drawn_dataset(found.experiment.datasets)
summary = select(found.summary, dataset=dataset)
spikes, anytime, noise = (
    select(found.frame(f"{name}.csv"), dataset=dataset) for name in ("spikes", "anytime", "noise")
)
rows = style.paper_first([*figure4.ROWS, *found.experiment.rows_on(dataset)])

Markdown(sources(found, dataset, rows))

# %%
for number, shown in enumerate(style.pictures(rows)):
    figure = figure4.draw(spikes, anytime, noise, summary, shown, test_images(found, dataset))
    name = f"figure4-further-{number}" if number else "figure4"
    path = style.save(figure, Path(output) / "figures", name)
    display(Image(filename=path, retina=True, alt="The same for further rows" if number else "Figure 4"))

# %% [markdown]
# ## (a) in numbers: spikes per neuron over all time-steps

# %%
figure4.spike_count_table(spikes).round(2)

# %% [markdown]
# ## (b) in numbers: accuracy in per cent, by the noise's standard deviation

# %%
figure4.noise_table(noise).round(1)

# %% [markdown]
# ## (b) under both readings of the noise, and under several realisations of it
#
# Where the experiment asks for it (`noise_draws`), noise is added before and after scaling, and drawn several times.
# The table gives the accuracy, and in brackets its standard deviation over realisations with the seed held fixed.

# %%
realisations = select(found.frame("noise_draws.csv"), dataset=dataset)
if len(realisations):
    figure = figure4.draw_spaces(realisations, summary, rows)
    path = style.save(figure, Path(output) / "figures", "figure4-spaces")
    display(Image(filename=path, retina=True, alt="Accuracy under noise in both spaces"))
    display(figure4.realisation_table(realisations))
    spreads = of_noise.spreads(realisations).dropna()
    less = int((spreads["within"] < spreads["between"]).sum())
    orders = [
        f"at σ = {one.sigma:g} `{one.row}` minus `{one.other}` is {interval(one.pixel)} and {interval(one.normalised)}"
        for one in of_noise.turns(realisations)
    ]
    costs = [f"`{row}` {interval(estimate)}" for row, estimate in of_noise.costs(realisations).items()]
    if len(spreads):
        display(Markdown(f"The realisation matters less than the seed in {less} of {counted(len(spreads), 'case')}."))
    if costs:  # at least two seeds
        found_orders = f": {'; '.join(orders)} (before and after scaling)" if orders else ""
        display(
            Markdown(
                f"Two rows have opposite orders in the two spaces {counted(len(orders), 'time')}{found_orders}. "
                f"Accuracy under noise before scaling, minus that after it, mean over levels: {listed(costs)}."
            )
        )
else:
    display(Markdown("This experiment did not ask for it."))
