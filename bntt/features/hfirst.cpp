// The stages of HFirst (bntt/features/hfirst.py has the contract and a reference). Voltages are whole microvolts, times
// are whole microseconds, so that every machine gets the same spikes.
//
// A spike is four int32: time, x, y, channel. A function writes at most `capacity` spikes and says in `number` how many
// there are, so that the caller can come again with more room.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int LANES = 16;  // orientations of S1, rounded up to whole vectors; the added ones have weight 0
constexpr int32_t NEVER = -(1 << 30);
constexpr int32_t FLOOR = -(1 << 30);  // microvolts; so that no sum overflows

struct Writer {
    int32_t* spikes;
    int64_t capacity, number = 0;

    void add(int32_t time, int32_t x, int32_t y, int32_t channel) {
        if (number < capacity) {
            int32_t* spike = spikes + 4 * number;
            spike[0] = time, spike[1] = x, spike[2] = y, spike[3] = channel;
        }
        ++number;
    }
};

// What leaks in `elapsed` microseconds at `decay` nanovolts per microsecond.
inline int32_t leaked(int32_t elapsed, int64_t decay) {
    return static_cast<int32_t>(std::min<int64_t>(decay * elapsed / 1000, 1 << 30));
}

inline int32_t towards_zero(int32_t voltage, int32_t leak) {
    return voltage > 0 ? std::max(voltage - leak, 0) : std::min(voltage + leak, 0);
}

}  // namespace

extern "C" {

void hfirst_denoise(const uint32_t* words, int64_t count, int64_t side, int64_t window, uint32_t* kept,
                    int64_t* number) {
    std::vector<int32_t> last((side + 2) * (side + 2), NEVER);  // with a margin, whose pixels never see an event
    *number = 0;
    uint32_t before = UINT32_MAX;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t word = words[i], address = word & 0x7fff;
        if (address == before) continue;
        before = address;
        const int32_t time = word >> 15;
        int32_t* here = last.data() + ((word >> 8 & 127) + 1) * (side + 2) + (word >> 1 & 127) + 1;
        *here = NEVER;
        int32_t latest = NEVER;
        for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx) latest = std::max(latest, here[dy * (side + 2) + dx]);
        if (time - latest < window) kept[(*number)++] = word;
        *here = time;
    }
}

void hfirst_s1(const uint32_t* words, int64_t count, int64_t side, const int32_t* kernels, int64_t size,
                  int64_t orientations, int64_t threshold, int64_t decay, int64_t refractory, int32_t* spikes,
               int64_t capacity, int64_t* number) {
    const int64_t area = side * side, half = size / 2;
    std::vector<int32_t> weights(size * size * LANES, 0), voltages(2 * area * LANES, 0);
    std::vector<int32_t> updated(2 * area, 0), fired(2 * area, NEVER);
    for (int64_t k = 0; k < orientations; ++k)
        for (int64_t p = 0; p < size * size; ++p) weights[p * LANES + k] = kernels[k * size * size + p];
    struct Candidate {
        int32_t x, y;
        bool over[LANES];
    };
    std::vector<Candidate> candidates;
    Writer out{spikes, capacity};
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t word = words[i];
        const int32_t time = word >> 15;
        const int64_t x = word >> 1 & 127, y = word >> 8 & 127, bank = (word & 1) * area;
        candidates.clear();
        for (int64_t column = std::max<int64_t>(x - half, 0); column <= std::min(x + half, side - 1); ++column)
            for (int64_t row = std::max<int64_t>(y - half, 0); row <= std::min(y + half, side - 1); ++row) {
                const int64_t at = bank + row * side + column;
                if (time - fired[at] <= refractory) continue;
                const int32_t leak = leaked(time - updated[at], decay);
                updated[at] = time;
                int32_t* voltage = voltages.data() + at * LANES;
                // The neuron at (column, row) sees the event at (x, y) through this synapse.
                const int32_t* weight = weights.data() + ((y - row + half) * size + x - column + half) * LANES;
                int32_t highest = FLOOR;
                for (int k = 0; k < LANES; ++k) {
                    voltage[k] = std::max(towards_zero(voltage[k], leak) + weight[k], FLOOR);
                    highest = std::max(highest, voltage[k]);
                }
                if (highest <= threshold) continue;
                Candidate candidate{static_cast<int32_t>(column), static_cast<int32_t>(row), {}};
                for (int k = 0; k < LANES; ++k) candidate.over[k] = voltage[k] > threshold, voltage[k] = 0;
                candidates.push_back(candidate);
                fired[at] = time;
            }
        if (candidates.empty()) continue;
        for (int32_t k = 0; k < orientations; ++k)
            for (const Candidate& candidate : candidates)
                if (candidate.over[k]) out.add(time, candidate.x, candidate.y, k);
    }
    *number = out.number;
}

void hfirst_pool(const int32_t* spikes, int64_t count, int64_t side, int64_t extent, int64_t refractory,
                    int32_t* pooled, int64_t* number) {
    const int64_t across = (side + extent - 1) / extent;
    std::vector<int32_t> fired(across * across, NEVER);
    Writer out{pooled, count};
    for (int64_t i = 0; i < count; ++i) {
        const int32_t* spike = spikes + 4 * i;
        const int32_t x = spike[1] / extent, y = spike[2] / extent;
        int32_t& last = fired[y * across + x];
        if (spike[0] - last <= refractory) continue;
        last = spike[0];
        out.add(spike[0], x, y, spike[3]);
    }
    *number = out.number;
}

void hfirst_s2(const int32_t* inputs, int64_t count, int64_t side, const int32_t* templates, int64_t classes,
                  int64_t channels, int64_t threshold, int64_t decay, int64_t refractory, int32_t* spikes,
               int64_t capacity, int64_t* number) {
    std::vector<int32_t> voltages(classes, 0);
    int32_t updated = 0, fired = NEVER;
    Writer out{spikes, capacity};
    for (int64_t i = 0; i < count; ++i) {
        const int32_t* input = inputs + 4 * i;
        const int32_t time = input[0];
        if (time - fired <= refractory) continue;
        const int32_t leak = leaked(time - updated, decay);
        updated = time;
        const int64_t synapse = (input[2] * side + input[1]) * channels + input[3];
        bool any = false;
        for (int64_t k = 0; k < classes; ++k) {
            const int32_t weight = templates[k * side * side * channels + synapse];
            voltages[k] = std::max(towards_zero(voltages[k], leak) + weight, FLOOR);
            if (voltages[k] > threshold) out.add(time, 0, 0, k), any = true;
        }
        if (any) fired = time, std::fill(voltages.begin(), voltages.end(), 0);
    }
    *number = out.number;
}

}  // extern "C"
