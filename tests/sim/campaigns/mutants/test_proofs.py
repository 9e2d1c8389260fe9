from sim.campaigns.mutants import proofs
from sim.campaigns.mutants.asking import ask
from sim.campaigns.mutants.sites import REMOVED, ROOT, Mutant


def test_a_proof_of_its_block_notices_a_mutant(monkeypatch):
    arbiter = {name: entry for name, entry in proofs.catalogue().items()
               if name.startswith("memory.arbiter.")}
    monkeypatch.setattr(proofs, "catalogue", lambda: arbiter)
    proofs._designs.cache_clear()
    lines = (ROOT / "hw" / "memory" / "arbiter.py").read_text().splitlines()
    line  = max(number for number, text in enumerate(lines, start=1) if "m.d.sync" in text)
    wrong = Mutant("hw/memory/arbiter.py", line, (), REMOVED)     # whose turn it was is forgotten
    none  = Mutant("hw/memory/arbiter.py", 1, (), REMOVED)
    found = dict(ask(proofs.refuted, [wrong, none], seconds=100))
    assert found[none] is None
    assert found[wrong].startswith("hw/prove/memory/arbiter.py::memory.arbiter.")
    proofs._designs.cache_clear()
