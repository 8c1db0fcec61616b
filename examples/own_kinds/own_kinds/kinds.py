"""What the two kinds of job take and give.  Every command reads this, so it imports no torch."""

from harness.specs import Constraint, Kind

LATENCY_HISTOGRAM = Kind(
    function="own_kinds.latency:measure",
    required=("model", "res"),
    defaults={"requests": 200, "bins": 20},
    own_settings={
        "requests": Constraint(types=(int,), least=10),
        "bins": Constraint(types=(int,), least=2, most=1000),
    },
    metrics={"p50": "ms", "p90": "ms", "p99": "ms"},
    exclusive=True,
)

MEAN_IOU = Kind(
    function="own_kinds.segmentation:measure",
    required=("model", "res"),
    defaults={"images": 16, "noise": 0.2, "seed": 1},
    own_settings={
        "images": Constraint(types=(int,), least=1),
        "noise": Constraint(types=(float,), least=0),
    },
    metrics={"miou": "%", "pixel_accuracy": "%"},
    deterministic=True,
)
