// The command line of every runtime; included after its Network:
//
//   explicit Network(const std::string& path);
//   std::vector<std::vector<float>> operator()(std::vector<float>& images,    // (n, 3, height, width)
//                                              const std::array<int64_t, 4>& shape,
//                                              const std::vector<std::string>& outputs);
#pragma once

#include <memory>

namespace slimface {

/** One network, or the three of a cascade. */
class Detector {
 public:
  std::string golden;

  Detector(const Detector&) = delete;

  Detector(const std::string& bundle, const std::string& format) {
    const std::string place = bundle + "/spec.json";
    const Json told = Json::parse(read_text(place), place);
    if (told["spec"]["task"].text() == "cascade") {
      CascadeSpec spec = CascadeSpec::of(told, format, place);
      golden = bundle + "/" + spec.golden;
      const std::string ending = format == "openvino" ? ".xml" : "." + format;
      for (const char* net : CascadeSpec::nets) {
        networks_.push_back(std::make_unique<Network>(bundle + "/" + spec.file + "/" + net + ending));
      }
      cascade_ = std::make_unique<Cascade>(
          std::move(spec),
          [this](size_t net, std::vector<float>& images, const std::array<int64_t, 4>& shape) {
            return answer(net, images, shape);
          });
    } else {
      spec_ = Spec::of(told, format, place);
      golden = bundle + "/" + spec_.golden;
      networks_.push_back(std::make_unique<Network>(bundle + "/" + spec_.file));
    }
  }

  std::vector<Face> operator()(const Picture& picture) {
    return cascade_ ? (*cascade_)(picture) : (*this)(prepare(spec_, picture));
  }

  std::vector<Face> operator()(Input input) {
    const std::array<int64_t, 4> shape{1, 3, input.height, input.width};
    std::vector<std::string> names{spec_.is_decoded ? "scores" : "logits", spec_.is_decoded ? "boxes" : "offsets"};
    if (spec_.landmarks) names.push_back("landmarks");
    auto given = (*networks_[0])(input.images, shape, names);
    given.resize(3);
    auto tensor = [&](size_t i) -> Outputs::Tensor { return {given[i].data(), given[i].size()}; };
    return read(spec_, {tensor(0), tensor(1), tensor(2)}, input);
  }

  /** Prove this build on the golden picture; return how much is wrong. */
  int prove() {
    const Golden told(golden);
    if (cascade_) return judge_faces(told, (*cascade_)(told.picture));
    return slimface::prove(spec_, told, [this](const Input& input) { return (*this)(input); });
  }

 private:
  Cascade::Answer answer(size_t net, std::vector<float>& images, const std::array<int64_t, 4>& shape) {
    std::vector<std::string> names{"logits", "offsets"};
    if (net == 2 && cascade_->spec.landmarks) names.push_back("landmarks");
    auto given = (*networks_[net])(images, shape, names);
    given.resize(3);
    return {std::move(given[0]), std::move(given[1]), std::move(given[2])};
  }

  Spec spec_;
  std::unique_ptr<Cascade> cascade_;
  std::vector<std::unique_ptr<Network>> networks_;
};

}  // namespace slimface

int main(int count, char** words) try {
  if (count < 3) throw slimface::Error("usage: detect BUNDLE (PICTURE.ppm | --golden) [FORMAT]");
  const std::string what = words[2];
  slimface::Detector detector(words[1], count > 3 ? words[3] : "onnx");
  if (what == "--golden") return detector.prove() ? 1 : 0;
  std::vector<uint8_t> pixels;
  slimface::Picture picture;
  slimface::Golden::read_ppm(what, pixels, picture);
  for (const auto& face : detector(picture)) {
    std::printf("%.4f %.2f %.2f %.2f %.2f", face.score, face.box[0], face.box[1], face.box[2], face.box[3]);
    for (const auto& point : face.landmarks) std::printf(" %.2f %.2f", point[0], point[1]);
    std::printf("\n");
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "Error: %s\n", error.what());
  return 1;
}
