"""Executes the notebook of the overview, the page that a reader opens first; before, makes a preliminary one.

Input: everything else. Output: overview.html beside notebooks/, and the executed notebook within.

The preliminary overview needs the first seeds alone. It stands in the place of the overview, which is not its output: an
output has one rule, and Snakemake removes it before it is made. So nothing waits for it, and it may fail alone.
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


rule preliminary:
    input:
        looked_at,
    output:
        touch(LOOK),
    log:
        str(ROOT / "logs/preliminary.log"),
    benchmark:
        str(ROOT / "benchmarks/overview/preliminary.tsv")
    priority: AT_ONCE
    conda:
        "../../environment.yml"
    threads: 1
    message:
        f"a first look, at the first seed of every row: open {ROOT}/overview.html; the final one takes its place"
    shell:
        f"{BNTT} preliminary {OF_EXPERIMENT} > {{log:q}} 2>&1"
