"""Measures one trained run on the test images.

Input: train.json. Output: evaluate.json, written last; it names the csv files that lie beside it. The state of an
unfinished evaluation lies in scratch/, as that of a training does.
"""


rule evaluate:
    input:
        dataset=lambda wildcards: data_of(wildcards, EVALUATED, UNFINISHED.evaluation),
        training=lambda wildcards: settled(
            TRAINED.format(**wildcards), RUN.format(**wildcards) in UNFINISHED.evaluation
        ),
    output:
        EVALUATED,
    log:
        str(ROOT / "logs/evaluate" / f"{RUN}.log"),
    benchmark:
        str(ROOT / "benchmarks/evaluate" / f"{RUN}.tsv")
    priority: partial(urgency, False)
    conda:
        "../../environment.yml"
    threads: EXPERIMENT.runs[0].threads
    resources:
        **asked("evaluation"),
    shell:
        f"exec {BNTT} evaluate {OF_RUN} > {{log:q}} 2>&1"  # in place of the shell, as a training is
