"""Single events in prepared data, the processes that record pictures, and CIFAR-10 before the simulated camera."""

import hashlib
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_data import exchange, there
from test_datasets import SPLIT, binary, needs_cifar, recordings  # noqa: F401 (fixtures)
from tiny import EXPERIMENT, PROJECT, assert_one_line, bntt_here, environment

import bntt.methods
from bntt.classifiers import EventClassifier
from bntt.common import files
from bntt.common.errors import UserError
from bntt.data import _dvs_cifar10, digits, digits_dvs, dvs_cifar10_sim, store
from bntt.data._parts import Parts
from bntt.data._recordings import assembled
from bntt.data.events import recorder, streams
from bntt.data.events.aedat import Events, decode, encode
from bntt.data.events.camera import record
from bntt.data.images import Images
from bntt.experiment import declared
from bntt.experiment.schema import load
from bntt.runs import pipeline

FEW = {"train": [4, 0, 2, 5], "validation": [3], "test": [1, 6]}
CPU = torch.device("cpu")


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = tmp_path / "prepared data"
    monkeypatch.setenv("BNTT_DATA", str(folder))
    return folder


@pytest.fixture
def few(place, monkeypatch):
    """Seven digits before the camera, prepared: their AEDAT files."""
    pixels, labels = digits.scans()
    contents = [encode(record(pixels[number, 0], digits_dvs.CAMERA, number), 1234) for number in range(7)]
    monkeypatch.setattr(digits_dvs.digits, "scans", lambda: (pixels[:7], labels[:7]))
    monkeypatch.setattr(digits_dvs.splits, "committed_split", lambda name: FEW)
    monkeypatch.setattr(digits_dvs, "recorded", lambda pictures, key: (one for one in contents))
    monkeypatch.setattr(store, "_is_whole", lambda found: True)
    store.prepare("digits-dvs")
    return contents


def by_a_loop(content: bytes, window: int) -> list[tuple[int, int, int, int]]:
    """Microsecond, x, y and polarity of the events of an AEDAT file in a window, without the package."""
    start = content.index(b"\n") + 1
    pairs = list(struct.iter_unpack(">II", content[start:]))
    events = [
        (stamp - pairs[0][1], 127 - (address >> 1) % 128, 127 - (address >> 8), 1 - address % 2)
        for address, stamp in pairs
    ]
    return [one for one in events if one[0] < window]


def unpacked(words) -> list[tuple[int, int, int, int]]:
    parts = (streams.microseconds(words), streams.columns(words), streams.rows(words), streams.polarities(words))
    return list(zip(*(one.tolist() for one in parts), strict=True))


# -- words ------------------------------------------------------------------------------------------------

EVENT = st.tuples(st.integers(-1, 2**20), st.integers(0, 127), st.integers(0, 127), st.booleans())


@given(st.lists(EVENT, max_size=30), st.integers(1, streams.WINDOW))
def test_words_hold_every_event_of_the_window_and_no_other(listed, window):
    columns = list(zip(*listed, strict=True)) or [()] * 4
    kinds = (np.int64, np.uint8, np.uint8, bool)
    events = Events(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))
    assert unpacked(streams.packed(events, window)) == [tuple(one) for one in listed if 0 <= one[0] < window]


@pytest.mark.parametrize("window", [0, -1, streams.WINDOW + 1])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match="131,072 microseconds"):
        streams.packed(decode(encode(some_events()), "file"), window)


def some_events(count: int = 200) -> Events:
    draws = np.random.default_rng(0)
    x, y = draws.integers(0, 128, (2, count)).astype(np.uint8)
    return Events(np.arange(count) * 700, x, y, draws.integers(0, 2, count).astype(bool))


# -- prepared data ----------------------------------------------------------------------------------------


def test_prepared_events_are_those_of_the_files_and_frames_count_them(few):
    data = store.load("digits-dvs", events=True)
    for part, numbers in FEW.items():
        images = getattr(data, part)
        assert len(images.events) == len(numbers) == len(images)
        for place_of, number in enumerate(numbers):
            words = images.events[place_of]
            expected = by_a_loop(few[number], 100_000)
            assert unpacked(words) == expected
            frames = np.zeros((20, 2, 16, 16), int)
            for microsecond, x, y, on in expected:
                frames[microsecond // 5000, on, y // 8, x // 8] += 1
            assert np.array_equal(images.pixels[place_of].numpy(), np.minimum(frames, 255))
    assert unpacked(data.test.streams(torch.tensor([1, 0]))[0]) == by_a_loop(few[6], 100_000)


def test_events_are_not_read_unless_they_are_asked_for(few, place):
    for file in (place / "digits-dvs").glob("*-events.npy"):
        file.write_bytes(b"damaged")
    assert store.load("digits-dvs").train.events is None
    for read in (lambda: store.load("digits-dvs", events=True), lambda: store.verify("digits-dvs")):
        with pytest.raises(UserError) as raised:
            read()
        assert_one_line(raised.value, "-events.npy", "missing or damaged", "data prepare digits-dvs")
    assert_one_line(bntt_here("data", "verify", "digits-dvs"), "-events.npy")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("events", lambda words: words.astype(np.int64)),
        ("events", lambda words: words[:-1]),
        ("events", lambda words: words[None]),
        ("offsets", lambda ends: ends[:-1]),
        ("offsets", lambda ends: ends.astype(np.int32)),
        ("offsets", lambda ends: ends[::-1].copy()),
    ],
)
def test_events_that_are_not_those_of_the_recordings_are_one_line(few, place, kind, change):
    exchange(place / "digits-dvs" / f"train-{kind}.npy", change)
    with pytest.raises(UserError) as raised:
        store.load("digits-dvs", events=True)
    assert_one_line(raised.value, str(place / "digits-dvs"), "train events", "prepare it again")


def test_limits_and_held_out_recordings_keep_their_events(few):
    raw = store.load("digits-dvs", events=True)
    seen = raw.to(CPU, train_limit=3, test_limit=1)
    assert [unpacked(words) for words in seen.train.events] == [by_a_loop(few[k], 100_000) for k in FEW["train"][:3]]
    assert [unpacked(words) for words in seen.test.events] == [by_a_loop(few[1], 100_000)]
    seen = replace(raw, validation=raw.validation.some(slice(0))).to(CPU, held_out=2)
    assert [unpacked(words) for words in seen.train.events] == [by_a_loop(few[k], 100_000) for k in FEW["train"][:2]]
    assert [unpacked(words) for words in seen.validation.events] == [
        by_a_loop(few[k], 100_000) for k in FEW["train"][2:]
    ]


def test_data_of_before_single_events_are_outdated_and_prepared_again(few, place, capsys):
    folder = place / "digits-dvs"
    document = files.read_sealed(folder / "manifest.json")
    for file in [name for name in document["files"] if "events" in name or "offsets" in name]:
        (folder / file).unlink()
        del document["files"][file]
    files.write_sealed(folder / "manifest.json", document)
    assert store.manifest("digits-dvs") == document
    assert not store.is_current("digits-dvs")
    assert " outdated " in bntt_here("data", "list", "digits-dvs").stdout
    assert len(store.load("digits-dvs").test) == 2
    with pytest.raises(UserError) as raised:
        store.load("digits-dvs", events=True)
    assert_one_line(raised.value, "digits-dvs has no", "-events.npy", "dvs-cifar10-sim")
    content = document["content_sha256"]
    store.prepare("digits-dvs")
    assert len(store.load("digits-dvs", events=True).test.events) == 2
    assert store.manifest("digits-dvs")["content_sha256"] == content


def test_made_up_recordings_have_events(place):
    store.make_up("digits-dvs", {"train": 3, "validation": 0, "test": 2})
    data = store.load("digits-dvs", events=True)
    assert [len(words) for words in data.train.events] == [store.MADE_UP] * 3
    assert len(data.validation.events) == 0
    stamps = streams.microseconds(data.test.events[1])
    assert (np.diff(stamps) >= 0).all()
    assert 0 <= stamps[0] <= stamps[-1] < 100_000


def test_a_reader_that_does_not_keep_what_it_declares_is_one_line(place, monkeypatch):
    frames, labels = np.zeros((2, 20, 2, 16, 16), np.uint8), np.zeros(2, np.int64)
    monkeypatch.setattr(digits_dvs, "read", lambda *_: Parts((frames, labels), None, (frames, labels), False))
    with pytest.raises(UserError) as raised:
        store.prepare("digits-dvs")
    assert_one_line(raised.value, "digits_dvs.py, line", "events: True", "`read` returned none")
    words = np.zeros(1, np.uint32)
    for wrong in ([words], [words, words.astype(int)], [words, words[None]]):
        with pytest.raises(TypeError, match="events of train must be words"):
            Parts(
                (frames, labels),
                None,
                (frames, labels),
                False,
                events={"train": wrong, "validation": [], "test": wrong},
            )


@pytest.mark.parametrize("name", store.names())
def test_which_datasets_keep_events(name):
    """All recordings whose frames cover a fixed time that fits into the words."""
    assert store.has_events(name) == (store.is_of_recordings(name) and "uniform" not in name)
    assert (name in declared.with_events()) == store.has_events(name)


def test_a_full_disk_while_events_wait_is_one_line(tmp_path, monkeypatch):
    """Also where nothing can be written when the file is closed: /dev/full takes no byte at any time."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir, **how: Path("/dev/full").open("r+b", **how))  # noqa: SIM115
    with pytest.raises(UserError) as raised:
        assemble_few(tmp_path, 1)
    assert_one_line(raised.value, "No space left on device", "make room")


def assemble_few(folder: Path, files: int, labels: int = 1, split: dict | None = None) -> Parts:
    named = ((f"file {number}", encode(some_events(150 + number))) for number in range(files))
    return assembled(named, np.zeros(labels, int), split or FEW, folder, steps=2, size=4, bin_microseconds=60_000)


def test_events_that_wait_are_whole_where_a_write_takes_a_part(tmp_path, monkeypatch):
    class Short(io.FileIO):
        def write(self, content):
            return super().write(content[:7])

    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir, **how: Short(dir / "waiting", "w+b"))
    parts = assemble_few(tmp_path, 2, 2, {"train": [1], "validation": [], "test": [0]})
    for part, number in (("train", 1), ("test", 0)):
        [words] = parts.events[part]
        assert unpacked(words) == by_a_loop(encode(some_events(150 + number)), 120_000)


@pytest.mark.parametrize("files", [0, 1, 3])
def test_files_that_are_not_as_many_as_labels_are_one_line(files, tmp_path):
    with pytest.raises(ValueError, match="one file for each of 2 labels"):
        assemble_few(tmp_path, files, 2)


def test_swapped_recordings_have_swapped_events(recordings, tmp_path):  # noqa: F811
    upright, swapped = (_dvs_cifar10.read(recordings, tmp_path, SPLIT, 5000, transposed=t) for t in (False, True))
    for part in ("train", "test"):
        for one, other in zip(upright.events[part], swapped.events[part], strict=True):
            assert unpacked(one) == [(t, y, x, on) for t, x, y, on in unpacked(other)]
            assert len(one) == 4
    assert _dvs_cifar10.read(recordings, tmp_path, SPLIT, None).events is None


# -- methods of single events -----------------------------------------------------------------------------

METHOD = '''"""The class whose recordings have as many events."""
import numpy as np
import torch
from bntt.classifiers import EventClassifier
from bntt.methods import Trained
EXTENDS = ["bntt.data.images"]
NEEDS_EVENTS = True
OPTIONS = {}
def train(task):
    lengths = torch.tensor([len(one) for one in task.data.train.events])
    means = [lengths[task.data.train.labels == label].double().mean() for label in range(10)]
    return Trained({"means": torch.stack(means).nan_to_num()})
def classifier(run, data, weights):
    means = weights["means"].cpu().numpy()
    return EventClassifier(lambda streams: -np.abs(np.array([[len(one)] for one in streams]) - means))
'''


def test_a_method_of_single_events_on_data_without_is_one_line_when_the_file_is_read(package, tmp_path):
    (package / "methods/mine.py").write_text(METHOD)
    (package / "data/broken.py").write_text("DATASET = (\n")
    document = {"title": "t", "seeds": [0], "datasets": ["digits", "digits-dvs"], "rows": {"row": {"method": "mine"}}}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError) as raised:
        load(str(path))
    told = "rows: row: method mine works on single events, and digits keeps none; limit the row by `datasets`"
    assert_one_line(raised.value, str(path), told, "digits-dvs, dvs-cifar10, dvs-cifar10-sim")
    document["rows"]["row"]["datasets"] = ["digits-dvs"]
    path.write_text(yaml.safe_dump(document))
    assert [run.dataset for run in load(str(path)).runs] == ["digits-dvs"]


def test_a_method_of_single_events_is_trained_and_measured(package, tmp_path, place, monkeypatch):
    monkeypatch.setattr(bntt.methods, "__path__", [*bntt.methods.__path__, str(package / "methods")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (package / "methods/mine.py").write_text(METHOD)
    document = {"title": "t", "seeds": [0], "datasets": ["digits-dvs"], "evaluation": EXPERIMENT["evaluation"]}
    document["rows"] = {"row": {"method": "mine", "train_limit": 30, "test_limit": 7}}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(document))
    store.make_up("digits-dvs", {"train": 200, "validation": 0, "test": 9})
    used = load(str(path))
    assert "done" in pipeline.train(used, used.runs[0], tmp_path, "cpu")
    assert "test accuracy" in pipeline.evaluate(used, used.runs[0], tmp_path, "cpu")
    sys.modules.pop("bntt.methods.mine")


# -- processes that record --------------------------------------------------------------------------------

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("processes", [2, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 7))])
def test_recordings_do_not_depend_on_the_number_of_processes(processes):
    expected = [encode(record(picture, 7, number)) for number, picture in enumerate(PICTURES)]
    assert list(recorder.recorded(PICTURES, 7, processes)) == expected


def children(parent: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc, where processes are looked up")
@pytest.mark.parametrize(
    "end", ["killed", *(pytest.param(one, marks=pytest.mark.slow) for one in ("closed", "interrupted"))]
)
def test_no_process_that_records_outlives_its_work(end):
    before = set(children(os.getpid()))
    running = recorder.recorded(np.repeat(PICTURES, 50, 0), 7, 2)
    next(running)
    (one, _) = started = sorted(set(children(os.getpid())) - before)
    if end == "killed":
        os.kill(one, signal.SIGKILL)
        with pytest.raises(UserError) as raised:
            list(running)
        assert_one_line(raised.value, "killed by signal 9", "memory", "prepare the dataset again")
    elif end == "closed":
        running.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt)
    assert not set(children(os.getpid())) & set(started)


KILLED = """
    import os, signal, sys
    import numpy as np
    from bntt.data.events.recorder import recorded
    running = recorded(np.zeros((400, 32, 32), np.uint8), 7, 2)
    next(running)
    print(*open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes cannot be waited for that are not one's own")
def test_recording_ends_with_the_program_that_asked_for_it():
    """It waits on standard input, so that the test knows when it is killed."""
    import select

    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        opened = [os.pidfd_open(int(one)) for one in program.stdout.readline().split()]
        program.kill()
    assert len(opened) == 2
    for one in opened:
        assert select.select([one], [], [], 60)[0]
        os.close(one)


# -- CIFAR-10 before the camera ---------------------------------------------------------------------------


@pytest.fixture
def small_sim(monkeypatch):
    """Two images of a class, the first for training: the pictures that are recorded."""
    monkeypatch.setattr(dvs_cifar10_sim, "PER_CLASS", 2)
    split = {"train": list(range(0, 20, 2)), "validation": [], "test": list(range(1, 20, 2))}
    monkeypatch.setattr(dvs_cifar10_sim.splits, "committed_split", lambda name: split)
    seen = []

    def recorded(pictures, key):
        seen.append(pictures)
        for number, picture in enumerate(pictures):
            yield encode(record(picture, key, number))

    monkeypatch.setattr(dvs_cifar10_sim, "recorded", recorded)
    return seen


def test_the_first_photographs_of_each_class_are_recorded_in_grey(place, small_sim):
    store.make_up("cifar10", {"train": 60, "validation": 0, "test": 1})
    pixels, labels = (np.load(place / "cifar10" / f"train-{kind}.npy") for kind in ("pixels", "labels"))
    parts = dvs_cifar10_sim.read(None, place / "downloads" / "dvs-cifar10-sim")
    numbers = [[k for k in range(60) if labels[k] == label][:2] for label in range(10)]
    for place_of, number in enumerate(k for two in numbers for k in two):
        red, green, blue = (pixels[number, channel].astype(object) for channel in range(3))
        grey = (299 * red + 587 * green + 114 * blue + 500) // 1000
        assert np.array_equal(small_sim[0][place_of], grey.astype(np.uint8))
    assert parts.train[1].tolist() == parts.test[1].tolist() == list(range(10))
    content = encode(record(small_sim[0][1], dvs_cifar10_sim.CAMERA, 1))
    assert unpacked(parts.events["test"][0]) == by_a_loop(content, 100_000)
    frames = np.zeros((20, 2, 42, 42), int)
    for microsecond, x, y, on in by_a_loop(content, 100_000):
        if max(x, y) < 126:
            frames[microsecond // 5000, on, y // 3, x // 3] += 1
    assert np.array_equal(parts.test[0][0], frames)
    (place / "cifar10" / "train-pixels.npy").write_bytes(b"")
    with pytest.raises(UserError) as raised:
        dvs_cifar10_sim.read(None, place / "downloads" / "dvs-cifar10-sim")
    assert_one_line(raised.value, str(place / "cifar10"), "damaged", "--from")


def test_too_few_photographs_of_a_class_are_one_line(place, small_sim):
    store.make_up("cifar10", {"train": 3, "validation": 0, "test": 1})
    with pytest.raises(UserError) as raised:
        dvs_cifar10_sim.read(None, place / "downloads" / "dvs-cifar10-sim")
    assert_one_line(raised.value, "training images of class", "not 2 or more")


def test_a_damaged_archive_of_cifar_10_is_one_line(place, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no")
    ran = bntt_here("data", "prepare", "dvs-cifar10-sim", "--from", tmp_path)
    assert_one_line(ran, "cifar-10-python.tar.gz", "md5")
    assert there(place) == []


@needs_cifar
@pytest.mark.slow
def test_recordings_of_real_photographs_are_those_that_were_committed(binary):  # noqa: F811
    """The first of each class: every machine records the same events."""
    from bntt.data._cifar import read

    pixels, labels = read("CIFAR10", binary, binary).train
    first = dvs_cifar10_sim.first_of_each_class(labels)[::1000]
    digest = hashlib.sha256()
    for label, picture in enumerate(dvs_cifar10_sim.intensity(pixels[first])):
        digest.update(encode(record(picture, dvs_cifar10_sim.CAMERA, 1000 * label)))
    assert labels[first].tolist() == list(range(10))
    assert digest.hexdigest() == "2667aaa07c6ac4d3e5ec57a00a434e8133938cc2713d5d7c71b0421916153519"
    shutil.rmtree(binary / "unpacked", ignore_errors=True)


def test_scores_of_single_events_are_where_the_labels_are():
    """The device that keeps no numbers stands for a GPU."""
    part = Images(torch.zeros(2, 1, 2, 1, 1), torch.zeros(2, dtype=torch.long, device="meta"), streams.joined([[], []]))
    scores = EventClassifier(lambda given: np.zeros((len(given), 3))).given(None, part, torch.arange(2))
    assert scores.device.type == "meta" and scores.shape == (2, 3)


def test_a_slice_of_streams_is_a_slice_of_the_recordings_and_copies_nothing():
    draws = np.random.default_rng(0)
    made = [draws.integers(0, 2**32, count, dtype=np.uint32) for count in (3, 0, 5, 2, 7)]
    whole = streams.joined(made)
    for those in (slice(2), slice(-2, None), slice(1, 4), slice(None, None, 2), slice(5, 2), slice(0)):
        for found, expected in zip(whole.some(those), made[those], strict=True):
            assert found.tolist() == expected.tolist()
        assert replace(whole, side=40).some(those).side == 40
    assert np.shares_memory(whole.some(slice(1, 4)).words, whole.words)
