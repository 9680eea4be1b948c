"""Executes the notebooks that draw the tables and figures, and that of docs/wave.md where its rows are.

Input: every evaluate.json of the experiment and the notebook's source in analysis/.
Output: the executed notebook, its HTML page, a record of the data behind the drawing, and the table (csv, md, tex) or the figure (png, svg, pdf).
"""

NOTEBOOK = f"{OF_EXPERIMENT} --notebook {{output.notebook:q}} --page {{output.page:q}}"


rule figure:
    input:
        unpack(lambda wildcards: drawn_from(wildcards.figure)),
    output:
        multiext(str(ROOT / "figures/{figure}"), ".png", ".svg", ".pdf"),
        notebook=str(ROOT / "notebooks/{figure}.ipynb"),
        page=str(ROOT / "notebooks/{figure}.html"),
        record=str(ROOT / "notebooks/{figure}.json"),
    log:
        str(ROOT / "logs/figure/{figure}.log"),
    benchmark:
        str(ROOT / "benchmarks/figure/{figure}.tsv")
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        f"{BNTT} notebook {{input.source:q}} {NOTEBOOK} > {{log:q}} 2>&1"


rule table:
    input:
        unpack(lambda wildcards: drawn_from(wildcards.table)),
    output:
        multiext(str(ROOT / "tables/{table}"), ".csv", ".md", ".tex"),
        notebook=str(ROOT / "notebooks/{table}.ipynb"),
        page=str(ROOT / "notebooks/{table}.html"),
        record=str(ROOT / "notebooks/{table}.json"),
    log:
        str(ROOT / "logs/table/{table}.log"),
    benchmark:
        str(ROOT / "benchmarks/table/{table}.tsv")
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        f"{BNTT} notebook {{input.source:q}} {NOTEBOOK} > {{log:q}} 2>&1"


rule study:
    input:
        unpack(lambda wildcards: drawn_from(STUDY)),
    output:
        notebook=str(ROOT / f"notebooks/{STUDY}.ipynb"),
        page=str(ROOT / f"notebooks/{STUDY}.html"),
        record=str(ROOT / f"notebooks/{STUDY}.json"),
    log:
        str(ROOT / f"logs/study/{STUDY}.log"),
    benchmark:
        str(ROOT / f"benchmarks/study/{STUDY}.tsv")
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        f"{BNTT} notebook {{input.source:q}} {NOTEBOOK} > {{log:q}} 2>&1"
