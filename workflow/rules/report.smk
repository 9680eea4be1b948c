"""Executes the notebook of the overview, the page that a reader opens first.

Input: everything else. Output: overview.html beside notebooks/, and the executed notebook within.
"""


rule overview:
    input:
        EVALUATIONS,
        expand(str(ROOT / "figures/{figure}.png"), figure=FIGURES),
        expand(str(ROOT / "tables/{table}.csv"), table=TABLES),
        source="analysis/overview.py",
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
    params:
        code=code_hash.drawing_code(),
        text=(EXPERIMENT.title, EXPERIMENT.notes),
    shell:
        f"{BNTT} notebook {{input.source:q}} {NOTEBOOK} > {{log:q}} 2>&1"
