// Score images with one ONNX file: score kit.onnx IMAGE.ppm...
// Images are binary PPM files (P6, 8 bits a channel), so that no image library is needed.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  std::int64_t height, width;
  std::vector<std::uint8_t> pixels;  // RGB, row by row
};

static Image read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  std::int64_t width = 0, height = 0, largest = 0;
  file >> magic >> width >> height >> largest;
  if (!file || magic != "P6" || largest != 255 || width < 1 || height < 1)
    throw std::runtime_error(std::string(path) + ": not a binary PPM file with 8 bits a channel");
  file.get();  // one white-space character ends the header
  Image image{height, width, std::vector<std::uint8_t>(height * width * 3)};
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()))
    throw std::runtime_error(std::string(path) + ": ends too early");
  return image;
}

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: score kit.onnx IMAGE.ppm...");
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
  Ort::SessionOptions options;
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);  // otherwise it warns that both limits may be given
  Ort::Session session(environment, arguments[1], options);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"image"};
  const char* outputs[] = {"score", "p_value", "verdict"};
  const char* labels[] = {"normal", "warn", "reject"};
  for (int place = 2; place < count; ++place) {
    Image image = read_ppm(arguments[place]);
    const std::array<std::int64_t, 4> shape{1, image.height, image.width, 3};
    const Ort::Value input = Ort::Value::CreateTensor<std::uint8_t>(
        memory, image.pixels.data(), image.pixels.size(), shape.data(), shape.size());
    const auto found = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs, 3);
    std::printf("%s\t%s\tscore %.6f\tp-value %.6f\n", arguments[place],
                labels[*found[2].GetTensorData<std::int32_t>()],
                *found[0].GetTensorData<double>(), *found[1].GetTensorData<double>());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
