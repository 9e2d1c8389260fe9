"""Central controller: fetches the program, issues to every engine, counts everything."""
