"""Jobs share child processes where that saves time, and never where it would disturb a measurement."""

from harness.plan.job import Job
from harness.run.batches import share_processes


def count(model: str) -> Job:
    return Job.of("count", {"model": model, "res": 224})


def evaluation(model: str, data: str) -> Job:
    return Job.of("evaluate", {"model": model, "data": data, "res": 224, "crop": 0.9})


def throughput(model: str) -> Job:
    return Job.of("throughput", {"model": model, "res": 224})


JOBS = [
    count("a"),
    throughput("a"),
    evaluation("a", "imagenet"),
    count("b"),
    throughput("b"),
    evaluation("a", "imagenet-v2"),
    evaluation("b", "imagenet"),
    count("c"),
]


def test_jobs_of_a_kind_share_a_process_but_each_throughput_and_each_dataset_has_its_own() -> None:
    assert share_processes(JOBS) == [
        (count("a"), count("b"), count("c")),
        (throughput("a"),),
        (evaluation("a", "imagenet"), evaluation("b", "imagenet")),
        (throughput("b"),),
        (evaluation("a", "imagenet-v2"),),
    ]


def test_a_bound_splits_the_jobs_of_a_kind_and_a_kind_without_one_has_one_job_a_process() -> None:
    assert share_processes(JOBS, largest={"count": 2}) == [
        (count("a"), count("b")),
        (count("c"),),
        (throughput("a"),),
        (evaluation("a", "imagenet"),),
        (evaluation("b", "imagenet"),),
        (throughput("b"),),
        (evaluation("a", "imagenet-v2"),),
    ]
