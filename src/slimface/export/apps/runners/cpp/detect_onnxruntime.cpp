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
    try {
      session_ = Ort::Session(environment_, model.data(), model.size(), Ort::SessionOptions{});
    } catch (const Ort::Exception& error) {
      throw slimface::Error(bundle + "/" + spec.file + ": " + error.what() + " Copy the bundle again.");
    }
  }

  std::vector<slimface::Face> operator()(const slimface::Input& input) {
    const std::array<int64_t, 4> shape{1, 3, input.height, input.width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value images = Ort::Value::CreateTensor<float>(memory, const_cast<float*>(input.images.data()),
                                                        input.images.size(), shape.data(), shape.size());
    const char* in = "images";
    const char* out[] = {spec.is_decoded ? "scores" : "logits", spec.is_decoded ? "boxes" : "offsets", "landmarks"};
    const auto given = session_.Run(Ort::RunOptions{}, &in, &images, 1, out, spec.landmarks ? 3 : 2);
    const auto tensor = [&](size_t i) -> slimface::Outputs::Tensor {
      if (i >= given.size()) return {};
      return {given[i].GetTensorData<float>(), given[i].GetTensorTypeAndShapeInfo().GetElementCount()};
    };
    return slimface::read(spec, {tensor(0), tensor(1), tensor(2)}, input);
  }

  slimface::Spec spec;

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "slimface"};
  Ort::Session session_{nullptr};
};

#include "detect_main.hpp"
