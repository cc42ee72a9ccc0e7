// Faces in a picture, with ONNX Runtime:
//
//   detect BUNDLE PICTURE.ppm      a line a face: score, x1, y1, x2, y2, and x, y of landmarks
//   detect BUNDLE --golden         proves this build on the golden picture
#include <onnxruntime_cxx_api.h>

#include "cascade.hpp"
#include "golden.hpp"

namespace slimface {

class Network {
 public:
  explicit Network(const std::string& path) {
    const std::string model = read_text(path);
    try {
      session_ = Ort::Session(environment(), model.data(), model.size(), Ort::SessionOptions{});
    } catch (const Ort::Exception& error) {
      throw Error(path + ": " + error.what() + " Copy the bundle again.");
    }
  }

  std::vector<std::vector<float>> operator()(std::vector<float>& images, const std::array<int64_t, 4>& shape,
                                             const std::vector<std::string>& outputs) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value given =
        Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape.data(), shape.size());
    const char* in = "images";
    std::vector<const char*> names;
    for (const std::string& name : outputs) names.push_back(name.c_str());
    std::vector<std::vector<float>> answers;
    for (const auto& tensor : session_.Run(Ort::RunOptions{}, &in, &given, 1, names.data(), names.size())) {
      const float* values = tensor.GetTensorData<float>();
      answers.emplace_back(values, values + tensor.GetTensorTypeAndShapeInfo().GetElementCount());
    }
    return answers;
  }

 private:
  static Ort::Env& environment() {
    static Ort::Env environment{ORT_LOGGING_LEVEL_ERROR, "slimface"};
    return environment;
  }

  Ort::Session session_{nullptr};
};

}  // namespace slimface

#include "detect_main.hpp"
