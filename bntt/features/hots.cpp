// Time surfaces and prototypes; hots.py has the definition and the reference.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr double FAR = 40;  // most exponent of a map: exp(40) is 2e17, and float32 ends at 3e38

struct Event {
    int64_t time, x, y;
    explicit Event(uint32_t word) : time(word >> 15), x(word >> 1 & 127), y(word >> 8 & 127) {}
};

// exp((t_last - origin) / tau) for each pixel and feature, with a margin of zeros around the sensor.
template <class Real> class Map {
  public:
    Map(int64_t side, int64_t known, int64_t radius, double tau)
        : stride((side + 2 * radius) * known), known(known), radius(radius), tau(tau),
          values((side + 2 * radius) * stride) {}

    void clear() {
        std::fill(values.begin(), values.end(), Real(0));
        origin = 0;
    }

    void add(const Event& e, int64_t feature) {
        if (e.time - origin > FAR * tau) shift(e.time);
        values[(e.y + radius) * stride + (e.x + radius) * known + feature] = Real(std::exp((e.time - origin) / tau));
    }

    // The first of 2 R + 1 rows, each of (2 R + 1) * known values, around an event.
    const Real* patch(const Event& e) const { return &values[e.y * stride + e.x * known]; }

    double factor(const Event& e) const { return std::exp(-(e.time - origin) / tau); }

    const int64_t stride, known, radius;

  private:
    void shift(int64_t time) {
        const double factor = std::exp(-(time - origin) / tau);
        for (Real& value : values) {
            value = Real(value * factor);
            if (value < Real(1e-30)) value = 0;  // numbers too small to be normal are slow
        }
        origin = time;
    }

    const double tau;
    int64_t origin = 0;
    std::vector<Real> values;  // [y, x, feature]
};

// Products of a patch with W interleaved prototypes. Four sums for each prototype, since one would wait for itself.
template <class Real, int W>
void products(const Map<Real>& map, const Real* patch, const Real* weights, Real* out) {
    typedef Real Vector __attribute__((vector_size(W * sizeof(Real)), aligned(sizeof(Real)), may_alias));
    Vector sum[4] = {};
    const int64_t width = 2 * map.radius + 1, length = width * map.known;
    for (int64_t row = 0; row < width; ++row, patch += map.stride) {
        const Vector* w = reinterpret_cast<const Vector*>(weights) + row * length;
        int64_t i = 0;
        for (; i + 4 <= length; i += 4)
            for (int j = 0; j < 4; ++j) sum[j] += patch[i + j] * w[i + j];
        for (; i < length; ++i) sum[0] += patch[i] * w[i];
    }
    const Vector total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int n = 0; n < W; ++n) out[n] = total[n];
}

template <class Real> void products(int64_t width, const Map<Real>& map, const Real* patch, const Real* w, Real* out) {
    if (width == 4) products<Real, 4>(map, patch, w, out);
    else if (width == 8) products<Real, 8>(map, patch, w, out);
    else products<Real, 16>(map, patch, w, out);
}

}  // namespace

// Words and features of recording n begin at offsets[n]; weights [dy, dx, known, width] of unit norm.
extern "C" void hots_numbers(const uint32_t* words, const int64_t* offsets, int64_t recordings, int64_t side,
                             const uint8_t* features, int64_t known, int64_t radius, double tau, const float* weights,
                             int64_t count, int64_t width, uint8_t* out) {
#pragma omp parallel
    {
        Map<float> map(side, known, radius, tau);
        float product[16];
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < recordings; ++n) {
            map.clear();
            for (int64_t i = offsets[n]; i < offsets[n + 1]; ++i) {
                const Event e(words[i]);
                map.add(e, features[i]);
                products(width, map, map.patch(e), weights, product);
                int64_t best = 0;
                for (int64_t k = 1; k < count; ++k)
                    if (product[k] > product[best]) best = k;
                out[i] = uint8_t(best);
            }
        }
    }
}

// The same with prototypes of any norm, which the events move in turn; moved [count] counts the events of each.
extern "C" void hots_learned(const uint32_t* words, const int64_t* offsets, int64_t recordings, int64_t side,
                             const uint8_t* features, int64_t known, int64_t radius, double tau, double* weights,
                             int64_t count, int64_t width, double rate, double slowing, int64_t* moved) {
    Map<double> map(side, known, radius, tau);
    const int64_t across = 2 * radius + 1, length = across * known;
    std::vector<double> norms(count);
    double product[16];
    for (int64_t k = 0; k < count; ++k) {
        double square = 0;
        for (int64_t i = 0; i < across * length; ++i) square += weights[i * width + k] * weights[i * width + k];
        norms[k] = std::sqrt(square);
    }
    for (int64_t n = 0; n < recordings; ++n) {
        map.clear();
        for (int64_t event = offsets[n]; event < offsets[n + 1]; ++event) {
            const Event e(words[event]);
            map.add(e, features[event]);
            const double* patch = map.patch(e);
            products(width, map, patch, weights, product);
            int64_t k = 0;
            for (int64_t other = 1; other < count; ++other)
                if (product[other] / norms[other] > product[k] / norms[k]) k = other;
            const double factor = map.factor(e), alpha = rate / (1 + moved[k] / slowing);
            double square = 0;
            for (int64_t row = 0; row < across; ++row)
                for (int64_t i = 0; i < length; ++i) {
                    const double s = factor * patch[row * map.stride + i];
                    square += s * s;
                }
            const double beta = factor * product[k] / (norms[k] * std::sqrt(square));
            double norm = 0;
            for (int64_t row = 0; row < across; ++row)
                for (int64_t i = 0; i < length; ++i) {
                    double& c = weights[(row * length + i) * width + k];
                    c += alpha * (factor * patch[row * map.stride + i] - beta * c);
                    norm += c * c;
                }
            norms[k] = std::sqrt(norm);
            ++moved[k];
        }
    }
}
