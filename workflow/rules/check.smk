"""Judges the experiment's existing results: a verdict for every printed number, and what is missing or damaged.

Input: none, so that nothing is trained. Output: none; it prints (the log holds the same), and fails if a run is
missing or damaged.
"""


rule check:
    log:
        str(ROOT / "logs/check.log"),
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        root=str(ROOT),
        experiment=quote(str(config.get("experiment", "demo"))),
    shell:
        f"{BNTT} check {{params.root:q}} --experiment {{params.experiment}} 2>&1 | tee {{log:q}}"
