from slimface.bench.machine import this_machine, usable_cores
from slimface.core.benchmark import Machine


def test_the_machine_says_what_figures_depend_on() -> None:
    machine = this_machine()
    assert machine.processor
    assert machine.cores == usable_cores() >= 1
    assert {"python", "slimface", "numpy", "onnxruntime"} <= set(machine.versions)
    assert machine.memory_bytes is None or machine.memory_bytes > 2**28
    assert Machine.model_validate_json(machine.model_dump_json()) == machine
