// Faces in pictures, from spec.json of a slimface bundle: C++17, this file and json.hpp, no library.
// A runtime computes what lies between:
//
//   const auto spec = slimface::Spec::read("bundle/spec.json");
//   const auto input = slimface::prepare(spec, picture);             // (1, 3, height, width)
//   ... run the network ...
//   const auto faces = slimface::read(spec, outputs, input);         // pixels of the picture
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>

#include "json.hpp"

namespace slimface {

constexpr int reads_version = 1;

/** 8-bit RGB (or RGBA, with `pixel_bytes` 4) that somebody else owns. */
struct Picture {
  const uint8_t* rgb = nullptr;
  int width = 0, height = 0, pixel_bytes = 3;
  size_t row_bytes = 0;  // 0: width * pixel_bytes

  size_t stride() const { return row_bytes ? row_bytes : size_t(width) * pixel_bytes; }
};

/** What the network is fed with: (1, 3, height, width), and its pixels for one of the picture. */
struct Input {
  std::vector<float> images;
  int height = 0, width = 0;
  float ratio_x = 1, ratio_y = 1;
};

/** What the network answers: of each anchor a logit (or score), four offsets (or corners), points. */
struct Outputs {
  struct Tensor {
    const float* data = nullptr;
    size_t size = 0;

    const float& operator[](size_t i) const { return data[i]; }
  };
  Tensor values, boxes, landmarks;
};

struct Face {
  std::array<float, 4> box;  // x1, y1, x2, y2
  float score;
  std::vector<std::array<float, 2>> landmarks;
};

struct Level {
  int stride, step;
  std::vector<float> sizes;
};

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + " cannot be read. Name the folder of the bundle.");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/** What spec.json says. */
struct Spec {
  std::array<float, 3> mean{};
  float scale = 1;
  bool bgr = false;
  int multiple_of = 1;
  std::vector<Level> levels;
  double centre = 0.5, height_per_width = 1;
  bool clip = false;
  double centre_variance = 0.1, size_variance = 0.2;
  double score_floor = 0.5, overlap = 0.3;
  size_t pre_nms = 5000, cap = 750;
  int landmarks = 0;
  std::string file, golden;  // of the chosen format, in the bundle
  bool is_decoded = false;
  std::array<int, 2> canvas{};  // height, width; 0: any

  /** Read spec.json, and what it says of the file of a format. */
  static Spec read(const std::string& path, const std::string& format = "onnx") {
    return of(Json::parse(read_text(path), path), format, path);
  }

  static Spec of(const Json& told, const std::string& format, const std::string& where,
                 const std::string& task = "detection") {
    const int version = told["version"].integer();
    const Json& model = told["spec"];
    if (version > reads_version || model["task"].text() != task) {
      throw Error(where + " has version " + std::to_string(version) + " and is for " +
                  model["task"].text() + "; this reads " + task + " up to version " +
                  std::to_string(reads_version) + ". Take the runner of the same bundle.");
    }
    Spec spec;
    spec.read_model(model);
    for (const Json& file : told["files"].list()) {
      if (file["format"].text() != format) continue;
      spec.file = file["path"].text();
      spec.golden = file["golden"].text();
      spec.is_decoded = file["outputs"].text() == "decoded";
      if (!file["canvas"].is_null()) {
        const auto& sides = file["canvas"].list();
        if (sides.size() != 2) throw Error(where + ": a canvas has two sides. Copy it again.");
        spec.canvas = {sides[0].integer(), sides[1].integer()};
      }
      return spec;
    }
    throw Error(where + ": the bundle has no file of " + format + ". Export it with that format.");
  }

 private:
  void read_model(const Json& model) {
    const Json& rule = model["preprocess"];
    const auto& means = rule["mean"].list();
    for (size_t i = 0; i < 3 && i < means.size(); ++i) mean[i] = float(means[i].number());
    scale = float(rule["scale"].number());
    bgr = rule["colour"].text() == "bgr";
    multiple_of = std::max(1, rule["multiple_of"].integer());
    const Json& grid = model["anchors"];
    centre = grid["centre"].number();
    height_per_width = grid["height_per_width"].number();
    clip = grid["clip"].boolean();
    for (const Json& told : grid["levels"].list()) {
      Level level{told["stride"].integer(), 0, {}};
      if (level.stride < 1) throw Error("a stride below 1. Copy the bundle again.");
      level.step = told["step"].is_null() ? level.stride : told["step"].integer();
      for (const Json& size : told["sizes"].list()) level.sizes.push_back(float(size.number()));
      levels.push_back(level);
    }
    centre_variance = model["codec"]["centre_variance"].number();
    size_variance = model["codec"]["size_variance"].number();
    const Json& plan = model["postprocess"];
    score_floor = plan["score_floor"].number();
    overlap = plan["nms_overlap"].number();
    pre_nms = size_t(plan["pre_nms"].number());
    cap = size_t(plan["cap"].number());
    landmarks = model["landmarks"].integer();
  }
};

namespace detail {

inline double half_even(double value) { return std::nearbyint(value); }

/** The two pixels of a side that each new one is mixed from, and their weights in 2048ths. */
struct Taps {
  std::vector<int> low, high, near, far;

  /** Beyond the border both are the pixel at it; columns are then taken whole, rows keep their weights. */
  Taps(int before, int after, bool is_columns) : low(after), high(after), near(after), far(after) {
    for (int i = 0; i < after; ++i) {
      const float place = float((i + 0.5) * (double(before) / after) - 0.5);
      const int first = int(std::floor(place));
      const float part = place - float(first);
      low[i] = std::clamp(first, 0, before - 1);
      high[i] = std::clamp(first + 1, 0, before - 1);
      const bool is_whole = is_columns && (first < 0 || first + 1 >= before);
      near[i] = is_whole ? 2048 : int(half_even((1 - part) * 2048.0f));
      far[i] = is_whole ? 0 : int(half_even(part * 2048.0f));
    }
  }
};

}  // namespace detail

/** Pixels of red, green, blue in memory of their own. */
struct Pixels {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;

  Pixels(int wide, int high) : width(wide), height(high), rgb(size_t(3) * size_t(wide) * size_t(high)) {}

  const uint8_t* at(int x, int y) const { return &rgb[3 * (size_t(y) * width + x)]; }
  uint8_t* at(int x, int y) { return &rgb[3 * (size_t(y) * width + x)]; }
  operator Picture() const { return {rgb.data(), width, height}; }
};

/** Resize a picture to the bits of OpenCV's INTER_LINEAR: no antialiasing. */
inline Pixels resized(const Picture& picture, int rows, int columns) {
  Pixels out(columns, rows);
  const bool is_same = rows == picture.height && columns == picture.width;
  // OpenCV takes means where both sides are halved, and rounds their halves up.
  const bool is_half = picture.height == 2 * rows && picture.width == 2 * columns;
  const detail::Taps across(picture.width, columns, true), down(picture.height, rows, false);
  for (int y = 0; y < rows; ++y) {
    const uint8_t* above = picture.rgb + down.low[y] * picture.stride();
    const uint8_t* below = picture.rgb + down.high[y] * picture.stride();
    for (int x = 0; x < columns; ++x) {
      const size_t left = size_t(across.low[x]) * picture.pixel_bytes;
      const size_t right = size_t(across.high[x]) * picture.pixel_bytes;
      uint8_t* to = out.at(x, y);
      for (size_t c = 0; c < 3; ++c) {
        const int nw = above[left + c], ne = above[right + c], sw = below[left + c], se = below[right + c];
        const int top = (nw * across.near[x] + ne * across.far[x]) >> 4;
        const int bottom = (sw * across.near[x] + se * across.far[x]) >> 4;
        const int mixed = (((top * down.near[y]) >> 16) + ((bottom * down.far[y]) >> 16) + 2) >> 2;
        to[c] = uint8_t(is_same ? nw : is_half ? (nw + ne + sw + se + 2) >> 2 : mixed);
      }
    }
  }
  return out;
}

namespace detail {

/** Rows and columns to which a picture is resized whose longer side has `longest` pixels; 0: as it is. */
inline std::array<int, 2> sized(const Picture& picture, int longest) {
  if (!picture.rgb || picture.width < 1 || picture.height < 1 || picture.pixel_bytes < 3) {
    throw Error("a picture has at least one pixel of three bytes. Give a real one.");
  }
  const double scale = longest ? double(longest) / std::max(picture.width, picture.height) : 1.0;
  auto side = [&](int pixels) { return std::max(1, int(half_even(pixels * scale))); };
  return {side(picture.height), side(picture.width)};
}

}  // namespace detail

/** Resize, normalise and pad a picture; `longest` resizes its longer side to so many pixels. */
inline Input prepare(const Spec& spec, const Picture& picture, int longest = 0) {
  auto [rows, columns] = detail::sized(picture, longest);
  Input input;
  if (spec.canvas[0]) {
    const double fit = std::min({double(spec.canvas[0]) / rows, double(spec.canvas[1]) / columns, 1.0});
    rows = std::max(1, int(detail::half_even(rows * fit)));
    columns = std::max(1, int(detail::half_even(columns * fit)));
    input.height = spec.canvas[0], input.width = spec.canvas[1];
  } else {
    auto padded = [&](int n) { return (n + spec.multiple_of - 1) / spec.multiple_of * spec.multiple_of; };
    input.height = padded(rows), input.width = padded(columns);
  }
  input.ratio_x = float(columns) / float(picture.width);
  input.ratio_y = float(rows) / float(picture.height);
  input.images.assign(size_t(3) * input.height * input.width, 0.0f);

  const Pixels pixels = resized(picture, rows, columns);
  for (int plane = 0; plane < 3; ++plane) {
    const int channel = spec.bgr ? 2 - plane : plane;
    const float mean = spec.mean[size_t(channel)];
    for (int y = 0; y < rows; ++y) {
      float* to = &input.images[(size_t(plane) * input.height + y) * input.width];
      for (int x = 0; x < columns; ++x) to[x] = (float(pixels.at(x, y)[channel]) - mean) * spec.scale;
    }
  }
  return input;
}

/** Centre x, centre y, width, height of every anchor: by level, row, column, size. */
inline std::vector<std::array<float, 4>> anchors_of(const Spec& spec, int height, int width) {
  std::vector<std::array<float, 4>> anchors;
  for (const Level& level : spec.levels) {
    const int rows = (height + level.stride - 1) / level.stride;
    const int columns = (width + level.stride - 1) / level.stride;
    for (int y = 0; y < rows; ++y) {
      for (int x = 0; x < columns; ++x) {
        for (const float size : level.sizes) {
          anchors.push_back({float((x + spec.centre) * level.step), float((y + spec.centre) * level.step),
                             size, float(size * spec.height_per_width)});
        }
      }
    }
  }
  if (spec.clip) {
    for (auto& anchor : anchors) {
      for (size_t i = 0; i < 4; ++i) {
        anchor[i] = std::clamp(anchor[i], 0.0f, float(i % 2 ? height : width));
      }
    }
  }
  return anchors;
}

/** Greedy suppression of boxes sorted best first; the places of those that stay.
 *
 * `pixel` is 1 where the second corner of a box is its last pixel.
 */
inline std::vector<size_t> suppress(const std::vector<std::array<float, 4>>& boxes, double overlap,
                                    size_t cap, float pixel = 0) {
  auto area = [&](const std::array<float, 4>& box) {
    return std::max(box[2] - box[0] + pixel, 0.0f) * std::max(box[3] - box[1] + pixel, 0.0f);
  };
  std::vector<size_t> kept;
  for (size_t i = 0; i < boxes.size() && kept.size() < cap; ++i) {
    const auto& one = boxes[i];
    const bool is_hit = std::any_of(kept.begin(), kept.end(), [&](size_t k) {
      const auto& other = boxes[k];
      const float wide = std::min(one[2], other[2]) - std::max(one[0], other[0]) + pixel;
      const float high = std::min(one[3], other[3]) - std::max(one[1], other[1]) + pixel;
      if (wide <= 0 || high <= 0) return false;
      const float shared = wide * high;
      return shared / (area(one) + area(other) - shared) > overlap;
    });
    if (!is_hit) kept.push_back(i);
  }
  return kept;
}

/** Turn the network's outputs into faces in pixels of the picture, best first. */
inline std::vector<Face> read(const Spec& spec, const Outputs& outputs, const Input& input) {
  const auto anchors = anchors_of(spec, input.height, input.width);
  const size_t count = anchors.size(), points = 2 * count * size_t(spec.landmarks);
  if (outputs.values.size != count || outputs.boxes.size != 4 * count || outputs.landmarks.size != points) {
    throw Error("the network answers for " + std::to_string(outputs.values.size) + " anchors with " +
                std::to_string(outputs.boxes.size) + " sides and " + std::to_string(outputs.landmarks.size) +
                " sides of points; its spec has " + std::to_string(count) + " anchors and " +
                std::to_string(spec.landmarks) + " points each. Copy the bundle again.");
  }
  const double floor = spec.score_floor, infinite = std::numeric_limits<double>::infinity();
  const double odds = floor <= 0 ? -infinite : floor >= 1 ? infinite : std::log(floor / (1 - floor));
  const double limit = spec.is_decoded ? floor : odds;
  std::vector<size_t> order;
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan(outputs.values[i])) {
      throw Error("the network gives values that are no numbers. Copy the bundle again.");
    }
    if (outputs.values[i] >= limit) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return outputs.values[a] > outputs.values[b]; });
  order.resize(std::min(order.size(), spec.pre_nms));

  std::vector<std::array<float, 4>> boxes;
  for (const size_t i : order) {
    const float* told = &outputs.boxes[4 * i];
    if (spec.is_decoded) {
      boxes.push_back({told[0], told[1], told[2], told[3]});
      continue;
    }
    // Liu et al., "SSD", arXiv:1512.02325, equation 2.
    const auto& anchor = anchors[i];
    const double x = anchor[0] + told[0] * spec.centre_variance * anchor[2];
    const double y = anchor[1] + told[1] * spec.centre_variance * anchor[3];
    const double w = anchor[2] * std::exp(told[2] * spec.size_variance) / 2;
    const double h = anchor[3] * std::exp(told[3] * spec.size_variance) / 2;
    boxes.push_back({float(x - w), float(y - h), float(x + w), float(y + h)});
  }

  std::vector<Face> faces;
  for (const size_t k : suppress(boxes, spec.overlap, spec.cap)) {
    const size_t i = order[k];
    const auto& box = boxes[k];
    const float value = outputs.values[i];
    Face face{{box[0] / input.ratio_x, box[1] / input.ratio_y, box[2] / input.ratio_x,
               box[3] / input.ratio_y},
              spec.is_decoded ? value : float(1 / (1 + std::exp(-double(value)))),
              {}};
    for (int point = 0; point < spec.landmarks; ++point) {
      const float* told = &outputs.landmarks[2 * (i * size_t(spec.landmarks) + size_t(point))];
      std::array<float, 2> at{told[0], told[1]};
      if (!spec.is_decoded) {
        const auto& anchor = anchors[i];
        at = {float(anchor[0] + told[0] * spec.centre_variance * anchor[2]),
              float(anchor[1] + told[1] * spec.centre_variance * anchor[3])};
      }
      face.landmarks.push_back({at[0] / input.ratio_x, at[1] / input.ratio_y});
    }
    faces.push_back(face);
  }
  return faces;
}

}  // namespace slimface
