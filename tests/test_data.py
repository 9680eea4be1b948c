"""Datasets: the committed split, arrays that are checked whenever they are read, scaling and augmentation."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import PROJECT, assert_one_line, bntt_here, environment, experiment, images
from torch.nn import functional as F

from bntt.commands import data
from bntt.common import files
from bntt.common.errors import UserError
from bntt.data import digits, sheet, splits, store
from bntt.data._parts import divided
from bntt.data.images import augment
from bntt.experiment import code_hash
from bntt.runs import pipeline
from bntt.spiking.randomness import key

torch.set_num_threads(1)
SPLIT = PROJECT / "bntt" / "data" / "splits" / "digits.json"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, with a space in its name, for prepared data."""
    folder = tmp_path / "prepared data"
    monkeypatch.setenv("BNTT_DATA", str(folder))
    return folder


def there(place) -> list[str]:
    """What is in a folder of prepared data besides the lock files."""
    return sorted(name for name in os.listdir(place) if not name.endswith("-lock"))


@pytest.fixture
def prepared(place):
    store.prepare("digits")
    return place / "digits"


# -- the split --------------------------------------------------------------------------------------------


def test_the_split_is_disjoint_complete_and_of_the_sizes_promised():
    split = splits.committed_split("digits")
    assert {part: len(indices) for part, indices in split.items()} == {"train": 1077, "validation": 180, "test": 540}
    together = [index for indices in split.values() for index in indices]
    assert sorted(together) == list(range(1797))


def test_the_split_is_stratified():
    _, labels = digits.scans()
    whole = np.bincount(labels) / len(labels)
    for indices in splits.committed_split("digits").values():
        counts = np.bincount(labels[indices], minlength=10)
        assert np.abs(counts - whole * len(indices)).max() <= 1.0


def test_the_split_is_the_one_that_was_committed():
    """A change of the split changes every number there is: this hash is in two places on purpose."""
    digest = "67aae5f0f7e5126e894ab991705a73ab6afe50e074600e2c0a0da6392bb5b777"
    assert splits.split_digest(splits.committed_split("digits")) == json.loads(SPLIT.read_text())["sha256"] == digest


def test_an_edited_split_is_refused(tmp_path, monkeypatch):
    document = json.loads(SPLIT.read_text())
    document["train"][0], document["test"][0] = document["test"][0], document["train"][0]
    folder = tmp_path / "splits"
    folder.mkdir()
    (folder / "digits.json").write_text(json.dumps(document))
    monkeypatch.setattr(splits, "__file__", str(folder / "__init__.py"))
    with pytest.raises(UserError) as raised:
        splits.committed_split("digits")
    assert_one_line(raised.value, str(folder / "digits.json"), "sha256", "restore")


# -- the digits -------------------------------------------------------------------------------------------


def test_the_digits_are_the_scans_that_ship_with_scikit_learn():
    from sklearn.datasets import load_digits

    pixels, labels = digits.scans()
    assert pixels.shape == (1797, 1, 8, 8)
    assert pixels.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (np.rint(pixels[:, 0] / 255 * 16) == load_digits().images).all()  # no level is lost
    assert store.content_digest(digits.read(None, None)) == digits.DATASET["content"]


def test_the_content_hash_sees_every_pixel_every_label_the_parts_and_the_shape():
    split = splits.committed_split("digits")

    def digest(pixels, labels, split=split, without=None):
        return store.content_digest(divided(pixels, labels, split, from_publisher=False), without)

    pixels, labels = digits.scans()
    reference = digest(pixels, labels)
    assert reference == store.content_digest(digits.read(None, None))
    one = pixels.copy()
    one[split["test"][3], 0, 7, 7] ^= 1
    two = labels.copy()
    two[0] = 1
    moved = split | {"train": split["train"][:-1], "validation": split["validation"] + split["train"][-1:]}
    assert digest(one, labels) != reference
    assert digest(pixels, two) != reference
    assert digest(pixels, labels, moved) != reference
    assert digest(pixels.reshape(1797, 1, 4, 16), labels) != reference
    assert digest(np.asfortranarray(pixels), labels.astype(np.int32)) == reference
    assert digest(one, labels, without=[3]) == digest(pixels, labels, without=[3]) != reference
    assert digest(one, labels, without=[4]) != digest(pixels, labels, without=[4])


# -- preparing --------------------------------------------------------------------------------------------


def test_prepared_arrays_lie_where_they_were_asked_for_and_are_the_splits(place):
    manifest = store.prepare("digits")
    assert manifest == place / "digits" / "manifest.json"
    record = store.verify("digits")
    assert record["state"] == "content"
    assert record["content_sha256"] == digits.DATASET["content"]
    assert record["images"] == {"train": 1077, "validation": 180, "test": 540}
    assert there(place) == ["digits"]
    pixels, labels = digits.scans()
    for part, indices in splits.committed_split("digits").items():
        assert (np.load(place / "digits" / f"{part}-pixels.npy") == pixels[indices]).all()
        assert (np.load(place / "digits" / f"{part}-labels.npy") == labels[indices]).all()


def test_preparing_again_touches_nothing(prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    store.prepare("digits")
    assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_other_content_is_known_as_such(place, monkeypatch):
    pixels, labels = digits.scans()
    monkeypatch.setattr(digits, "scans", lambda: (255 - pixels, labels))
    store.prepare("digits")
    assert store.verify("digits")["state"] == "unknown"


def test_data_prepared_with_another_split_is_not_used(prepared):
    """The split or the reader was edited, or the repository moved on, after the arrays were made."""
    record = files.read_sealed(prepared / "manifest.json")
    record["split_sha256"] = "0" * 64
    files.write_sealed(prepared / "manifest.json", record)
    try:
        store.prepare("digits")
        used = store.load("digits")
    except UserError as error:
        assert_one_line(error, "split")
    else:
        assert store.manifest("digits")["split_sha256"] == splits.split_digest(splits.committed_split("digits"))
        assert len(used.train) == 1077


@pytest.mark.parametrize("file", [f"{part}-{kind}.npy" for part in splits.SPLITS for kind in ("pixels", "labels")])
@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated"])
def test_a_damaged_array_is_refused(prepared, file, damage):
    path = prepared / file
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[:-8])
    with pytest.raises(UserError) as raised:
        store.load("digits")
    assert_one_line(raised.value, str(path), "missing or damaged", "data prepare digits")


MANIFESTS = ["", "{", "[]", "null", "{}", '{"files": {}}', '{"files": 3}']


@pytest.mark.parametrize("text", MANIFESTS)
def test_a_damaged_manifest_is_one_line(prepared, text):
    (prepared / "manifest.json").write_text(text)
    with pytest.raises(UserError) as raised:
        store.load("digits")
    assert_one_line(raised.value, str(prepared), "data prepare digits")


@pytest.mark.parametrize("text", MANIFESTS[:2])
def test_what_the_message_about_a_damaged_manifest_advises_helps(prepared, text):
    (prepared / "manifest.json").write_text(text)
    store.prepare("digits")
    assert len(store.load("digits").test) == 540


def test_what_the_message_about_a_damaged_array_advises_helps(prepared):
    (prepared / "test-pixels.npy").write_bytes(b"")
    shutil.rmtree(prepared)  # "delete ... and run `python -m bntt data prepare digits`"
    store.prepare("digits")
    assert len(store.load("digits").test) == 540


def test_a_pickle_is_never_opened(prepared):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(prepared / "opened"),))

    import hashlib

    path = prepared / "test-labels.npy"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    record = files.read_sealed(prepared / "manifest.json")
    record["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    files.write_sealed(prepared / "manifest.json", record)
    with pytest.raises((UserError, ValueError)):
        store.load("digits")
    assert not (prepared / "opened").exists()


@pytest.mark.parametrize(("part", "change"), [("train", -1), ("validation", -1), ("test", -1), ("test", 1)])
def test_a_run_refuses_other_counts_than_declared_and_all_else_goes_on(place, tmp_path, monkeypatch, part, change):
    split = splits.committed_split("digits")
    there = split[part][:change] if change < 0 else split[part] + split[part][:change]
    few = divided(*digits.scans(), split | {part: there}, from_publisher=False)
    monkeypatch.setattr(digits, "read", lambda source, downloads: few)
    store.prepare("digits")
    assert store.verify("digits")["images"][part] == len(there)
    assert store.is_current("digits")
    assert sheet.contact_sheet("digits", tmp_path / "sheet.png")[0].is_file()
    used = experiment(tmp_path)
    with pytest.raises(UserError) as raised:
        pipeline.train(used, used.runs[0], tmp_path / "results", "cpu")
    declared = f"{digits.__file__}, line 16"
    counts = f"{len(there):,} of {digits.DATASET['images'][part]:,} {part}"
    assert_one_line(raised.value, str(place / "digits"), declared, counts, "delete it", "train_limit")
    assert not list((tmp_path / "results").rglob("*.json"))


def test_made_up_arrays_are_read_whatever_their_number(place):
    store.make_up("digits", {"train": 20, "validation": 0, "test": 3})
    loaded = store.load("digits")
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [20, 0, 3]


def exchange(path, change):
    """Change a prepared array, and its hash in the manifest, so that only what it holds can tell."""
    np.save(path, change(np.load(path)))
    record = files.read_sealed(path.with_name("manifest.json"))
    record["files"][path.name] = files.sha256(path)
    files.write_sealed(path.with_name("manifest.json"), record)


def test_labels_of_another_integer_type_are_the_same_labels(prepared):
    before = store.load("digits").test.labels
    exchange(prepared / "test-labels.npy", lambda labels: labels.astype(np.int32))
    after = store.load("digits").test.labels
    assert after.dtype == torch.int64
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("labels", lambda labels: np.where(labels == 9, 10, labels), "labels are 0 to 10, not within 0 to 9"),
        ("labels", lambda labels: labels - 1, "labels are -1 to 8, not within 0 to 9"),
        ("labels", lambda labels: labels.astype(float), "labels are float64 [540], not whole numbers [N]"),
        ("labels", lambda labels: labels[:, None], "labels are int64 [540, 1], not whole numbers [N]"),
        ("labels", lambda labels: labels[1:], "540 pictures and 539 labels, not 540 of each"),
        ("pixels", lambda pixels: pixels[1:], "539 pictures and 540 labels, not 540 of each"),
        ("pixels", lambda pixels: pixels[..., 1:], "pixels are uint8 [540, 1, 8, 7], not uint8 [N, 1, 8, 8]"),
        ("pixels", lambda pixels: pixels / 255, "pixels are float64 [540, 1, 8, 8], not uint8 [N, 1, 8, 8]"),
    ],
)
def test_arrays_that_are_not_as_declared_are_refused(prepared, kind, change, said):
    exchange(prepared / f"test-{kind}.npy", change)
    with pytest.raises(UserError) as raised:
        store.load("digits", incomplete=True)
    assert_one_line(raised.value, f"{prepared}: test ", said)


def test_fewer_images_and_labels_than_the_manifest_says_are_refused(prepared):
    for kind in ("labels", "pixels"):
        exchange(prepared / f"test-{kind}.npy", lambda array: array[1:])
    with pytest.raises(UserError, match="539 pictures and 539 labels, not 540 of each as in the manifest"):
        store.load("digits", incomplete=True)


@pytest.mark.slow
def test_several_processes_may_prepare_at_once(place):
    command = [sys.executable, "-m", "bntt", "data", "prepare", "digits"]
    running = [
        subprocess.Popen(command, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
    assert there(place) == ["digits"]
    assert store.verify("digits")["state"] == "content"


# Every array of a dataset is hashed once after it was written: there the process says so, and waits to be killed.
STOPPING = """
import sys
from bntt.data import store
hashed = store.sha256
store.sha256 = lambda path: (print(path.name, flush=True), sys.stdin.readline(), hashed(path))[2]
store.prepare("digits")
"""


def stopping():
    return subprocess.Popen(
        [sys.executable, "-c", STOPPING],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kill_while_preparing_leaves_nothing_that_looks_prepared(place):
    with stopping() as process:
        for _ in range(5):
            process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.stdout.readline() == "test-labels.npy\n"
        process.kill()
    assert not store.manifest_path("digits").exists()
    assert sorted(os.listdir(place)) == [".digits-lock", ".digits-work"]
    store.prepare("digits")
    assert store.verify("digits")["state"] == "content"
    assert there(place) == ["digits"]


def test_who_comes_second_waits_and_does_not_prepare_again(place):
    with stopping() as first:
        first.stdout.readline()  # it holds the lock
        command = [sys.executable, "-m", "bntt", "data", "prepare", "digits"]
        second = subprocess.Popen(command, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(3)
        first.communicate("\n" * 10, timeout=60)
        assert first.returncode == 0
        made = store.manifest_path("digits").stat().st_mtime_ns
        assert second.communicate(timeout=60)[0].strip() == str(store.manifest_path("digits"))
    assert store.manifest_path("digits").stat().st_mtime_ns == made
    assert there(place) == ["digits"]


@pytest.mark.parametrize("changed", ["reader", "a file that is gone"])
def test_data_of_an_earlier_reader_or_not_whole_are_prepared_again(prepared, changed):
    if changed == "reader":
        record = files.read_sealed(prepared / "manifest.json")
        files.write_sealed(prepared / "manifest.json", record | {"reader": "0" * 16})
    else:
        (prepared / "test-pixels.npy").unlink()
    assert not store.is_current("digits")
    store.prepare("digits")
    assert store.verify("digits")["reader"] == code_hash.reading_code("digits")
    assert there(prepared.parent) == ["digits"]


def test_what_another_process_has_just_prepared_is_not_prepared_again(place, monkeypatch):
    """It ended between the look of this one and its lock."""
    store.prepare("digits")
    looks = iter([False, True])
    monkeypatch.setattr(store, "is_current", lambda name: next(looks))
    monkeypatch.setattr(store, "_prepare", lambda *_: 1 / 0)
    store.prepare("digits")
    assert there(place) == ["digits"]


def test_outdated_data_that_a_killed_process_left_are_cleared_away(prepared):
    """It was killed after the old data had made way, before the new ones came."""
    prepared.rename(prepared.with_name(".digits-outdated"))
    store.prepare("digits")
    assert there(prepared.parent) == ["digits"]


def test_a_link_is_refused_and_stays(place, tmp_path):
    (tmp_path / "other disk").mkdir()
    place.mkdir(exist_ok=True)
    (place / "digits").symlink_to(tmp_path / "other disk")
    with pytest.raises(UserError) as raised:
        store.prepare("digits")
    assert_one_line(raised.value, str(place / "digits"), "is a link", "BNTT_DATA")
    assert (place / "digits").is_symlink()


def test_a_folder_to_read_from_is_not_ignored_in_silence(place, tmp_path):
    assert_one_line(bntt_here("data", "prepare", "digits", "--from", tmp_path), str(tmp_path), "come with scikit-learn")
    assert bntt_here("data", "prepare", "digits").stderr == ""
    again = bntt_here("data", "prepare", "digits", "--from", tmp_path)
    assert again.stdout.strip() == str(place / "digits" / "manifest.json")
    assert again.stderr == f"already prepared, in state content; delete {place / 'digits'} first to prepare it again\n"


def test_a_preparation_that_fails_leaves_nothing(place, monkeypatch):
    monkeypatch.setattr(store, "sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.prepare("digits")
    assert there(place) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(place, monkeypatch):
    monkeypatch.setattr("bntt.common.files.SPARE", 10**18)
    with pytest.raises(UserError) as raised:
        store.prepare("digits")
    assert_one_line(raised.value, "GB free", "BNTT_DATA")

    def full(*_):
        raise OSError("1024 requested and 7 written")

    monkeypatch.undo()
    monkeypatch.setenv("BNTT_DATA", str(place))
    monkeypatch.setattr(store.np, "save", full)
    with pytest.raises(UserError) as raised:
        store.prepare("digits")
    assert_one_line(raised.value, str(place), "7 written", "make room")
    assert there(place) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment_and_prepared_again(place, seed):
    command = [sys.executable, "-m", "bntt", "data", "prepare", "digits"]
    process = subprocess.Popen(command, cwd=PROJECT, env=environment(), stdout=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(np.random.default_rng(seed).uniform(0.3, 1.5))
    process.kill()
    process.wait()
    store.prepare("digits")
    assert store.verify("digits")["content_sha256"] == digits.DATASET["content"]
    assert there(place) == ["digits"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "file" / "data"))
    assert_one_line(bntt_here("data", "prepare", "digits"), "file", "BNTT_DATA")


def test_an_unknown_dataset_and_a_missing_name_are_one_line():
    assert_one_line(bntt_here("data", "prepare", "digit"), "unknown dataset 'digit'", "did you mean 'digits'?")
    assert_one_line(bntt_here("data", "verify"), "needs the name of a dataset", "digits")
    assert_one_line(bntt_here("data", "list", "digit"), "unknown dataset 'digit'", "did you mean 'digits'?")


@pytest.mark.parametrize(
    ("action", "option", "only"),
    [
        ("list", "--from", "prepare"),
        ("verify", "--from", "prepare"),
        ("show", "--from", "prepare"),
        ("list", "--out", "show"),
        ("verify", "--out", "show"),
        ("prepare", "--out", "show"),
    ],
)
def test_an_option_of_another_action_is_one_line(tmp_path, action, option, only):
    given = bntt_here("data", action, "digits", option, tmp_path)
    assert_one_line(given, f"data {action} takes no {option}; only data {only} does")


def test_one_dataset_can_be_listed_alone():
    listed = bntt_here("data", "list", "digits")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")] == ["digits"]


def test_the_commands_say_what_there_is(place):
    assert len(re.findall(r"^\S+ +not prepared ", bntt_here("data", "list").stdout, re.M)) == len(store.names())
    assert bntt_here("data", "prepare", "digits").stdout.strip() == str(place / "digits" / "manifest.json")
    prepared = re.findall(r"^(\S+) +prepared +(\S+) +(.+?)  ", bntt_here("data", "list").stdout, re.M)
    assert prepared == [("digits", "content", "1,077 train, 180 validation, 540 test")]
    verified = bntt_here("data", "verify", "digits").stdout
    assert "whole" in verified
    assert "content" in verified


@pytest.mark.parametrize(("text", "status"), [("{", "damaged"), ({"reader": "0" * 16}, "outdated")])
def test_the_list_tells_data_that_cannot_be_used(prepared, capsys, text, status):
    path = prepared / "manifest.json"
    if isinstance(text, str):
        path.write_text(text)
    else:
        files.write_sealed(path, files.read_sealed(path) | text)
    data._list("digits")
    assert re.match(rf"digits +{status} ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("classes", "names", "shown"),
    [
        (10, None, "all 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (100, [f"n{k}" for k in range(100)], "10 of 100 classes: 0 n0, 1 n1, 2 n2, 3 n3, 4 n4"),
    ],
)
def test_a_contact_sheet_tells_which_classes_it_shows(prepared, tmp_path, monkeypatch, classes, names, shown):
    from matplotlib.figure import Figure

    record = files.read_sealed(prepared / "manifest.json") | {"classes": classes}
    files.write_sealed(prepared / "manifest.json", record | ({"class_names": names} if names else {}))
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    out, told = sheet.contact_sheet("digits", tmp_path / "sheet.png")
    assert out.is_file()
    assert told.startswith(shown)
    (axes,) = drawn[0].axes
    assert f"{shown.split(':')[0]}: training images" in axes.get_title()
    assert ", ".join(label.get_text() for label in axes.get_yticklabels()) == told.split(": ")[1]


def test_a_picture_of_another_kind_is_one_line(prepared, tmp_path):
    with pytest.raises(UserError) as raised:
        sheet.contact_sheet("digits", tmp_path / "sheet.txt")
    assert_one_line(raised.value, "sheet.txt", "txt", ".png")


# -- what a run sees --------------------------------------------------------------------------------------


def test_mean_and_deviation_are_those_of_the_training_images_alone(prepared):
    seen = store.load("digits").to(torch.device("cpu"), 16, 200)
    values = seen.train.pixels.double().numpy() / 255
    assert values.shape == (200, 1, 16, 16)
    assert seen.mean.item() == pytest.approx(values.mean(), rel=1e-6)
    assert seen.deviation.item() == pytest.approx(values.std(), rel=1e-6)
    scaled = seen.scaled(seen.train.unit(torch.arange(200)), signed=True)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-5)
    assert scaled.std().item() == pytest.approx(1, abs=1e-3)
    unit = seen.train.unit(torch.arange(200))
    assert torch.equal(seen.scaled(unit, signed=False), unit)
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_mean_and_deviation_are_per_channel():
    seen = images(channels=3)
    values = seen.train.pixels.double() / 255
    assert torch.allclose(seen.mean.flatten().double(), values.mean((0, 2, 3)), rtol=1e-6)
    assert torch.allclose(seen.deviation.flatten().double(), values.std((0, 2, 3), correction=0), rtol=1e-6)


def test_a_limit_takes_the_first_training_images_and_no_others(prepared):
    raw = store.load("digits")
    seen = raw.to(torch.device("cpu"), None, 50)
    assert torch.equal(seen.train.pixels, raw.train.pixels[:50])
    assert torch.equal(seen.train.labels, raw.train.labels[:50])
    assert (len(seen.validation), len(seen.test)) == (180, 540)
    assert seen.shape == (1, 8, 8)


def test_a_limit_of_test_images_takes_the_first_of_them_and_leaves_the_others_alone(prepared):
    raw = store.load("digits")
    seen = raw.to(torch.device("cpu"), test_limit=30)
    assert torch.equal(seen.test.pixels, raw.test.pixels[:30])
    assert torch.equal(seen.test.labels, raw.test.labels[:30])
    assert (len(seen.train), len(seen.validation)) == (1077, 180)


def test_resizing_keeps_labels_and_means():
    seen = images(side=8)
    larger = seen.to(torch.device("cpu"), 16, None)
    assert larger.shape == (1, 16, 16)
    assert torch.equal(larger.train.labels, seen.train.labels)
    assert (larger.train.pixels.double().mean((2, 3)) - seen.train.pixels.double().mean((2, 3))).abs().max() < 6
    smaller = seen.to(torch.device("cpu"), 4, None)
    for found, side in ((larger, 16), (smaller, 4)):  # where images shrink, every pixel counts
        expected = F.interpolate(seen.test.pixels.float(), (side, side), mode="bilinear", antialias=True).round()
        assert torch.equal(found.test.pixels.float(), expected.clamp(0, 255))


# -- augmentation -----------------------------------------------------------------------------------------

COUNT = 2000


def marked(side: int = 8) -> torch.Tensor:
    """Images whose every pixel tells where it was: row in channel 0, column in channel 1, both from 1 on."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns]).float().add(1).expand(COUNT, 2, side, side)


def test_crops_move_by_every_offset_within_the_padding_and_fill_with_zero():
    padding = 2
    moved = augment(marked(), key("crop"), torch.arange(COUNT), padding, False)
    row = moved[:, 0, 4, 4] - 5  # how far the pixel now at (4, 4) came
    column = moved[:, 1, 4, 4] - 5
    for offset in (row, column):
        values, counts = offset.unique(return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert (counts.double() / COUNT - 0.2).abs().max() < 4 * (0.2 * 0.8 / COUNT) ** 0.5
    assert abs(np.corrcoef(row, column)[0, 1]) < 4 / COUNT**0.5
    for image in range(20):  # the whole image, against slicing a padded one
        padded = F.pad(marked()[image], (padding,) * 4)
        top, left = int(row[image]) + padding, int(column[image]) + padding
        assert torch.equal(moved[image], padded[:, top : top + 8, left : left + 8])


def test_half_of_the_images_are_flipped_and_only_left_to_right():
    turned = augment(marked(), key("flip"), torch.arange(COUNT), 0, True)
    same = (turned == marked()).flatten(1).all(1)
    flipped = (turned == marked().flip(-1)).flatten(1).all(1)
    assert (same ^ flipped).all()
    assert abs(flipped.double().mean().item() - 0.5) < 4 * 0.5 / COUNT**0.5


def test_a_draw_depends_on_key_and_sample_alone():
    samples = torch.tensor([5, 900, 17, 3])
    whole = augment(marked(), 1, torch.arange(COUNT), 2, True)
    some = augment(marked()[:4], 1, samples, 2, True)
    assert torch.equal(some, whole[samples])
    one = augment(marked()[:1], 1, samples[2:3], 2, True)
    assert torch.equal(one[0], whole[17])
    assert not torch.equal(augment(marked(), 2, torch.arange(COUNT), 2, True), whole)


def test_without_augmentation_images_are_as_they_were():
    assert torch.equal(augment(marked(), 1, torch.arange(COUNT), 0, False), marked())
