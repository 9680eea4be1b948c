"""The paper's Figures 1 to 6, one file each: pure functions from measured frames to a matplotlib figure.

`draw` takes frames, which are named like their csv files, and `Results.summary`, all of one dataset (see `select`). If
a row has no result, its place stays empty and the figure says why. `style.save` writes a figure as png, svg and pdf.
"""
