// Faces in a picture, with OpenVINO (which opens ONNX files and its own):
//
//   detect BUNDLE PICTURE.ppm      a line a face: score, x1, y1, x2, y2, and x, y of landmarks
//   detect BUNDLE --golden         proves this build on the golden picture
#include <openvino/openvino.hpp>

#include "cascade.hpp"
#include "golden.hpp"

namespace slimface {

class Network {
 public:
  explicit Network(const std::string& path) {
    const auto told = ov::hint::inference_precision(ov::element::f32);
    compiled_ = core().compile_model(path, "CPU", told);
    request_ = compiled_.create_infer_request();
  }

  std::vector<std::vector<float>> operator()(std::vector<float>& images, const std::array<int64_t, 4>& shape,
                                             const std::vector<std::string>& outputs) {
    request_.set_input_tensor(ov::Tensor(ov::element::f32, ov::Shape(shape.begin(), shape.end()), images.data()));
    request_.infer();
    std::vector<std::vector<float>> answers;
    for (const std::string& name : outputs) {
      const ov::Tensor tensor = request_.get_tensor(name);
      answers.emplace_back(tensor.data<float>(), tensor.data<float>() + tensor.get_size());
    }
    return answers;
  }

 private:
  static ov::Core& core() {
    static ov::Core core;
    return core;
  }

  ov::CompiledModel compiled_;
  ov::InferRequest request_;
};

}  // namespace slimface

#include "detect_main.hpp"
