"""The token, the Host header, and requests of web pages."""

import pytest

TOKEN = "0123456789abcdef-secret"


@pytest.fixture(scope="module")
def guarded(start, toy_kit, tmp_path_factory):
    """A server on all addresses with a token."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    return start(toy_kit, "--host", "0.0.0.0", "--token-file", file)


@pytest.mark.parametrize("path", ["/score", "/heatmap", "/kit", "/metrics", "/nothing"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer ü"]
)
def test_without_the_token_a_path_is_401(guarded, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization.encode().decode("latin-1")}
    answer = guarded.request(path, b"x" if path in ("/score", "/heatmap") else None, headers)
    assert (answer.status, list(answer.json)) == (401, ["error"])
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_token_everything_works(guarded, photos, scheme):
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert guarded.request("/score", (photos / "warn.png").read_bytes(), headers).status == 200
    assert guarded.request("/kit", headers=headers).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_these_paths_need_no_token_and_contain_none(guarded, path):
    answer = guarded.request(path)
    assert answer.status == 200
    assert TOKEN not in answer.body.decode()


def test_the_document_states_that_a_token_is_needed(guarded):
    document = guarded.request("/openapi.json").json
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert document["paths"]["/score"]["post"]["security"] == [{"token": []}]
    assert "401" in document["paths"]["/score"]["post"]["responses"]
    assert "Authorization: Bearer TOKEN" in document["paths"]["/score"]["post"]["x-codeSamples"][0]["source"]


def test_a_refused_large_body_is_still_401(guarded):
    assert guarded.request("/score", bytes(5_000_000)).status == 401


def test_the_token_is_never_printed(start, toy_kit):
    server = start(toy_kit, MSC_EDGE_TOKEN=TOKEN)
    assert server.request("/kit").status == 401
    assert server.request("/kit", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert server.stop() == (0, "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("line.example", 421),
        ("127.0.0.1.example", 421),
        ("localhost@line.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_on_loopback_another_host_name_is_refused(server, host, status):
    """DNS rebinding: a web page is loaded from its own name, which then points to 127.0.0.1."""
    assert server.request("/kit", headers={"Host": host}).status == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://line.example", 403), ("null", 403), ("http://[", 403), ("http://{host}", 200)]
)
def test_a_web_page_of_another_site_is_refused(server, origin, status):
    origin = origin.format(host=f"127.0.0.1:{server.port}")
    assert server.request("/kit", headers={"Origin": origin}).status == status
