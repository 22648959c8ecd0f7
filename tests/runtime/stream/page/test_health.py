"""/metrics, /healthz and /readyz of the page say what those of the status server say."""

from prometheus_client.parser import text_string_to_metric_families

from msc_edge.runtime.stream.page.reasons import as_text


def test_metrics_are_those_of_the_stream(station) -> None:
    found = station.send("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=")
    frames = {
        sample.labels["verdict"]: sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
        if sample.name == "msc_edge_frames_total"
    }
    assert frames == {"normal": 1, "warn": 0, "reject": 3}


def test_a_ready_stream(station) -> None:
    assert (station.send("GET", "/healthz").status, station.send("GET", "/healthz").text) == (200, "ok\n")
    assert (station.send("GET", "/readyz").status, station.send("GET", "/readyz").text) == (200, "ready\n")


def test_a_stream_without_its_folder_is_not_ready(start_station) -> None:
    station = start_station()
    station.incoming.rmdir()
    found = station.until(
        lambda: (answer := station.send("GET", "/readyz")).status == 503 and answer, "the folder is missed"
    )
    assert found.text.startswith("source camera-1: ")
    live = station.until(
        lambda: (live := station.live())["live"]["sources"][0]["state"] == "no_frames" and live, "the page shows it"
    )
    (reason,) = live["reasons"]["not_ready"]
    assert as_text(reason).startswith("source camera-1: lost for")
