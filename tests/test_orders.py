"""The order of throughputs against that on the machines whose results timm published."""

import csv
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.judge.orders import MachineOrder, published_orders
from harness.judge.table import fill
from harness.judge.verdict import Shape, compare
from harness.plan.plan import make_plan
from harness.report.formatting import orders_sentence, shape_sentence
from harness.specs import Catalog, Spec, load
from harness.specs.catalog import shipped_specs
from tests.fakes import result_of

LINES = list(
    csv.DictReader((Path(__file__).parent / "published/timm_benchmarks.csv").read_text(encoding="utf-8").splitlines())
)
MACHINES = ["RTX 3090", "RTX 4090", "RTX 5090", "RTX PRO 6000 Max-Q", "Core i9-10940X", "Core i7-12700H"]


def speeds_of(file: str) -> dict[tuple[str, int], float]:
    """Return the published throughputs of one file."""
    lines = (line for line in LINES if line["source_file"] == f"results/benchmark-{file}.csv")
    return {(line["timm_network"], int(line["img_size"])): float(line["samples_per_sec"]) for line in lines}


def orders_of(speeds: dict[tuple[str, int], float], *, step: str) -> tuple[MachineOrder, ...]:
    """Compare the order of these throughputs with that on the machines that timm published."""
    return published_orders(speeds, step=step, table=shipped_specs() / "timm-speed.toml")


I7 = speeds_of("infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo")


def test_an_order_is_compared_with_every_machine_that_has_the_models() -> None:
    assert [order.machine for order in orders_of(I7, step="inference")] == MACHINES
    assert [order.machine for order in orders_of(I7, step="training")] == ["RTX 3090"]


def test_the_order_of_a_machine_holds_on_itself_and_its_reverse_nowhere() -> None:
    orders = {order.machine: order for order in orders_of(I7, step="inference")}
    i7 = orders["Core i7-12700H"]
    assert i7.agreeing == i7.pairs > 200
    assert i7.holds
    reverse = orders_of({model: 1 / speed for model, speed in I7.items()}, step="inference")
    assert [order.holds for order in reverse] == [False] * 6
    (turned,) = (order for order in reverse if order.machine == "Core i7-12700H")
    assert (turned.pairs, turned.agreeing) == (i7.pairs, 0)


def test_pairs_count_where_both_sides_tell_them_apart_by_more_than_5_percent() -> None:
    # On the i7: 80.18, 77.2 (less than 5 % below) and 28.75.
    names = ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224", "deit_small_distilled_patch16_224"]
    models = {(name, 224): speed for name, speed in zip(names, (300.0, 100.0, 200.0), strict=True)}
    (i7,) = (one for one in orders_of(models, step="inference") if one.machine == "Core i7-12700H")
    assert i7 == MachineOrder(machine="Core i7-12700H", pairs=2, agreeing=1)


@pytest.mark.parametrize(("speed", "pairs"), [(104.9, 2), (105.1, 3)])
def test_two_models_of_ours_differ_clearly_from_5_percent_on(speed: float, pairs: int) -> None:
    models = {("resnet18", 224): 300.0, ("resnet50", 224): speed, ("resnet101", 224): 100.0}
    (i7,) = (order for order in orders_of(models, step="inference") if order.machine == "Core i7-12700H")
    assert i7.pairs == pairs


@pytest.mark.parametrize(("agreeing", "holds"), [(9, True), (8, False)])
def test_an_order_holds_where_nine_of_ten_pairs_have_it(agreeing: int, *, holds: bool) -> None:
    assert MachineOrder(machine="m", pairs=10, agreeing=agreeing).holds is holds


def test_models_that_nobody_published_and_too_few_say_nothing() -> None:
    assert orders_of({("mine", 224): 1.0, ("other", 224): 2.0, ("third", 224): 3.0}, step="inference") == ()
    assert orders_of(dict(list(I7.items())[:2]), step="inference") == ()
    assert orders_of({(name, 32): speed for (name, _), speed in I7.items()}, step="inference") == ()


def compared_in(spec: Spec) -> Shape:
    """Compare the speeds of the i7 with a table whose one column is of throughputs."""
    plan = make_plan([spec])
    results = {
        job.key: result_of(job, value=I7[str(job["model"]), int(job["res"])])
        for job in plan.jobs
        if job.kind == "throughput" and (str(job["model"]), int(job["res"])) in I7
    }
    (shape,) = compare(fill(spec, plan, results)).shapes
    return shape


def test_a_speed_table_says_on_how_many_published_machines_its_order_holds() -> None:
    shape = compared_in(*Catalog().find(["table5"]))
    sentence = shape_sentence(shape)
    held = sum(order.holds for order in shape.orders)
    assert sentence.endswith(
        f"; the order here also holds on {held} of the 6 machines of which timm published throughputs"
    )
    assert "Core i7-12700H 100 %; an order holds where 90 % are" in orders_sentence(shape)


def test_the_table_names_the_machines_that_its_order_is_compared_with(tmp_path: Path) -> None:
    text = (shipped_specs() / "table5.toml").read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_text(text.replace('orders = "timm-speed"', ""), encoding="utf-8")
    assert compared_in(load(own)).orders == ()
    own.write_text(text.replace('orders = "timm-speed"', 'orders = "others"'), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"unknown table 'others' in \[table\]"):
        load(own)
    one = (shipped_specs() / "timm-speed.toml").read_text(encoding="utf-8").replace("Core i9-10940X", "Core X")
    (tmp_path / "others.toml").write_text(one, encoding="utf-8")
    assert "Core X" in [order.machine for order in compared_in(load(own)).orders]
