// The golden picture of a bundle: what goes in, what comes out, and the faces.
#pragma once

#include <cstdio>
#include <functional>

#include "slimface.hpp"

namespace slimface {

struct Golden {
  std::string folder;
  Json told;
  std::vector<uint8_t> pixels;
  Picture picture;

  explicit Golden(const std::string& place)
      : folder(place), told(Json::parse(read_text(place + "/golden.json"), place + "/golden.json")) {
    read_ppm(place + "/picture.ppm", pixels, picture);
  }

  std::vector<float> tensor(const std::string& name) const {
    const std::string bytes = read_text(folder + "/" + name + ".f32");
    std::vector<float> values(bytes.size() / sizeof(float));
    std::copy_n(bytes.data(), values.size() * sizeof(float), reinterpret_cast<char*>(values.data()));
    return values;
  }

  /** Read a PPM (P6, 8 bits): the one kind of picture that needs no library. */
  static void read_ppm(const std::string& path, std::vector<uint8_t>& pixels, Picture& picture) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int most = 0;
    file >> kind >> picture.width >> picture.height >> most;
    file.get();
    const bool is_sane = file && kind == "P6" && most == 255 && picture.width > 0 &&
                         picture.height > 0 && picture.width < 1 << 15 && picture.height < 1 << 15;
    if (is_sane) {
      pixels.resize(size_t(3) * size_t(picture.width) * size_t(picture.height));
      file.read(reinterpret_cast<char*>(pixels.data()), std::streamsize(pixels.size()));
    }
    if (!is_sane || file.gcount() != std::streamsize(pixels.size())) {
      throw Error(path + " is no whole PPM of 8 bits. Convert the picture: convert in.jpg out.ppm");
    }
    picture.rgb = pixels.data();
  }
};

/** Print a line; count what is wrong. */
inline int judged(const std::string& what, double far, double allowed) {
  const bool is_right = far <= allowed;
  std::printf("%s: %.2g apart, %.2g allowed: %s\n", what.c_str(), far, allowed,
              is_right ? "passed" : "FAILED");
  return is_right ? 0 : 1;
}

inline double apart(const std::vector<float>& one, const std::vector<float>& other) {
  if (one.size() != other.size()) return std::numeric_limits<double>::infinity();
  double far = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    const double gap = std::abs(double(one[i]) - other[i]);
    if (!(gap <= far)) far = gap;
  }
  return far;
}

/** Compare faces, whatever their order, by the golden tolerance. */
inline int judge_faces(const Golden& golden, const std::vector<Face>& faces) {
  const auto& wanted = golden.told["faces"].list();
  if (wanted.size() != faces.size()) {
    std::printf("faces: %zu, not %zu: FAILED\n", faces.size(), wanted.size());
    return 1;
  }
  double box = 0, score = 0;
  for (const Json& one : wanted) {
    // The nearest is its partner; each golden face has to have one.
    double best = std::numeric_limits<double>::infinity(), best_score = best;
    for (const Face& face : faces) {
      double far = 0;
      for (size_t i = 0; i < 4; ++i) {
        far = std::max(far, std::abs(one["box"].list()[i].number() - face.box[i]));
      }
      for (size_t k = 0; one.has("landmarks") && k < face.landmarks.size(); ++k) {
        for (size_t i = 0; i < 2; ++i) {
          const double at = one["landmarks"].list()[k].list()[i].number();
          far = std::max(far, std::abs(at - face.landmarks[k][i]));
        }
      }
      if (far < best) best = far, best_score = std::abs(one["score"].number() - face.score);
    }
    box = std::max(box, best), score = std::max(score, best_score);
  }
  const Json& allowed = golden.told["tolerance"];
  return judged("faces: corners and landmarks in pixels", box, allowed["box_px"].number()) +
         judged("faces: scores", score, allowed["score"].number());
}

using Detect = std::function<std::vector<Face>(const Input&)>;

/** Prove preprocessing, network and decoding on the golden picture; return how much is wrong. */
inline int prove(const Spec& spec, const Golden& golden, const Detect& detect) {
  const Input input = prepare(spec, golden.picture);
  const Input small = prepare(spec, golden.picture, golden.told["resized_longest_px"].integer());
  // One byte is what resizing may round to the other side.
  auto allowed = [&](const Input& one) {
    return one.ratio_x == 1 && one.ratio_y == 1 ? 1e-4 : 1.01 * spec.scale;
  };
  int wrong = judged("input", apart(input.images, golden.tensor("images")), allowed(input));
  wrong += judged("resized input", apart(small.images, golden.tensor("resized")), allowed(small));
  return wrong + judge_faces(golden, detect(input));
}

}  // namespace slimface
