"""What an archive says of its files, as an RO-Crate: which training and evaluation made which file, and from what.

The document follows RO-Crate 1.1 and its profile Process Run Crate 0.5
(https://www.researchobject.org/workflow-run-crate/profiles/0.5/process_run_crate/). It says what the manifests record
and nothing else. So it names no agent, and no time that is not known.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from bntt.common.errors import UserError
from bntt.common.text import counted, listed
from bntt.experiment.schema import Experiment, Run
from bntt.runs.directory import WEIGHTS
from bntt.runs.status import Found

METADATA = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = [f"{SPECIFICATION}/context", "https://w3id.org/ro/terms/workflow-run/context"]
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}

Reference = dict[str, str]


class Content(NamedTuple):
    """The size of a file in bytes, and its hash."""

    size: int
    sha256: str


class Recorded(NamedTuple):
    """A run and its manifests; None for one that is missing or damaged."""

    found: Found
    training: dict[str, Any] | None
    evaluation: dict[str, Any] | None

    @classmethod
    def of(cls, found: Found) -> "Recorded":
        manifests: list[dict[str, Any] | None] = []
        for read in (found.directory.training, found.directory.evaluation):
            try:
                manifests.append(read())
            except UserError:
                manifests.append(None)
        return cls(found, *manifests)


def last_time(runs: Sequence[Recorded]) -> datetime | None:
    """When the last training or evaluation began; None if there is none."""
    began = [manifest["started"] for one in runs for manifest in one[1:] if manifest and "started" in manifest]
    return max(map(datetime.fromisoformat, began), default=None)


def described(
    experiment: Experiment,
    plan: str,
    runs: Sequence[Recorded],
    files: Mapping[str, Content],
    date: datetime,
    faults: Sequence[str],
) -> dict[str, Any]:
    """The document of an experiment's folder with these files, of which ``plan`` is the experiment file.

    ``faults`` say what is missing in an archive of an unfinished experiment.
    """
    crate = _Crate(plan, files)
    actions = [action for one in runs for action in crate.actions(one)]
    ended = [one.found.status for one in runs if one.found.status.ended]
    counts = listed([f"{ended.count(status)} {status}" for status in dict.fromkeys(ended)])
    summary = f"{counted(len(runs), 'run')} of experiment {experiment.name}" + (f": {counts}." if ended else ".")
    if faults:
        summary += f" The experiment is not finished: {'; '.join(faults)}."
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": {"@id": SPECIFICATION},
        "about": {"@id": "./"},
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": experiment.title,
        "description": "\n\n".join(filter(None, (experiment.notes.strip(), summary))),
        "datePublished": date.isoformat(timespec="seconds"),
        **({"creativeWorkStatus": "Incomplete"} if faults else {}),
        "hasPart": [_reference(name) for name in files],
        "mentions": actions,
    }
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    return {"@context": CONTEXT, "@graph": [descriptor, root, profile, *crate.entities.values()]}


def _reference(name: str) -> Reference:
    """A file of the crate, by its path as a URI."""
    return {"@id": quote(name)}


def _short(*content: object) -> str:
    """A name for what has no other: a part of the hash of its content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class _Crate:
    """The entities of a crate, by their identifiers. One that is added twice is there once."""

    def __init__(self, plan: str, files: Mapping[str, Content]) -> None:
        self.plan, self.files = plan, files
        self.entities: dict[str, dict[str, Any]] = {}
        for name, content in files.items():
            self.add(
                _reference(name)["@id"],
                "File",
                name=name.rpartition("/")[2],
                description="The experiment file." if name == plan else None,
                encodingFormat=FORMATS.get(name[name.rfind(".") :], "application/octet-stream"),
                contentSize=str(content.size),
                sha256=content.sha256,
            )

    def add(self, identifier: str, kind: str, **properties: Any) -> Reference:
        """An entity with the properties that are known, not None."""
        known = {key: value for key, value in properties.items() if value is not None}
        self.entities[identifier] = {"@id": identifier, "@type": kind, **known}
        return {"@id": identifier}

    def actions(self, one: Recorded) -> list[Reference]:
        """The training of a run and its evaluation, as far as they took place and are recorded."""
        run, training, evaluation = one.found.run, one.training, one.evaluation
        actions = []
        if training is not None:
            start = None if run.start is None else replace(run, row=run.start)
            inputs = [] if start is None else self.weights(start, training.get("start_sha256"))
            actions.append(self.action("train", run, training, inputs))
        if evaluation is not None and evaluation["status"] == "done":  # of a run that diverged, nothing is measured
            inputs = self.weights(run, evaluation.get("weights_sha256"))
            actions.append(self.action("evaluate", run, evaluation, inputs))
        return actions

    def action(self, command: str, run: Run, manifest: Mapping[str, Any], inputs: list[Reference]) -> Reference:
        row = f"--dataset {run.dataset} --row {run.row} --seed {run.seed}"
        description = f"python -m bntt {command} --experiment {self.plan} {row}"
        began, pieces, start, end = datetime.fromisoformat(manifest["started"]), manifest.get("pieces", 1), None, None
        if pieces == 1:
            start = began.isoformat(timespec="seconds")
            end = (began + timedelta(seconds=manifest["seconds"])).isoformat(timespec="seconds")
        else:  # the manifest knows when the last piece began, and how long all of them took
            description += f", in {pieces} pieces, the last of which began at {manifest['started']}"
        failed = manifest["status"] == "diverged"
        return self.add(
            f"#{command}/{run.name}",
            "CreateAction",
            name=f"{'training' if command == 'train' else 'evaluation'} of {run.name}",
            description=description,
            startTime=start,
            endTime=end,
            instrument=self.software(manifest["provenance"]),
            object=[_reference(self.plan), self.data(manifest["data"]), *inputs],
            result=self.results(run, f"{command}.json", manifest["files"]),
            actionStatus=f"http://schema.org/{'Failed' if failed else 'Completed'}ActionStatus",
            error=(manifest.get("reason") or "diverged") if failed else None,
            resourceUsage=self.usage(manifest),
        )

    def results(self, run: Run, manifest: str, hashes: Mapping[str, str]) -> list[Reference]:
        """The manifest and the files that it names, if they are here; weights also if they are not."""
        folder = f"runs/{run.name}"
        made = [_reference(f"{folder}/{manifest}")]
        for name, sha256 in hashes.items():
            if name == WEIGHTS:
                made += self.weights(run, sha256)
            elif self.has(f"{folder}/{name}", sha256):
                made.append(_reference(f"{folder}/{name}"))
        return made

    def has(self, name: str, sha256: str) -> bool:
        return name in self.files and self.files[name].sha256 == sha256

    def weights(self, run: Run, sha256: str | None) -> list[Reference]:
        """The weights of a run, known by their hash, here or elsewhere; none if the run has none."""
        if sha256 is None:
            return []
        path = f"runs/{run.name}/{WEIGHTS}"
        if self.has(path, sha256):
            return [_reference(path)]
        name, description = f"weights of {run.name}", "Known by their hash; the file is not here."
        return [self.add(f"#weights-{sha256[:12]}", "CreativeWork", name=name, description=description, sha256=sha256)]

    def data(self, recorded: Mapping[str, Any]) -> Reference:
        images = listed([counted(count, f"{part} image") for part, count in recorded["images"].items()])
        return self.add(
            f"#data-{recorded['dataset']}-{_short(recorded)}",
            "CreativeWork",
            name=f"dataset {recorded['dataset']}",
            description=f"{images}; state {recorded['state']}, split {recorded['split_sha256']}; not here",
            sha256=recorded["content_sha256"],
        )

    def software(self, provenance: Mapping[str, Any]) -> Reference:
        """This project at the commit that ran, with its packages."""
        packages = {"Python": provenance["python"], **provenance["packages"]}
        version = provenance.get("commit") or provenance["source_sha256"]
        known = None if "commit" in provenance else "Of sources without git; the version is the hash of their content."
        return self.add(
            f"#bntt-{_short(version, provenance.get('dirty'), packages, provenance['platform'])}",
            "SoftwareApplication",
            name="BNTT reproducibility benchmark",
            softwareVersion=version,
            description="With changes that were not committed." if provenance.get("dirty") else known,
            operatingSystem=provenance["platform"],
            softwareRequirements=[
                self.add(f"#{quote(f'{name}-{number}')}", "SoftwareApplication", name=name, softwareVersion=number)
                for name, number in packages.items()
            ],
        )

    def usage(self, manifest: Mapping[str, Any]) -> list[Reference]:
        """The devices, and what was used of them."""
        provenance = manifest["provenance"]
        machines = manifest.get("machines") or [f"{provenance['device']} ({provenance['processor']})"]
        used = (
            *(("device", machine, None) for machine in machines),
            ("threads", provenance["threads"], None),
            ("time", manifest["seconds"], "s"),
            ("peak memory", manifest["peak_memory_mb"], "MB"),
            ("energy of the GPU", manifest.get("gpu_joules"), "J"),
        )
        return [
            self.add(f"#usage-{_short(name, value)}", "PropertyValue", name=name, value=value, unitText=unit)
            for name, value, unit in used
            if value is not None
        ]
