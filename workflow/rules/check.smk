"""Judges what exists of the experiment: a verdict for every printed number, and what is missing or damaged.

Input: none, so that nothing is trained. Output: none; it prints, and fails where a run is missing or damaged.
"""


rule check:
    conda:
        "../../environment.yml"
    threads: 1
    params:
        root=str(ROOT),
        experiment=quote(str(config.get("experiment", "demo"))),
    shell:
        f"{BNTT} check {{params.root:q}} --experiment {{params.experiment}}"
