"""Random machines: legal, the same for a seed, and unlike each other."""

import pytest

from golden.errors import InputError
from hw.arbitrary import arbitrary_machine, is_arbitrary


def test_every_seed_is_a_machine_of_its_own():
    machines = [arbitrary_machine(f"random:{seed}") for seed in range(200)]
    assert machines[7] == arbitrary_machine("random:7")
    assert len({machine.structure for machine in machines}) == len(machines)
    assert {machine.vector for machine in machines} == {8, 16}
    assert {machine.encoder.transform for machine in machines} == {False, True}
    assert min(machine.decoder.outputs for machine in machines) == 2


@pytest.mark.parametrize("name", ["random:", "random:x", "random:-1", "tiny"])
def test_names_that_are_none(name):
    assert is_arbitrary(name) == name.startswith("random:")
    with pytest.raises(InputError, match="A random machine is called random:SEED"):
        arbitrary_machine(name)
