// Score images with one ONNX file: dotnet run -- kit.onnx IMAGE...
// Not tested: no .NET SDK was at hand where this was written.

using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;
using SkiaSharp;

string[] labels = ["normal", "warn", "reject"];
using var options = new SessionOptions { LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR };
using var session = new InferenceSession(args[0], options);

foreach (var path in args.Skip(1))
{
    using var image = SKBitmap.Decode(path) ?? throw new IOException($"{path}: not an image"); // as stored, not as EXIF says
    var pixels = image.Pixels.SelectMany(each => new[] { each.Red, each.Green, each.Blue }).ToArray(); // row by row
    var input = new DenseTensor<byte>(pixels, [1, image.Height, image.Width, 3]);
    using var found = session.Run([NamedOnnxValue.CreateFromTensor("image", input)], ["score", "p_value", "verdict"]);
    var score = found[0].AsTensor<double>()[0];
    var pValue = found[1].AsTensor<double>()[0];
    var verdict = labels[found[2].AsTensor<int>()[0]];
    Console.WriteLine($"{path}\t{verdict}\tscore {score:F6}\tp-value {pValue:F6}");
}
