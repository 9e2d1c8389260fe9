"""``make explore`` from Python."""

from html import escape
from types import SimpleNamespace

from golden.command import make_console
from golden.folders import temporary
from golden.places import CACHE
from sim.explore.__main__ import explore as search
from sim.explore.results import table
from sim.explore.space_file import read_space

__all__ = ["Table", "explore"]


class Table(list):
    """What a search found: a flat dictionary for each machine, of its number, ``status``, knobs and
    figures; a notebook shows it as a table.

    Attributes
    ----------
    front : list
        The rows of the Pareto front, the best by the first objective first.
    proved : bool
        Whether no machine of the space can be better than these.
    """

    def __init__(self, results, space):
        rows = table(results)
        super().__init__(rows)
        by_number   = {row["machine"]: row for row in rows}
        self.front  = [by_number[number] for number in results["front"]]
        self.proved = results["proved"]
        self._space = space

    def machine(self, row):
        """The machine of a row (:class:`hw.config.Config`), which :class:`sim.session.Session`
        takes."""
        return self._space.machine(row["machine"])

    def _repr_html_(self):
        return _html(self)


def explore(space, *, n=1000, seed=0, random=0, jobs=0, scheduler=None, certify=0, out=None):
    """Measure the machines of a space, each to the cycle; returns a :class:`Table`.

    Parameters
    ----------
    space : str or dict
        A space by name, the path of its file, or what such a file says.
    n : int
        Machines, at most. A space of no more is enumerated; in a larger one Optuna searches.
    seed : int
        Of that search.
    random : int
        Machines drawn by chance, on top of those of a search, to compare it with.
    jobs : int
        Processes; 0: this one does the work. A script that asks for processes needs ``if __name__
        == "__main__":``.
    scheduler : str
        Address of a Dask cluster in their place.
    certify : int
        How many of the front run through the RTL, too. One that the RTL contradicts has
        ``certified`` ``"contradicted"``.
    out : str or Path
        Folder of journal and page: the same call goes on with it, and prints what ``make explore``
        prints. None: nothing is kept or printed.

    Raises
    ------
    InputError, SimulationError
        If the space has mistakes or is empty, or no machine is left.
    """
    options = SimpleNamespace(space=space, n=n, seed=seed, scheduler=scheduler, certify=certify,
                              random=random, jobs=None if scheduler else jobs)
    console = make_console(quiet=out is None)
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "explore-") as folder:
        options.out = str(out or folder)
        return Table(search(options, console), read_space(space))


def _html(rows):
    """Rows as an HTML table, without columns that say nothing."""
    names = [name for name in (rows[0] if rows else ())
             if len({row[name] for row in rows} | {""}) > 1]
    lines = [names, *([row[name] for name in names] for row in rows)]
    return "<table>" + "".join(
        "<tr>" + "".join(f"<{tag}>{escape(_spoken(value))}</{tag}>" for value in line) + "</tr>"
        for tag, line in zip(["th", *["td"] * len(rows)], lines, strict=True)) + "</table>"


def _spoken(value):
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
