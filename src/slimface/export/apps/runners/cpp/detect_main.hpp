// The command line of every runtime; included after its Detector.
#pragma once

int main(int count, char** words) try {
  if (count < 3) throw slimface::Error("usage: detect BUNDLE (PICTURE.ppm | --golden) [FORMAT]");
  const std::string bundle = words[1], what = words[2];
  Detector detector(bundle, count > 3 ? words[3] : "onnx");
  if (what == "--golden") {
    const slimface::Golden golden(bundle + "/" + detector.spec.golden);
    return slimface::prove(detector.spec, golden, [&](const auto& input) { return detector(input); }) ? 1 : 0;
  }
  std::vector<uint8_t> pixels;
  slimface::Picture picture;
  slimface::Golden::read_ppm(what, pixels, picture);
  for (const auto& face : detector(slimface::prepare(detector.spec, picture))) {
    std::printf("%.4f %.2f %.2f %.2f %.2f\n", face.score, face.box[0], face.box[1], face.box[2], face.box[3]);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "Error: %s\n", error.what());
  return 1;
}
