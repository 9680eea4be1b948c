"""Executes the notebook of the overview, the page that a reader opens first.

Input: everything else. Output: overview.html beside notebooks/, and the executed notebook within.
"""

DRAWINGS = [
    *expand(rules.figure.output, figure=FIGURES),
    *expand(rules.table.output, table=TABLES),
    *(rules.study.output if is_study(EXPERIMENT) else []),
]


rule overview:
    input:
        unpack(lambda wildcards: drawn_from("overview", DRAWINGS)),
    output:
        page=str(ROOT / "overview.html"),
        notebook=str(ROOT / "notebooks/overview.ipynb"),
        record=str(ROOT / "notebooks/overview.json"),
    log:
        str(ROOT / "logs/overview.log"),
    benchmark:
        str(ROOT / "benchmarks/overview/overview.tsv")
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        f"{BNTT} notebook {{input.source:q}} {NOTEBOOK} > {{log:q}} 2>&1"
