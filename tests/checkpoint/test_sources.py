"""Where checkpoints come from: a server on this machine stands for those on the network."""

import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
import torch
import torchvision
from detectron2.utils.file_io import PathManager
from safetensors.torch import save_file

from detr_d2.checkpoint import CheckpointError, CheckpointNotFoundError, fetch, read_checkpoint
from detr_d2.checkpoint.model_settings import ModelSettings
from detr_d2.engine.training_stages import evaluation_config, final_weights

RESNET = {"layer1.0.conv1.weight": torch.arange(4.0)}
HUGGING_FACE = {
    "model.encoder.layers.0.self_attn.q_proj.weight": torch.eye(4),
    "class_labels_classifier.weight": torch.ones(3, 4),
    "class_labels_classifier.bias": torch.arange(3.0),
}
CONFIG = {
    "model_type": "detr",
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "id2label": {"0": "cat", "1": "dog"},
}


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and notes what was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def __init__(self, request, client_address, server: Server) -> None:
        super().__init__(request, client_address, server, directory=str(server.folder))

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/nonsense.pth":
            self.wfile.write(b"nonsense\r\n\r\n")
        elif self.path == "/cut_off.pth":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK")
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads go, for once; not through a proxy."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serves ``weights.pth``, and folders of Hugging Face with weights of both kinds."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(RESNET, folder / "weights.pth")
    for name in ("new", "old"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(CONFIG))
    save_file(HUGGING_FACE, folder / "new" / "model.safetensors")
    torch.save(HUGGING_FACE, folder / "old" / "pytorch_model.bin")
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Detectron2 is asked to download, which stays undone; nothing has safetensors."""
    urls: list[str] = []

    def get_local_path(url: str, **kwargs: object) -> str:
        urls.append(url)
        if url.endswith(".safetensors"):
            raise HTTPError(url, 404, "Not Found", None, io.BytesIO())
        return str(tmp_path / "downloads" / url.rpartition("/")[2])

    monkeypatch.setattr(PathManager, "get_local_path", get_local_path)
    return urls


def refusal(url: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(url)
    message = str(caught.value)
    assert message.startswith(f"{url} could not be downloaded: ") and "\n" not in message
    assert len(message) < 600
    return message


# --- Paths ---


def test_a_path_stays_as_it_is(tmp_path, asked):
    for path in (tmp_path / "weights.pth", tmp_path / "folder" / "x"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert fetch(str(path)) == str(path)
    assert fetch(str(tmp_path / "folder")) == str(tmp_path / "folder")
    assert asked == []
    with pytest.raises(CheckpointNotFoundError, match=r"There is no checkpoint .*gone\.pth\.$"):
        fetch(str(tmp_path / "gone.pth"))


# --- URLs ---


def test_a_file_is_downloaded_once(server, cache):
    url = f"{server.url}/weights.pth"
    local = Path(fetch(url))
    assert cache in local.parents
    assert local.read_bytes() == (server.folder / "weights.pth").read_bytes()
    assert fetch(url) == str(local)
    checkpoint = read_checkpoint(url)
    assert checkpoint.origin == url and checkpoint.is_backbone
    assert server.asked == ["/weights.pth"]
    assert fetch(url.replace("127.0.0.1", "localhost")) != str(local)  # another host's is another


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("new", ["config.json", "model.safetensors"]),
        ("old", ["config.json", "model.safetensors", "pytorch_model.bin"]),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_downloaded_once(name, files, slash, server):
    url = f"{server.url}/{name}"
    checkpoint = read_checkpoint(url + slash)
    assert server.asked == [f"/{name}/{file}" for file in files]
    assert checkpoint.settings == ModelSettings.from_hugging_face(CONFIG)
    assert checkpoint.settings.num_heads == 4 and checkpoint.class_names == ("cat", "dog")
    bias = checkpoint.named.weights["detector.class_head.bias"]
    assert bias.equal(HUGGING_FACE["class_labels_classifier.bias"])
    asked = len(server.asked)
    read_checkpoint(url)
    assert [
        path for path in server.asked[asked:] if "safetensors" not in path or name == "new"
    ] == []


def test_a_query_does_not_hide_the_kind_of_a_file(server):
    for path in ("new/model.safetensors?download=true", "weights.pth?download=true"):
        read_checkpoint(f"{server.url}/{path}")
    assert server.asked == ["/new/model.safetensors?download=true", "/weights.pth?download=true"]


def test_a_web_page_is_named_with_the_file_that_it_became(server, cache):
    (server.folder / "page.pth").write_text("<html>Please log in</html>")
    with pytest.raises(CheckpointError, match=r"page\.pth is a web page .* Delete it") as caught:
        read_checkpoint(f"{server.url}/page.pth")
    assert str(cache) in str(caught.value)


@pytest.mark.parametrize("path", ["gone.pth", "gone.safetensors", "gone", "a/gone/"])
def test_what_the_server_does_not_have(path, server):
    url = f"{server.url}/{path}"
    assert "HTTP Error 404" in refusal(url)
    assert len(server.asked) == 1


def test_a_folder_without_weights(server):
    (server.folder / "old" / "pytorch_model.bin").unlink()
    assert "HTTP Error 404" in refusal(f"{server.url}/old")


def test_a_download_that_breaks_off_leaves_nothing(server, cache):
    assert "got only 2 out of 1000" in refusal(f"{server.url}/cut_off.pth")
    assert [path.name for path in cache.rglob("cut_off*")] == ["cut_off.pth.lock"]


def test_answers_that_make_no_sense(server):
    assert "nonsense" in refusal(f"{server.url}/nonsense.pth")


@pytest.mark.parametrize("path", ["weights.pth", "folder"])
def test_no_server(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and doesn't listen
        assert "refused" in refusal(f"http://127.0.0.1:{unused.getsockname()[1]}/{path}")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:port/w.pth", "http://[::1/w.pth", "http://a b/w.pth", "http://a..b/w.pth"],
)
def test_addresses_that_make_no_sense(url):
    refusal(url)


# --- Hugging Face ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://huggingface.co/org/name", "https://huggingface.co/org/name/resolve/main"),
        ("https://huggingface.co/org/name/", "https://huggingface.co/org/name/resolve/main"),
        (
            "https://huggingface.co/org/name-v1.5",
            "https://huggingface.co/org/name-v1.5/resolve/main",
        ),
        ("https://huggingface.co/org/name/resolve/refs", None),
        ("https://example.org/org/name", None),
        ("https://example.org/huggingface.co/name", None),
    ],
)
def test_addresses_of_models(url, expected, asked, tmp_path):
    folder = fetch(url)
    files = ("config.json", "model.safetensors", "pytorch_model.bin")
    assert asked == [f"{expected or url}/{file}" for file in files]
    assert folder == str(tmp_path / "downloads")


def test_the_address_of_a_file_is_none_of_a_folder(asked):
    url = "https://huggingface.co/org/name/resolve/main/pytorch_model.bin"
    assert fetch(url).endswith("pytorch_model.bin")
    assert asked == [url]


# --- torchvision ---


def test_torchvision(monkeypatch):
    """The first weights that torchvision published are those that the reference starts from."""
    urls = []
    inner = PathManager.get_local_path

    def get_local_path(url: str, force: bool = False) -> str:
        if url.startswith("torchvision://"):
            return inner(url, force=force)
        urls.append(url)
        return "/local/weights.pth"

    monkeypatch.setattr(PathManager, "get_local_path", get_local_path)
    for name in ("resnet50", "resnet101", "ResNet18"):
        assert fetch(f"torchvision://{name}") == "/local/weights.pth"
    assert urls == [
        torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url,
        torchvision.models.ResNet101_Weights.IMAGENET1K_V1.url,
        torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url,
    ]


@pytest.mark.parametrize("name", ["resnet51", "fasterrcnn_resnet50_fpn", "", "resnet50/x"])
def test_unknown_names(name):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(f"torchvision://{name}")
    message = str(caught.value)
    assert message.startswith(f"torchvision://{name}: torchvision has no ImageNet model {name!r}.")
    assert "Its ResNets are" in message and len(message) < 300
    for depth in (18, 34, 50, 101, 152):
        assert f"resnet{depth}" in message


def test_imagenet_weights_are_none_to_evaluate(tiny_cfg):
    tiny_cfg.MODEL.WEIGHTS = "torchvision://resnet50"
    with pytest.raises(FileNotFoundError, match=r"No trained model: .*torchvision://resnet50"):
        evaluation_config(tiny_cfg)
    path = Path(final_weights(tiny_cfg, "masks"))
    path.parent.mkdir(parents=True)
    path.touch()
    assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == str(path)
    for url in ("https://example.org/model.pth", "https://huggingface.co/org/name"):
        tiny_cfg.MODEL.WEIGHTS = url
        assert evaluation_config(tiny_cfg).MODEL.WEIGHTS == url
