"""Runs a program and then its tests, inside a sandbox. Read as text, never imported.

It sets the limits, runs the program as a module of its own, then the tests in the same
namespace, and answers the process that started it over the socket on descriptor 0:
READY, then ENDED once the tests have ended; only then does that process send a
challenge, which counts as answered together with a key from before the program ran.
A program shares this interpreter and can reach all of it if it means to; what is done
here makes that take effort (docs/sandbox.md lists what remains).
"""

import builtins
import marshal
import os
import resource
import sys

READY, ENDED, FAILED = b"R", b"E", b"F"
MAX_ERROR = 500


def receive(size):
    data = bytearray()
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            raise EOFError("no program came")
        data += part
    return bytes(data)


def set_limits(limits):
    for name, wanted in limits.items():
        which = getattr(resource, name)
        top = resource.getrlimit(which)[1]
        if top != resource.RLIM_INFINITY:
            wanted = [min(value, top) for value in wanted]
        resource.setrlimit(which, tuple(wanted))


def no_tracing(function):
    # A trace function may move its frame to another line: past an assert.
    if function is not None:
        raise RuntimeError("tracing is not available here")


def run_program(channel, code, tests, key, challenge_bytes):
    # Whatever is used after the program has run is looked up before: it may replace
    # builtins and functions of modules. The tests see builtins as they are now.
    run, anything, kind, text, dictionary = exec, BaseException, type, str, dict
    read, write, leave, slash = os.read, os.write, os._exit, str.encode
    pristine = dictionary(builtins.__dict__)
    module = kind(sys)("program")
    names = module.__dict__
    sys.modules["program"] = module
    sys.settrace = sys.setprofile = no_tracing
    try:
        program = compile(code, "program", "exec", dont_inherit=True, optimize=0)
        checks = compile(tests, "tests", "exec", dont_inherit=True, optimize=0)
        run(program, names)
        names["__builtins__"] = pristine
        run(checks, names)
    except anything as error:
        name = kind(error).__name__
        try:
            message = text(error)
        except anything:
            message = ""
        line = f"{name}: {message}" if message else name
        write(channel, FAILED + slash(line[:MAX_ERROR], "utf-8", "replace"))
        leave(1)
    write(channel, ENDED)
    write(channel, key + read(channel, challenge_bytes))
    # Neither exit handlers nor other threads have a say in the return code.
    leave(0)


def main():
    job = marshal.loads(receive(int.from_bytes(receive(8), "big")))
    channel = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    set_limits(job["limits"])
    os.write(channel, READY)
    run_program(channel, job["code"], job["tests"], job["key"], job["challenge_bytes"])


if __name__ == "__main__":
    main()
