"""Tables 1, 2 and 3: what was measured, beside what the paper prints.

Pure functions from the frames of `Results` to a `Table`. A printed number is about the paper's dataset. With other data
no line has a verdict, and a note of the table says so.
"""

from bntt.drawing.tables._accuracy import MEASURED, PRINTED, condensed, table1
from bntt.drawing.tables._energy import table2, table3
from bntt.drawing.tables._table import Table, to_html, to_latex, to_markdown, write

__all__ = [
    "MEASURED",
    "PRINTED",
    "Table",
    "condensed",
    "table1",
    "table2",
    "table3",
    "to_html",
    "to_latex",
    "to_markdown",
    "write",
]
