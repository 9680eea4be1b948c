"""What `gpu` runs: the passes as Triton kernels.

A program holds a tile of rows and channels in registers and, in the scans, goes through all time-steps with it; the
loop over time is a loop in the kernel too, so that compiling takes no longer for more steps. Offsets that grow with the
data are of 64 bits. A pointer that is None stands for what is not there, and costs nothing.
"""

import triton
import triton.language as tl

# -- pieces of kernels ---------------------------------------------------------------------------------------------


@triton.jit
def _affine(scale_ptr, shift_ptr, at, inside):
    """Scale and shift of one step and a tile's channels; those that change nothing where there is no norm."""
    if scale_ptr is None:
        scale = tl.full(at.shape, 1.0, tl.float32)
        shift = tl.full(at.shape, 0.0, tl.float32)
    else:
        scale = tl.load(scale_ptr + at, mask=inside, other=0.0)
        shift = tl.load(shift_ptr + at, mask=inside, other=0.0)
    return scale, shift


@triton.jit
def _integrate(u, x, scale, shift, leak):
    """Eq. 9: ``leak * u + scale * x + shift``.

    The roundings are spelt out, since the reverse scan must recompute the very membranes of the scan, whatever the
    compiler makes of either.
    """
    current = tl.fma(tl.broadcast_to(scale[None, :], u.shape), x, tl.broadcast_to(shift[None, :], u.shape))
    return tl.fma(tl.full(u.shape, leak, tl.float32), u, current)


@triton.jit
def _charge(u, x, scale_ptr, shift_ptr, t, channel, channels, exists, leak):
    """The same with scale and shift of step t."""
    scale, shift = _affine(scale_ptr, shift_ptr, t * channels + channel, exists)
    return _integrate(u, x, scale, shift, leak)


@triton.jit
def _reset(u, threshold, HARD: tl.constexpr):
    """What is left of the membrane after it fired, or did not."""
    return tl.where(u > threshold, 0.0 if HARD else u - threshold, u)


@triton.jit
def _fire(u, x_ptr, inside, scale, shift, leak, threshold, HARD: tl.constexpr):
    """One step of one tile: the membrane afterwards, and the spikes."""
    u = _integrate(u, tl.load(x_ptr, mask=inside, other=0.0).to(tl.float32), scale, shift, leak)
    return _reset(u, threshold, HARD), (u > threshold).to(tl.float32)


@triton.jit
def _corner(window, width):
    """Row of the upper left corner of the 2 x 2 window with a number, in maps of this width and even height."""
    half = width // 2
    return (window // half) * (2 * width) + (window % half) * 2


@triton.jit
def _before(inside, t, steps):
    """A mask, of any shape, that holds where ``t < steps``."""
    return inside & (tl.full(inside.shape, t, tl.int32) < steps)


@triton.jit
def _mix(h):
    """The 32-bit finaliser of MurmurHash3 (Appleby 2011), as in `bntt.spiking.randomness`."""
    h = h ^ (h >> 16)
    h = h * 0x85EBCA6B
    h = h ^ (h >> 13)
    h = h * 0xC2B2AE35
    return h ^ (h >> 16)


# -- moments -------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["tiles"])
def moments(x_ptr, mean_ptr, spread_ptr, rows, channels, tiles, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Mean and sum of squared deviations of a block of rows, ``[blocks, T, C]``.

    Every place of the tile follows its own mean through the block (Welford), so that nothing cancels and threads meet
    only at the end, when the places are merged by Chan's formula.
    """
    block, t = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    first = block * tiles * BLOCK_ROWS
    last = tl.minimum(first + tiles * BLOCK_ROWS, rows)
    place = first + tl.arange(0, BLOCK_ROWS)
    step = x_ptr + tl.cast(t, tl.int64) * rows * channels
    mean = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.float32)
    spread = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.float32)
    for i in range(tl.cdiv(last - first, BLOCK_ROWS)):
        row = place + i * BLOCK_ROWS
        inside = (row[:, None] < last) & (channel[None, :] < channels)
        at = tl.cast(row, tl.int64)[:, None] * channels + channel[None, :]
        x = tl.load(step + at, mask=inside, other=0.0).to(tl.float32)
        delta = tl.where(inside, x - mean, 0.0)
        mean += delta * (1.0 / (i + 1))
        spread += delta * tl.where(inside, x - mean, 0.0)
    count = tl.maximum(last - place + (BLOCK_ROWS - 1), 0) // BLOCK_ROWS
    weight = count.to(tl.float32)[:, None] / (last - first)
    merged = tl.sum(mean * weight, axis=0)
    apart = mean - merged[None, :]
    # The merged mean is itself rounded; apart from that the squares are taken around it exactly as Chan's formula does.
    total = tl.sum(spread + apart * apart * count.to(tl.float32)[:, None], axis=0)
    at = (tl.cast(block, tl.int64) * tl.num_programs(2) + t) * channels + channel
    tl.store(mean_ptr + at, merged, mask=channel < channels)
    tl.store(spread_ptr + at, total, mask=channel < channels)


@triton.jit(do_not_specialize=["blocks", "size"])
def merge(
    means_ptr, spreads_ptr, mean_ptr, variance_ptr, blocks, size, rows, columns,
    BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Chan's formula in float64 over the blocks, the last of which may be smaller; a column is a (step, channel)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([BLOCKS, COLUMNS], tl.float64)
    for start in range(0, blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        inside = (block[:, None] < blocks) & (column[None, :] < columns)
        at = tl.cast(block, tl.int64)[:, None] * columns + column[None, :]
        count = tl.minimum(rows - block * size, size).to(tl.float64)[:, None]
        total += tl.load(means_ptr + at, mask=inside, other=0.0).to(tl.float64) * count
    mean = tl.sum(total, axis=0) / rows
    total = tl.zeros([BLOCKS, COLUMNS], tl.float64)
    for start in range(0, blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        inside = (block[:, None] < blocks) & (column[None, :] < columns)
        at = tl.cast(block, tl.int64)[:, None] * columns + column[None, :]
        count = tl.minimum(rows - block * size, size).to(tl.float64)[:, None]
        apart = tl.load(means_ptr + at, mask=inside, other=0.0).to(tl.float64) - mean[None, :]
        spread = tl.load(spreads_ptr + at, mask=inside, other=0.0).to(tl.float64) + apart * apart * count
        total += tl.where(inside, spread, 0.0)
    variance = tl.sum(total, axis=0) / rows
    tl.store(mean_ptr + column, mean.to(tl.float32), mask=column < columns)
    tl.store(variance_ptr + column, variance.to(tl.float32), mask=column < columns)


# -- scan ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["steps", "width"])
def scan(
    x_ptr, scale_ptr, shift_ptr, membrane_ptr, out_ptr, steps, rows, channels, width, leak, threshold,
    HARD: tl.constexpr, HALVE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Spikes of a tile through all steps; with HALVE a tile of 2 x 2 windows, whose four membranes go side by side."""
    slot = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    stride = tl.cast(rows, tl.int64) * channels
    if HALVE:
        row, out_stride = _corner(slot, width), stride // 4
        inside = (slot[:, None] < rows // 4) & (channel[None, :] < channels)
    else:
        row, out_stride = slot, stride
        inside = (slot[:, None] < rows) & (channel[None, :] < channels)
    at = tl.cast(row, tl.int64)[:, None] * channels + channel[None, :]
    right = channels
    below = tl.cast(width, tl.int64) * channels
    out = tl.cast(slot, tl.int64)[:, None] * channels + channel[None, :]
    u = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.float32)
    u1, u2, u3 = u, u, u
    if membrane_ptr is not None:
        u = tl.load(membrane_ptr + at, mask=inside, other=0.0)
        if HALVE:
            u1 = tl.load(membrane_ptr + at + right, mask=inside, other=0.0)
            u2 = tl.load(membrane_ptr + at + below, mask=inside, other=0.0)
            u3 = tl.load(membrane_ptr + at + below + right, mask=inside, other=0.0)
    for t in range(steps):
        scale, shift = _affine(scale_ptr, shift_ptr, t * channels + channel, channel < channels)
        x = x_ptr + tl.cast(t, tl.int64) * stride + at
        u, spikes = _fire(u, x, inside, scale, shift, leak, threshold, HARD)
        if HALVE:
            u1, spikes1 = _fire(u1, x + right, inside, scale, shift, leak, threshold, HARD)
            u2, spikes2 = _fire(u2, x + below, inside, scale, shift, leak, threshold, HARD)
            u3, spikes3 = _fire(u3, x + below + right, inside, scale, shift, leak, threshold, HARD)
            spikes = ((spikes + spikes1) + (spikes2 + spikes3)) * 0.25
        spikes = spikes.to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + tl.cast(t, tl.int64) * out_stride + out, spikes, mask=inside)
    if membrane_ptr is not None:
        tl.store(membrane_ptr + at, u, mask=inside)
        if HALVE:
            tl.store(membrane_ptr + at + right, u1, mask=inside)
            tl.store(membrane_ptr + at + below, u2, mask=inside)
            tl.store(membrane_ptr + at + below + right, u3, mask=inside)


# -- reverse scan --------------------------------------------------------------------------------------------------
#
# Going backwards needs every step's membrane, and each of them needs the one before. Storing them all in float32 costs
# 4 bytes a value to write and 4 to read, and that much memory. Instead the first way through stores every fourth, and
# on the way back four steps are charged again from there in registers: the current is read twice, for 1 + 1 bytes of
# membranes. Per value of bfloat16 that is 10 bytes (current 2 + 2, membrane 1 + 1, gradient in 2, out 2) where storing
# all takes 16; in float32 18 instead of 24. The loads of four steps are also under way at once.


@triton.jit
def _back(
    future, u, x, grad, inside, exists, t, steps, channel, channels, dy_ptr, centre_ptr, sums_ptr,
    leak, threshold, alpha, HARD: tl.constexpr,
):  # fmt: skip
    """One step backwards: stores its gradient and the two sums over the tile; the gradient for the membrane before it.

    A step past the end, where ``inside`` and ``exists`` hold nowhere, stores nothing and hands on what it was given.
    """
    carried = future
    if HARD:
        carried = tl.where(u > threshold, 0.0, carried)
    slope = alpha - (alpha / threshold) * tl.abs(u - threshold)  # Eq. 8
    slope = tl.where(slope < 0.0, 0.0, slope)  # unlike a maximum, this keeps NaN
    dy = tl.fma(grad, slope, carried)
    tl.store(dy_ptr, dy.to(dy_ptr.dtype.element_ty), mask=inside)
    if sums_ptr is not None:
        if centre_ptr is not None:
            x = x - tl.load(centre_ptr + t * channels + channel, mask=exists, other=0.0)[None, :]
        place = (tl.cast(tl.program_id(0), tl.int64) * steps + t) * channels + channel
        dscale, dshift = tl.split(tl.sum(tl.join(dy * x, dy), axis=0))  # in one go, since threads wait for one another
        tl.store(sums_ptr + place, dscale, mask=exists)
        half = tl.cast(tl.num_programs(0), tl.int64) * steps * channels
        tl.store(sums_ptr + half + place, dshift, mask=exists)
    return tl.where(inside, dy * leak, future)


@triton.jit(do_not_specialize=["steps", "width"])
def reverse_scan(
    x_ptr, centre_ptr, scale_ptr, shift_ptr, membrane_ptr, grad_ptr, grad_membrane_ptr, stored_ptr, dy_ptr, sums_ptr,
    steps, rows, channels, width, leak, threshold, alpha,
    HARD: tl.constexpr, HALVE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
    TOGETHER: tl.constexpr,
):  # fmt: skip
    """A tile through all steps, then back in stretches of four; with HALVE four rows in turn make up one window."""
    slot = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel = tl.max_contiguous(channel, TOGETHER)  # so that a thread gets no more of them in a row, but more rows
    exists = channel < channels
    inside = (slot[:, None] < rows) & exists[None, :]
    stride = tl.cast(rows, tl.int64) * channels
    if HALVE:
        row = _corner(slot // 4, width) + (slot % 4 // 2) * width + slot % 2
        grad_row, grad_stride, share = slot // 4, stride // 4, 0.25
    else:
        row, grad_row, grad_stride, share = slot, slot, stride, 1.0
    at = tl.cast(row, tl.int64)[:, None] * channels + channel[None, :]
    grad_at = tl.cast(grad_row, tl.int64)[:, None] * channels + channel[None, :]
    stretches = tl.cdiv(steps, 4)

    u = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.float32)
    if membrane_ptr is not None:
        u = tl.load(membrane_ptr + at, mask=inside, other=0.0)
    for stretch in range(stretches - 1):
        t = stretch * 4
        x = x_ptr + tl.cast(t, tl.int64) * stride + at
        x0 = tl.load(x, mask=inside, other=0.0).to(tl.float32)
        x1 = tl.load(x + stride, mask=inside, other=0.0).to(tl.float32)
        x2 = tl.load(x + 2 * stride, mask=inside, other=0.0).to(tl.float32)
        x3 = tl.load(x + 3 * stride, mask=inside, other=0.0).to(tl.float32)
        u = _charge(u, x0, scale_ptr, shift_ptr, t, channel, channels, exists, leak)
        u = _reset(u, threshold, HARD)
        u = _charge(u, x1, scale_ptr, shift_ptr, t + 1, channel, channels, exists, leak)
        u = _reset(u, threshold, HARD)
        u = _charge(u, x2, scale_ptr, shift_ptr, t + 2, channel, channels, exists, leak)
        u = _reset(u, threshold, HARD)
        u = _charge(u, x3, scale_ptr, shift_ptr, t + 3, channel, channels, exists, leak)
        u = _reset(u, threshold, HARD)
        tl.store(stored_ptr + tl.cast(stretch, tl.int64) * stride + at, u, mask=inside)
    # What one thread stored, another may load, since the threads share out a tile by the size of its values.
    tl.debug_barrier()

    future = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.float32)
    if grad_membrane_ptr is not None:
        future = tl.load(grad_membrane_ptr + at, mask=inside, other=0.0)
    for done in range(stretches):
        stretch = stretches - 1 - done
        t = stretch * 4
        # Every stretch but the last is whole; steps past the end are read as zero and not used.
        inside1, exists1 = _before(inside, t + 1, steps), _before(exists, t + 1, steps)
        inside2, exists2 = _before(inside, t + 2, steps), _before(exists, t + 2, steps)
        inside3, exists3 = _before(inside, t + 3, steps), _before(exists, t + 3, steps)
        x = x_ptr + tl.cast(t, tl.int64) * stride + at
        x0 = tl.load(x, mask=inside, other=0.0).to(tl.float32)
        x1 = tl.load(x + stride, mask=inside1, other=0.0).to(tl.float32)
        x2 = tl.load(x + 2 * stride, mask=inside2, other=0.0).to(tl.float32)
        x3 = tl.load(x + 3 * stride, mask=inside3, other=0.0).to(tl.float32)
        grad = grad_ptr + tl.cast(t, tl.int64) * grad_stride + grad_at
        g0 = tl.load(grad, mask=inside, other=0.0).to(tl.float32) * share
        g1 = tl.load(grad + grad_stride, mask=inside1, other=0.0).to(tl.float32) * share
        g2 = tl.load(grad + 2 * grad_stride, mask=inside2, other=0.0).to(tl.float32) * share
        g3 = tl.load(grad + 3 * grad_stride, mask=inside3, other=0.0).to(tl.float32) * share
        before = stored_ptr + tl.cast(tl.maximum(stretch - 1, 0), tl.int64) * stride + at
        u = tl.load(before, mask=_before(inside, 0, stretch), other=0.0)
        if membrane_ptr is not None:
            u += tl.load(membrane_ptr + at, mask=_before(inside, stretch, 1), other=0.0)
        u0 = _charge(u, x0, scale_ptr, shift_ptr, t, channel, channels, exists, leak)
        u = _reset(u0, threshold, HARD)
        u1 = _charge(u, x1, scale_ptr, shift_ptr, t + 1, channel, channels, exists1, leak)
        u = _reset(u1, threshold, HARD)
        u2 = _charge(u, x2, scale_ptr, shift_ptr, t + 2, channel, channels, exists2, leak)
        u = _reset(u2, threshold, HARD)
        u3 = _charge(u, x3, scale_ptr, shift_ptr, t + 3, channel, channels, exists3, leak)

        dy = dy_ptr + tl.cast(t, tl.int64) * stride + at
        future = _back(
            future, u3, x3, g3, inside3, exists3, t + 3, steps, channel, channels, dy + 3 * stride, centre_ptr,
            sums_ptr, leak, threshold, alpha, HARD,
        )  # fmt: skip
        future = _back(
            future, u2, x2, g2, inside2, exists2, t + 2, steps, channel, channels, dy + 2 * stride, centre_ptr,
            sums_ptr, leak, threshold, alpha, HARD,
        )  # fmt: skip
        future = _back(
            future, u1, x1, g1, inside1, exists1, t + 1, steps, channel, channels, dy + stride, centre_ptr,
            sums_ptr, leak, threshold, alpha, HARD,
        )  # fmt: skip
        future = _back(
            future, u0, x0, g0, inside, exists, t, steps, channel, channels, dy, centre_ptr,
            sums_ptr, leak, threshold, alpha, HARD,
        )  # fmt: skip
    if grad_membrane_ptr is not None:
        tl.store(grad_membrane_ptr + at, future, mask=inside)


# -- combine and poisson -------------------------------------------------------------------------------------------


@triton.jit
def combine(
    dy_ptr, x_ptr, scale_ptr, mean_ptr, dmean_ptr, dvariance_ptr, rows, channels, share,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient for a tile of the current at one step, in dy's place; ``share`` is 1 / M."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    exists = channel < channels
    inside = (row[:, None] < rows) & exists[None, :]
    t = tl.program_id(2)
    at = (tl.cast(t, tl.int64) * rows + tl.cast(row, tl.int64))[:, None] * channels + channel[None, :]
    of_step = t * channels + channel
    scale = tl.load(scale_ptr + of_step, mask=exists, other=0.0)
    dx = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32) * scale[None, :]
    if mean_ptr is not None:
        mean = tl.load(mean_ptr + of_step, mask=exists, other=0.0)
        dmean = tl.load(dmean_ptr + of_step, mask=exists, other=0.0) * share
        slope = tl.load(dvariance_ptr + of_step, mask=exists, other=0.0) * (2.0 * share)
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        dx += (x - mean[None, :]) * slope[None, :] + dmean[None, :]
    tl.store(dy_ptr + at, dx.to(dy_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["steps", "first", "low", "high"])
def poisson(rate_ptr, samples_ptr, key_ptr, out_ptr, steps, channels, area, first, low, high, BLOCK: tl.constexpr):
    """All steps of a piece of one image. Words and positions are unsigned and wrap around at 32 bits."""
    n = tl.cast(tl.program_id(0), tl.int64)
    size = channels * area
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # channels innermost, as the spikes are stored
    inside = place < size
    pixel = (place % channels) * area + place // channels  # as the image is stored and its positions are counted
    rate = tl.load(rate_ptr + n * size + pixel, mask=inside, other=0.0)
    bound = (tl.abs(rate) * 16777216.0).to(tl.uint32)
    sign = tl.where(rate > 0.0, 1.0, -1.0)
    if key_ptr is not None:
        lower = tl.load(key_ptr).to(tl.uint32)
        upper = tl.load(key_ptr + 1).to(tl.uint32)
    else:
        lower = tl.cast(low, tl.uint32)
        upper = tl.cast(high, tl.uint32)
    of_sample = _mix(_mix(tl.load(samples_ptr + n).to(tl.uint32) ^ lower) ^ upper)
    position = tl.cast(first, tl.uint32) + pixel.to(tl.uint32)
    for t in range(steps):
        word = _mix(_mix(_mix(position ^ upper) ^ lower) ^ of_sample)
        spikes = tl.where((word >> 8) < bound, sign, 0.0).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + (tl.cast(t, tl.int64) * tl.num_programs(0) + n) * size + place, spikes, mask=inside)
        position += tl.cast(size, tl.uint32)
