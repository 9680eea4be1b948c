"""The paper's Figures 1 to 6 as pure functions from measured frames to a matplotlib figure.

Each takes the frames it draws and `Results.summary`, all of one dataset (`of_dataset`), and draws what is there: a
row without a result leaves a gap that the figure names. `save` writes a figure as png, svg and pdf.
"""

from bntt.figures._style import name_of, of_dataset, paper_dataset, rows_with_gamma, save, sources, test_images
from bntt.figures.comparison import figure4, noise_table, spike_count_table
from bntt.figures.early_exit import figure6
from bntt.figures.gamma_histograms import figure5
from bntt.figures.gamma_map import figure3, peaks
from bntt.figures.neuron import figure2
from bntt.figures.spikes_over_time import figure1

__all__ = [
    "figure1",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "figure6",
    "name_of",
    "noise_table",
    "of_dataset",
    "paper_dataset",
    "peaks",
    "rows_with_gamma",
    "save",
    "sources",
    "spike_count_table",
    "test_images",
]
