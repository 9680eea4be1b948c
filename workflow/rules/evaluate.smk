"""Measures one trained run on the test images.

Input: train.json. Output: evaluate.json, written last; it names the csv files that lie beside it.
"""


rule evaluate:
    input:
        dataset=str(store.manifest_path("{dataset}")),
        training=rules.train.output,
    output:
        str(ROOT / "runs" / RUN / "evaluate.json"),
    log:
        str(ROOT / "logs/evaluate" / f"{RUN}.log"),
    benchmark:
        str(ROOT / "benchmarks/evaluate" / f"{RUN}.tsv")
    conda:
        "../../environment.yml"
    threads: EXPERIMENT.runs[0].threads
    params:
        code=lambda wildcards: code_hash.evaluation_code(run_of(wildcards)),
        configuration=lambda wildcards: dict(run_of(wildcards).evaluation),
    shell:
        f"{BNTT} evaluate {OF_RUN} > {{log:q}} 2>&1"
