"""Trains or converts one run: a row on a dataset with a seed.

Input: the prepared dataset and, for a row with `start`, the training that it begins from.
Output: train.json, written last; weights and history lie beside it. The state of an unfinished training lies in
scratch/, which Snakemake does not know, so a failed or killed job continues where it stopped.
"""


rule train:
    input:
        dataset=lambda wildcards: data_of(wildcards, TRAINED, UNFINISHED.training),
        start=start_of,
    output:
        update(TRAINED),  # so a second job for a run, as after a killed Snakemake, removes nothing that the first finished
    log:
        str(ROOT / "logs/train" / f"{RUN}.log"),
    benchmark:
        str(ROOT / "benchmarks/train" / f"{RUN}.tsv")
    priority: partial(urgency, True)
    conda:
        "../../environment.yml"
    threads: EXPERIMENT.runs[0].threads
    resources:
        **asked("training"),
    shell:
        # The training takes the place of the shell, which would die of a signal first and take the training with it.
        f"exec {BNTT} train {OF_RUN} > {{log:q}} 2>&1"
