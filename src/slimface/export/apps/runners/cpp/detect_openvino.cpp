// Faces in a picture, with OpenVINO (which opens ONNX files and its own):
//
//   detect BUNDLE PICTURE.ppm      a line a face: score, x1, y1, x2, y2
//   detect BUNDLE --golden         proves this build on the golden picture
#include <openvino/openvino.hpp>

#include "golden.hpp"

class Detector {
 public:
  Detector(const std::string& bundle, const std::string& format)
      : spec(slimface::Spec::read(bundle + "/spec.json", format)) {
    ov::Core core;
    const auto told = ov::hint::inference_precision(ov::element::f32);
    compiled_ = core.compile_model(bundle + "/" + spec.file, "CPU", told);
    request_ = compiled_.create_infer_request();
  }

  std::vector<slimface::Face> operator()(const slimface::Input& input) {
    const ov::Shape shape{1, 3, size_t(input.height), size_t(input.width)};
    request_.set_input_tensor(ov::Tensor(ov::element::f32, shape, const_cast<float*>(input.images.data())));
    request_.infer();
    const auto tensor = [&](const std::string& name) -> slimface::Outputs::Tensor {
      const ov::Tensor given = request_.get_tensor(name);
      return {given.data<float>(), given.get_size()};
    };
    const auto points = spec.landmarks ? tensor("landmarks") : slimface::Outputs::Tensor{};
    return slimface::read(spec, {tensor(spec.is_decoded ? "scores" : "logits"), tensor(spec.is_decoded ? "boxes" : "offsets"), points}, input);
  }

  slimface::Spec spec;

 private:
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
};

#include "detect_main.hpp"
