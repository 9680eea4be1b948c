"""The paper's Figures 1 to 6, a file each: pure functions from measured frames to a matplotlib figure.

`draw` takes the frames it draws, which are called like their csv files, and `Results.summary`, all of one dataset
(`select`). It draws what is there; a row without a result leaves a gap that the figure names. `style.save` writes a
figure as png, svg and pdf.
"""
