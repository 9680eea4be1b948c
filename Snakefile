# The whole benchmark: prepare -> train -> evaluate -> analyse -> report. Each step is a plain command,
# `python -m bntt ...`, that also runs without Snakemake; the rules only state inputs and outputs.
#
#     snakemake --cores 8 all                            config/demo.yaml
#     snakemake --cores 8 all --config experiment=NAME   config/NAME.yaml
#     snakemake --cores 8 reference                      draws results/reference/ again, trains nothing
#     snakemake --cores 1 check                          judges what exists, trains nothing
#     snakemake --cores 8 --sdm apptainer all            runs each job in a container; see docs/containers.md
#     snakemake --cores 8 -s PATH/Snakefile all          from another folder, which then holds data and results

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/check.smk"


if RESULTS != REFERENCE and REFERENCE.is_dir():  # the experiment's own rules draw its results; not in other folders

    include: "workflow/rules/reference.smk"


rule all:
    default_target: True
    input:
        [str(directory_of(run).train_json) for run in EXPERIMENT.runs],
        [str(directory_of(run).evaluate_json) for run in EXPERIMENT.runs],
        DRAWINGS,
        [LOOK] if PRELIMINARY else [],
        rules.overview.output,
