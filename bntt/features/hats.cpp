// Averaged time surfaces; hats.py has the definition and the reference.
//
// With W(p, x, y) the sum of exp((t_j - origin) / tau) over the events j in the window at a pixel, a time surface is a
// patch of W times exp(-(t_i - origin) / tau). So an event costs one patch, however many events came before it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr double FAR = 300;  // most exponent; exp(300) is far from the largest double

struct Event {
    int64_t time, x, y, on;
    explicit Event(uint32_t word) : time(word >> 15), x(word >> 1 & 127), y(word >> 8 & 127), on(word & 1) {}
};

class Recording {
  public:
    Recording(int64_t side, int64_t cell, int64_t radius, double window, double tau)
        : side(side), cell(cell), radius(radius), window(window), tau(tau), cells((side + cell - 1) / cell),
          width(2 * radius + 1), weights(2 * side * side), present(2 * side * side),
          sums(cells * cells * 2 * width * width), events(cells * cells * 2) {}

    void run(const uint32_t* words, int64_t count, float* out) {
        origin = 0;
        int64_t added = 0, removed = 0;
        for (int64_t i = 0; i < count; ++i) {
            const Event now(words[i]);
            if (now.time - origin > FAR * tau) shift(now.time);
            for (; Event(words[added]).time < now.time; ++added) add(Event(words[added]));
            for (; removed < added && now.time - Event(words[removed]).time > window; ++removed)
                remove(Event(words[removed]));
            accumulate(now);
        }
        const int64_t size = width * width;
        for (int64_t group = 0; group < cells * cells * 2; ++group)
            for (int64_t z = 0; z < size; ++z)
                out[group * size + z] = events[group] ? float(sums[group * size + z] / events[group]) : 0.0f;
    }

  private:
    double weight(int64_t time) const { return std::exp((time - origin) / tau); }
    int64_t pixel(const Event& e) const { return (e.on * side + e.y) * side + e.x; }

    void add(const Event& e) {
        weights[pixel(e)] += weight(e.time);
        ++present[pixel(e)];
    }

    // The events that leave are the oldest and have the smallest weights, so little cancels; an empty pixel is 0.
    void remove(const Event& e) {
        double& left = weights[pixel(e)];
        left = --present[pixel(e)] ? std::fmax(left - weight(e.time), 0) : 0;
    }

    void shift(int64_t time) {
        const double factor = std::exp(-(time - origin) / tau);
        for (double& value : weights) value *= factor;
        origin = time;
    }

    void accumulate(const Event& e) {
        const int64_t row = e.y / cell, column = e.x / cell, group = (row * cells + column) * 2 + e.on;
        ++events[group];
        const int64_t top = std::max(row * cell, e.y - radius), left = std::max(column * cell, e.x - radius);
        const int64_t bottom = std::min({row * cell + cell, e.y + radius + 1, side});
        const int64_t right = std::min({column * cell + cell, e.x + radius + 1, side});
        const double factor = std::exp(-(e.time - origin) / tau);
        for (int64_t y = top; y < bottom; ++y) {
            const double* from = &weights[(e.on * side + y) * side];
            double* to = &sums[(group * width + y - e.y + radius) * width + radius - e.x];
            for (int64_t x = left; x < right; ++x) to[x] += factor * from[x];
        }
    }

    const int64_t side, cell, radius;
    const double window, tau;
    const int64_t cells, width;
    int64_t origin = 0;
    std::vector<double> weights;    // [polarity, y, x]
    std::vector<int64_t> present;   // how many events in the window have a weight there
    std::vector<double> sums;       // [cell, polarity, dy, dx]
    std::vector<int64_t> events;    // [cell, polarity]
};

}  // namespace

// words of recording n are words[offsets[n]] ... words[offsets[n + 1] - 1]; out [count, cell, polarity, dy, dx]
extern "C" void hats(const uint32_t* words, const int64_t* offsets, int64_t count, int64_t side, int64_t cell,
                     int64_t radius, double window, double tau, float* out) {
    const int64_t cells = (side + cell - 1) / cell, width = 2 * radius + 1, features = cells * cells * 2 * width * width;
#pragma omp parallel for schedule(dynamic)
    for (int64_t n = 0; n < count; ++n)
        Recording(side, cell, radius, window, tau)
            .run(words + offsets[n], offsets[n + 1] - offsets[n], out + n * features);
}
