"""Prepares datasets.

Output: data/{dataset}/manifest.json (or under $BNTT_DATA), written last; the arrays lie beside it.
"""


rule prepare:
    output:
        str(store.manifest_path("{dataset}")),
    log:
        str(ROOT / "logs/prepare/{dataset}.log"),
    benchmark:
        str(ROOT / "benchmarks/prepare/{dataset}.tsv")
    priority: AT_ONCE
    localrule: True  # downloads, and nodes of a cluster seldom reach the internet
    conda:
        "../../environment.yml"
    threads: 1
    shell:
        f"{BNTT} data prepare {{wildcards.dataset}} > {{log:q}} 2>&1"
