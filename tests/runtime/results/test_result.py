import json

import numpy as np
import pytest

from msc_edge.runtime.results.formats import JsonLinesFormat
from msc_edge.runtime.results.image_result import IMAGE_FIELDS
from msc_edge.runtime.results.result import NearestImage


def test_nearest_is_the_path_of_the_first_nearest_image(scored):
    assert scored().result.nearest == "n.png"


@pytest.mark.parametrize(("distance", "in_bank"), [(0.0, True), (1.1e-6, True), (2e-5, False), (0.01, False)])
def test_an_image_at_distance_zero_from_a_row_is_in_the_bank(scored, distance, in_bank):
    nearest = (NearestImage(3, "n.png", distance), NearestImage(0, "o.png", 0.1))
    assert scored(nearest_images=nearest).result.is_in_bank == in_bank


def test_a_result_cannot_be_changed(scored):
    with pytest.raises(AttributeError):
        scored().result.score = 0.0


def test_a_result_as_a_dict_has_the_values_of_its_row(scored):
    image = scored()
    row = json.loads(JsonLinesFormat(IMAGE_FIELDS).encode(image))
    values = image.result.to_dict()
    assert {name: row[name] for name in values} == values
    assert set(row) - set(values) == {"path", "milliseconds", "error"}


def test_a_result_is_shown_in_one_short_line_without_arrays(scored):
    result = scored(embedding=np.zeros(512, np.float32), anomaly_map=np.zeros((480, 640), np.float32)).result
    assert repr(result) == (
        "Result(verdict='reject', score=0.123457, limit=0.1, p_value=0.0769231, regions=1, nearest='n.png', "
        "model='fp32', kit='abababababab')"
    )
    assert "p_value=None" in repr(scored(p_value=None).result)
