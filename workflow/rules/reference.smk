"""Draws the committed measurements in results/reference/ again: tables, figures, overview. Trains and measures nothing.

Input: results/reference/{reference}/runs/. Output: the same files as for any experiment, beside them.
"""

REFERENCES = sorted(folder.parent.name for folder in REFERENCE.glob("*/runs"))
REFERENCE_NOTEBOOK = (
    f"{BNTT} notebook {{input.source:q}} --experiment {{wildcards.reference}} --results {REFERENCE} "
    "--notebook {output.notebook:q} --page {output.page:q} > {log:q} 2>&1"
)


rule draw_reference:
    input:
        unpack(lambda wildcards: of_reference(wildcards.reference, wildcards.drawing)),
    output:
        notebook=str(REFERENCE / "{reference}/notebooks/{drawing}.ipynb"),
        page=str(REFERENCE / "{reference}/notebooks/{drawing}.html"),
        record=str(REFERENCE / "{reference}/notebooks/{drawing}.json"),
    log:
        str(REFERENCE / "{reference}/logs/{drawing}.log"),
    benchmark:
        str(REFERENCE / "{reference}/benchmarks/{drawing}.tsv")
    wildcard_constraints:
        reference="|".join(REFERENCES) or "none",
        drawing="|".join([*FIGURES, *TABLES, STUDY]),
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        REFERENCE_NOTEBOOK


rule reference_overview:
    input:
        unpack(
            lambda wildcards: of_reference(
                wildcards.reference,
                "overview",
                expand(rules.draw_reference.output.record, drawing=drawings_of(wildcards.reference), **wildcards),
            )
        ),
    output:
        page=str(REFERENCE / "{reference}/overview.html"),
        notebook=str(REFERENCE / "{reference}/notebooks/overview.ipynb"),
        record=str(REFERENCE / "{reference}/notebooks/overview.json"),
    log:
        str(REFERENCE / "{reference}/logs/overview.log"),
    benchmark:
        str(REFERENCE / "{reference}/benchmarks/overview.tsv")
    wildcard_constraints:
        reference="|".join(REFERENCES) or "none",
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        REFERENCE_NOTEBOOK


rule reference:
    input:
        expand(rules.reference_overview.output.page, reference=REFERENCES),
