"""Code that sends an image to a server, for the pages of the server and of the documentation."""

from dataclasses import dataclass, replace

BASE = "http://127.0.0.1:8000"
"""The address in the samples."""


@dataclass(frozen=True)
class Sample:
    """A program in one language."""

    lang: str
    source: str
    label: str = ""
    """What it does, where a path has two samples of a language."""

    @property
    def title(self) -> str:
        """The language, and the label."""
        return f"{self.lang}, {self.label}" if self.label else self.lang


SCORE = (
    Sample("curl", f"curl --data-binary @part.png --header 'Content-Type: image/png' {BASE}/score"),
    Sample(
        "Python",
        f"""\
import json
from pathlib import Path
from urllib.request import Request, urlopen

image = Path("part.png").read_bytes()
request = Request("{BASE}/score", image, {{"Content-Type": "application/octet-stream"}})
with urlopen(request) as response:
    result = json.load(response)
print(result["verdict"], result["score"])""",
    ),
    Sample(
        "C#",
        f"""\
using var client = new HttpClient {{ BaseAddress = new Uri("{BASE}") }};
using var image = new ByteArrayContent(File.ReadAllBytes("part.png"));
image.Headers.ContentType = new("application/octet-stream");
using var response = await client.PostAsync("/score", image);
using var result = JsonDocument.Parse(await response.Content.ReadAsStringAsync());  // System.Text.Json
if (!response.IsSuccessStatusCode)
    throw new Exception(result.RootElement.GetProperty("error").GetString());
Console.WriteLine(result.RootElement.GetProperty("verdict").GetString());""",
    ),
    Sample(
        "Node.js",
        f"""\
const {{ readFile }} = require("node:fs/promises");

(async () => {{
  const response = await fetch("{BASE}/score", {{
    method: "POST",
    headers: {{ "Content-Type": "application/octet-stream" }},
    body: await readFile("part.png"),
  }});
  const result = await response.json();
  if (!response.ok) throw new Error(result.error);
  console.log(result.verdict, result.score);
}})();""",
    ),
)
SECURE_BASE = "https://line-pc:8000"
"""The address in the samples for a server with TLS and a token."""
SECURE = (
    Sample(
        "curl",
        'curl --cacert ca.pem --header "Authorization: Bearer $(cat token)" --data-binary @part.png \\\n'
        f"  --header 'Content-Type: image/png' {SECURE_BASE}/score",
    ),
    Sample(
        "Python",
        f"""\
import json
import ssl
from pathlib import Path
from urllib.request import Request, urlopen

headers = {{"Content-Type": "application/octet-stream"}}
headers["Authorization"] = f"Bearer {{Path('token').read_text().strip()}}"
request = Request("{SECURE_BASE}/score", Path("part.png").read_bytes(), headers)
with urlopen(request, context=ssl.create_default_context(cafile="ca.pem")) as response:
    result = json.load(response)
print(result["verdict"], result["score"])""",
    ),
    Sample(
        "C#",
        f"""\
using var handler = new SocketsHttpHandler();  // .NET 7 or newer
handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
{{
    TrustMode = X509ChainTrustMode.CustomRootTrust,
    CustomTrustStore = {{ X509Certificate2.CreateFromPem(File.ReadAllText("ca.pem")) }},
    RevocationMode = X509RevocationMode.NoCheck,
}};
using var client = new HttpClient(handler) {{ BaseAddress = new Uri("{SECURE_BASE}") }};
client.DefaultRequestHeaders.Authorization = new("Bearer", File.ReadAllText("token").Trim());
using var image = new ByteArrayContent(File.ReadAllBytes("part.png"));
image.Headers.ContentType = new("application/octet-stream");
using var response = await client.PostAsync("/score", image);
Console.WriteLine(await response.Content.ReadAsStringAsync());""",
    ),
)
"""The token is in the file `token`, and in ca.pem the certificate of the authority, or the server's own."""
FORM = (Sample("curl", f"curl --form image=@part.png {BASE}/score", "as a form"),)
HEATMAP = (
    Sample(
        "curl",
        f"curl --data-binary @part.png --header 'Content-Type: image/png' --output heatmap.png {BASE}/heatmap",
    ),
)


def get(path: str) -> tuple[Sample, ...]:
    """Code that reads a path of the server."""
    return (Sample("curl", f"curl {BASE}{path}"),)


def for_server(sample: Sample, *, address: str, token: bool) -> Sample:
    """A sample with the address of a server; curl gets the header of the token."""
    source = sample.source.replace(BASE, address).replace(SECURE_BASE, address)
    if token and sample.lang == "curl" and sample not in SECURE:
        source = source.replace("curl ", "curl --header 'Authorization: Bearer TOKEN' ", 1)
    return replace(sample, source=source)
