import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.torchvision_weights import weights_from_torchvision
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state(randomise: Callable) -> State:
    """All tensors of a MobileNetV3-small, including the head."""
    network = torchvision.models.mobilenet_v3_small(weights=None)
    randomise(network, 3)
    return network.state_dict()


def write_file(path: Path, state: State) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "Gewichte ü.safetensors"])
def test_each_file_format_gives_its_tensors(name: str, state: State, tmp_path: Path) -> None:
    given = weights_from_file(write_file(tmp_path / name, state))
    assert same(dict(given.state), state)
    assert given.origin.source == name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 90, "best": 0.7},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["state_dict", "module.", "both"],
)
def test_the_wrappers_of_training_scripts_are_removed(wrap: Callable, state: State, tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / "w.pth")
    assert same(dict(weights_from_file(tmp_path / "w.pth").state), state)


def test_the_origin_has_the_sha256_of_the_file(state: State, tmp_path: Path) -> None:
    path = write_file(tmp_path / "w.safetensors", state)
    assert weights_from_file(path).origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class Bomb:
    """A pickle that creates a folder when it is loaded with weights_only=False."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_code_is_refused_and_its_code_does_not_run(legacy: bool, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    torch.save({"conv.weight": Bomb(harm)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UsageError, match=r"contains more than tensors.*use a \.safetensors"):
        weights_from_file(tmp_path / "w.pth")
    assert not harm.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # the bomb works
    assert harm.exists()


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"archive/{name}", b"3\n")


def old_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))


def whole_module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


@pytest.mark.parametrize("write", [torchscript, old_tar, whole_module])
def test_the_advice_to_load_a_file_with_its_code_is_not_repeated(
    write: Callable[[Path], None], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    write(tmp_path / "w.pth")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "w.pth", weights_only=True)
    recwarn.clear()
    with pytest.raises(UsageError) as refusal:
        weights_from_file(tmp_path / "w.pth")
    assert str(refusal.value) == (
        f"weights {tmp_path / 'w.pth'}: not opened, because the file contains more than tensors, or is damaged; "
        "use a .safetensors file, or a .pth file that contains only tensors"
    )
    assert not list(recwarn)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n", b"\x00" * 5000, b"PK\x03\x04", b"\x80\x02", b"<html><body>404 Not Found</body></html>"],
    ids=["empty", "text", "zeros", "zip", "pickle", "html"],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_of_another_format_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"^weights .*{name}: "):
        weights_from_file(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(name: str, share: float, state: State, tmp_path: Path) -> None:
    path = write_file(tmp_path / name, state)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UsageError, match=rf"^weights .*{name}: "):
        weights_from_file(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_at_the_start_of_a_file_never_causes_another_error(tmp_path: Path) -> None:
    tensors = {"layer.weight": torch.zeros(3, 2), "layer.bias": torch.zeros(3)}
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "w.safetensors")
    refused = 0
    for name in ("new.pth", "old.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for place in range(0, min(len(whole), 900), 6):
            damaged = bytearray(whole)
            damaged[place] ^= 0x55
            path = tmp_path / f"damaged-{name}"
            path.write_bytes(damaged)
            try:
                weights_from_file(path)
            except UsageError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "content", [torch.zeros(3), {"epoch": 3}, {1: torch.zeros(2)}, [torch.zeros(2)], {"a": {"b": torch.zeros(2)}}]
)
def test_a_file_without_names_and_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="contains no state dict"):
        weights_from_file(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.safetensors", "No such file or directory"), ("folder.pth", "it is a folder")]
)
def test_a_path_without_a_file_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UsageError, match=rf"^weights .*{name}: {reason}; check the path"):
        weights_from_file(tmp_path / name)


def test_all_tensors_are_loaded_and_the_head_is_ignored(state: State) -> None:
    backbone = build_backbone("mobilenet_v3_small")
    load_into(backbone, state, source="w")
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_checkpoints_without_batch_norm_counters_are_loaded(state: State) -> None:
    older = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    load_into(build_backbone("mobilenet_v3_small"), older, source="w")


def test_float16_weights_become_float32(state: State) -> None:
    backbone = build_backbone("mobilenet_v3_small")
    load_into(backbone, {key: value.half() for key, value in state.items()}, source="w")
    assert all(value.dtype == torch.float32 for value in backbone.parameters())


def state_of(name: str) -> State:
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None).state_dict()


@pytest.mark.parametrize(
    ("given", "wanted", "stop_at"),
    [
        ("resnet34", "resnet18", None),  # has every tensor of a ResNet-18, in the same shapes
        ("resnet34", "resnet18", "layer2"),
        ("resnet18", "resnet34", None),
        ("resnext50_32x4d", "resnet50", None),  # the same names, other shapes
        ("mobilenet_v2", "efficientnet_b0", None),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(
    given: str, wanted: str, stop_at: str | None, structure: Callable
) -> None:
    with pytest.raises(UsageError, match=rf"^w\.pth: .*use a checkpoint of {wanted}"):
        load_into(structure(wanted, stop_at), state_of(given), source="w.pth")


def test_a_cut_checkpoint_fits_backbones_that_stop_there_or_earlier() -> None:
    cut = build_backbone("resnet18", stop_at="layer3").state_dict()
    for stage in ("layer3", "layer2"):
        load_into(build_backbone("resnet18", stop_at=stage), cut, source="w")
    with pytest.raises(UsageError, match=r"layer4.*stop at an earlier stage if the checkpoint is cut"):
        load_into(build_backbone("resnet18"), cut, source="w")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, state: State) -> None:
    broken = {key: tensor.clone() for key, tensor in state.items()}
    broken["features.0.0.weight"][3, 1, 0, 0] = value
    with pytest.raises(UsageError, match="not finite"):
        load_into(build_backbone("mobilenet_v3_small"), broken, source="w")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty torch cache, and a proxy that does not answer. Returns the folder of cached weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it caches the proxies
    return tmp_path / "hub" / "checkpoints"


def test_a_failed_download_is_reported_with_alternatives(no_network: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be downloaded.*https://\S+\.pth.*pass the file.*edge-small"):
        weights_from_torchvision("mobilenet_v3_small")
    assert not list(no_network.glob("*.pth"))


class Site:
    """A web server with one weights file. Torchvision is patched to expect its URL and hash."""

    def __init__(self, folder: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.save(state, folder / "weights")
        self.content = (folder / "weights").read_bytes()
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        self.name = f"mobilenet_v3_small-{self.sha256[:8]}.pth"
        (folder / "weights").rename(folder / self.name)
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        weights = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1
        url = f"http://127.0.0.1:{self.server.server_port}/{self.name}"
        monkeypatch.setattr(weights.value, "url", url)


@pytest.fixture
def site(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, state, monkeypatch)
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_weights_are_downloaded_once_and_then_cached(site: Site, state: State) -> None:
    downloaded = weights_from_torchvision("mobilenet_v3_small")
    assert same(dict(downloaded.state), state)
    assert downloaded.origin.source == "MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    assert downloaded.origin.sha256 == site.sha256
    assert "BSD-3-Clause" in downloaded.origin.licence
    site.server.shutdown()
    site.server.server_close()
    assert weights_from_torchvision("mobilenet_v3_small").origin == downloaded.origin


def test_a_download_with_another_hash_is_refused_and_removed(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "site" / site.name
    file.write_bytes(site.content[:-1] + bytes([site.content[-1] ^ 1]))
    with pytest.raises(UsageError, match=r"cannot be downloaded.*hash.*pass the file.*edge-small"):
        weights_from_torchvision("mobilenet_v3_small")
    assert not list((tmp_path / "torch").rglob("*.pth"))


def test_a_cached_file_with_another_hash_is_refused(site: Site, tmp_path: Path) -> None:
    weights_from_torchvision("mobilenet_v3_small")
    (cached,) = (tmp_path / "torch").rglob("*.pth")
    cached.write_bytes(site.content[:1000])  # an incomplete copy
    with pytest.raises(UsageError, match=rf"{site.name} is not the file that torchvision published.*delete it"):
        weights_from_torchvision("mobilenet_v3_small")


def test_a_narrower_network_has_no_weights_in_torchvision() -> None:
    with pytest.raises(UsageError, match=r"resnet50_x0.5: torchvision has no pretrained weights.*msc-edge distil"):
        weights_from_torchvision("resnet50_x0.5")
