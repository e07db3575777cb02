"""What counts as passed: tricks that must not, and those that are known to."""

import pytest

from dcft_jax.evaluation.sandbox import Sandbox, run_program

WRONG = "def f(): return 1"
TESTS = """\
def check(f):
    assert f() in (1, 2)
    assert f() == 2
    return True
check(f)
"""
# Jumps over the second assert.
TRACE = """\
import sys
def trace(frame, event, arg):
    if event == "line" and frame.f_code.co_name == "check" and frame.f_lineno == 3:
        frame.f_lineno = 4
    return trace
"""

TRICKS = {
    "plainly wrong": "",
    "sys.exit": "import sys; sys.exit(0)",
    "os._exit": "import os; os._exit(0)",
    "exit in the function": "import os\ndef f(): os._exit(0)",
    "SystemExit in the function": "def f(): raise SystemExit(0)",
    "KeyboardInterrupt": "def f(): raise KeyboardInterrupt",
    "AssertionError changed": "import builtins\nclass E(BaseException): pass\n"
    "builtins.AssertionError = E",
    "all exceptions changed": "import builtins\n"
    "builtins.BaseException = builtins.Exception = ZeroDivisionError",
    "exec changed": "import builtins\nbuiltins.exec = lambda *a, **k: None",
    "compile changed": "import builtins\nbuiltins.compile = lambda *a, **k: None",
    "type and str changed": "import builtins\nbuiltins.type = builtins.str = print",
    "own builtins": "__builtins__ = {'exec': print}",
    "check defined before": "def check(f): pass",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)",
    "excepthook": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)",
    "os._exit changed": "import os\nquit = os._exit\nos._exit = lambda code: quit(0)",
    "os.write changed": "import os\nos.write = lambda *a: 0",
    "os.read changed": "import os\nos.read = lambda *a: b''",
    "signal handler": "import os, signal\n"
    "signal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
    "signal.setitimer(0, 0.001)\n"
    "def f():\n    while True: pass",
    "settrace": f"{TRACE}sys.settrace(trace)",
    "settrace on the caller": f"{TRACE}def f():\n"
    "    sys._getframe(1).f_trace = trace\n    sys.settrace(trace)\n    return 1",
    "thread that ends it": "import os, threading\n"
    "threading.Timer(0.05, os._exit, (0,)).start()\n"
    "def f():\n    while True: pass",
    "optimized": "import sys, os\n"
    "os.execv(sys.executable, [sys.executable, '-O', '-c', 'pass'])",
    "text of the protocol": "import os\n"
    "for fd in range(3, 32):\n    try: os.write(fd, b'RE' + bytes(32))\n"
    "    except OSError: pass\nos._exit(0)",
    "answer without the key": "import os\nos.write(3, b'E')\n"
    "os.write(3, os.read(3, 16))\nos._exit(0)",
    "child": "import os\nif os.fork(): os._exit(0)",
    "module in place of itself": "import sys, types\n"
    "sys.modules['program'] = types.SimpleNamespace(f=lambda: 2)",
    "all changed": "import builtins\nbuiltins.all = lambda items: True",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_tricks_do_not_pass(sandbox: Sandbox, trick: str):
    tests = f"assert all([True, False])\n{TESTS}" if "all =" in trick else TESTS
    outcome = run_program(f"{WRONG}\n{trick}", tests, sandbox)
    assert outcome.status in ("failed", "timeout"), outcome
    assert outcome.error


# Known to pass, and said so in docs/sandbox.md: a program shares the interpreter with
# its tests.
FORGERIES = {
    "equal to everything": "class E:\n    def __eq__(self, other): return True\n"
    "def f(): return E()",
    "a module that the tests use": "import math\nmath.isclose = lambda *a: True",
    "a global that hides a builtin": "def abs(x): return 0",
    "frames and descriptors": "import os, sys\nframe = sys._getframe(1)\n"
    "key, channel = frame.f_locals['key'], frame.f_locals['channel']\n"
    "os.write(channel, b'E')\nos.write(channel, key + os.read(channel, 16))\n"
    "os._exit(0)",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_what_is_known_to_pass(any_sandbox: Sandbox, forgery: str):
    tests = {
        "import math": "import math\nassert math.isclose(f(), 2)",
        "def abs": "assert abs(f() - 2) < 0.1",
    }
    chosen = next((t for key, t in tests.items() if forgery.startswith(key)), TESTS)
    assert run_program(WRONG, chosen, any_sandbox).status == "failed"
    assert run_program(f"{WRONG}\n{forgery}", chosen, any_sandbox).status == "passed"


def test_right_programs_pass(sandbox: Sandbox):
    code = (
        "import sys, math, collections, dataclasses, typing\n"
        "Point = collections.namedtuple('Point', 'x y')\n"
        "@dataclasses.dataclass\nclass Row:\n    x: 'int' = 2\n"
        "def f(): return Row().x\n"
        "print('text', file=sys.stderr)\n"
        "if __name__ == '__main__': sys.exit(1)\n"
    )
    assert run_program(code, TESTS, sandbox).status == "passed"


@pytest.mark.parametrize(
    ("code", "tests", "error"),
    [
        ("def f(): return 1", "assert f() == 2, 'not two'", "AssertionError: not two"),
        ("x = y", "", "NameError: name 'y' is not defined"),
        ("def f(:", "", "SyntaxError: invalid syntax (program, line 1)"),
        ("", "def f(:", "SyntaxError: invalid syntax (tests, line 1)"),
        ("import numpy", "", "ModuleNotFoundError: No module named 'numpy'"),
        ("raise ValueError('a\\nb')", "", "ValueError: a b"),
    ],
)
def test_errors_say_what_went_wrong(
    any_sandbox: Sandbox, code: str, tests: str, error: str
):
    outcome = run_program(code, tests, any_sandbox)
    assert outcome[:2] == ("failed", error)
