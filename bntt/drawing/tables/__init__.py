"""Tables 1, 2 and 3: the measured columns, and a column with the paper's printed number.

Pure functions from the frames of `Results` to a `Table`. A printed number is about the paper's dataset. With other data
no line has a verdict, and a note of the table says so.
"""

from bntt.drawing.tables._accuracy import condensed, table1
from bntt.drawing.tables._energy import table2, table3
from bntt.drawing.tables._table import Table, to_html, to_latex, to_markdown, write

__all__ = ["Table", "condensed", "table1", "table2", "table3", "to_html", "to_latex", "to_markdown", "write"]
