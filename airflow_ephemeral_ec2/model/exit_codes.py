"""What exit codes mean by convention, for the reason of a failure."""

_MEANINGS = {
    64: "usage error",
    65: "data error",
    66: "no input",
    69: "service unavailable",
    70: "software error",
    73: "cannot create output",
    74: "input/output error",
    75: "temporary failure",
    77: "permission denied",
    78: "configuration error",
    126: "command not executable",
    127: "command not found",
}


def name_meaning(code: int) -> str:
    """Name an exit code as sysexits.h and POSIX do; above 128 it is a signal."""
    if code in _MEANINGS:
        return f" ({_MEANINGS[code]})"
    return f" (signal {code - 128})" if 128 < code < 160 else ""
