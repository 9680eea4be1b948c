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
        decides=lambda wildcards: status.decides_evaluation(run_of(wildcards)),
    shell:
        f"{BNTT} evaluate {OF_RUN} > {{log:q}} 2>&1"
