"""The readers of the paper's datasets: on real data where they are at hand, on made ones in the publishers' layouts."""

import hashlib
import io
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from tiny import PROJECT, assert_one_line, bntt_here

from bntt.common.errors import UserError
from bntt.data import (
    _cifar,
    _dvs_cifar10,
    _recordings,
    _torchvision,
    cifar100,
    digits_dvs,
    dvs_cifar10,
    dvs_cifar10_tebn,
    dvs_cifar10_tebn_transposed,
    dvs_cifar10_transposed,
    dvs_cifar10_uniform_transposed,
    splits,
    store,
    tiny_imagenet,
)
from bntt.data._fetch import Archive
from bntt.data._parts import Parts
from bntt.data.events.aedat import Events, encode, write
from bntt.data.images import RELEASED, ImageData, Images, augment, channel_statistics
from bntt.spiking.randomness import key

SHARED = PROJECT.parent / "shared" / "data"
needs_cifar = pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no CIFAR-10 at ../shared/data/cifar10")
needs_tiny = pytest.mark.skipif(
    not (SHARED / "tiny-imagenet-200-mini.zip").is_file(), reason="no Tiny-ImageNet at ../shared/data"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = tmp_path / "prepared data"
    monkeypatch.setenv("BNTT_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    """Real CIFAR-10 in its binary layout."""
    sys.path.insert(0, str(SHARED))
    try:
        import unpack_cifar10
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("cifar 10")
    argv, sys.argv = sys.argv, ["unpack_cifar10.py", str(folder)]
    try:
        unpack_cifar10.main()
    finally:
        sys.argv = argv
    return folder


# -- CIFAR ------------------------------------------------------------------------------------------------


@needs_cifar
@pytest.mark.slow
def test_cifar_10_is_the_one_that_the_world_knows(place, binary):
    store.prepare("cifar10", binary)
    record = store.verify("cifar10")
    assert record["state"] == "partial"
    assert len(record["differing_test_items"]) == 20
    assert record["images"] == {"train": 50_000, "validation": 0, "test": 10_000}
    raw = store.load("cifar10")
    assert torch.bincount(raw.train.labels).tolist() == [5000] * 10
    assert torch.bincount(raw.test.labels).tolist() == [1000] * 10
    mean, deviation = channel_statistics(raw.train.pixels)
    assert mean.flatten().tolist() == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=5e-7)
    assert deviation.flatten().tolist() == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=5e-7)
    mapped = np.load(place / "cifar10" / "train-pixels.npy", mmap_mode="r")
    assert (mapped.dtype, mapped.shape) == (np.uint8, (50_000, 3, 32, 32))


@needs_cifar
@pytest.mark.slow
def test_one_other_pixel_outside_the_listed_items_is_unknown(place, binary, tmp_path):
    copy = shutil.copytree(binary / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-bin")
    content = bytearray((copy / "data_batch_3.bin").read_bytes())
    content[5000] ^= 1
    (copy / "data_batch_3.bin").write_bytes(content)
    store.prepare("cifar10", tmp_path)
    assert store.verify("cifar10")["state"] == "unknown"


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def small(request, monkeypatch, tmp_path):
    """The binary layout with six images a file: what was written, and where."""
    name = request.param
    folder, label_bytes, classes, (train, _), (test, _) = _cifar.BINARY[name]
    monkeypatch.setitem(_cifar.BINARY, name, (folder, label_bytes, classes, (train, 6), (test, 6)))
    draws = np.random.default_rng(0)
    (tmp_path / folder).mkdir()
    written = {}
    for file in [*train, *test]:
        records = draws.integers(0, 256, (6, label_bytes + 3072), dtype=np.uint8)
        records[:, :label_bytes] = draws.integers(0, 10, (6, label_bytes))
        (tmp_path / folder / file).write_bytes(records.tobytes())
        written[file] = records
    return SimpleNamespace(
        name=name, root=tmp_path, folder=tmp_path / folder, bytes=label_bytes, train=train, test=test, written=written
    )


def test_the_binary_layout_is_label_then_red_green_and_blue_rows(small):
    for source in (small.root, small.folder):
        parts = _cifar.read(small.name, source, small.root)
        for (pixels, labels), files in ((parts.train, small.train), (parts.test, small.test)):
            records = np.concatenate([small.written[file] for file in files])
            assert np.array_equal(labels, records[:, small.bytes - 1])
            assert np.array_equal(pixels[:, 1, 3, 5], records[:, small.bytes + 1024 + 3 * 32 + 5])
        assert parts.validation is None
        assert not parts.from_publisher


def test_a_damaged_binary_file_is_one_line(small):
    path = small.folder / small.train[-1]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UserError) as raised:
        _cifar.read(small.name, small.root, small.root)
    assert_one_line(raised.value, str(path), f"{len(content) - 1} bytes", str(len(content)))
    wrong = bytearray(content)
    wrong[2 * (small.bytes + 3072) + small.bytes - 1] = 200
    path.write_bytes(wrong)
    with pytest.raises(UserError) as raised:
        _cifar.read(small.name, small.root, small.root)
    assert_one_line(raised.value, str(path), "image 2 has label 200")
    path.unlink()
    with pytest.raises(UserError) as raised:
        _cifar.read(small.name, small.root, small.root)
    assert_one_line(raised.value, str(path), "missing")


def test_a_pickle_of_the_python_layout_is_not_opened_before_its_md5_matched(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError) as raised:
        _cifar.read("CIFAR10", tmp_path, tmp_path)
    assert_one_line(raised.value, str(folder), "md5", "not opened")
    assert not (tmp_path / "opened").exists()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """CIFAR-10's archive with five images a file, on a server of this machine that cuts its first connection."""
    import pickle
    import tarfile
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from bntt.data._torchvision import torchvision

    official = torchvision().datasets.CIFAR10
    draws, sums, expected = np.random.default_rng(0), {}, {}
    folder = tmp_path / "made" / official.base_folder
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        expected[name] = (draws.integers(0, 256, (5, 3072), dtype=np.uint8), draws.integers(0, 10, 5).tolist())
        (folder / name).write_bytes(pickle.dumps({"data": expected[name][0], "labels": expected[name][1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    archive = tmp_path / official.filename
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(folder, official.base_folder)
    content = archive.read_bytes()
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            requests.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : len(content) // 2] if len(requests) == 1 else content[start:])
            self.close_connection = True

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(official, "url", f"http://127.0.0.1:{server.server_port}/{official.filename}")
    monkeypatch.setattr(official, "tgz_md5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(official, "train_list", [[f"data_batch_{n}", sums[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(official, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": sums["batches.meta"]})
    yield SimpleNamespace(expected=expected, requests=requests, folder=folder, archive=archive)
    server.shutdown()
    server.server_close()


def test_cifar_10_from_its_publisher_over_a_bad_line(served, place):
    record = json.loads(store.prepare("cifar10").read_text())
    assert record["state"] == "archive"
    assert served.requests == [0, served.requests[1]]
    assert served.requests[1] > 0
    pixels = np.load(place / "cifar10" / "train-pixels.npy")
    labels = np.load(place / "cifar10" / "train-labels.npy")
    batches = [served.expected[f"data_batch_{n}"] for n in range(1, 6)]
    assert np.array_equal(pixels.reshape(25, 3072), np.concatenate([batch for batch, _ in batches]))
    assert labels.tolist() == [label for _, own in batches for label in own]
    assert sorted(path.name for path in place.iterdir()) == [".cifar10-lock", "cifar10", "downloads"]
    shutil.rmtree(place / "cifar10")
    store.prepare("cifar10")  # from the archive that is there
    assert len(served.requests) == 2


def test_what_a_killed_process_unpacked_is_cleared_away(served, place):
    left = place / "downloads" / "cifar10" / "unpacked" / "cifar-10-batches-py" / "data_batch_1"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"the first half")
    assert json.loads(store.prepare("cifar10").read_text())["state"] == "archive"
    assert [path.name for path in (place / "downloads" / "cifar10").iterdir()] == ["cifar-10-python.tar.gz"]


def test_the_binary_layout_needs_no_torchvision(small, monkeypatch):
    """As on a machine that has torch and numpy alone."""

    def absent(_):
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(_torchvision, "import_module", absent)
    assert len(_cifar.read(small.name, small.folder, small.root).train[1]) == 6 * len(small.train)
    with pytest.raises(UserError) as raised:
        _cifar.read(small.name, None, small.root)
    assert_one_line(raised.value, "pip install torchvision")


def test_cifar_10_from_a_folder_in_the_python_layout(served, place):
    assert json.loads(store.prepare("cifar10", served.folder.parent).read_text())["state"] == "archive"
    shutil.rmtree(place)
    assert json.loads(store.prepare("cifar10", served.folder).read_text())["state"] == "archive"
    assert served.requests == []


@pytest.mark.parametrize("given", ["file", "renamed", "folder"])
def test_cifar_10_from_an_archive_that_the_user_has(served, place, tmp_path, given):
    source = served.archive if given == "file" else served.archive.rename(tmp_path / "c.tgz")
    if given == "folder":
        source = tmp_path / "folder"
        source.mkdir()
        (tmp_path / "c.tgz").rename(source / "cifar-10-python.tar.gz")
    record = json.loads(store.prepare("cifar10", source).read_text())
    assert (record["state"], record["class_names"][3]) == ("archive", "cat")
    assert served.requests == []


def test_the_archive_of_the_binary_layout_is_known_by_its_checksum(small, tmp_path, monkeypatch):
    import tarfile

    known = _cifar.BINARY_ARCHIVES[small.name]
    archive = tmp_path / known.name
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(small.folder, small.folder.name)
    expected = _cifar.read(small.name, small.root, tmp_path)
    shutil.rmtree(small.folder)
    with pytest.raises(UserError) as raised:
        _cifar.read(small.name, archive, tmp_path)
    assert_one_line(raised.value, str(archive), known.md5, "fetch it again")
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(_cifar.BINARY_ARCHIVES, small.name, known._replace(md5=md5))
    for source in (archive, tmp_path):
        parts = _cifar.read(small.name, source, tmp_path / "downloads")
        assert parts.from_publisher
        assert store.content_digest(parts) == store.content_digest(expected)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_folder_without_any_layout_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "data"))
    ran = bntt_here("data", "prepare", "cifar10", "--from", tmp_path)
    assert_one_line(ran, "cifar-10-batches-py", "-bin", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
    ran = bntt_here("data", "prepare", "cifar10", "--from", tmp_path / "nowhere")
    assert_one_line(ran, "nowhere", "no such folder")
    assert [path.name for path in (tmp_path / "data").glob(".*")] == [".cifar10-lock"]


# -- Tiny-ImageNet ----------------------------------------------------------------------------------------

WNIDS = ["n02", "n01"]


def jpeg(colour, mode="RGB", size=(64, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "JPEG", quality=100)
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two classes in the official layout; a class is a colour, one image is grey."""
    monkeypatch.setitem(tiny_imagenet.DATASET, "classes", 2)
    root = tmp_path / "from" / tiny_imagenet.FOLDER
    files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": b"n01\tfirst, other\nn03\tthird\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
        "val/images/val_0.JPEG": jpeg((0, 0, 255)),
        "val/images/val_1.JPEG": jpeg(100, "L"),
    }
    for wnid, colour in zip(("n01", "n02"), ((255, 0, 0), (0, 0, 255)), strict=True):
        for number in (0, 1, 10):
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(colour)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(tree, target):
    with zipfile.ZipFile(target, "w") as opened:
        for path in sorted(tree.rglob("*")):
            opened.write(path, path.relative_to(tree.parent))
    return target


@pytest.mark.parametrize("kind", ["folder", "inside", "zip", "file"])
def test_tiny_imagenet_in_its_official_layout(tree, kind, tmp_path):
    source = {"folder": tree, "inside": tree.parent, "zip": tmp_path / "zip", "file": tmp_path / "a b"}[kind]
    if kind == "zip":
        source.mkdir()
        zipped(tree, source / tiny_imagenet.ARCHIVE.name)
    elif kind == "file":
        zipped(tree, source)
    parts = tiny_imagenet.read(source, tmp_path)
    pixels, labels = parts.train
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]  # by number within the class, so that the first ones are balanced
    assert (pixels[0::2, 0].mean(), pixels[1::2, 2].mean()) == (pytest.approx(254, abs=2), pytest.approx(254, abs=2))
    pixels, labels = parts.test
    assert labels.tolist() == [1, 0]
    assert (pixels[1] == 100).all()
    assert not parts.from_publisher
    assert parts.facts["class_names"] == ["first", "n02"]  # words.txt does not name n02
    assert parts.facts["decoder"].startswith(f"Pillow {PIL.__version__} with")


def test_the_publishers_zip_is_known_by_its_checksum(tree, tmp_path, monkeypatch):
    path = zipped(tree, tmp_path / tiny_imagenet.ARCHIVE.name)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", tiny_imagenet.ARCHIVE._replace(md5=md5))
    assert tiny_imagenet.read(tmp_path, tmp_path).from_publisher


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda t: shutil.rmtree(t / "train/n02"), ["train/n02/images", "no image"]),
        (lambda t: (t / "train/n01/images/n01_1.JPEG").write_bytes(b"\xff\xd8 no"), ["n01_1.JPEG", "cannot be read"]),
        (lambda t: (t / "val/images/val_1.JPEG").unlink(), ["val_1.JPEG"]),
        (lambda t: (t / "val/images/val_1.JPEG").write_bytes(jpeg(0, "L", (64, 63))), ["64 x 63", "64 x 64"]),
        (lambda t: (t / "wnids.txt").write_text("n01\n"), ["wnids.txt names 1 classes", "2"]),
        (lambda t: (t / "wnids.txt").unlink(), ["wnids.txt is missing"]),
        (lambda t: (t / "val/val_annotations.txt").write_text("val_0.JPEG\tn09\n"), ["val_0.JPEG", "wnids.txt"]),
        (lambda t: (t / "val/val_annotations.txt").write_text(""), ["val_annotations.txt names no image"]),
        (lambda t: (t / "val/images/val_1.JPEG").unlink(), ["1 of the 2 images", "val/images/val_1.JPEG"]),
        (lambda t: shutil.rmtree(t / "train"), ["train/n01/images has no image", "1 other"]),
    ],
)
def test_damage_to_tiny_imagenet_is_one_line(tree, tmp_path, damage, parts):
    damage(tree)
    with pytest.raises(UserError) as raised:
        tiny_imagenet.read(tree, tmp_path)
    assert_one_line(raised.value, str(tree), *parts)


def test_an_incomplete_copy_is_said_and_listed_with_what_it_has(tree, place, capsys):
    import argparse

    from bntt.commands import data

    told = "INCOMPLETE: 6 of 100,000 train, 2 of 10,000 test"

    def run(*arguments):
        parser = argparse.ArgumentParser()
        data.add_arguments(parser)
        data.run(parser.parse_args([*arguments]))
        return capsys.readouterr()

    first = run("prepare", "tiny-imagenet", "--from", str(zipped(tree, place.parent / "a.zip")))
    assert re.findall(told, first.err) == [told]
    assert len(first.err.splitlines()) == 1
    assert told in run("prepare", "tiny-imagenet").err
    verified = run("verify", "tiny-imagenet")
    assert told in verified.err
    assert "6 of 100,000 train" in verified.out
    (line,) = (line for line in run("list").out.splitlines() if line.startswith("tiny-imagenet"))
    assert re.fullmatch(r"tiny-imagenet +prepared +unknown +6 of 100,000 train, 2 of 10,000 test +Tiny-.*", line)
    assert "photographs" not in line
    assert told in run("list").out
    with pytest.raises(UserError) as raised:
        store.load("tiny-imagenet")
    assert_one_line(raised.value, str(place / "tiny-imagenet"), told.removeprefix("INCOMPLETE: "), "complete data")


def test_remarks_tell_what_is_unusual_of_prepared_data(monkeypatch):
    monkeypatch.setattr(store, "facts", lambda name: known)
    known = {"images": {"train": 6, "validation": 0, "test": 2}, "content": "a", "decoder": "this"}
    usual = {"dataset": "d", "images": known["images"], "content_sha256": "a", "state": "content", "decoder": "other"}

    def told(**other):
        return [line.split(":")[0] for line in store.remarks(usual | other)]

    assert store.counts(usual) == "6 train, 2 test"
    assert told() == told(state="archive") == []
    assert told(content_sha256="b", state="unknown") == ["OTHER DECODER"]
    assert told(content_sha256="b", state="archive") == ["OTHER PIXELS", "OTHER DECODER"]
    assert told(content_sha256="b", state="unknown", decoder="this") == []
    for images in ({"train": 5, "validation": 0, "test": 2}, {"train": 7, "validation": 0, "test": 2}):
        assert told(images=images, content_sha256="b", state="unknown") == ["INCOMPLETE"]
    for outside, lines in ((0, []), (2, []), (3, ["EVENTS LEFT OUT"])):
        assert told(events={"events": 2000, "outside_window": outside}) == lines
    assert told(events={"events": 2000, "outside_window": 0, "empty_recordings": 1}) == ["EMPTY RECORDINGS"]
    (line,) = store.remarks(usual | {"events": {"events": 2000, "outside_window": 1000, "damaged": 7}})
    assert "1,000 of 2,000 (50.0%)" in line
    assert "7 of them have a damaged time-stamp" in line


def test_the_hashes_of_the_contents_are_those_of_the_publishers_archives():
    """A change of them makes data unknown: they are in two places on purpose."""
    assert cifar100.DATASET["content"] == "966524dea413ba63a3629d1004f73ec386cda89a31ba29e6c371f047d884e006"
    assert tiny_imagenet.DATASET["content"] == "27e78c0dd20ee9b5c5a3a5e421d255baa42ac3046ad9797da3a58582bf44c44a"
    locked = re.search(r"^pillow==(\S+)", (PROJECT / "constraints.txt").read_text(), re.M)[1]
    assert tiny_imagenet.DATASET["decoder"].startswith(f"Pillow {locked} with")


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_in_a_zip_is_one_line(tree, recordings, tmp_path, seed):
    """The bits are those of compressed content, so that the directory of the archive stays whole."""
    draws = np.random.default_rng(seed)
    zipped(tree, tmp_path / tiny_imagenet.ARCHIVE.name)
    for place, read in (
        (tmp_path / tiny_imagenet.ARCHIVE.name, lambda: tiny_imagenet.read(tmp_path, tmp_path)),
        (recordings / "bird.zip", lambda: _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)),
    ):
        with zipfile.ZipFile(place) as opened:
            contents = {one: opened.read(one) for one in opened.namelist()}
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in contents.items():
                opened.writestr(name, content)
            chosen = draws.choice(
                [one for one in opened.infolist() if one.compress_size > 20 and "words" not in one.filename]
            )
        damaged = bytearray(place.read_bytes())
        first = chosen.header_offset + 30 + len(chosen.filename)
        damaged[first + draws.integers(chosen.compress_size)] ^= 1 << draws.integers(8)
        place.write_bytes(damaged)
        with pytest.raises(UserError) as raised:
            read()
        assert_one_line(raised.value, str(place), Path(chosen.filename).name, "fetch")


def test_a_truncated_jpeg_is_one_line(tree, tmp_path):
    path = tree / "train/n01/images/n01_1.JPEG"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError) as raised:
        tiny_imagenet.read(tree, tmp_path)
    assert_one_line(raised.value, "n01_1.JPEG", "cannot be read")


@needs_tiny
def test_real_images_of_tiny_imagenet(tmp_path):
    """A piece of the real one: 10 training and 5 validation images a class, some of them grey."""
    shutil.copy(SHARED / "tiny-imagenet-200-mini.zip", tmp_path / tiny_imagenet.ARCHIVE.name)
    parts = tiny_imagenet.read(tmp_path, tmp_path)
    assert parts.train[0].shape == (2000, 3, 64, 64)
    assert parts.test[0].shape == (1000, 3, 64, 64)
    assert (np.bincount(parts.train[1]) == 10).all()
    assert (np.bincount(parts.test[1]) == 5).all()
    grey = (parts.train[0] == parts.train[0][:, :1]).all((1, 2, 3))
    assert 0 < grey.sum() < 200
    assert not parts.from_publisher


# -- DVS-CIFAR10 ------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Ten archives of three recordings each: the first event of recording k of class c lies at x = c, y = k."""
    monkeypatch.setattr(_dvs_cifar10, "PER_CLASS", 3)
    source = tmp_path / "archives"
    source.mkdir()
    archives = []
    for label, archive in enumerate(_dvs_cifar10.ARCHIVES):
        with zipfile.ZipFile(source / archive.name, "w") as opened:
            for number in (2, 0, 1):
                stamps = np.array([0, 4999, 5000, 99_999, 100_000, 1_300_000])
                x = np.array([3 * label, 3, 4, 5, 6, 127], np.uint8)
                y = np.array([3 * number, 0, 0, 0, 0, 0], np.uint8)
                write(tmp_path / "one.aedat", Events(stamps, x, y, np.array([1, 0, 1, 0, 1, 0], bool)))
                name = archive.name.removesuffix(".zip")
                opened.write(tmp_path / "one.aedat", f"{name}/cifar10_{name}_{number}.aedat")
        md5 = hashlib.md5((source / archive.name).read_bytes(), usedforsecurity=False).hexdigest()
        archives.append(Archive(archive.name, archive.url, md5))
    monkeypatch.setattr(_dvs_cifar10, "ARCHIVES", archives)
    return source


SPLIT = {"train": [*range(0, 30, 3), *range(1, 30, 3)], "validation": [], "test": list(range(2, 30, 3))}


def test_archives_of_recordings_become_frames(recordings, tmp_path):
    parts = _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    frames, labels = parts.train
    assert frames.shape == (20, 20, 2, 42, 42)
    assert labels.tolist() == [*range(10), *range(10)]
    for label in range(10):
        assert frames[10 + label, 0, 1, 1, label] == 1  # recording 1, its first event, ON
        assert parts.test[0][label, 0, 1, 2, label] == 1
    assert (frames[:, 0, 0, 0, 1] == 1).all()
    assert (frames[:, 19, 0, 0, 1] == 1).all()
    assert parts.from_publisher
    counted = parts.facts["events"]
    assert counted["events"] == 180 == counted["framed"] + counted["outside_window"] + counted["outside_crop"]
    assert counted["outside_window"] == 60
    uniform = _dvs_cifar10.read(recordings, tmp_path, SPLIT, None)
    assert uniform.facts["events"]["outside_crop"] == 30
    assert (uniform.train[0].sum((2, 3, 4))[:, 0] == 3).all()


def test_extracted_folders_are_read_alike(recordings, tmp_path):
    folder = tmp_path / "extracted"
    for archive in _dvs_cifar10.ARCHIVES:
        with zipfile.ZipFile(recordings / archive.name) as opened:
            opened.extractall(folder)
    zips = _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    folders = _dvs_cifar10.read(folder, tmp_path, SPLIT, 5000)
    assert store.content_digest(zips) == store.content_digest(folders)
    assert not folders.from_publisher


def recordings_of(recordings, name, contents):
    with zipfile.ZipFile(recordings / f"{name}.zip", "w") as opened:
        for number, content in contents.items():
            opened.writestr(f"{name}/cifar10_{name}_{number}.aedat", content)


@pytest.mark.parametrize("extracted", [False, True])
def test_all_classes_that_lack_recordings_are_named_before_any_is_decoded(recordings, tmp_path, monkeypatch, extracted):
    recordings_of(recordings, "bird", {0: b"", 2: b""})
    recordings_of(recordings, "dog", {0: b"", 1: b"", 2: b"", 9: b""})
    recordings_of(recordings, "truck", {})
    if extracted:
        for archive in recordings.iterdir():
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(recordings)
            archive.unlink()
        (recordings / "truck").mkdir()
    monkeypatch.setattr(_recordings, "decode", lambda *_: 1 / 0)
    monkeypatch.setattr(_dvs_cifar10, "matches", lambda *_: 1 / 0)
    with pytest.raises(UserError) as raised:
        _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    bird, truck = "bird has 2 of 3 recordings, the first missing is 1", "truck has 0 of 3 recordings"
    assert_one_line(raised.value, str(recordings), bird, "dog has", "cifar10_dog_9.aedat", truck)
    assert "airplane" not in str(raised.value)


def test_missing_and_damaged_recordings_are_one_line(recordings, tmp_path):
    recordings_of(recordings, "bird", {0: b"#!AER-DAT2.0\r\n123", 1: b"", 2: b""})
    with pytest.raises(UserError) as raised:
        _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    assert_one_line(raised.value, "bird.zip", "cifar10_bird_0.aedat", "3 bytes are left over")
    for name in ("bird.zip", "truck.zip"):
        (recordings / name).unlink()
    with pytest.raises(UserError) as raised:
        _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    assert_one_line(raised.value, str(recordings), "bird.zip and truck.zip")


def test_one_of_the_archives_names_the_folder_of_all(recordings, tmp_path):
    parts = _dvs_cifar10.read(recordings / "cat.zip", tmp_path, SPLIT, 5000)
    assert store.content_digest(parts) == store.content_digest(_dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000))
    assert parts.facts["class_names"][3] == "cat"
    (recordings / "other.zip").write_bytes(b"")
    with pytest.raises(UserError) as raised:
        _dvs_cifar10.read(recordings / "other.zip", tmp_path, SPLIT, 5000)
    assert_one_line(raised.value, "other.zip", "airplane.zip", "--from")


def test_damaged_time_stamps_are_counted(recordings, tmp_path):
    stamps = np.arange(0, 200_000, 100)
    stamps[[0, 1000]] = 2**20, 2**28
    events = Events(stamps, *(np.zeros(2000, np.uint8) for _ in range(2)), np.ones(2000, bool))
    write(tmp_path / "one.aedat", events)
    content = (tmp_path / "one.aedat").read_bytes()
    recordings_of(recordings, "bird", dict.fromkeys(range(3), content))
    counted = _dvs_cifar10.read(recordings, tmp_path, SPLIT, None).facts["events"]
    assert (counted["damaged"], counted["outside_window"], counted["reordered"]) == (6, 6, 0)
    assert counted["events"] == 3 * 2000 + 27 * 6
    assert counted["empty_recordings"] == 0
    write(tmp_path / "one.aedat", Events(np.arange(50), *(np.full(50, 127) for _ in range(2)), np.ones(50, bool)))
    recordings_of(recordings, "bird", dict.fromkeys(range(3), (tmp_path / "one.aedat").read_bytes()))
    assert _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000).facts["events"]["empty_recordings"] == 3


def test_the_other_orientation_swaps_x_and_y(recordings, tmp_path, monkeypatch):
    upright = _dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000)
    monkeypatch.setattr(splits, "committed_split", lambda name: SPLIT)
    for module in (dvs_cifar10_transposed, dvs_cifar10_tebn_transposed):
        swapped = module.read(recordings, tmp_path)
        assert np.array_equal(swapped.train[0], upright.train[0].transpose(0, 1, 2, 4, 3))
        assert not np.array_equal(swapped.train[0], upright.train[0])
        assert np.array_equal(swapped.train[1], upright.train[1])
    uniform = dvs_cifar10_uniform_transposed.read(recordings, tmp_path)
    expected = _dvs_cifar10.read(recordings, tmp_path, SPLIT, None)
    assert np.array_equal(uniform.test[0], expected.test[0].swapaxes(-1, -2))


def test_the_committed_split_of_dvs_cifar10(monkeypatch):
    """A change of it changes every number there is: this hash is in two places on purpose."""
    split = splits.committed_split("dvs-cifar10")
    assert splits.split_digest(split) == SPLIT_OF_DVS
    assert sorted(split["train"] + split["test"]) == list(range(10_000))
    assert np.bincount(np.array(split["test"]) // 1000).tolist() == [100] * 10
    assert split["validation"] == []
    seen = []
    modules = [dvs_cifar10, dvs_cifar10_tebn, dvs_cifar10_transposed, dvs_cifar10_tebn_transposed]
    for module in modules:
        monkeypatch.setattr(
            module, "read_recordings", lambda *given, transposed=False: seen.append((given, transposed))
        )
        module.read(None, None)
    for ((_, _, own, bins), transposed), module in zip(seen, modules, strict=True):
        assert bins == 5000
        assert transposed == module.__name__.endswith("transposed")
        if "tebn" in module.__name__:
            assert own["test"] == [1000 * label + number for label in range(10) for number in range(100)]
            assert sorted(own["train"] + own["test"]) == list(range(10_000))
        else:
            assert own == split


def test_the_split_of_the_simulated_recordings_has_the_same_numbers_in_another_order():
    real, simulated = (splits.committed_split(name) for name in ("dvs-cifar10", "dvs-cifar10-sim"))
    for part, numbers in simulated.items():
        assert sorted(numbers) == sorted(real[part])
        assert [number % 1000 for number in numbers] == sorted(number % 1000 for number in numbers)
    assert np.bincount(np.array(simulated["train"][:1800]) // 1000).min() > 170


@pytest.mark.parametrize("name", [name for name in store.names() if name.startswith("dvs-cifar10")])
def test_no_split_of_dvs_cifar10_is_called_official(name):
    own = next((kind for kind in ("dvs-cifar10-tebn", "dvs-cifar10-sim") if name.startswith(kind)), "dvs-cifar10")
    committed = splits.committed_split(own)
    assert store._split_identity(name) == splits.split_digest(committed)


SPLIT_OF_DVS = "f8098a69e2e562c19cd4d14122761bcea9854bcc116f6bd3fa8565434c0cbff0"


# -- digits before a camera -------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_dvs_is_what_was_committed(place):
    store.prepare("digits-dvs")
    record = store.verify("digits-dvs")
    assert record["state"] == "content"
    assert record["images"] == {"train": 1077, "validation": 180, "test": 540}
    assert record["split_sha256"] == splits.split_digest(splits.committed_split("digits"))
    counted = record["events"]
    assert counted["events"] == sum(counted[k] for k in ("framed", "outside_window", "outside_crop", "saturated"))
    out = place.parent / "sheet.png"
    assert bntt_here("data", "show", "digits-dvs", "--out", out).stdout.strip() == str(out)
    with Image.open(out) as image:
        assert min(image.size) > 300


def test_the_camera_never_sees_a_label(monkeypatch, tmp_path):
    pixels, labels = digits_dvs.digits.scans()
    seen = []
    monkeypatch.setattr(digits_dvs.digits, "scans", lambda: (pixels[:3], labels[:3]))
    monkeypatch.setattr(
        digits_dvs.splits, "committed_split", lambda name: {"train": [0], "validation": [1], "test": [2]}
    )

    def recorded(*given):
        seen.append(given)
        for number in range(3):
            yield encode(Events(np.arange(1), *(np.full(1, number, np.uint8) for _ in range(2)), np.ones(1, bool)))

    monkeypatch.setattr(digits_dvs, "recorded", recorded)
    parts = digits_dvs.read(None, tmp_path)
    ((pictures, of_camera),) = seen
    assert np.array_equal(pictures, pixels[:3, 0])
    assert of_camera == digits_dvs.CAMERA
    assert parts.test[1].tolist() == [labels[2]]
    assert parts.events["test"][0].tolist() == [2 << 8 | 2 << 1 | 1]


# -- what a run sees --------------------------------------------------------------------------------------


def made(train=20, validation=0, channels=3, steps=None) -> ImageData:
    draws = torch.Generator().manual_seed(0)
    frames = () if steps is None else (steps,)

    def part(count):
        pixels = torch.randint(0, 4 if steps else 256, (count, *frames, channels, 8, 8), generator=draws)
        return Images(pixels.to(torch.uint8), torch.arange(count) % 3)

    blank = torch.zeros(channels, 1, 1)
    return ImageData("made", 3, part(train), part(validation), part(5), blank + 0.25, blank + 2, "none", "none")


CPU = torch.device("cpu")


def test_the_last_training_images_are_held_out():
    raw = made()
    seen = raw.to(CPU, None, 6, 4)
    assert torch.equal(seen.validation.pixels, raw.train.pixels[-4:])
    assert torch.equal(seen.train.pixels, raw.train.pixels[:6])
    assert len(raw.to(CPU, None, None, 4).train) == 16
    with pytest.raises(UserError) as raised:
        made(validation=2).to(CPU, held_out=4)
    assert_one_line(raised.value, "held_out", "made", "of its own")
    with pytest.raises(UserError) as raised:
        raw.to(CPU, held_out=19)
    assert_one_line(raised.value, "held_out 19", "20 training images")


def test_the_released_constants_are_those_of_the_released_code():
    seen = made().to(CPU, statistics="cifar10-released")
    assert seen.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert seen.deviation.flatten().tolist() == pytest.approx([0.2023, 0.1994, 0.2010])
    assert RELEASED["mean"][0] == 0.4914
    with pytest.raises(UserError) as raised:
        made(channels=1).to(CPU, statistics="cifar10-released")
    assert_one_line(raised.value, "three channels")


@pytest.mark.parametrize("count", [1, 4095, 9000])
def test_channel_statistics_are_exact(count):
    pixels = torch.randint(0, 256, (count, 2, 3, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    mean, deviation = channel_statistics(pixels)
    values = pixels.numpy() / 255
    assert mean.flatten().numpy() == pytest.approx(values.mean((0, 2, 3)), rel=1e-7)
    assert deviation.flatten().numpy() == pytest.approx(values.std((0, 2, 3)), rel=1e-6)


def test_recordings_are_seen_as_spikes_and_their_shares():
    from bntt.spiking.encoding import encode, rates

    raw = made(channels=2, steps=5).to(CPU)
    assert raw.recordings
    assert raw.shape == (2, 8, 8)
    unit = raw.train.unit(torch.tensor([3, 1]))
    assert torch.equal(unit, (made(channels=2, steps=5).train.pixels[[3, 1]] > 0).float())
    scaled = raw.scaled(unit, True)
    spikes = encode(scaled, 3, 0, torch.tensor([3, 1]), start=2, dtype=torch.bfloat16)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), unit.transpose(0, 1)[2:])
    assert torch.equal(rates(scaled, True), unit.mean(1))
    many = rates(3 * unit, True)  # of counts; a neuron fires once in a step
    assert (many == 1).any() and torch.equal(many, (3 * unit).mean(1).minimum(torch.ones(())))
    counted = made(channels=2, steps=5).to(CPU, event_counts=True)
    assert torch.equal(counted.train.unit(torch.tensor([3])), counted.train.pixels[[3]].float())
    assert counted.train.pixels.max() == 3
    with pytest.raises(ValueError, match="time_steps is at most 5, the frames of a recording, not 6"):
        encode(scaled, 6, 0, torch.tensor([3, 1]))


def test_frames_are_not_resized():
    with pytest.raises(UserError) as raised:
        made(channels=2, steps=5).to(CPU, 16)
    assert_one_line(raised.value, "made", "side of 8", "image_size")


def test_all_frames_of_a_recording_move_alike():
    unit = made(channels=2, steps=5).train.unit(torch.arange(20))
    moved = augment(unit, key("crop"), torch.arange(20), 2, True)
    for step in range(5):
        assert torch.equal(moved[:, step], augment(unit[:, step], key("crop"), torch.arange(20), 2, True))


def test_parts_that_there_are_not_are_empty():
    pixels, labels = np.zeros((3, 1, 2, 2), np.uint8), np.arange(3)
    parts = Parts((pixels, labels), None, (pixels, labels), False)
    assert [(name, len(own)) for name, _, own in parts] == [("train", 3), ("validation", 0), ("test", 3)]


def test_states_are_told_apart(place, monkeypatch):
    """archive before content, content by its hash, partial with the items that may differ, else unknown."""
    from bntt.data import cifar10

    draws = np.random.default_rng(0)
    pixels, labels = draws.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8), np.arange(6)

    def parts(other=None, publisher=False):
        test = pixels.copy()
        if other is not None:
            test[other] ^= 1
        return Parts((pixels, labels), None, (test, labels), publisher)

    def state(one, **facts):
        shutil.rmtree(place / "cifar10", ignore_errors=True)
        known = {"source": "s", "classes": 6, **facts}
        monkeypatch.setattr(store, "facts", lambda name: known)
        monkeypatch.setattr(cifar10, "read", lambda source, downloads: one)
        return json.loads(store.prepare("cifar10").read_text())["state"]

    whole = store.content_digest(parts())
    partial = {"partial": {"items": [2], "content": store.content_digest(parts(), [2])}}
    assert state(parts(publisher=True), content=whole) == "archive"
    assert state(parts(), content=whole) == "content"
    assert state(parts(2), content=whole) == "unknown"
    assert state(parts(2), **partial) == "partial"
    assert state(parts(3), **partial) == "unknown"
    assert state(parts()) == "unknown"
