"""Event recordings: the AEDAT 2.0 reader, events to frames, and the simulated camera."""

import struct

import numpy as np
import pytest
from tiny import PROJECT, assert_one_line

from bntt.common.errors import UserError
from bntt.data import digits
from bntt.data.events import camera
from bntt.data.events.aedat import HEADER, SIDE, Events, decode, read, write
from bntt.data.events.frames import to_frames

REAL = PROJECT.parent / "shared" / "data" / "aedat"
needs_recordings = pytest.mark.skipif(not REAL.is_dir(), reason="no real DVS128 recordings at ../shared/data/aedat")


def some(count: int, seed: int = 0, duration: int = 200_000) -> Events:
    """Random events in the order of time, the first at 0."""
    draws = np.random.default_rng(seed)
    stamps = np.sort(draws.integers(0, duration, count))
    return Events(
        stamps - stamps[0],
        draws.integers(0, SIDE, count).astype(np.uint8),
        draws.integers(0, SIDE, count).astype(np.uint8),
        draws.integers(0, 2, count).astype(bool),
    )


def words(*pairs: tuple[int, int], header: bytes = HEADER) -> bytes:
    """A file of addresses and time-stamps."""
    return header + b"".join(struct.pack(">II", address, stamp) for address, stamp in pairs)


def same(a: Events, b: Events) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("microseconds", "x", "y", "on"))


# -- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "first"), [(1, 0), (2, 17), (5000, 123), (600_000, 0)])
def test_what_was_written_is_read(tmp_path, count, first):
    events = some(count)
    write(tmp_path / "a b.aedat", events, first)
    assert same(read(tmp_path / "a b.aedat"), events)


def test_bits_are_those_of_the_sensor():
    """Bit 0 is OFF, x counts from the right in bits 1 to 7, y from below in bits 8 to 14."""
    events = decode(words((0, 5), (1, 7), (3 << 1, 7), (3 << 8 | 1, 9)), "file")
    assert events.on.tolist() == [True, False, True, False]
    assert events.x.tolist() == [127, 127, 124, 127]
    assert events.y.tolist() == [127, 127, 127, 124]
    assert events.microseconds.tolist() == [0, 2, 2, 4]


def test_a_header_may_have_any_number_of_lines():
    longer = HEADER + b"# This is a raw AE data file\r\n# created Wed Jan 1\n#\n"
    assert len(decode(words((0, 1), (0, 2), header=longer), "file")) == 2


def test_special_events_are_skipped_and_counted():
    events = decode(words((0, 1), (2**15, 2), (2**15 | 77, 3), (1, 4)), "file")
    assert (len(events), events.special) == (2, 2)


def test_a_few_late_events_are_sorted_stably_and_counted():
    pairs = [(0, 10 * k) for k in range(3000)]
    pairs[100] = (5 << 1, 990)  # equal to the stamp before it: in order
    pairs[2000] = (7 << 1, 500)  # equal to event 50, after which it belongs
    events = decode(words(*pairs), "file")
    assert events.reordered == 1
    assert (np.diff(events.microseconds) >= 0).all()
    assert events.x[51] == 127 - 7
    assert events.microseconds[50] == events.microseconds[51] == 500


def test_many_late_events_are_refused():
    pairs = [(0, 10 * k) for k in range(3000)]
    for late in range(500, 504):
        pairs[2 * late] = (0, 1)
    with pytest.raises(UserError) as raised:
        decode(words(*pairs), "some file")
    assert_one_line(raised.value, "some file", "4 of 3000", "backwards", "0.1%")


def test_two_recordings_in_one_file_are_refused():
    """Time falls once, and half of the events are out of order."""
    with pytest.raises(UserError) as raised:
        decode(words(*[(0, 10 * k) for k in range(1000)] * 2), "some file")
    assert_one_line(raised.value, "some file", "999 of 2000", "backwards")


def damaged_stamps(clean: list[tuple[int, int]]):
    """One time-stamp after another, at the ends and within, with a flipped bit or another value: its index, the file.

    Close to an end, a flipped bit below the 16th gives a time-stamp that may be true.
    """
    count = len(clean)
    for index in (0, 1, 2, count // 3, count - 3, count - 2, count - 1):
        address, stamp = clean[index]
        values = [stamp ^ 1 << bit for bit in range(31) if bit > 15 or 2 < index < count - 3]
        for value in [*values, 0, 5, 2**29 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1]:
            yield index, [*clean[:index], (address, value), *clean[index + 1 :]]


@pytest.mark.parametrize("bin_microseconds", [5000, None])
@pytest.mark.parametrize(("count", "start"), [(200, 3_000_000), (2000, 2**31 - 70_000), (2000, 2**32 - 70_000)])
def test_one_damaged_time_stamp_costs_that_event_alone(count, start, bin_microseconds):
    draws = np.random.default_rng(count)
    stamps = (start + np.sort(draws.integers(0, 150_000, count) // 2 + np.arange(count) * 75_000 // count)) % 2**32
    clean = [(int(a), int(t)) for a, t in zip(draws.integers(0, 2**15, count), stamps, strict=True)]
    for index, pairs in damaged_stamps(clean):
        events = decode(words(*pairs), "damaged")
        without = decode(words(*clean[:index], *clean[index + 1 :]), "without")
        frames, tally = to_frames(events, 20, 42, bin_microseconds)
        expected, _ = to_frames(without, 20, 42, bin_microseconds)
        assert np.abs(frames.astype(int) - expected).sum() <= 1, (index, pairs[index])
        assert tally.events == count == len(events)
        assert events.damaged + events.reordered <= 1
        assert (events.microseconds < 0).sum() == events.damaged
        assert events.microseconds[-1] == without.microseconds[-1] or index in (0, count - 1)


def test_neighbouring_damage_at_both_ends_and_within_is_counted():
    clean = [(0, 4_000_000 + 50 * k) for k in range(5000)]
    pairs = clean.copy()
    for index, stamp in ((0, 17), (1, 20), (2500, 4_000_210), (4999, 2**30 + 4_000_000)):
        pairs[index] = (0, stamp)
    events = decode(words(*pairs), "damaged")
    assert (events.damaged, events.reordered) == (3, 1)
    assert events.microseconds[[2, 3, -1]].tolist() == [-1, 0, 50 * 4996]
    assert to_frames(events, 20, 42, None)[1].outside_window == 3


def test_pauses_are_no_damage():
    """A quiet beginning, minutes without an event, and a few events only."""
    quiet = [0, 7000, 12_000, 20_000, 25_000, *range(30_000, 60_000, 10)]
    pause = [*range(0, 50_000, 50), *range(13 * 60 * 10**6, 13 * 60 * 10**6 + 50_000, 50)]
    few = [0, 10, 20, 5_000_000]
    for stamps in (quiet, pause, few):
        events = decode(words(*((0, stamp) for stamp in stamps)), "file")
        assert events.microseconds.tolist() == stamps
        assert (events.damaged, events.reordered) == (0, 0)


@pytest.mark.parametrize("bin_microseconds", [5000, None])
def test_a_stamp_from_before_the_first_event_moves_no_other(bin_microseconds):
    clean = [(k % 128 << 1 | 64 << 8, 3_000_000 + 50 * k) for k in range(2000)]
    damaged = clean.copy()
    damaged[1500] = (clean[1500][0], 5)
    whole, whole_tally = to_frames(decode(words(*clean), "clean"), 20, 42, bin_microseconds)
    without, _ = to_frames(decode(words(*clean[:1500], *clean[1501:]), "without"), 20, 42, bin_microseconds)
    frames, tally = to_frames(decode(words(*damaged), "damaged"), 20, 42, bin_microseconds)
    assert np.array_equal(frames, without)
    assert (whole.astype(int) - frames).sum() == 1
    assert (tally.outside_window, tally.events) == (whole_tally.outside_window + 1, 2000)


@pytest.mark.parametrize("bits", [31, 32])
def test_overflowing_counters_go_on(bits):
    start = 2**bits - 50
    pairs = [(0, (start + 10 * k) % 2**bits) for k in range(2000)]
    pairs[8] = (9 << 1, 2**bits - 3)  # from before the overflow, after it
    events = decode(words(*pairs), "file")
    assert events.microseconds[-1] == 19_990
    assert events.reordered == 1
    assert (np.diff(events.microseconds) >= 0).all()
    assert np.flatnonzero(events.x == 127 - 9).tolist() == [5]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (HEADER, ["no event after the header"]),
        (words((0, 1))[:-3], ["5 bytes are left over", f"offset {len(HEADER)}", "cut off"]),
        (words((0, 1), (0x12345, 2)), ["0x12345", f"offset {len(HEADER) + 8}", "beyond a sensor"]),
        (words((0, 1), (2**31, 2)), ["0x80000000", "beyond a sensor"]),
        (words((2**15, 1)), ["1 special events and no event of a pixel"]),
        (b"#!AER-DAT3.1\r\n" + bytes(8), ["not an AEDAT 2.0 file"]),
        (b"RIFF" + bytes(100), ["not an AEDAT 2.0 file"]),
        (b"#!AER-DAT2.0", ["ends within its header"]),
        (b"", ["empty"]),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, parts):
    path = tmp_path / "bad.aedat"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(path)
    assert_one_line(raised.value, str(path), *parts)


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_is_one_line_or_read(seed):
    """Whatever bytes there are: a message for the user, or events within the sensor in the order of time."""
    draws = np.random.default_rng(seed)
    content = bytearray(words(*[(int(a), t) for t, a in enumerate(draws.integers(0, 2**15, 200))]))
    for _ in range(draws.integers(1, 6)):
        content[draws.integers(len(content))] = draws.integers(256)
    try:
        events = decode(bytes(content[: draws.integers(len(content))]), "file")
    except UserError as error:
        assert_one_line(error, "file")
    else:
        assert (np.diff(events.microseconds) >= 0).all()
        assert max(events.x.max(), events.y.max()) < SIDE


@needs_recordings
def test_a_real_recording_has_the_events_that_are_known_of_it():
    events = read(REAL / "box.aedat")
    assert len(events) == 201_523
    assert events.microseconds[-1] / 1e6 == pytest.approx(18.49, abs=0.005)
    assert (events.x.min(), events.x.max(), events.y.min(), events.y.max()) == (0, 127, 0, 127)
    assert 100 * events.on.mean() == pytest.approx(55.7, abs=0.05)


@needs_recordings
@pytest.mark.parametrize("name", ["box", "pencil", "scissors", "walking"])
def test_real_recordings_are_read_as_a_loop_reads_them(name):
    content = (REAL / f"{name}.aedat").read_bytes()
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    first = None
    events = decode(content, name)
    assert (events.special, events.reordered) == (0, 0)
    for number, (address, stamp) in enumerate(struct.iter_unpack(">II", content[start:])):
        first = stamp if first is None else first
        if number % 97 == 0:
            seen = (events.microseconds[number], events.x[number], events.y[number], events.on[number])
            assert seen == (stamp - first, 127 - (address >> 1 & 127), 127 - (address >> 8 & 127), not address & 1)


# -- frames -----------------------------------------------------------------------------------------------


def slowly(events: Events, bins: int, size: int, bin_microseconds: int | None):
    """Frames and tally by a loop over the events."""
    frames = np.zeros((bins, 2, size, size), int)
    window = crop = saturated = 0
    whole = events.microseconds[-1] + 1
    for t, x, y, on in zip(events.microseconds, events.x, events.y, events.on, strict=True):
        number = int(t) // bin_microseconds if bin_microseconds else int(int(t) * bins / int(whole))
        column, row = int(x) // (128 // size), int(y) // (128 // size)
        if number >= bins:
            window += 1
        elif column >= size or row >= size:
            crop += 1
        elif frames[number, int(on), row, column] == 255:
            saturated += 1
        else:
            frames[number, int(on), row, column] += 1
    return frames, window, crop, saturated


@pytest.mark.parametrize("bin_microseconds", [5000, None])
@pytest.mark.parametrize(("bins", "size", "count"), [(20, 42, 4000), (3, 1, 4000), (7, 16, 1), (1, 128, 900)])
def test_frames_are_those_of_a_loop_and_every_event_is_accounted_for(bins, size, count, bin_microseconds):
    events = some(count, seed=bins)
    frames, tally = to_frames(events, bins, size, bin_microseconds)
    expected, window, crop, saturated = slowly(events, bins, size, bin_microseconds)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, expected)
    assert (tally.outside_window, tally.outside_crop, tally.saturated) == (window, crop, saturated)
    assert tally.framed == frames.sum()
    assert tally.events == count == tally.framed + window + crop + saturated


# -- the simulated camera ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan():
    return digits.scans()[0][5, 0]


def test_the_camera_is_a_function_of_picture_key_and_sample(scan):
    events = camera.record(scan, 1, 7)
    assert same(events, camera.record(scan.copy(), 1, 7))
    assert not same(events, camera.record(scan, 1, 8))
    assert not same(events, camera.record(scan, 2, 7))


def test_a_recording_lasts_one_round_of_a_closed_path(scan):
    places = camera.path()
    assert places[0] == places[-1]
    assert len(places) == camera.MILLISECONDS + 1
    steps = np.abs(np.diff(places, axis=0))
    assert (steps[:, 0] == steps[:, 1]).all()  # diagonal
    assert steps.max() <= 2
    assert camera.record(scan, 0, 0).microseconds[-1] < 1000 * camera.MILLISECONDS


def test_pictures_that_the_camera_cannot_show_are_one_line():
    whole = np.full((6, 6), 255, np.uint8)
    for wrong in (whole.astype(int), whole[:5], whole[None], whole[:5, :5], np.zeros((385, 385), np.uint8)):
        with pytest.raises(ValueError, match="a picture must") as raised:
            camera.record(wrong, 0, 0)
        assert_one_line(
            raised.value, "uint8 [H, H]" if wrong.dtype != np.uint8 or len(set(wrong.shape)) > 1 else "6 to 384"
        )


@pytest.mark.parametrize("side", camera.SIDES)
def test_the_smallest_and_the_largest_picture_are_shown_as_they_are(side):
    """The middle of a white picture is white, and what is around it black."""
    seen = camera._logarithms(np.full((side, side), 255, np.uint8))
    assert abs(seen[320, 320] - 4096 * np.log(32 + 255)) < 1
    assert abs(seen[100, 320] - 4096 * np.log(32)) < 1


def test_a_blank_picture_gives_noise_alone():
    events = camera.record(np.zeros((8, 8), np.uint8), 0, 0)
    expected = SIDE**2 * camera.NOISE / 10_000
    assert abs(len(events) - expected) < 5 * expected**0.5
    assert abs(events.on.mean() - 0.5) < 5 * 0.5 / expected**0.5
    # At any time: 819 of them leave about 450 of 625 remainders taken, and would leave 32 on a grid of 625 us.
    assert len(np.unique(events.microseconds % 625)) > 400
    assert np.histogram(events.microseconds, 10, (0, 1000 * camera.MILLISECONDS))[0].min() > 40


def test_an_edge_that_comes_makes_on_events_and_one_that_goes_off_events():
    """A bright half: on the first leg it moves right and down, away from its left edge and into its right side."""
    picture = np.zeros((8, 8), np.uint8)
    picture[:, :4] = 255
    events = camera.record(picture, 0, 0)
    leg = 1000 * camera.LEG_MILLISECONDS
    first, third = events.microseconds < leg, (events.microseconds >= 2 * leg) & (events.microseconds < 3 * leg)
    middle = (events.x > 56) & (events.x < 76) & (events.y > 40) & (events.y < 88)
    assert events.on[first & middle].mean() > 0.9
    assert events.on[third & middle].mean() < 0.1


def test_a_pixel_is_blind_after_its_event(scan):
    events = camera.record(scan, 3, 5)
    pixel = events.y.astype(int) * SIDE + events.x
    order = np.lexsort((events.microseconds, pixel))
    gaps = np.diff(events.microseconds[order])[np.diff(pixel[order]) == 0]
    # Noise ignores blindness; it is 5 events in 100 pixels. An event has its place somewhere in its millisecond.
    earlier, soon = (gaps < 1000 * (camera.REFRACTORY - 1)).mean(), (gaps < 1000 * camera.REFRACTORY).mean()
    assert earlier < 0.01 and soon > 0.03  # so after two milliseconds it sees again
