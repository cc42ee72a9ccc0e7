// Proves preprocessing and decoding on the golden picture, without any runtime:
//
//   golden BUNDLE [FORMAT]
#include "golden.hpp"

int main(int count, char** words) try {
  if (count < 2) throw slimface::Error("usage: golden BUNDLE [FORMAT]");
  const std::string bundle = words[1];
  const auto told = slimface::Json::parse(slimface::read_text(bundle + "/spec.json"), bundle + "/spec.json");
  if (told["spec"]["task"].text() == "cascade") {
    std::puts("A cascade has no golden tensors: build with an ENGINE, and run detect --golden.");
    return 77;
  }
  const auto spec = slimface::Spec::of(told, count > 2 ? words[2] : "onnx", bundle + "/spec.json");
  const slimface::Golden golden(bundle + "/" + spec.golden);
  const int wrong = slimface::prove(spec, golden, [&](const slimface::Input& input) {
    const auto values = golden.tensor(spec.is_decoded ? "scores" : "logits");
    const auto boxes = golden.tensor(spec.is_decoded ? "boxes" : "offsets");
    const auto points = spec.landmarks ? golden.tensor("landmarks") : std::vector<float>();
    return slimface::read(spec, {{values.data(), values.size()}, {boxes.data(), boxes.size()}, {points.data(), points.size()}}, input);
  });
  return wrong ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "Error: %s\n", error.what());
  return 1;
}
