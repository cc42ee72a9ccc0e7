// Parts of a picture, resized to what a small network looks at; outside of the picture all is black.
#pragma once

#include "slimface.hpp"

namespace slimface {

/** Left, top, right, bottom in pixels; the last two lie beyond the window. */
using Window = std::array<int, 4>;

/** A picture from which windows are taken, as planes of 0..255. */
class Windowed {
 public:
  /** With `is_area` each pixel is the mean of all that its square touches, else mixed of its neighbours. */
  Windowed(Pixels pixels, bool is_area) : pixels_(std::move(pixels)), is_area_(is_area) {
    if (is_area_) sum();
  }

  int width() const { return pixels_.width; }
  int height() const { return pixels_.height; }

  /** Rows `first` to `last` of the whole picture at another size: three planes after each other. */
  std::vector<float> rows(int height, int width, int first, int last) {
    std::vector<float> out(size_t(3) * size_t(last - first) * size_t(width));
    if (is_area_) {
      const Edges across(0, pixels_.width, 0, width, width), down(0, pixels_.height, first, last, height);
      means(across, down, out.data());
      return out;
    }
    if (level_.height != height || level_.width != width) level_ = resized(pixels_, height, width);
    planes(level_.at(0, first), size_t(last - first) * size_t(width), out.data());
    return out;
  }

  /** A window at `side` by `side` pixels, into `out`. */
  void crop(const Window& window, int side, float* out) const {
    const auto [left, top, right, bottom] = window;
    if (is_area_) {
      means(Edges(left, right, 0, side, side), Edges(top, bottom, 0, side, side), out);
      return;
    }
    Pixels part(right - left, bottom - top);
    const int first = std::max(left, 0), last = std::min(right, pixels_.width);
    for (int y = std::max(top, 0); y < std::min(bottom, pixels_.height) && first < last; ++y) {
      std::copy_n(pixels_.at(first, y), size_t(3) * size_t(last - first), part.at(first - left, y - top));
    }
    const Pixels sized = resized(part, side, side);
    planes(sized.rgb.data(), size_t(side) * size_t(side), out);
  }

 private:
  /** Where pixels begin and end along a side: whole pixels of the source, overlapping. */
  struct Edges {
    std::vector<int> from, to;

    /** Of the pixels `first` to `last`, if `count` of them span what lies between start and stop. */
    Edges(int start, int stop, int first, int last, int count) {
      const int64_t length = stop - start;
      for (int64_t i = first; i < last; ++i) {
        from.push_back(start + int(i * length / count));
        to.push_back(start + int(((i + 1) * length + count - 1) / count));
      }
    }
  };

  /** Sums of all pixels above and left of each corner; they wrap around, their differences are right. */
  void sum() {
    const size_t step = 3 * (size_t(pixels_.width) + 1);
    sums_.assign(step * (size_t(pixels_.height) + 1), 0);
    for (int y = 0; y < pixels_.height; ++y) {
      std::array<uint32_t, 3> row{};
      uint32_t* to = &sums_[size_t(y + 1) * step + 3];
      for (int x = 0; x < pixels_.width; ++x, to += 3) {
        for (size_t c = 0; c < 3; ++c) to[c] = *(to + c - step) + (row[c] += pixels_.at(x, y)[c]);
      }
    }
  }

  void means(const Edges& across, const Edges& down, float* out) const {
    const size_t rows = down.from.size(), columns = across.from.size();
    const size_t step = 3 * (size_t(pixels_.width) + 1);
    // Beyond the border the sums stay what they are at it: black adds nothing.
    auto at = [&](int x, int y) {
      return &sums_[size_t(std::clamp(y, 0, pixels_.height)) * step + 3 * size_t(std::clamp(x, 0, pixels_.width))];
    };
    for (size_t y = 0; y < rows; ++y) {
      for (size_t x = 0; x < columns; ++x) {
        const uint32_t *a = at(across.from[x], down.from[y]), *b = at(across.to[x], down.from[y]);
        const uint32_t *c = at(across.from[x], down.to[y]), *d = at(across.to[x], down.to[y]);
        const double area = double(down.to[y] - down.from[y]) * (across.to[x] - across.from[x]);
        for (size_t plane = 0; plane < 3; ++plane) {
          const auto total = int32_t(d[plane] - b[plane] - c[plane] + a[plane]);
          out[(plane * rows + y) * columns + x] = float(double(float(total)) / area);
        }
      }
    }
  }

  static void planes(const uint8_t* rgb, size_t count, float* out) {
    for (size_t i = 0; i < count; ++i) {
      for (size_t c = 0; c < 3; ++c) out[c * count + i] = rgb[3 * i + c];
    }
  }

  Pixels pixels_;
  bool is_area_;
  std::vector<uint32_t> sums_;
  Pixels level_{0, 0};
};

}  // namespace slimface
