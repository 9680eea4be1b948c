"""HATS and HOTS: surfaces and prototypes against loops written here, and the methods on recordings of a camera."""

import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import assert_one_line, experiment, python

from bntt.common.errors import UserError
from bntt.data import digits
from bntt.data.digits_dvs import CAMERA
from bntt.data.events.camera import record
from bntt.data.events.streams import Streams, joined, packed
from bntt.data.images import ImageData, Images
from bntt.features import hats, hots, svm
from bntt.methods import Task
from bntt.methods import hats as method_of_hats
from bntt.methods import hots as method_of_hots

torch.set_num_threads(1)


def stream(events, side=128) -> Streams:
    """One recording of events (time, x, y, polarity), in this order."""
    words = np.array([t << 15 | y << 8 | x << 1 | on for t, x, y, on in events], np.uint32)
    return Streams(words, np.array([0, len(words)]), side)


def listed(words):
    return [(int(w) >> 15, int(w) >> 1 & 127, int(w) >> 8 & 127, int(w) & 1) for w in words]


def random_events(seed, count=120, side=16, span=400):
    draws = np.random.default_rng(seed)
    times = sorted(draws.integers(0, span, count).tolist())
    return [(t, *map(int, draws.integers(0, (side, side, 2)))) for t in times]


@pytest.fixture(params=["compiled", "plain"])
def code(request, monkeypatch):
    """Both ways to compute: the tests hold for each."""
    if request.param == "plain":
        monkeypatch.setenv("BNTT_KERNELS", "plain")
    else:
        monkeypatch.delenv("BNTT_KERNELS", raising=False)
        if hats._native.library is None or hots._native.library is None:
            pytest.skip("no C++ compiler")
    return request.param


# -- HATS -------------------------------------------------------------------------------------------------


def surfaces_by_loop(events, side, constants):
    """Every pair of events, as the paper's equations have it."""
    cells = math.ceil(side / constants.cell)
    width = 2 * constants.radius + 1
    sums = np.zeros((cells, cells, 2, width, width))
    members = np.zeros((cells, cells, 2))
    for ti, xi, yi, pi in events:
        cell = (yi // constants.cell, xi // constants.cell)
        members[(*cell, pi)] += 1
        for tj, xj, yj, pj in events:
            if (yj // constants.cell, xj // constants.cell) != cell or pj != pi:
                continue
            if not ti - constants.window <= tj < ti:
                continue
            dx, dy = xj - xi, yj - yi
            if max(abs(dx), abs(dy)) <= constants.radius:
                sums[(*cell, pi, dy + constants.radius, dx + constants.radius)] += math.exp((tj - ti) / constants.tau)
    return sums / np.maximum(members, 1)[..., None, None]


CONSTANTS = [
    hats.Surface(),
    hats.Surface(cell=5, radius=2, window=100, tau=50),
    hats.Surface(cell=16, radius=1, window=30, tau=0.3),  # exponents far beyond the range of numbers
    hats.Surface(cell=1, radius=0, window=1e6, tau=1e6),
    hats.Surface(cell=128, radius=15, window=200, tau=20),
]


@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
def test_surfaces_are_those_of_a_loop_over_all_pairs(code, constants):
    recordings = [random_events(seed, side=19) for seed in range(3)]
    streams = joined([stream(one).words for one in recordings])
    found = hats.surfaces(Streams(streams.words, streams.offsets, 19), constants)
    assert found.dtype == np.float32 and found.shape == (3, *constants.shape(19))
    for one, events in zip(found, recordings, strict=True):
        np.testing.assert_allclose(one, surfaces_by_loop(events, 19, constants), rtol=1e-6, atol=1e-12)
    assert found.any() or constants.cell == 1


EVENTS = st.lists(st.tuples(*(st.integers(0, high) for high in (12, 6, 6, 1))), max_size=25).map(sorted)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 8), st.integers(0, 3), st.integers(1, 12), st.sampled_from([0.05, 1.0, 100.0]))
def test_surfaces_of_few_events_with_many_ties(events, cell, radius, window, tau):
    constants = hats.Surface(cell, radius, window, tau)
    expected = surfaces_by_loop(events, 7, constants)
    np.testing.assert_allclose(hats.reference(stream(events).words, 7, constants), expected, rtol=1e-12)
    np.testing.assert_allclose(hats.surfaces(stream(events, 7), constants)[0], expected, rtol=1e-6, atol=1e-30)


def test_the_window_is_closed_at_its_far_end_and_open_at_the_event(code):
    constants = hats.Surface(cell=4, radius=1, window=10, tau=5)

    def centre(*times):
        return hats.surfaces(stream([(t, 1, 1, 1) for t in times], 4), constants)[0, 0, 0, 1, 1, 1]

    assert centre() == centre(7) == centre(7, 7) == centre(0, 11) == 0
    assert centre(0, 10) == pytest.approx(math.exp(-2) / 2)
    assert centre(0, 0, 10) == pytest.approx(2 * math.exp(-2) / 3)


def test_neighbours_count_by_offset_within_cell_and_polarity(code):
    constants = hats.Surface(cell=5, radius=2)
    events = [(0, 4, 1, 1), (1, 3, 0, 1), (2, 5, 1, 1), (3, 4, 1, 0), (4, 1, 1, 1)]
    found = hats.surfaces(stream(events, 10), constants)[0]
    assert found.sum() == pytest.approx(1 / 3 + 1 / 3, rel=1e-6)  # 4 is in the next cell, 0 is 3 pixels from the last
    assert found[0, 0, 1, 2 + 1, 2 + 1] == found[0, 0, 1, 2 - 1, 2 + 2] == pytest.approx(1 / 3)


def test_recordings_do_not_depend_on_their_neighbours(code):
    recordings = [stream(random_events(seed, count=seed * 40)).words for seed in (3, 0, 1)]
    whole = hats.surfaces(joined(recordings), hats.Surface())
    turned = hats.surfaces(joined(recordings[::-1]), hats.Surface())
    assert np.array_equal(whole, turned[::-1])
    assert not whole[1].any()
    assert hats.surfaces(joined([]), hats.Surface()).shape[0] == 0


# -- HOTS -------------------------------------------------------------------------------------------------


def contexts_by_loop(events, features, known, radius, tau, side):
    """The time surface of each event, from a dictionary of the last times."""
    last, found = {}, []
    for (t, x, y, _), feature in zip(events, features, strict=True):
        last[feature, x, y] = t
        surface = np.zeros((known, 2 * radius + 1, 2 * radius + 1))
        for (q, px, py), before in last.items():
            if max(abs(px - x), abs(py - y)) <= radius:
                surface[q, py - y + radius, px - x + radius] = math.exp((before - t) / tau)
        found.append(surface)
    return found


def layer_of(seed, count, known, radius, tau):
    width = 2 * radius + 1
    return hots.Layer(np.random.default_rng(seed).random((count, known, width, width)), tau)


LAYERS = [(4, 2, 2, 50.0), (1, 1, 0, 3.0), (16, 8, 3, 1e4), (5, 3, 1, 0.7)]  # prototypes, features, radius, tau


@pytest.mark.parametrize("sizes", LAYERS, ids=str)
def test_an_event_has_the_number_of_the_prototype_with_the_largest_cosine(code, sizes):
    known, radius, tau = sizes[1:]
    recordings = [random_events(seed, count=80, side=11) for seed in range(2)]
    features = np.random.default_rng(1).integers(0, known, 160).astype(np.uint8)
    layer = layer_of(2, *sizes)
    streams = joined([stream(one).words for one in recordings])
    found = hots.numbers(Streams(streams.words, streams.offsets, 11), features, layer)
    surfaces = [
        surface
        for number, events in enumerate(recordings)
        for surface in contexts_by_loop(events, features[80 * number :][:80], known, radius, tau, 11)
    ]
    for number, surface in zip(found, surfaces, strict=True):
        cosines = [(surface * c).sum() / np.linalg.norm(surface) / np.linalg.norm(c) for c in layer.prototypes]
        assert cosines[number] >= max(cosines) - 1e-5  # float32 may take one of two that are equally near


@pytest.mark.parametrize("sizes", LAYERS[:3], ids=str)
def test_a_prototype_moves_by_the_rule_of_the_paper(code, sizes):
    count, known, radius, tau = sizes
    events = random_events(5, count=90, side=11)
    features = np.random.default_rng(1).integers(0, known, 90).astype(np.uint8)
    layer = layer_of(2, *sizes)
    moving, moved = list(layer.prototypes), [0] * count
    for surface in contexts_by_loop(events, features, known, radius, tau, 11):
        cosines = [(surface * c).sum() / np.linalg.norm(surface) / np.linalg.norm(c) for c in moving]
        k = int(np.argmax(cosines))
        moving[k] = moving[k] + 0.1 / (1 + moved[k] / 7) * (surface - cosines[k] * moving[k])
        moved[k] += 1
    found, counted = hots.learned(stream(events, 11), features, layer, 0.1, 7.0)
    assert counted.tolist() == moved and sum(moved) == 90
    np.testing.assert_allclose(found.prototypes, moving, rtol=1e-9, atol=1e-12)


def test_the_surface_of_an_event(code):
    events = random_events(3, count=60, side=9)
    features = np.random.default_rng(1).integers(0, 3, 60).astype(np.uint8)
    expected = contexts_by_loop(events, features, 3, 2, 40.0, 9)
    for number in (0, 17, 59):
        words = stream(events).words[: number + 1]
        found = hots.surface(words, features[: number + 1], 3, 2, 40.0, 9)
        np.testing.assert_allclose(found, expected[number], rtol=1e-12)


def test_clusters_of_a_synthetic_stream_are_found(code):
    """An event alone, one after its left neighbour, and one after its upper neighbour; nothing else is remembered."""
    draws = np.random.default_rng(0)
    recordings, kinds = [], []
    for _ in range(10):
        events = []
        for pair in range(120):
            kind, x, y = (int(draws.integers(low, high)) for low, high in ((1, 3), (1, 24), (1, 24)))
            events.append((1000 * pair, x - (kind == 1), y - (kind == 2), 1))
            events.append((1000 * pair + 5, x, y, 1))
            kinds += [0, kind]
        recordings.append(stream(events).words)
    streams = joined(recordings)
    true = np.zeros((3, 2, 3, 3))
    true[:, 1, 1, 1] = 1
    true[1, 1, 1, 0] = true[2, 1, 0, 1] = math.exp(-5 / 10)
    first = hots.Layer(0.85 * true + 0.15 * draws.random(true.shape), 10.0)
    features = hots.first_features(streams)
    assert abs(first.prototypes - true).max() > 0.12
    found, moved = hots.learned(streams, features, first, rate=0.2, slowing=200.0)
    np.testing.assert_allclose(found.prototypes, true, atol=1e-3)
    assert moved.sum() == 2400 and moved[0] > 1100 and moved[1:].min() > 400
    assert hots.numbers(streams, features, found).tolist() == kinds


# -- compiled code ----------------------------------------------------------------------------------------


def test_the_self_checks_pass_and_find_a_fault(monkeypatch):
    for module in (hats, hots):
        library = module._native.library
        if library is None:
            pytest.skip("no C++ compiler")
        assert module._fault(library) is None
    compiled = hats._compiled
    monkeypatch.setattr(hats, "_compiled", lambda *given: compiled(*given) + np.float32(0.01))
    assert "self-check" in hats._fault(hats._native.library)
    numbers, learned = hots._compiled_numbers, hots._compiled_learned
    with monkeypatch.context() as wrong:
        wrong.setattr(hots, "_compiled_numbers", lambda *given: numbers(*given) ^ 1)
        assert "another prototype" in hots._fault(hots._native.library)
    monkeypatch.setattr(hots, "_compiled_learned", lambda *given: (learned(*given)[0], learned(*given)[1] + 1))
    assert "moved otherwise" in hots._fault(hots._native.library)


def test_without_a_compiler_numpy_runs_and_one_line_says_so(tmp_path):
    show = "from bntt.features import hats; print(hats._native.library, hats._native.library)"
    done = python("-c", show, PATH=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.strip() == "None None"
    assert done.stderr.count("\n") == 1 and "compiled hats is not used" in done.stderr and "C++ compiler" in done.stderr


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (stream([(5, 0, 0, 0), (4, 0, 0, 0)]), "order of time"),
        (stream([(5, 8, 0, 0)], side=8), "outside a sensor of 8 x 8"),
        (Streams(np.zeros(3, np.int64), np.array([0, 3])), "words must be"),
        (Streams(np.zeros(6, np.uint32)[::2], np.array([0, 3])), "contiguous"),
        (Streams(np.zeros(3, np.uint32), np.array([0, 3], np.int32)), "offsets must be"),
        (Streams(np.zeros(3, np.uint32), np.array([0, 3]), 0), "side of 1"),
    ],
)
def test_recordings_that_cannot_be_read_are_refused(code, streams, said):
    for compute in (
        lambda: hats.surfaces(streams, hats.Surface()),
        lambda: hots.numbers(streams, hots.first_features(streams).astype(np.uint8), layer_of(0, 2, 2, 1, 1.0)),
        lambda: hots.learned(streams, hots.first_features(streams).astype(np.uint8), layer_of(0, 2, 2, 1, 1.0)),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            compute()
        assert_one_line(raised.value)


def test_features_and_constants_that_do_not_fit_are_refused(code):
    streams, layer = stream([(1, 2, 3, 1)]), layer_of(0, 2, 2, 1, 1.0)
    for wrong, said in (
        (np.array([2], np.uint8), "the layer knows 2"),
        (np.array([1]), "uint8"),
        (np.zeros(2, np.uint8), "uint8"),
    ):
        with pytest.raises(ValueError, match=said):
            hots.numbers(streams, wrong, layer)
    for shape in ((17, 2, 3, 3), (2, 2, 3, 5), (2, 2, 2, 2), (2, 3, 3), (0, 2, 3, 3)):
        with pytest.raises(ValueError, match="prototypes are"):
            hots.Layer(np.ones(shape), 1.0)
    for prototypes, tau in ((np.zeros((1, 1, 1, 1)), 1.0), (np.ones((1, 1, 1, 1)), 0.0)):
        with pytest.raises(ValueError, match="above 0"):
            hots.Layer(prototypes, tau)
    with pytest.raises(ValueError, match="rate"):
        hots.learned(streams, np.array([1], np.uint8), layer, rate=2.0)
    for constants in ({"cell": 0}, {"radius": -1}, {"window": 0}, {"tau": math.nan}):
        with pytest.raises(ValueError, match="at least"):
            hats.Surface(**constants)


# -- the methods ------------------------------------------------------------------------------------------

COUNTS = {"train": 21, "validation": 9, "test": 12}


@pytest.fixture(scope="module")
def recordings() -> ImageData:
    """The digits 0, 1 and 2 before the camera, first come first served."""
    pixels, labels = digits.scans()
    chosen = np.flatnonzero(labels < 3)[: sum(COUNTS.values())]
    streams = joined(packed(record(pixels[n, 0], CAMERA, int(n)), 100_000) for n in chosen)
    parts, begin = [], 0
    for count in COUNTS.values():
        those = range(begin, begin + count)
        frames = torch.zeros(count, 1, 2, 4, 4, dtype=torch.uint8)
        parts.append(
            Images(frames, torch.from_numpy(labels[chosen[begin : begin + count]]).long(), streams.take(those))
        )
        begin += count
    blank = torch.zeros(2, 1, 1)
    return ImageData("digits-dvs", 3, *parts, blank, blank + 1, "none", "none")


SMALL = {"hats": {}, "hots": {"clustering_events": 5000, "radius": 1}}


def trained(method, data, folder, seed=3, **options):
    module = import_module(f"bntt.methods.{method}")
    changed = {"rows": {"row": {"method": method, **SMALL[method], **options}}, "protocol": {}, "seeds": [seed]}
    run = experiment(folder, datasets=["digits-dvs"], **changed).runs[0]
    return run, module, module.train(Task(run, data, None))


@pytest.mark.parametrize("method", SMALL)
def test_a_method_learns_and_its_weights_make_the_same_classifier_after_a_round_trip(method, recordings, tmp_path):
    run, module, made = trained(method, recordings, tmp_path)
    assert made.facts["parameters"] == sum(value.numel() for value in made.weights.values())
    assert made.facts["events"] == len(recordings.train.events.words)
    save_file({name: value.contiguous() for name, value in made.weights.items()}, tmp_path / "model.safetensors")
    samples = torch.arange(12)
    scores = [
        module.classifier(run, recordings, weights).given(recordings, recordings.test, samples)
        for weights in (made.weights, load_file(tmp_path / "model.safetensors"))
    ]
    assert torch.equal(*scores) and scores[0].shape == (12, 3)
    right = (scores[0].argmax(1) == recordings.test.labels).sum()
    assert right >= 6  # chance is 4 of 12
    turned = module.classifier(run, recordings, made.weights).given(recordings, recordings.test, samples.flip(0))
    torch.testing.assert_close(turned.flip(0), scores[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", SMALL)
def test_training_is_deterministic_under_its_seed_and_sees_no_test_recording(method, recordings, tmp_path):
    _, _, made = trained(method, recordings, tmp_path / "one")
    other = replace(recordings, test=recordings.validation)
    _, _, again = trained(method, other, tmp_path / "two")
    assert made.weights.keys() == again.weights.keys()
    assert all(torch.equal(value, again.weights[name]) for name, value in made.weights.items())
    if method == "hots":
        _, _, another = trained(method, recordings, tmp_path / "three", seed=4)
        assert not all(torch.equal(value, another.weights[name]) for name, value in made.weights.items())


def test_layers_learn_on_the_first_events_and_no_other_recording_is_copied(monkeypatch):
    draws, taken = np.random.default_rng(0), []
    take = Streams.take
    monkeypatch.setattr(Streams, "take", lambda self, those: taken.append(len(those)) or take(self, those))
    parts = [draws.integers(0, 2**32, count, dtype=np.uint32) for count in (3, 0, 5, 0, 2, 7)]
    for events in (1, 3, 5, 8, 16, 17, 99):
        order = draws.permutation(6)
        found = method_of_hots._first(joined(parts, 40), order, events)
        whole = np.concatenate([parts[number] for number in order])
        assert found.words.tolist() == whole[:events].tolist() and found.side == 40
        assert [words.tolist() for words in found if len(words)] == [
            words.tolist() for words in whole_parts(parts, order, events) if len(words)
        ]
        needed = next((n for n in range(1, 7) if sum(len(parts[k]) for k in order[:n]) >= events), 6)
        assert taken.pop() == needed
    assert len(method_of_hots._first(joined([]), np.zeros(0, int), 5).words) == 0


def whole_parts(parts, order, events):
    for number in order:
        yield parts[number][:events]
        events = max(0, events - len(parts[number]))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"prototypes": 8}, "layer 3 would have 32"), ({"radius": 16, "radius_factor": 4}, "layer 3 would have a radius")],
)
def test_all_layers_are_possible_before_the_first_is_learned(recordings, tmp_path, monkeypatch, options, said):
    monkeypatch.setattr(hots, "learned", lambda *_: pytest.fail("a layer was learned"))
    with pytest.raises(UserError) as raised:
        trained("hots", recordings, tmp_path, **options)
    assert_one_line(raised.value, said, "possible")


def test_events_are_numbered_for_the_next_layer_alone(recordings, tmp_path, monkeypatch):
    run, module, made = trained("hots", recordings, tmp_path)
    numbered, numbers = [], hots.numbers
    monkeypatch.setattr(hots, "numbers", lambda *given: numbered.append(1) or numbers(*given))
    layers = module.learn(recordings.train.events, run.options, run.seed)
    assert len(numbered) == len(layers) - 1 == 2
    for number, layer in enumerate(layers):
        assert np.array_equal(layer.prototypes, made.weights[f"layers.{number}.prototypes"].numpy())


@pytest.mark.parametrize("distance", ["normalised", "bhattacharyya", "euclidean"])
def test_a_recording_without_events_is_equally_near_to_all_classes(distance):
    sums = np.array([[1.0, 3.0], [6.0, 2.0]])
    scores = method_of_hots.similarities(np.array([[0.0, 0.0], [2.0, 1.0]]), sums, sums / [[2], [3]], distance)
    assert scores[0, 0] == scores[0, 1] and scores[1, 0] != scores[1, 1]


def test_the_options_of_hats_are_in_milliseconds():
    options = {"cell": 7, "radius": 2, "window": 0.1, "tau": 0.05}
    events = random_events(0)
    expected = surfaces_by_loop(events, 16, hats.Surface(7, 2, 100.0, 50.0))
    found = method_of_hats.features(stream(events, side=16), options)
    np.testing.assert_allclose(found, expected.reshape(1, -1), rtol=1e-5, atol=1e-7)


def test_a_class_that_a_fold_lacks_is_never_chosen():
    draws = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = draws.normal(size=(60, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[labels]
    weights, _ = svm._hyperplanes(features, labels, 4, 1.0)
    chosen = svm.scores(weights, draws.normal(size=(500, 2)) * 3).argmax(1)
    assert set(chosen.tolist()) == {0, 1, 2}


def test_the_three_distances_by_hand():
    """A histogram (1, 3) from classes of 2 recordings with sums (4, 0) and (4, 12)."""
    found, sums, means = np.array([[1.0, 3.0]]), np.array([[4.0, 0.0], [4.0, 12.0]]), np.array([[2.0, 0.0], [2.0, 6.0]])
    for distance, expected in {
        "normalised": [-math.hypot(0.75, 0.75), 0.0],
        "euclidean": [-math.hypot(1, 3), -math.hypot(1, 3)],
        "bhattacharyya": [math.log(0.5), 0.0],
    }.items():
        assert method_of_hots.similarities(found, sums, means, distance) == pytest.approx(np.array([expected]))


def test_the_surface_of_any_event_sees_its_own_recording_alone():
    recordings = joined([stream(random_events(seed, 5)).words for seed in (0, 1)])
    features = hots.first_features(recordings)
    for event in range(10):
        begin = 5 * (event // 5)
        own = slice(begin, event + 1)
        expected = hots.surface(recordings.words[own], features[own], 2, 2, 30.0, recordings.side)
        assert np.array_equal(method_of_hots._surface(recordings, features, 2, event, 2, 30.0), expected)


def test_histograms_count_the_numbers_of_each_recording():
    recordings = joined([stream(one).words for one in (random_events(0, 30), [], random_events(1, 20))])
    layer = layer_of(0, 3, 2, 1, 30.0)
    found = method_of_hots.histograms(recordings, [layer])
    numbers = hots.numbers(recordings, hots.first_features(recordings), layer).tolist()
    assert found.tolist() == [[part.count(k) for k in range(3)] for part in (numbers[:30], [], numbers[30:])]
    assert method_of_hots.histograms(joined([]), [layer]).shape == (0, 3)


@pytest.mark.parametrize("method", SMALL)
def test_a_class_without_training_recordings_is_one_line(method, recordings, tmp_path):
    lacking = replace(recordings.train, labels=recordings.train.labels.clamp(max=1))
    with pytest.raises(UserError) as raised:
        trained(method, replace(recordings, train=lacking), tmp_path)
    assert_one_line(raised.value, "class 2 has no training recordings", "train_limit")


def test_an_empty_list_of_penalties_is_one_line(recordings, tmp_path):
    with pytest.raises(UserError) as raised:
        trained("hats", recordings, tmp_path, penalties=[])
    assert_one_line(raised.value, "penalties is empty", "one candidate")


def test_the_penalty_is_the_one_that_validation_prefers(recordings, tmp_path):
    _, _, made = trained("hats", recordings, tmp_path / "one", penalties=[1e-9, 1.0])
    assert made.facts["c"] == 1.0 and made.facts["validation_accuracy"] > 80
    lost = replace(recordings, validation=recordings.validation.some(slice(0)))
    _, _, made = trained("hats", lost, tmp_path / "two", penalties=[1e-9, 1.0])
    assert made.facts["c"] == 1.0 and made.facts["cross_validation_accuracy"] > 80


def test_the_rotated_machine_is_that_of_all_features(recordings, tmp_path):
    """The objective is convex, so the solution does not depend on the path to it."""
    from sklearn.svm import LinearSVC

    run, module, made = trained("hats", recordings, tmp_path, penalties=[0.1])
    found = module.features(recordings.train.events, run.options).astype(float)
    length = np.sqrt((found**2).sum(1).mean())
    direct = LinearSVC(C=0.1, max_iter=100_000, tol=1e-8, random_state=0).fit(found / length, recordings.train.labels)
    scores = found @ made.weights["weight"].numpy().T + made.weights["bias"].numpy()
    np.testing.assert_allclose(scores, direct.decision_function(found / length), atol=2e-3)
