"""HFirst's layers against naive loops and by hand; the forest and the SVM against scikit-learn; the two methods."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
from tiny import assert_one_line

from bntt.common.errors import UserError
from bntt.data.events.streams import Streams, joined
from bntt.data.images import ImageData, Images
from bntt.experiment import declared
from bntt.features import forest, hfirst, svm
from bntt.features.hfirst import Neuron
from bntt.methods import Task, gabor_snn
from bntt.methods import hfirst as method
from bntt.spiking.randomness import key, permutation

PUBLISHED = Neuron(150.0, 25.0, 5.0)


def word(time, x, y, on=1):
    return time << 15 | y << 8 | x << 1 | on


def words(*events):
    return np.array([word(*event) for event in events], np.uint32)


def random_events(count, side, seed, span):
    draws = np.random.default_rng(seed)
    times = np.sort(draws.integers(0, span, count))
    places = draws.integers(0, side, (count, 2))
    return words(*((int(t), int(x), int(y), int(on)) for t, (x, y), on in zip(
        times, places, draws.integers(0, 2, count), strict=True)))  # fmt: skip


def spikes(*rows):
    return np.array(rows, np.int32).reshape(-1, 4)


# -- kernels ------------------------------------------------------------------------------------------------


def test_kernels_are_gabor_functions_of_mean_zero_and_norm_100():
    found = hfirst.kernels() / 1000
    assert found.shape == (12, 7, 7)
    assert abs(found.sum((1, 2))).max() < 0.03  # 49 roundings to a microvolt
    assert np.sqrt((found**2).sum((1, 2))) == pytest.approx(100, abs=0.01)
    shape = np.array([[  # of orientation 0, by scalars
        np.exp(-(x * x + 0.09 * y * y) / (2 * 2.8**2)) * np.cos(2 * np.pi * x / 5) for x in range(-3, 4)
    ] for y in range(-3, 4)])  # fmt: skip
    shape -= shape.mean()
    assert found[0] == pytest.approx(100 * shape / np.linalg.norm(shape), abs=1e-3)
    assert np.array_equal(found[6], found[0].T)  # a quarter turn
    for k in range(1, 12):
        assert found[12 - k] == pytest.approx(found[k, :, ::-1], abs=1e-3)  # mirror images


# -- noise filter -------------------------------------------------------------------------------------------


def test_the_noise_filter_keeps_events_with_a_recent_neighbour():
    given = words(
        (0, 5, 5),  # nothing came before
        (100, 6, 6, 0),  # a diagonal neighbour, of the other polarity
        (200, 8, 6),  # two pixels away
        (5000, 6, 6, 1),  # only its own pixel, and the one at 5, 5 long ago
        (9999, 6, 5),  # a neighbour 4999 microseconds ago
        (14999, 7, 6),  # the neighbour is exactly the window ago
    )
    assert hfirst.denoise(given, 16, 5.0).tolist() == given[[1, 4]].tolist()
    assert hfirst.denoise(given, 16, 0.0).tolist() == given.tolist()  # no filter


def test_the_noise_filter_drops_repetitions_and_knows_no_neighbours_beyond_the_border():
    given = words((0, 0, 0), (10, 1, 0), (20, 1, 0), (30, 1, 0, 0), (40, 15, 1), (50, 0, 2))
    assert hfirst.denoise(given, 16, 10.0).tolist() == given[[1, 3]].tolist()


# -- S1 -----------------------------------------------------------------------------------------------------


def naive_s1(given, side, threshold, decay, refractory):
    """All neurons leak at every event; potentials in microvolts, ``decay`` in whole microvolts per microsecond."""
    weights = hfirst.kernels().tolist()
    potential, silent_since, now, found = {}, {}, 0, []
    for packed in given.tolist():
        time, y, x, on = packed >> 15, packed >> 8 & 127, packed >> 1 & 127, packed & 1
        for neuron, value in potential.items():
            leak = decay * (time - now)
            potential[neuron] = max(value - leak, 0) if value > 0 else min(value + leak, 0)
        now, fires = time, []
        for row in range(side):
            for column in range(side):
                place = on, row, column
                if place in silent_since and time - silent_since[place] <= refractory:
                    continue
                if abs(row - y) > 3 or abs(column - x) > 3:
                    continue
                for k in range(12):
                    neuron = *place, k
                    potential[neuron] = potential.get(neuron, 0) + weights[k][y - row + 3][x - column + 3]
                    if potential[neuron] > threshold:
                        fires.append((k, column, row))
        for k, column, row in sorted(fires):
            found.append((time, column, row, k))
            silent_since[on, row, column] = time
            potential |= {(on, row, column, other): 0 for other in range(12)}
    return np.array(found, np.int32).reshape(-1, 4)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([20.0, 45.0, 90.0]), st.integers(0, 30), st.sampled_from([0.0, 0.4, 5.0]))
def test_s1_is_the_loop_over_all_neurons(seed, threshold, decay, refractory):
    given = random_events(50, 9, seed, 4000)
    found = naive_s1(given, 9, round(1000 * threshold), decay, round(1000 * refractory))
    assert np.array_equal(hfirst.s1(given, 9, Neuron(threshold, float(decay), refractory)), found)


def test_the_orientation_of_a_line_fires_first_and_silences_the_others_of_its_pixel():
    line = [(10 + n, 20, y) for n, y in enumerate(range(10, 30))]
    found = hfirst.s1(words(*line), 40, PUBLISHED)
    on_the_line = found[found[:, 1] == 20]
    assert len(on_the_line) and set(on_the_line[:, 3]) == {0}  # upright
    turned = hfirst.s1(words(*((t, y, x) for t, x, y in line)), 40, PUBLISHED)
    assert set(turned[turned[:, 2] == 20][:, 3]) == {6}  # level
    assert (np.unique(found[:, 1:3], axis=0, return_counts=True)[1] == 1).all()  # once in 5 ms


def test_on_and_off_do_not_add_up_in_s1():
    line = [(10 + n, 20, y) for n, y in enumerate(range(10, 30))]
    mixed = [(*event, n % 2) for n, event in enumerate(line)]
    assert len(hfirst.s1(words(*line), 40, PUBLISHED)) > len(hfirst.s1(words(*mixed), 40, PUBLISHED))


# -- C1, S2 and C2 -------------------------------------------------------------------------------------------


def test_the_first_spike_of_a_square_wins_and_silences_all_its_orientations():
    given = spikes(
        (1000, 4, 4, 7),  # wins square (1, 1)
        (1000, 5, 5, 2),  # at the same time, after it in the list
        (1001, 7, 7, 3),  # the corner of the square
        (1001, 8, 7, 3),  # the next square
        (6000, 4, 4, 7),  # exactly 5 ms after: still silent
        (6001, 6, 4, 9),  # first after the refractory period
        (11001, 5, 5, 1),  # which began anew
        (11002, 5, 5, 1),
    )
    expected = [(1000, 1, 1, 7), (1001, 2, 1, 3), (6001, 1, 1, 9), (11002, 1, 1, 1)]
    assert hfirst.pool(given, 16, 4, 5.0).tolist() == [list(row) for row in expected]
    assert hfirst.pool(given, 16, 4, 0.0).tolist()[:2] == [[1000, 1, 1, 7], [1001, 1, 1, 3]]


def test_templates_are_the_scaled_histograms_and_weak_synapses_inhibit():
    counts = np.zeros((5, 2, 2, 12), np.float32)
    counts[0, 0, 0, 3], counts[1, 0, 0, 3], counts[1, 1, 1, 0] = 1, 2, 4  # class 0: 3 and 4, norm 5
    counts[2, 0, 1, 5], counts[2, 1, 0, 5] = 200, 1  # class 1: the second is below 1 mV
    counts[4, 0, 0, 7], counts[4, 0, 0, 8] = 100, 1  # class 2: the second is 999.95 microvolts, rounded to 1 mV
    found = hfirst.templates_of(counts, np.array([0, 0, 1, 1, 2]), 4)
    expected = np.full((4, 2, 2, 12), -1000)
    expected[0, 0, 0, 3], expected[0, 1, 1, 0] = 60_000, 80_000
    expected[1, 0, 1, 5] = round(100_000 * 200 / np.sqrt(200**2 + 1))
    expected[2, 0, 0, 7], expected[2, 0, 0, 8] = 99_995, 1000
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)  # a class without training recordings never fires


def test_s2_adds_leaks_fires_and_resets_all_classes():
    templates = np.full((3, 2, 2, 12), -1000, np.int32)
    templates[0, 1, 0, 4], templates[1, 1, 0, 4] = 100_000, 75_200  # place (0, 1), orientation 4
    here = (0, 1, 4)
    neuron = Neuron(150.0, 1.0, 5.0)
    # 100 + 100 - 1 mV is above 150 after 1 ms; 100 + 100 - 50 is exactly the threshold, and not above it
    assert hfirst.s2(spikes((0, *here), (1000, *here)), templates, neuron).tolist() == [[1000, 0, 0, 0]]
    assert not len(hfirst.s2(spikes((0, *here), (50_000, *here)), templates, neuron))
    assert len(hfirst.s2(spikes((0, *here), (49_999, *here)), templates, neuron)) == 1
    # two classes at once, in the order of classes; nothing is taken in for 5 ms; and class 1 is reset with class 0
    both = hfirst.s2(spikes((0, *here), (100, *here), (5100, *here), (5101, *here)), templates, neuron)
    assert both.tolist() == [[100, 0, 0, 0], [100, 0, 0, 1]]
    last = hfirst.s2(spikes(*((t, *here) for t in (0, 1000, 6001, 6002))), templates, neuron)
    assert last.tolist() == [[1000, 0, 0, 0], [6002, 0, 0, 0], [6002, 0, 0, 1]]
    # inhibition: 200 mV less 60 spikes of 1 mV
    inhibited = spikes((0, *here), *((0, 1, 1, 2),) * 60, (0, *here))
    assert not len(hfirst.s2(inhibited, templates, Neuron(150.0, 0.0, 5.0)))


def test_votes_are_the_c2_spikes_of_each_class():
    recording = words(*((10 + n, 20, y) for n, y in enumerate(range(10, 30))))
    streams = joined([recording, words()])
    options = {"noise_filter": 0.0, "s1_threshold": 150.0, "s1_decay": 25.0, "refractory": 5.0}
    counts, numbers = hfirst.histograms(streams, options)
    assert counts.shape == (2, 32, 32, 12)
    assert numbers[0].tolist() == [20, len(hfirst.s1(recording, 128, PUBLISHED)), counts[0].sum()]
    assert not counts[1].any() and not numbers[1].any()
    templates = hfirst.templates_of(counts, np.array([1, 0]), 2)
    assert hfirst.votes(streams, templates, Neuron(60.0, 1.0, 5.0), options).tolist() == [[0, 1], [0, 0]]


# -- compiled code and reference ---------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 6, 17]), st.floats(10, 90), st.floats(0, 20), st.floats(0, 2))
def test_compiled_stages_give_the_references_spikes(seed, side, threshold, decay, refractory):
    library = hfirst._native.library
    if library is None:
        pytest.skip("no compiled code here")
    neuron, draws = Neuron(threshold, decay, refractory), np.random.default_rng(seed)
    given = random_events(250, side, seed, 6000)
    kept = hfirst.denoise_reference(given, side, 800)
    assert np.array_equal(hfirst._denoise(library, given, side, 800), kept)
    simple = hfirst.s1_reference(given, side, neuron)
    assert np.array_equal(hfirst._s1(library, given, side, neuron), simple)
    blind, map_side = neuron.whole[2], -(-side // 4)
    first = hfirst.pool_reference(simple, side, 4, blind)
    assert np.array_equal(hfirst._pool(library, simple, side, 4, blind), first)
    templates = draws.integers(-20_000, 40_000, (3, map_side, map_side, 12)).astype(np.int32)
    expected = hfirst.s2_reference(first, templates, neuron)
    assert np.array_equal(hfirst._s2(library, first, templates, neuron), expected)


def test_more_spikes_than_events_are_all_returned():
    crowd = words(*((n, 10, y) for n, y in enumerate(range(20))))
    found = hfirst.s1(crowd, 20, Neuron(1.0, 0.0, 0.0))
    assert len(found) > len(crowd)
    assert np.array_equal(found, hfirst.s1_reference(crowd, 20, Neuron(1.0, 0.0, 0.0)))


def test_events_that_no_sensor_sends_are_refused():
    options = {"noise_filter": 10.0, "s1_threshold": 150.0, "s1_decay": 25.0, "refractory": 5.0}
    with pytest.raises(ValueError, match="order of time"):
        hfirst.histograms(joined([words((5, 1, 1), (4, 1, 1))]), options)
    outside = joined([words((5, 20, 1))])
    with pytest.raises(ValueError, match="outside"):
        hfirst.histograms(Streams(outside.words, outside.offsets, side=16), options)


# -- forest and SVM -----------------------------------------------------------------------------------------


def counted(seed, count=80, features=30, classes=3):
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    found = draws.poisson(2 + 2 * (np.arange(features) % classes == labels[:, None]))
    return found.astype(np.float32), labels


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_a_forest_from_tensors_is_scikit_learns(present, tmp_path):
    features, labels = counted(0)
    features, labels = (values[np.isin(labels, present)] for values in (features, labels))
    found = forest.fit(features, labels, 3, trees=20, seed=4)
    save_file(found, tmp_path / "forest.safetensors")
    others, _ = counted(1)
    shares = forest.shares(load_file(tmp_path / "forest.safetensors"), others)
    theirs = RandomForestClassifier(20, random_state=key(4, "forest") % 2**32).fit(features, labels)
    expected = np.zeros((len(others), 3))
    expected[:, present] = theirs.predict_proba(others)
    np.testing.assert_allclose(shares, expected, rtol=1e-12, atol=1e-12)
    other_seed = forest.fit(features, labels, 3, trees=20, seed=5)
    assert not torch.equal(found["root"], other_seed["root"]) or not torch.equal(
        found["feature"], other_seed["feature"]
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_the_svm_is_scikit_learns_with_the_c_that_is_best_on_validation(classes):
    train, validation = counted(0, classes=classes), counted(1, classes=classes)
    weights, facts = svm.fit(train, validation, classes, grid=(100.0, 1e-4, 1e-3))
    unit = np.sqrt((train[0] ** 2).sum(1).mean())
    machines = [LinearSVC(C=c, max_iter=5000, dual=False) for c in (1e-4, 1e-3, 100.0)]
    right = [(m.fit(train[0] / unit, train[1]).predict(validation[0] / unit) == validation[1]).mean() for m in machines]
    assert facts["c"] == (1e-4, 1e-3, 100.0)[int(np.argmax(right))]
    assert facts["validation_accuracy"] == pytest.approx(100 * max(right))
    answers = machines[int(np.argmax(right))].predict(validation[0] / unit)
    assert np.array_equal(svm.scores(weights, validation[0]).argmax(1), answers)


def test_the_svm_turns_nothing_where_features_are_few(monkeypatch):
    features, labels = counted(0)
    assert features.shape[1] <= len(features)
    expected, _ = svm.fit((features, labels), (features[:5], labels[:5]), 3, (1.0,))
    monkeypatch.setattr(svm, "_basis", lambda given: np.eye(given.shape[1]))
    turned, _ = svm.fit((features, labels), (features[:5], labels[:5]), 3, (1.0,))
    assert all(torch.equal(turned[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["noise_filter", "refractory"])
def test_the_longest_period_is_shorter_than_never(name):
    """In microseconds of 32 bits: the first event of a pixel is not too early, and none next to it is too late."""
    declaration = hfirst.OPTIONS[name]
    longest = round(1000 * declaration["max"])
    assert longest < -hfirst._NEVER
    events = words((0, 5, 5), (131_000, 6, 6), (131_050, 5, 5))
    assert len(hfirst.denoise(events, 8, declaration["max"])) == len(hfirst.denoise_reference(events, 8, longest)) == 2
    spikes = np.array([(0, 1, 1, 3), (131_000, 1, 1, 2), (131_001, 5, 1, 2)], np.int32)
    for pooled in (hfirst.pool(spikes, 8, 4, declaration["max"]), hfirst.pool_reference(spikes, 8, 4, longest)):
        assert pooled.tolist() == [[0, 0, 0, 3], [131_001, 1, 0, 2]]


def test_the_svm_does_not_depend_on_the_threads_of_other_libraries():
    draws, found = np.random.default_rng(0), []
    features, labels = draws.random((240, 3000)), np.arange(240) % 3
    for threads in (1, 2):
        with threadpool_limits(threads):
            weights, _ = svm.fit((features, labels), (features[:30], labels[:30]), 3, (1.0,))
            found.append([*weights.values(), torch.from_numpy(svm.scores(weights, features))])
    assert all(map(torch.equal, *found))


def test_the_svm_names_what_is_missing():
    features, labels = counted(0)
    with pytest.raises(UserError) as missing:
        svm.fit((features, labels), (features, labels), 4)
    assert_one_line(missing.value, "class 3", "train_limit")


def test_without_validation_c_is_chosen_by_five_fold_cross_validation():
    features, labels = counted(0)
    nothing = features[:0], labels[:0]
    _, facts = svm.fit((features, labels), nothing, 3, grid=(1e-6, 1e-3))
    fold, right = permutation(key("folds"), len(labels)).numpy() % 5, {}
    unit = np.sqrt((features**2).sum(1).mean())
    for c in (1e-6, 1e-3):
        answers = np.empty_like(labels)
        for number in range(5):
            machine = LinearSVC(C=c, max_iter=5000, dual=False)
            machine.fit(features[fold != number] / unit, labels[fold != number])
            answers[fold == number] = machine.predict(features[fold == number] / unit)
        right[c] = 100 * (answers == labels).mean()
    assert facts["cross_validation_accuracy"] == pytest.approx(max(right.values()))
    assert facts["c"] == max(right, key=right.get)


# -- the methods --------------------------------------------------------------------------------------------

WAYS = [
    (method, {"decision": "votes", "s2_threshold": 60.0}),
    (method, {"decision": "forest", "trees": 20}),
    (gabor_snn, {}),
]


def lines(count, seed):
    """Recordings of a line that moves: upright for class 0, level for class 1, level and lower for class 2."""
    draws, found = np.random.default_rng(seed), []
    for label in np.arange(count) % 3:
        start, events = int(draws.integers(50, 53)), []
        for step in range(20):
            for n in range(-12, 13):
                time = 2000 * step + 40 * (n + 12) + int(draws.integers(0, 40))
                x, y = [(start + step, 60 + n), (60 + n, start + step), (60 + n, start + step + 30)][label]
                events.append((time, x, y, step % 2))
        found.append(words(*events))
    return found, torch.arange(count) % 3


def line_data(empty=False):
    def part(count, seed):
        recordings, labels = lines(count, seed)
        if empty:
            recordings[-1] = words()
        return Images(torch.zeros(count, 1, 2, 1, 1, dtype=torch.uint8), labels, joined(recordings))

    blank = torch.zeros(2, 1, 1)
    return ImageData("lines", 3, part(18, 0), part(6, 1), part(6, 2), blank, blank + 1, "none", "none")


def trained(module, data, seed=3, **options):
    defaults = declared.options(module.__name__)
    assert options.keys() <= defaults.keys()
    run = SimpleNamespace(row="row", options={name: o["default"] for name, o in defaults.items()} | options, seed=seed)
    return run, module.train(Task(run, data, None))


@pytest.mark.parametrize(("module", "options"), WAYS)
def test_methods_learn_lines_and_their_weights_survive_a_round_trip(module, options, tmp_path):
    data = line_data(empty=True)  # the last recording of each part has no event
    run, made = trained(module, data, **options)
    again = trained(module, data, **options)[1]
    assert made.weights.keys() == again.weights.keys()
    assert all(torch.equal(value, again.weights[name]) for name, value in made.weights.items())
    assert made.facts == again.facts
    assert made.facts["c1_spikes"] > 1
    save_file({name: value.contiguous() for name, value in made.weights.items()}, tmp_path / "model.safetensors")
    samples, found = torch.arange(len(data.test)), []
    for weights in (made.weights, load_file(tmp_path / "model.safetensors")):
        classifier = module.classifier(run, data, weights)
        [(start, scores)] = classifier.running_logits(classifier.given(data, data.test, samples), samples, 7)
        assert (start, scores.shape) == (0, (1, 6, 3))
        found.append(scores[0])
    assert torch.equal(*found)
    assert found[0].isfinite().all()
    assert torch.equal(found[0][:5].argmax(1), data.test.labels[:5])
    single = module.classifier(run, data, made.weights).decide(data.test.streams(torch.tensor([2])))
    np.testing.assert_allclose(single[0], found[0][2], rtol=1e-12)  # whatever batch it came in


def test_a_recording_without_events_gets_no_votes_and_seeds_matter_for_the_forest():
    data = line_data(empty=True)
    run, made = trained(method, data, s2_threshold=60.0)
    classifier = method.classifier(run, data, made.weights)
    scores = classifier.decide(data.test.events)
    assert scores[-1].tolist() == [0, 0, 0]
    assert scores[:5].sum(1) == pytest.approx(1)  # shares of C2 spikes
    assert made.facts["without_c2_spike"] == 1
    one, other = (trained(method, data, seed=seed, decision="forest")[1].weights["feature"] for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("module", "options"), WAYS)
def test_methods_say_what_they_lack(module, options, capsys):
    data = line_data()
    frames = dataclasses.replace(data, train=dataclasses.replace(data.train, events=None))
    with pytest.raises(UserError) as refused:
        trained(module, frames, **options)
    assert_one_line(refused.value, "single events", "dataset of recordings")
    run, made = trained(module, data, **options, s1_threshold=1000.0)
    assert made.facts["c1_spikes"] == 0
    assert_one_line(UserError(capsys.readouterr().err.rstrip("\n")), "C1", "lines", "s1_threshold")
    assert np.isfinite(module.classifier(run, data, made.weights).decide(data.test.events)).all()
    with pytest.raises((KeyError, UserError)):  # weights of something else
        module.classifier(run, data, {"other": torch.zeros(1)})


@pytest.mark.slow
def test_methods_read_recorded_digits():
    """Above chance by 5 standard errors: 33.7 % of 40."""
    from bntt.data import digits
    from bntt.data.digits_dvs import CAMERA
    from bntt.data.events.camera import record
    from bntt.data.events.streams import packed

    pixels, labels = digits.scans()

    def part(those):
        recordings = joined(packed(record(pixels[n, 0], CAMERA, n), 100_000) for n in those)
        return Images(
            torch.zeros(len(those), 1, 2, 1, 1, dtype=torch.uint8), torch.from_numpy(labels[those]), recordings
        )

    blank = torch.zeros(2, 1, 1)
    parts = [part(range(*ends)) for ends in ((0, 70), (70, 85), (85, 125))]
    data = ImageData("digits", 10, *parts, blank, blank + 1, "none", "none")
    for module, options in ((method, {}), *WAYS[1:]):
        run, made = trained(module, data, **options)
        right = (
            module.classifier(run, data, made.weights).decide(data.test.events).argmax(1) == data.test.labels.numpy()
        )
        assert right.mean() > 0.337, (module, options, right.mean())
