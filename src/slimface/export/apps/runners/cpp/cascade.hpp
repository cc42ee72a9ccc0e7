// Faces by three small networks in a row, each looking at what the one before has left (MTCNN):
// C++17, from spec.json of a slimface bundle, no library. A runtime computes the networks:
//
//   const slimface::Cascade cascade(slimface::CascadeSpec::of(told, "onnx", where), network);
//   const auto faces = cascade(picture);                             // pixels of the picture
//
// Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
// 2016, arXiv:1604.02878. The rules in which published systems differ are in the spec. Boxes are
// computed in 32 bits, since they are rounded to pixels on the way: build without contraction of
// products and sums (-ffp-contract=off), or boxes at the edge of rounding move by a pixel.
#pragma once

#include <functional>
#include <numeric>

#include "windows.hpp"

namespace slimface {

/** What spec.json says of a cascade. */
struct CascadeSpec : Spec {
  static constexpr int cell_px = 12, cell_stride = 2;
  static constexpr std::array<const char*, 3> nets{"pnet", "rnet", "onet"};

  double min_face_px = 20, factor = 0.709;
  bool is_area = true, is_floor = true, is_cut = true, is_inclusive = false, is_square = false, is_ceil = true;
  int level_pixel = 1;
  std::array<float, 3> offset_pixels{0, 1, 1};
  double proposal_floor = 0.6, level_overlap = 0.5, proposal_overlap = 0.7;
  double refine_floor = 0.7, refine_overlap = 0.7;
  size_t proposals = 20000;

  static CascadeSpec of(const Json& told, const std::string& format, const std::string& where) {
    CascadeSpec spec;
    static_cast<Spec&>(spec) = Spec::of(told, format, where, "cascade");
    const Json& model = told["spec"];
    spec.min_face_px = model["min_face_px"].number();
    spec.factor = model["factor"].number();
    if (!(spec.min_face_px > 0 && spec.factor > 0 && spec.factor < 1)) {
      throw Error(where + ": the pyramid has no end. Copy the bundle again.");
    }
    spec.is_area = model["resize"].text() == "area";
    spec.is_floor = model["cells"].text() == "floor";
    spec.is_cut = model["crop"].text() == "cut";
    spec.is_inclusive = model["inclusive"].boolean();
    spec.is_square = model["square_last"].boolean();
    const Json& options = model["architecture"]["options"];
    spec.is_ceil = !options.has("ceil") || options["ceil"].boolean();
    spec.level_pixel = model["level_pixel"].integer();
    const auto& pixels = model["offset_pixels"].list();
    for (size_t i = 0; i < 3 && i < pixels.size(); ++i) spec.offset_pixels[i] = float(pixels[i].number());
    spec.proposal_floor = model["proposal_floor"].number();
    spec.level_overlap = model["level_overlap"].number();
    spec.proposal_overlap = model["proposal_overlap"].number();
    spec.refine_floor = model["refine_floor"].number();
    spec.refine_overlap = model["refine_overlap"].number();
    spec.proposals = size_t(model["proposals"].number());
    return spec;
  }

  /** How many cells the first network has along a side of so many pixels, from 12 on. */
  int cells_along(int side) const { return (side - cell_px + is_ceil) / cell_stride + 1; }
};

class Cascade {
 public:
  /** What a network answers: logits, four offsets a box, points (of the last network). */
  struct Answer {
    std::vector<float> logits, offsets, landmarks;
  };

  /** From the number of a network and images (count, 3, height, width) to its answer. */
  using Network = std::function<Answer(size_t net, std::vector<float>& images, const std::array<int64_t, 4>& shape)>;

  CascadeSpec spec;
  // Rows of the pyramid go through the first network in bands of about so many pixels, and crops so
  // many at once: memory does not grow with the picture.
  int band_pixels = 1 << 16;
  size_t batch = 256;

  Cascade(CascadeSpec rules, Network network) : spec(std::move(rules)), network_(std::move(network)) {}

  /** Find faces, best first; `longest` resizes the longer side of the picture to so many pixels. */
  std::vector<Face> operator()(const Picture& picture, int longest = 0) const {
    const auto [rows, columns] = detail::sized(picture, longest);
    Windowed view(resized(picture, rows, columns), spec.is_area);
    auto found = proposed(view);
    found = judged(view, found, 1, 24, spec.refine_floor);
    found = squared(suppressed(found, spec.refine_overlap), 1);
    found = judged(view, found, 2, 48, spec.score_floor);
    return faces(std::move(found), float(columns) / float(picture.width), float(rows) / float(picture.height));
  }

 private:
  using Box = std::array<float, 4>;

  struct Found {
    Box box;
    float score;
    std::array<float, 4> offsets;
    std::vector<float> points;
  };
  using List = std::vector<Found>;

  /** The first network, over a pyramid of the picture. */
  List proposed(Windowed& view) const {
    List found;
    for (double scale = CascadeSpec::cell_px / spec.min_face_px;; scale *= spec.factor) {
      const int rows = int(view.height() * scale + spec.level_pixel);
      const int columns = int(view.width() * scale + spec.level_pixel);
      if (std::min(rows, columns) <= CascadeSpec::cell_px) break;
      const int cells = spec.cells_along(rows);
      const int step = std::max(1, band_pixels / (CascadeSpec::cell_stride * columns));
      List here;
      for (int first = 0; first < cells; first += step) {
        scan(view, {rows, columns}, float(scale), first, std::min(first + step, cells), here);
      }
      for (Found& one : suppressed(best(std::move(here)), spec.level_overlap)) found.push_back(std::move(one));
    }
    return squared(suppressed(best(std::move(found)), spec.proposal_overlap), 0);
  }

  /** The first network, over some rows of the cells of one level. */
  void scan(Windowed& view, std::array<int, 2> level, float scale, int first, int last, List& found) const {
    const auto [rows, columns] = level;
    const int across = spec.cells_along(columns), top = CascadeSpec::cell_stride * first;
    // The last row of cells takes what is left: pools may round up.
    const bool is_end = last == spec.cells_along(rows);
    const int bottom = is_end ? rows : CascadeSpec::cell_stride * (last - 1) + CascadeSpec::cell_px;
    auto band = view.rows(rows, columns, top, bottom);
    const size_t count = size_t(last - first) * size_t(across);
    const Answer raw = answer(0, band, {1, 3, bottom - top, columns}, count);
    const double floor = spec.proposal_floor, infinite = std::numeric_limits<double>::infinity();
    const auto limit =
        float(floor <= 0 ? -infinite : floor >= 1 ? infinite : std::log(floor / (1 - floor)));
    for (size_t i = 0; i < count; ++i) {
      if (raw.logits[i] < limit) continue;
      const int x = int(i) % across, y = first + int(i) / across;
      found.push_back({cell(x, y, scale), sigmoid(raw.logits[i]), four(&raw.offsets[4 * i]), {}});
    }
  }

  /** Show the crops of all boxes to a network; keep those that it scores high enough, best first. */
  List judged(const Windowed& view, const List& found, size_t net, int side, double floor) const {
    const size_t size = size_t(3) * size_t(side) * size_t(side);
    const size_t points = net == 2 ? 2 * size_t(spec.landmarks) : 0;
    List kept;
    for (size_t start = 0; start < found.size(); start += batch) {
      const size_t count = std::min(batch, found.size() - start);
      std::vector<float> crops(count * size);
      for (size_t i = 0; i < count; ++i) {
        view.crop(window(found[start + i].box, view), side, &crops[i * size]);
      }
      const Answer raw = answer(net, crops, {int64_t(count), 3, side, side}, count);
      for (size_t i = 0; i < count; ++i) {
        const float score = sigmoid(raw.logits[i]);
        if (score < float(floor)) continue;
        const auto from = raw.landmarks.begin() + std::ptrdiff_t(i * points);
        kept.push_back({found[start + i].box, score, four(&raw.offsets[4 * i]),
                        {from, from + std::ptrdiff_t(points)}});
      }
    }
    return best(std::move(kept));
  }

  /** What a network answers to pixels of 0..255. */
  Answer answer(size_t net, std::vector<float>& pixels, const std::array<int64_t, 4>& shape, size_t count) const {
    normalise(pixels, size_t(shape[2] * shape[3]));
    Answer raw = network_(net, pixels, shape);
    const size_t points = net == 2 ? 2 * size_t(spec.landmarks) * count : raw.landmarks.size();
    if (raw.logits.size() != count || raw.offsets.size() != 4 * count || raw.landmarks.size() != points) {
      throw Error(std::string(CascadeSpec::nets[net]) + " gives " + std::to_string(raw.logits.size()) +
                  " logits, " + std::to_string(raw.offsets.size()) + " offsets and " +
                  std::to_string(raw.landmarks.size()) + " sides of landmarks where " + std::to_string(count) +
                  " boxes are asked for. Copy the bundle again.");
    }
    for (const auto* values : {&raw.logits, &raw.offsets}) {
      if (!std::all_of(values->begin(), values->end(), [](float value) { return std::isfinite(value); })) {
        throw Error(std::string(CascadeSpec::nets[net]) + " gives values that are no numbers. Copy the bundle again.");
      }
    }
    return raw;
  }

  void normalise(std::vector<float>& pixels, size_t size) const {
    for (size_t start = 0; start < pixels.size(); start += 3 * size) {
      for (size_t i = 0; i < 3 * size; ++i) {
        pixels[start + i] = (pixels[start + i] - spec.mean[i / size]) * spec.scale;
      }
      const auto image = pixels.begin() + std::ptrdiff_t(start);
      const auto plane = std::ptrdiff_t(size);
      if (spec.bgr) std::swap_ranges(image, image + plane, image + 2 * plane);
    }
  }

  List best(List found) const {
    std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.score > b.score; });
    if (found.size() > spec.proposals) found.erase(found.begin() + std::ptrdiff_t(spec.proposals), found.end());
    return found;
  }

  List suppressed(const List& found, double overlap) const {
    std::vector<Box> boxes;
    for (const Found& one : found) boxes.push_back(one.box);
    List kept;
    for (const size_t k : suppress(boxes, overlap, boxes.size(), pixel())) kept.push_back(found[k]);
    return kept;
  }

  /** By the share of the smaller box, last pixels included: a small box within a large one goes. */
  static List suppressed_by_smaller(const List& found, float overlap) {
    auto area = [](const Box& box) {
      return std::max(box[2] - box[0] + 1, 0.0f) * std::max(box[3] - box[1] + 1, 0.0f);
    };
    List kept;
    for (const Found& one : found) {
      const Box& a = one.box;
      const bool is_hit = std::any_of(kept.begin(), kept.end(), [&](const Found& other) {
        const Box& b = other.box;
        const float wide = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1, 0.0f);
        const float high = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1, 0.0f);
        const float smaller = std::max(std::min(area(a), area(b)), std::numeric_limits<float>::min());
        return wide * high / smaller > overlap;
      });
      if (!is_hit) kept.push_back(one);
    }
    return kept;
  }

  /** Move boxes by their offsets, and make them what the next network sees. */
  List squared(List found, size_t net) const {
    for (Found& one : found) one.box = square(moved(one, net));
    return found;
  }

  /** From what the third network has left to faces of the picture. */
  std::vector<Face> faces(List found, float ratio_x, float ratio_y) const {
    if (found.size() > spec.pre_nms) found.erase(found.begin() + std::ptrdiff_t(spec.pre_nms), found.end());
    for (Found& one : found) {
      // Landmarks are fractions of the box that the network has seen, not of the one it moves it to.
      const auto sides = sides_of(one.box, 2);
      for (size_t i = 0; i < one.points.size(); ++i) {
        one.points[i] = one.box[i % 2] + one.points[i] * sides[i % 2] - float(spec.is_cut);
      }
      one.box = moved(one, 2);
    }
    std::vector<Face> faces;
    for (const Found& one : suppressed_by_smaller(found, float(spec.overlap))) {
      if (faces.size() == spec.cap) break;
      const Box box = spec.is_square ? square(one.box) : one.box;
      Face face{{box[0] / ratio_x, box[1] / ratio_y, (box[2] + pixel()) / ratio_x, (box[3] + pixel()) / ratio_y},
                one.score, {}};
      for (size_t i = 0; i + 1 < one.points.size(); i += 2) {
        face.landmarks.push_back({one.points[i] / ratio_x, one.points[i + 1] / ratio_y});
      }
      faces.push_back(std::move(face));
    }
    return faces;
  }

  Box cell(int x, int y, float scale) const {
    const int left = CascadeSpec::cell_stride * x, top = CascadeSpec::cell_stride * y, first = spec.is_floor;
    Box box{float(left + first), float(top + first), float(left + CascadeSpec::cell_px),
            float(top + CascadeSpec::cell_px)};
    for (float& side : box) side = spec.is_floor ? std::floor(side / scale) : std::nearbyint(side / scale);
    return box;
  }

  /** Which pixels of a picture a network gets to see of a box; at least one. */
  Window window(const Box& box, const Windowed& view) const {
    Window out{};
    const std::array<int, 2> most{view.width(), view.height()};
    for (size_t i = 0; i < 4; ++i) {
      // Boxes may lie far outside: they are cut before they become whole numbers.
      const float side = std::clamp(box[i], -1e8f, 1e8f);
      out[i] = spec.is_cut ? std::clamp(int(side), 1, most[i % 2]) - (i < 2) : int(std::nearbyint(side)) + (i > 1);
    }
    for (size_t i = 0; i < 2; ++i) out[i + 2] = std::max(out[i + 2], out[i] + 1);
    return out;
  }

  std::array<float, 2> sides_of(const Box& box, size_t net) const {
    return {box[2] - box[0] + spec.offset_pixels[net], box[3] - box[1] + spec.offset_pixels[net]};
  }

  Box moved(const Found& found, size_t net) const {
    const auto sides = sides_of(found.box, net);
    Box box = found.box;
    for (size_t i = 0; i < 4; ++i) box[i] += found.offsets[i] * sides[i % 2];
    return box;
  }

  /** The square of the longer side around the same centre. */
  Box square(const Box& box) const {
    const std::array<float, 2> sides{box[2] - box[0] + pixel(), box[3] - box[1] + pixel()};
    const float longest = std::max(sides[0], sides[1]);
    Box out{};
    for (size_t i = 0; i < 2; ++i) {
      out[i] = box[i] + (sides[i] - longest) * 0.5f;
      out[i + 2] = out[i] + longest - pixel();
    }
    if (!spec.is_cut) {
      for (float& side : out) side = std::nearbyint(side);
    }
    return out;
  }

  float pixel() const { return float(spec.is_inclusive); }

  static std::array<float, 4> four(const float* values) { return {values[0], values[1], values[2], values[3]}; }

  // In 32 bits many scores are 1, and of those the first goes before the others.
  static float sigmoid(float value) { return 1.0f / (1.0f + std::exp(-std::max(value, -87.0f))); }

  Network network_;
};

}  // namespace slimface
