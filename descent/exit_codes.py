"""How the program `descent` ends, and what that means to a script."""

OK = 0
REFUSED = 1
USAGE = 2
FAILED = 3
UNREACHABLE = 4
INTERRUPTED = 130
#: What `descent --help` and the README say of them.
MEANINGS = {
    OK: "done",
    REFUSED: "the service said no or cannot do it now, or a package is missing",
    USAGE: "wrong usage",
    FAILED: "it was tried and failed: a run, a file, a row, a check of `doctor`",
    UNREACHABLE: "the service gave no answer",
    INTERRUPTED: "Ctrl-C",
}
