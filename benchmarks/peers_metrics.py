"""The part of map_metrics.py that runs in anomalib's environment: its metrics of maps.

    python peers_metrics.py FILE.npz ...

A file has `maps`, float32 (n, height, width), and `masks`, bool of the same shape. Prints one line of JSON for each
file: each metric by its name, or the error as text.
"""

import json
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

FIELDS = ("anomaly_map", "gt_mask")


def metrics_of(maps: Any, masks: Any) -> dict[str, float | str]:
    """Anomalib's metrics of tensors, float32 and uint8 (n, height, width)."""
    theirs: Any = import_module("anomalib.metrics")
    makers: dict[str, Callable[[], Any]] = {
        "pixel AUROC": lambda: theirs.AUROC(fields=FIELDS),
        "AU-PRO(0.3)": lambda: theirs.AUPRO(fields=FIELDS, fpr_limit=0.3),
        "AU-PRO(0.05)": lambda: theirs.AUPRO(fields=FIELDS, fpr_limit=0.05),
        "AUPIMO": lambda: theirs.AUPIMO(fields=FIELDS),
        "best pixel F1": lambda: theirs.F1Max(fields=FIELDS),
    }
    found: dict[str, float | str] = {}
    for name, make in makers.items():
        metric = make()
        try:
            metric.update(SimpleNamespace(anomaly_map=maps, gt_mask=masks))
            found[name] = float(metric.compute())
        except (RuntimeError, ValueError) as error:
            found[name] = str(error).splitlines()[0]
    return found


def main() -> None:
    """See the docstring of the module."""
    np, torch = import_module("numpy"), import_module("torch")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for path in sys.argv[1:]:
        with np.load(path) as file:
            maps, masks = torch.from_numpy(file["maps"]), torch.from_numpy(file["masks"].astype(np.uint8))
        print(json.dumps(metrics_of(maps, masks)), flush=True)


if __name__ == "__main__":
    main()
