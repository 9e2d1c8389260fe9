import json

import pytest

from golden.errors import InputError
from sim.explore.journal import Journal

HEAD = {"space": "a", "sources": "b", "name": "six", "network": "elec4848"}
ROW  = {"status": "measured", "reason": "", "metrics": {"cycles": 7}}


def test_what_was_written_is_there_again(tmp_path):
    with Journal(tmp_path / "new", HEAD) as journal:
        journal.add(3, ROW)
        journal.certify(3, [])
    with Journal(tmp_path / "new", HEAD) as journal:
        assert (journal.rows, journal.certified) == ({3: ROW}, {3: []})
        journal.add(4, ROW)
    lines = (tmp_path / "new" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        HEAD, {"machine": 3, **ROW}, {"certified": 3, "differences": []}, {"machine": 4, **ROW}]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_cut_off_is_forgotten(tmp_path, cut):
    with Journal(tmp_path, HEAD) as journal:
        journal.add(3, ROW)
        journal.add(4, ROW)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    with Journal(tmp_path, HEAD) as journal:
        assert journal.rows == {3: ROW}
        journal.add(4, ROW)
    assert journal.path.read_bytes() == whole


def test_a_first_line_that_was_cut_off_is_begun_again(tmp_path):
    (tmp_path / "journal.jsonl").write_text(json.dumps(HEAD)[:20])
    with Journal(tmp_path, HEAD) as journal:
        journal.add(3, ROW)
    with Journal(tmp_path, HEAD) as journal:
        assert journal.rows == {3: ROW}


def test_one_in_which_nothing_was_written_is_gone(tmp_path):
    with Journal(tmp_path / "new", HEAD):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head, line", [
    ({"space": "x"},
      ("{} is the journal of another space (six, elec4848); name another folder with "
                     "OUT, or remove it")),
    ({"sources": "x"}, ("{} was measured with other sources of machine, compiler or model; name "
                       "another folder with OUT, or remove it"))])
def test_another_is_refused_and_stays(tmp_path, head, line):
    with Journal(tmp_path, HEAD) as journal:
        journal.add(3, ROW)
    before = journal.path.read_bytes()
    with pytest.raises(InputError) as refused, Journal(tmp_path, HEAD | head):
        pass
    assert str(refused.value) == line.format(journal.path)
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("text", ["hello", "hello\n", "{}\n", "[]\n", "7\n",
                                  json.dumps(HEAD) + "\n{}\n", json.dumps(HEAD) + "\n7\n"])
def test_any_other_file_is_refused_and_stays(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(InputError) as refused, Journal(tmp_path, HEAD):
        pass
    assert str(refused.value) == (f"{tmp_path / 'journal.jsonl'} is no journal of make explore; "
                                  "name another folder with OUT")
    assert (tmp_path / "journal.jsonl").read_text() == text


def test_two_do_not_write_one(tmp_path):
    with Journal(tmp_path, HEAD) as journal:
        journal.add(3, ROW)
        with pytest.raises(InputError, match="is being written by another make explore; wait for "
                                             "it, or name another folder with OUT$"), \
                Journal(tmp_path, HEAD):
            pass
