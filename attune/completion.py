"""What a shell may offer behind ``attune``: commands, options, and the values that have names."""

from sim.commands import SWITCH, TARGETS, check_of

__all__ = ["SHELLS", "complete"]

SHELLS = {
    "bash": """\
_attune() {
    local IFS=$'\\n'
    COMPREPLY=($(attune complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o default -F _attune attune
""",
    "zsh": """\
#compdef attune
_attune() {
    local -a found
    found=("${(@f)$(attune complete -- "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _attune attune
""",
    "fish": """\
complete -c attune -a '(attune complete -- (commandline -opc)[2..] (commandline -ct))'
""",
}
"""What a shell reads once; it asks ``attune complete`` for the rest, and offers files where that
says nothing."""


def complete(words):
    """What the last of ``words``, those behind ``attune``, may become.

    bash takes words apart at ``=``, others do not.
    """
    *before, last = words or [""]
    goals = [goal for goal, target in TARGETS.items() if target.module]
    if not before:
        return _starting(last, [*goals, "completion", "help"])
    goal = before[0]
    if goal == "completion":
        return _starting(last, SHELLS)
    if goal == "help":
        return _starting(last, goals)
    if goal not in goals:
        return []
    names = {spelled: name for name in TARGETS[goal].takes
             for spelled in (name, f"--{name.lower()}")}
    if last == "=":
        option, head, last = before[-1], "", ""
    elif before[-1] == "=":
        option, head = before[-2], ""
    elif "=" in last:
        option, _, last = last.partition("=")
        head = f"{option}="
    else:
        option, head = before[-1], ""
        if option in names and option.startswith("--") and check_of(goal, names[option]) is SWITCH:
            option = None               # needs no value
    if option in names and (head or option.startswith("--") or "=" in (words[-1], before[-1])):
        known = getattr(check_of(goal, names[option]), "known", ())
        return [head + value for value in _starting(last, known)]
    return _starting(last, [spelled for spelled in names if spelled.startswith("--")])


def _starting(text, names):
    return [name for name in names if name.startswith(text)]
