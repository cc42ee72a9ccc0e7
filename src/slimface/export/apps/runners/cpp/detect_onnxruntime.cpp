// Faces in a picture, with ONNX Runtime:
//
//   detect BUNDLE PICTURE.ppm      a line a face: score, x1, y1, x2, y2
//   detect BUNDLE --golden         proves this build on the golden picture
#include <onnxruntime_cxx_api.h>

#include "golden.hpp"

class Detector {
 public:
  Detector(const std::string& bundle, const std::string& format)
      : spec(slimface::Spec::read(bundle + "/spec.json", format)) {
    const std::string model = slimface::read_text(bundle + "/" + spec.file);
    session_ = Ort::Session(environment_, model.data(), model.size(), Ort::SessionOptions{});
  }

  std::vector<slimface::Face> operator()(const slimface::Input& input) {
    const std::array<int64_t, 4> shape{1, 3, input.height, input.width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value images = Ort::Value::CreateTensor<float>(memory, const_cast<float*>(input.images.data()),
                                                        input.images.size(), shape.data(), shape.size());
    const char* in = "images";
    const char* out[] = {spec.is_decoded ? "scores" : "logits", spec.is_decoded ? "boxes" : "offsets", "landmarks"};
    const auto given = session_.Run(Ort::RunOptions{}, &in, &images, 1, out, spec.landmarks ? 3 : 2);
    const float* points = spec.landmarks ? given[2].GetTensorData<float>() : nullptr;
    const size_t count = given[0].GetTensorTypeAndShapeInfo().GetElementCount();
    return slimface::read(spec, {given[0].GetTensorData<float>(), count, given[1].GetTensorData<float>(), points}, input);
  }

  slimface::Spec spec;

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "slimface"};
  Ort::Session session_{nullptr};
};

#include "detect_main.hpp"
