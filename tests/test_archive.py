"""Archives of experiments: what comes back, what an archive says, and that nothing wrong is packed or unpacked."""

import hashlib
import io
import json
import os
import resource
import shutil
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest
import zstandard
from rocrate.rocrate import ROCrate
from tiny import PROJECT, assert_one_line, bntt_here, experiment, in_a_process_of_its_own

from bntt.common import files
from bntt.results.collect import Results
from bntt.runs import archive as archives
from bntt.runs import crate as crates
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Status, found

TAGS = ["bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"]
COMPLETED, FAILED = (f"http://schema.org/{word}ActionStatus" for word in ("Completed", "Failed"))


@pytest.fixture
def root(trained, tmp_path) -> Path:
    """Results of the tiny experiment, with a table, a saved state and what tools leave."""
    root = tmp_path / "results"
    shutil.copytree(trained, root)
    for name in ("tables/table 1, 50%.csv", "scratch/digits/bntt/seed-0/state-0", ".drawing-1a2b", "tables/.DS_Store"):
        (root / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tiny" / name).write_text("content")
    return root


@pytest.fixture
def packed(root, tmp_path) -> Path:
    """An archive of the tiny experiment."""
    out = tmp_path / "tiny.tar.zst"
    assert_done(pack(root, out))
    return out


@pytest.fixture(scope="module")
def template(trained, tmp_path_factory) -> Path:
    """An archive to be copied and spoiled."""
    out = tmp_path_factory.mktemp("template") / "tiny.tar.zst"
    assert_done(pack(trained, out))
    return out


def pack(root: Path, out: Path, *options: object, plan: Path | None = None):
    return bntt_here("archive", root / "tiny", out, "--experiment", plan or root / "tiny.yaml", *options)


def assert_done(ran) -> None:
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def members(archive: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    content = zstandard.ZstdDecompressor().decompressobj().decompress(archive.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member, tar.extractfile(member).read() if member.isreg() else b"") for member in tar]


def write(archive: Path, content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in content:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    archive.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(buffer.getvalue()))


def graph_of(folder: Path) -> dict[str, dict]:
    document = json.loads((folder / crates.METADATA).read_text())
    return {entity["@id"]: entity for entity in document["@graph"]}


def restored(archive: Path, to: Path) -> Path:
    assert_done(bntt_here("restore", archive, "--results", to))
    return to / "tiny"


# -- what comes back --------------------------------------------------------------------------------------


def test_an_experiment_comes_back_with_its_files_and_its_statuses(root, packed, tmp_path):
    ran = bntt_here("restore", packed, "--results", tmp_path / "elsewhere")
    assert_done(ran)
    folder = tmp_path / "elsewhere" / "tiny"
    left_out = {"tables/.DS_Store", ".drawing-1a2b"}
    expected = {
        name: data
        for name, data in content_of(root / "tiny").items()
        if name not in left_out and not name.startswith("scratch/")
    }
    expected["tiny.yaml"] = (root / "tiny.yaml").read_bytes()
    there = content_of(folder)
    assert crates.METADATA in there
    assert {name: data for name, data in there.items() if name != crates.METADATA} == expected
    assert os.listdir(tmp_path / "elsewhere") == ["tiny"]

    for command in (["runs", "--experiment", folder / "tiny.yaml", "--results"], ["check"]):
        outputs = []
        for place in (root, tmp_path / "elsewhere"):
            own = [place] if command[0] == "runs" else [place / "tiny", "--experiment", folder / "tiny.yaml"]
            ran_here = bntt_here(*command, *own)
            assert_done(ran_here)
            outputs.append(ran_here.stdout)
        assert outputs[0] == outputs[1]
        assert outputs[0].count("done") >= 1
    said = ran.stdout.splitlines()[-1].removeprefix("python -m bntt ").split()
    assert_done(bntt_here(*said))


def test_the_same_files_make_the_same_bytes(root, packed, tmp_path):
    again = tmp_path / "copy"
    shutil.copytree(root, again, copy_function=shutil.copyfile)  # other times
    for path in (again / "tiny").rglob("*.csv"):
        path.chmod(0o600)
    before = os.umask(0o077)
    try:
        assert_done(pack(again, tmp_path / "again.tar.zst"))
    finally:
        os.umask(before)
    assert (tmp_path / "again.tar.zst").read_bytes() == packed.read_bytes()
    folder = restored(packed, tmp_path / "elsewhere")
    assert_done(pack(folder.parent, tmp_path / "third.tar.zst", plan=folder / "tiny.yaml"))
    assert (tmp_path / "third.tar.zst").read_bytes() == packed.read_bytes()


def test_an_archive_is_a_bag_that_names_no_user_and_no_time_of_packing(root, packed):
    assert zstandard.get_frame_parameters(packed.read_bytes()).has_checksum
    content = members(packed)
    names = [member.name for member, _ in content]
    assert names == [*(f"tiny/{tag}" for tag in TAGS), *sorted(name for name in names if name.startswith("tiny/data/"))]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m, _ in content} == {(0, 0, "", "", 0o644, b"0")}
    tiny = experiment(root / "other", seeds=[0, 1, 2])
    began = max(RunDirectory.of(run, root).evaluation()["started"] for run in tiny.runs)
    assert {m.mtime for m, _ in content} == {int(crates.datetime.fromisoformat(began).timestamp())}

    data = {member.name.removeprefix("tiny/"): data for member, data in content}
    assert data["bagit.txt"] == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    payload = {name: text for name, text in data.items() if name.startswith("data/")}
    assert f"Payload-Oxum: {sum(map(len, payload.values()))}.{len(payload)}\n" in data["bag-info.txt"].decode()
    tags = {name: data[name] for name in TAGS[:3]}
    for manifest, of in (("manifest-sha256.txt", payload), ("tagmanifest-sha256.txt", tags)):
        lines = [f"{hashlib.sha256(of[name]).hexdigest()}  {name.replace('%', '%25')}\n" for name in sorted(of)]
        assert data[manifest].decode() == "".join(lines)
    assert "data/tables/table 1, 50%25.csv\n" in data["manifest-sha256.txt"].decode()


@pytest.mark.slow
def test_a_large_file_is_never_in_memory(root, tmp_path):
    """A file of 200 MB, in a process that may take 128 MB more than it has."""
    with (root / "tiny" / "large.bin").open("wb") as large:
        large.truncate(200 * 10**6)
    out = tmp_path / "tiny.tar.zst"
    assert_done(
        in_a_process_of_its_own(with_little_memory, "archive", root / "tiny", out, "--experiment", root / "tiny.yaml")
    )
    assert_done(in_a_process_of_its_own(with_little_memory, "restore", out, "--results", tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere/tiny/large.bin").stat().st_size == 200 * 10**6


def with_little_memory(*arguments):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 128 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return bntt_here(*arguments)


# -- what an archive says ---------------------------------------------------------------------------------


def test_the_crate_is_read_by_its_own_library_and_names_every_file(root, packed, tmp_path):
    folder = restored(packed, tmp_path / "elsewhere")
    crate = ROCrate(folder)
    there = set(content_of(folder)) - {crates.METADATA}
    assert {unquote(entity.id) for entity in crate.data_entities} == there
    assert crate.get("tables/table%201%2C%2050%25.csv"), "identifiers are URIs"
    for entity in crate.data_entities:
        assert entity.type == "File"
        path = folder / unquote(entity.id)
        assert (entity["sha256"], entity["contentSize"]) == (files.sha256(path), str(path.stat().st_size))
    root_entity = crate.root_dataset
    assert root_entity["conformsTo"].id == crates.PROFILE == "https://w3id.org/ro/wfrun/process/0.5"
    assert crate.get(crates.PROFILE)["name"] == "Process Run Crate"
    assert root_entity["name"] == "Tests only: everything in seconds"
    assert "12 runs of experiment tiny: 12 done." in root_entity["description"]
    assert root_entity.get("creativeWorkStatus") is None

    actions = {entity.id: entity for entity in root_entity["mentions"]}
    tiny = experiment(tmp_path / "plan", seeds=[0, 1, 2])
    assert set(actions) == {f"#{command}/{run.name}" for run in tiny.runs for command in ("train", "evaluate")}
    made = []
    for run in tiny.runs:
        directory = RunDirectory.of(run, root)
        for command, manifest in (("train", directory.training()), ("evaluate", directory.evaluation())):
            action = actions[f"#{command}/{run.name}"]
            assert (action.type, action["actionStatus"]) == ("CreateAction", COMPLETED)
            assert action["startTime"] == manifest["started"] <= action["endTime"]
            assert action.get("agent") is None
            results = {unquote(one.id) for one in action["result"]}
            assert results == {f"runs/{run.name}/{name}" for name in (f"{command}.json", *manifest["files"])} <= there
            made += results
            plan, data, *inputs = action["object"]
            assert plan.id == "tiny.yaml"
            assert data["sha256"] == manifest["data"]["content_sha256"]
            start = {"train": "digits/ann" if run.row == "rmp" else None, "evaluate": f"digits/{run.row}"}[command]
            assert [one.id for one in inputs] == [f"runs/{start}/seed-{run.seed}/{WEIGHTS}"] * (start is not None)
            software = action["instrument"]
            provenance = manifest["provenance"]
            assert software["softwareVersion"] == provenance.get("commit", provenance.get("source_sha256"))
            packages = {one["name"]: one["softwareVersion"] for one in software["softwareRequirements"]}
            assert packages == {"Python": provenance["python"], **provenance["packages"]}
            usage = {one["name"]: one["value"] for one in action["resourceUsage"]}
            assert usage["device"] == f"cpu ({provenance['processor']})"
            assert (usage["threads"], usage["time"]) == (1, manifest["seconds"])
    assert len(made) == len(set(made)), "a file is made once"
    assert there - set(made) == {"tiny.yaml", "tables/table 1, 50%.csv"}


def references(value) -> set[str]:
    if isinstance(value, dict):
        return {value["@id"]} if set(value) == {"@id"} else set().union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", ["cifar10", "cifar10-small"])
def test_every_reference_in_a_crate_is_described_in_it(name, tmp_path):
    """Also where weights are gone, and for what earlier versions and GPUs recorded."""
    ran = bntt_here("archive", PROJECT / "results/reference" / name, tmp_path / "out.tar.zst", "--partial")
    assert_done(ran)
    assert_done(bntt_here("restore", tmp_path / "out.tar.zst", "--results", tmp_path))
    graph = graph_of(tmp_path / name)
    outside = {crates.SPECIFICATION, "./"}
    assert references(list(graph.values())) - outside <= set(graph)
    weights = [entity for key, entity in graph.items() if key.startswith("#weights-")]
    assert weights and all(len(entity["sha256"]) == 64 for entity in weights)
    assert ROCrate(tmp_path / name).root_dataset["name"]


def test_runs_that_diverged_or_lost_their_weights_are_finished_and_the_crate_says_so(root, tmp_path):
    tiny = experiment(root, seeds=[0, 1, 2])
    diverged, kept, pieces = (RunDirectory.of(tiny.run("digits", "bntt", seed), root) for seed in range(3))
    for manifest in (diverged.train_json, diverged.evaluate_json):
        record = files.read_sealed(manifest) | {"status": "diverged", "reason": "the loss was not finite", "files": {}}
        files.write_sealed(manifest, record)
    (diverged.path / WEIGHTS).unlink()
    sha256 = kept.training()["files"][WEIGHTS]
    (kept.path / WEIGHTS).unlink()
    files.write_sealed(pieces.train_json, files.read_sealed(pieces.train_json) | {"pieces": 3, "machines": ["A", "B"]})
    before = {one.run.name: one.status for one in found(tiny, root)}
    assert [before[f"digits/bntt/seed-{seed}"] for seed in range(2)] == [Status.DIVERGED, Status.KEPT]

    assert_done(pack(root, tmp_path / "out.tar.zst"))
    folder = restored(tmp_path / "out.tar.zst", tmp_path / "elsewhere")
    assert {one.run.name: one.status for one in found(tiny, folder.parent)} == before
    graph = graph_of(folder)
    action = graph["#train/digits/bntt/seed-0"]
    assert (action["actionStatus"], action["error"]) == (FAILED, "the loss was not finite")
    assert action["result"] == [{"@id": "runs/digits/bntt/seed-0/train.json"}]
    assert "#evaluate/digits/bntt/seed-0" not in graph
    gone = graph[f"#weights-{sha256[:12]}"]
    assert (gone["@type"], gone["sha256"]) == ("CreativeWork", sha256)
    assert {"@id": gone["@id"]} in graph["#train/digits/bntt/seed-1"]["result"]
    assert {"@id": gone["@id"]} in graph["#evaluate/digits/bntt/seed-1"]["object"]
    action = graph["#train/digits/bntt/seed-2"]
    assert "startTime" not in action and "endTime" not in action, "the manifest has the start of the last piece alone"
    assert "in 3 pieces" in action["description"]
    devices = [graph[one["@id"]]["value"] for one in action["resourceUsage"] if graph[one["@id"]]["name"] == "device"]
    assert devices == ["A", "B"]


# -- what is not packed -----------------------------------------------------------------------------------


def lose(root: Path) -> None:
    shutil.rmtree(root / "tiny/runs/digits/ann/seed-1")


def unmeasured(root: Path) -> None:
    (root / "tiny/runs/digits/ann/seed-1/evaluate.json").unlink()


def damage(root: Path) -> None:
    path = root / "tiny/runs/digits/ann/seed-1/anytime.csv"
    path.write_bytes(path.read_bytes()[:-1])


def outdate(root: Path) -> None:
    directory = RunDirectory.of(experiment(root, seeds=[0, 1, 2]).run("digits", "ann", 1), root)
    files.write_sealed(directory.train_json, files.read_sealed(directory.train_json) | {"code": "another"})


@pytest.mark.parametrize(
    ("change", "status"), [(lose, "missing"), (unmeasured, "trained"), (damage, "damaged"), (outdate, "outdated")]
)
def test_an_experiment_that_is_not_finished_is_packed_only_on_demand(root, tmp_path, change, status):
    change(root)
    out = tmp_path / "out.tar.zst"
    assert_one_line(pack(root, out), "is not finished", f"digits/ann/seed-1 ({status})", "bntt check", "--partial")
    assert not out.exists()
    assert_done(pack(root, out, "--partial"))
    folder = restored(out, tmp_path / "elsewhere")
    tiny = experiment(root, seeds=[0, 1, 2])
    statuses = [{one.run.name: one.status for one in found(tiny, place)} for place in (root, folder.parent)]
    assert statuses[0] == statuses[1]
    graph = graph_of(folder)
    assert graph["./"]["creativeWorkStatus"] == "Incomplete"
    assert f"The experiment is not finished: digits/ann/seed-1 ({status})" in graph["./"]["description"]
    assert references(list(graph.values())) - {crates.SPECIFICATION, "./"} <= set(graph)
    there = "#train/digits/ann/seed-1" in graph, "#evaluate/digits/ann/seed-1" in graph
    assert there == (status != "missing", status not in ("missing", "trained"))
    if status == "damaged":
        results = graph["#evaluate/digits/ann/seed-1"]["result"]
        assert not any("anytime" in one["@id"] for one in results), "this is not the file that evaluation made"


def test_many_runs_that_are_not_finished_are_one_line(root, tmp_path):
    shutil.rmtree(root / "tiny/runs/digits")
    ran = pack(root, tmp_path / "out.tar.zst")
    assert_one_line(ran, "digits/bntt/seed-0 (missing)", "and 7 more")
    assert_one_line(pack(root, tmp_path / "out.tar.zst", "--partial"), "has no result to archive")


def test_a_damaged_drawing_is_not_packed_for_a_whole_one(root, tmp_path):
    record = root / "tiny/notebooks/table1.json"
    record.parent.mkdir()
    record.write_text("{}")
    out = tmp_path / "out.tar.zst"
    assert_one_line(pack(root, out), "notebooks/table1.json is damaged")
    assert_done(pack(root, out, "--partial"))
    said = graph_of(restored(out, tmp_path / "elsewhere"))["./"]["description"]
    assert "not finished: notebooks/table1.json is damaged" in said, "an archive names no folder of its maker"


def test_where_an_archive_may_be(root, packed):
    before = packed.read_bytes()
    assert_one_line(pack(root, packed), f"{packed} is already there", "--overwrite")
    (root / "tiny/tables/table 1, 50%.csv").write_text("changed")
    assert_done(pack(root, packed, "--overwrite"))
    assert packed.read_bytes() != before
    for out, said in (
        (root / "tiny/out.tar.zst", "inside of"),
        (root / "tiny/new/out.tar.zst", "inside of"),
        (root / "out.zip", "ends in .tar.zst"),
        (root, "ends in .tar.zst"),
    ):
        assert_one_line(pack(root, out, "--overwrite"), str(out), said)
    (root / "folder.tar.zst").mkdir()
    assert_one_line(pack(root, root / "folder.tar.zst", "--overwrite"), "is already there; give another name")
    (root / "link").symlink_to(root / "tiny")
    assert_one_line(pack(root, root / "link/out.tar.zst"), "inside of")
    assert not list((root / "tiny").glob("*.zst"))


@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "fifo", "unprintable"])
def test_what_is_no_plain_file_is_named_and_not_packed(root, tmp_path, kind):
    path = root / "tiny/tables/odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "unprintable":
        path = path.with_name("two\nlines")
        path.write_text("content")
    else:
        path.symlink_to({"file": root / "tiny.yaml", "folder": root / "tiny/runs", "dangling": root / "nothing"}[kind])
    ran = pack(root, tmp_path / "out.tar.zst")
    if kind == "unprintable":
        assert_one_line(ran, repr(str(path)), "cannot be printed")
    else:
        assert_one_line(ran, str(path), "is a link or a device")
    assert not (tmp_path / "out.tar.zst").exists()


def test_a_file_that_changes_meanwhile_is_not_packed(root, tmp_path, monkeypatch):
    changed, hashed, texts = root / "tiny/tables/table 1, 50%.csv", archives._content, [None, "", "con", "CONTENT"]

    def then_changes(source):
        content = hashed(source)
        if source == changed:
            text = texts.pop()
            changed.unlink() if text is None else changed.write_text(text)
        return content

    monkeypatch.setattr(archives, "_content", then_changes)
    while texts:
        changed.write_text("content")
        assert_one_line(
            pack(root, tmp_path / "out.tar.zst"), str(changed), "was changed while" if texts else "No such file"
        )
    assert sorted(os.listdir(tmp_path)) == ["results"]


def on_a_full_disk(*arguments):
    """No file may grow beyond 8 kB, which is what a write to a full disk meets too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    return bntt_here(*arguments)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(root, packed, tmp_path):
    out = tmp_path / "new/out.tar.zst"
    arguments = "archive", root / "tiny", out, "--experiment", root / "tiny.yaml"
    assert_one_line(in_a_process_of_its_own(on_a_full_disk, *arguments), f"cannot write {out}", "make room")
    assert os.listdir(tmp_path / "new") == []
    ran = in_a_process_of_its_own(on_a_full_disk, "restore", packed, "--results", tmp_path / "new")
    assert_one_line(ran, f"cannot restore {tmp_path / 'new/tiny'}", "make room")
    assert os.listdir(tmp_path / "new") == []


def test_an_interrupt_leaves_what_was_there(root, packed, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before, there = packed.read_bytes(), sorted(os.listdir(tmp_path))
    monkeypatch.setattr(archives._Hashed, "check", interrupt)
    assert pack(root, packed, "--overwrite").returncode == 130
    assert packed.read_bytes() == before
    extracted = archives._extracted
    monkeypatch.setattr(archives, "_extracted", lambda *given: extracted(*given) and interrupt())
    assert bntt_here("restore", packed, "--results", tmp_path).returncode == 130
    assert sorted(os.listdir(tmp_path)) == there


def test_without_zstandard_a_line_says_what_to_install(root, packed, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert_one_line(pack(root, tmp_path / "out.tar.zst"), "pip install zstandard")
    assert_one_line(bntt_here("restore", packed, "--results", tmp_path), "pip install zstandard")


# -- what is not unpacked ---------------------------------------------------------------------------------


def refused(archive: Path, *parts: str) -> None:
    """One line, and nothing appears, neither among the results nor beside them."""
    target = archive.parent / "target"
    target.mkdir()
    (target / "theirs").write_text("theirs")
    before = sorted(path for path in archive.parent.rglob("*"))
    assert_one_line(bntt_here("restore", archive, "--results", target), str(archive), *parts)
    assert sorted(path for path in archive.parent.rglob("*")) == before
    (target / "theirs").unlink()
    target.rmdir()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


PLACE = "runs/digits/ann/seed-1/anytime.csv"


def test_every_file_that_is_wrong_is_named(template, tmp_path):
    out = tmp_path / "tiny.tar.zst"
    content = members(template)
    spoiled = [(m, data[:-1] + b"!" if m.name.endswith(PLACE) else data) for m, data in content]
    write(out, spoiled)
    refused(out, f"damaged: {PLACE}", "nothing was restored")
    write(out, [one for one in content if not one[0].name.endswith(PLACE)])
    refused(out, f"missing: {PLACE}")
    write(out, [*content, (member("tiny/data/more.txt"), b"more")])
    refused(out, "not in its list of files: more.txt")
    write(out, [*content, next(one for one in content if one[0].name.endswith(PLACE))])
    refused(out, f"not in its list of files: {PLACE}")
    write(out, [*spoiled[:-1], (member("tiny/data/more.txt"), b"more")])
    last = spoiled[-1][0].name.removeprefix("tiny/data/")
    refused(out, f"damaged: {PLACE}; missing: {last}; not in its list of files: more.txt")
    write(out, content[: len(TAGS)])
    refused(out, "missing: ", f"{len(content) - len(TAGS) - 5} more")
    write(out, content)
    assert_done(bntt_here("restore", out, "--results", tmp_path / "results"))


UNSAFE = [
    "tiny/data/../../evil", "tiny/data/runs/../../../evil", "/tiny/data/evil", "../tiny/data/evil", "evil", "tiny/evil",
    "tiny/data/", "tiny/data//evil", "tiny/data/./evil", "tiny/data/.evil", "tiny/data/tables/.evil",
    "tiny/data/scratch/evil", "other/data/evil", "tiny/data/two\nlines",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_leads_elsewhere_is_refused(template, tmp_path, name):
    out = tmp_path / "tiny.tar.zst"
    content = members(template)
    write(out, [*content, (member(name), b"evil")])
    refused(out, "is no file of results; do not trust")


@pytest.mark.parametrize("name", ["../../evil", "/evil", ".evil", "scratch/evil", "a//b", "two\tlines"])
def test_a_list_of_files_that_leads_elsewhere_is_refused(template, tmp_path, name):
    out = tmp_path / "tiny.tar.zst"
    evil = hashlib.sha256(b"evil").hexdigest()
    write(out, forged(template, "manifest-sha256.txt", lambda text: text + f"{evil}  data/{name}\n".encode()))
    refused(out, repr(f"data/{name}"), "do not trust")


def forged(template: Path, tag: str, change) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of an archive whose file ``tag`` is changed, and whose tag manifest agrees with it."""
    content = {m.name: (m, data) for m, data in members(template)}
    content[f"tiny/{tag}"] = content[f"tiny/{tag}"][0], change(content[f"tiny/{tag}"][1])
    lines = [f"{hashlib.sha256(content[f'tiny/{name}'][1]).hexdigest()}  {name}\n" for name in sorted(TAGS[:3])]
    manifest = "tiny/tagmanifest-sha256.txt"
    content[manifest] = content[manifest][0], "".join(lines).encode()
    return list(content.values())


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
@pytest.mark.parametrize("place", [PLACE, "tables"])
def test_links_devices_and_folders_are_refused(template, tmp_path, kind, place):
    out = tmp_path / "tiny.tar.zst"
    content = [one for one in members(template) if not one[0].name.endswith(place)]
    write(out, [*content, (member(f"tiny/data/{place}", kind, "/etc/passwd"), b"")])
    refused(out, "is no file of results; do not trust")


def test_a_truncated_archive_is_refused_wherever_it_ends(template, tmp_path):
    whole, out = template.read_bytes(), tmp_path / "tiny.tar.zst"
    for length in (0, 1, 3, 20, 1000, len(whole) // 2, len(whole) - 100, *range(len(whole) - 8, len(whole))):
        out.write_bytes(whole[:length])
        refused(out, "is truncated")
    for behind in (b"\0", b"more", whole):
        out.write_bytes(whole + behind)
        refused(out, "something comes behind its end")


def test_a_flipped_bit_is_seen_wherever_it_is(template, tmp_path):
    whole, out = template.read_bytes(), tmp_path / "tiny.tar.zst"
    for place in (0, 30, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1
        out.write_bytes(spoiled)
        refused(out)


@pytest.mark.parametrize("kind", ["text", "zstd of text", "tar", "tar.zst", "folder", "missing"])
def test_what_is_no_archive_of_an_experiment_is_refused(template, tmp_path, kind):
    out = tmp_path / "tiny.tar.zst"
    if kind == "text":
        out.write_text("no archive")
    elif kind == "zstd of text":
        out.write_bytes(zstandard.ZstdCompressor().compress(b"no archive" * 1000))
    elif kind == "tar":
        shutil.make_archive(str(tmp_path / "one"), "tar", PROJECT / "analysis")
        (tmp_path / "one.tar").rename(out)
    elif kind == "tar.zst":
        write(out, [(member("analysis/table1.py"), b"content")])
    elif kind == "folder":
        out.mkdir()
    refused(out)


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        ("bagit.txt", lambda text: text.replace(b"1.0", b"2.0")),
        ("manifest-sha256.txt", lambda text: text.replace(b"data/tiny.yaml", b"data/other.yaml")),
        ("manifest-sha256.txt", lambda text: text[:-10]),
        ("manifest-sha256.txt", lambda text: text + text[:100]),
        ("manifest-sha256.txt", lambda text: text + text.splitlines(keepends=True)[0]),
        ("manifest-sha256.txt", lambda text: text.replace(b"anytime", b"\xff")),
        ("manifest-sha256.txt", lambda text: b""),
    ],
)
def test_tags_that_are_wrong_are_refused(template, tmp_path, tag, change):
    out = tmp_path / "tiny.tar.zst"
    content = forged(template, tag, change)
    write(out, content)
    refused(out)
    write(out, [(m, change(data) if m.name == f"tiny/{tag}" else data) for m, data in members(template)])
    refused(out)


def test_the_list_of_tags_vouches_for_each_of_them(template, tmp_path):
    out = tmp_path / "tiny.tar.zst"
    write(out, [(m, data + b"More: 1\n" if m.name == "tiny/bag-info.txt" else data) for m, data in members(template)])
    refused(out, "bag-info.txt does not have its sha256")
    write(out, forged(template, "bag-info.txt", lambda text: text + b"More: 1\n"))
    restored(out, tmp_path)


@pytest.mark.parametrize("needed", ["tiny.yaml", crates.METADATA])
def test_another_bag_is_refused(template, tmp_path, needed):
    def forget(text):
        return b"".join(line for line in text.splitlines(keepends=True) if needed.encode() not in line)

    out = tmp_path / "tiny.tar.zst"
    write(out, [one for one in forged(template, "manifest-sha256.txt", forget) if not one[0].name.endswith(needed)])
    refused(out, "is no archive that `python -m bntt archive` wrote")


def test_a_list_of_files_that_fills_the_memory_is_not_read(template, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_TAG", 1000)
    shutil.copy(template, tmp_path / "tiny.tar.zst")
    refused(tmp_path / "tiny.tar.zst", "is no archive that `python -m bntt archive` wrote")


@pytest.mark.parametrize("name", ["..", "Tiny", "", "a/b", "-", "a" * 65])
def test_an_experiment_whose_name_is_no_name_is_refused(template, tmp_path, name):
    out = tmp_path / "tiny.tar.zst"
    content = forged(template, "manifest-sha256.txt", lambda text: text.replace(b"tiny.yaml", f"{name}.yaml".encode()))
    for one, _ in content:
        one.name = name + one.name.removeprefix("tiny").replace("tiny.yaml", f"{name}.yaml")
    write(out, content)
    refused(out, "is no archive that `python -m bntt archive` wrote")


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_an_experiment_that_is_there_is_left_alone(template, tmp_path, there):
    target = tmp_path / "tiny"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("theirs")
    else:
        target.symlink_to("nowhere")
    ran = bntt_here("restore", template, "--results", tmp_path)
    assert_one_line(ran, f"{target} is already there", "--results")
    assert os.listdir(tmp_path) == ["tiny"]


def test_results_of_a_restored_experiment_can_be_read(template, tmp_path):
    folder = restored(template, tmp_path)
    results = Results.at(folder, str(folder / "tiny.yaml"))
    assert len(results.frame("anytime.csv")) > 0
