"""What a program tries, and what comes of it, per backend: the table in the docs.

A program returns "reached" when its attack worked. What the weak backend does not stop
is asserted too, where that is harmless, so that the table stays true.
"""

import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from dcft_jax.evaluation.sandbox import Limits, Sandbox, run_program, run_programs

GOOD = ("def f(): return 1", "assert f() == 1")


def _attempt(sandbox: Sandbox, body: str, limits: Limits | None = None) -> str:
    """What the body of a function returns in the sandbox; OSError is "blocked"."""
    lines = "".join(f"        {line}\n" for line in body.strip().split("\n"))
    code = (
        "import os, sys, time, resource, signal\n"
        f"def attack():\n    try:\n{lines}"
        "    except (OSError, ValueError, MemoryError) as error:\n"
        "        return f'blocked {type(error).__name__}'\n"
    )
    tests = "raise ZeroDivisionError(attack())"
    outcome = run_program(code, tests, sandbox, limits)
    assert outcome.status == "failed"
    assert outcome.error.startswith("ZeroDivisionError: "), outcome
    return outcome.error.removeprefix("ZeroDivisionError: ")


def _as_we_are(sandbox: Sandbox) -> bool:
    """Whether the machine takes the program for us."""
    return sandbox.name == "weak" and sandbox.user is None


def _named(comm: str) -> list[str]:
    """The processes of the machine that call themselves so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            text = path.read_text().strip()
            state = (path.parent / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:  # it ended meanwhile
            continue
        if text == comm and state != "Z":
            found.append(path.parent.name)
    return found


def _gone(comm: str, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while _named(comm) and time.monotonic() < until:
        time.sleep(0.05)
    return not _named(comm)


def test_network(sandbox: Sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attack = (
            "import socket\n"
            f"socket.create_connection(('127.0.0.1', {port}), timeout=1).close()\n"
            "return 'reached'"
        )
        result = _attempt(sandbox, attack)
    assert (result == "reached") == (sandbox.name == "weak")


def test_sockets_of_the_machine(sandbox: Sandbox):
    name = f"\0dcft-{uuid.uuid4()}"  # abstract: no file permissions
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        attack = (
            "import socket\n"
            f"socket.socket(socket.AF_UNIX).connect({name!r})\nreturn 'reached'"
        )
        result = _attempt(sandbox, attack)
    assert (result == "reached") == (sandbox.name == "weak")


def test_read_our_files(sandbox: Sandbox, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("reached")
    secret.chmod(0o600)
    result = _attempt(sandbox, f"return open({str(secret)!r}).read()")
    assert (result == "reached") == _as_we_are(sandbox)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hostname", "/var/lib"])
def test_read_files_of_everybody(sandbox: Sandbox, path: str):
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    result = _attempt(sandbox, f"os.stat({path!r})\nreturn 'reached'")
    assert (result == "reached") == (sandbox.name == "weak")


def test_write_our_files(sandbox: Sandbox, tmp_path: Path):
    target = tmp_path / "written"
    result = _attempt(sandbox, f"open({str(target)!r}, 'w')\nreturn 'reached'")
    assert target.exists() == (result == "reached") == _as_we_are(sandbox)


@pytest.mark.parametrize("folder", ["/", "/usr", "/usr/lib", "/bin", "/dev", "/proc"])
def test_write_what_is_bound(strong: Sandbox, folder: str):
    attack = f"open({folder + '/dcft-attack'!r}, 'w')\nreturn 'reached'"
    assert _attempt(strong, attack).startswith("blocked")


def test_write_the_interpreter(strong: Sandbox):
    attack = "open(os.__file__, 'a')\nreturn 'reached'"
    assert _attempt(strong, attack).startswith("blocked")


def test_only_a_few_folders_are_there(strong: Sandbox):
    seen = set(_attempt(strong, "return ' '.join(os.listdir('/'))").split())
    parents = {"/" + Path(p).parts[1] for p in (sys.base_prefix, sys.base_exec_prefix)}
    links = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    made = {"usr", "proc", "dev", "tmp"}
    assert seen <= links | made | {p[1:] for p in parents}


def test_symlink_escape(sandbox: Sandbox, tmp_path: Path):
    (tmp_path / "secret").write_text("reached")
    attack = f"os.symlink({str(tmp_path)!r}, 'way')\nreturn open('way/secret').read()"
    assert (_attempt(sandbox, attack) == "reached") == _as_we_are(sandbox)
    assert (tmp_path / "secret").read_text() == "reached"


def test_become_root(strong: Sandbox):
    assert _attempt(strong, "os.setuid(0)\nreturn os.getuid()").startswith("blocked")
    capabilities = (
        "text = open('/proc/self/status').read()\n"
        "return text.split('CapEff:')[1].split()[0]"
    )
    assert int(_attempt(strong, capabilities), 16) == 0


def test_mount(strong: Sandbox):
    attack = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "bad = libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)\n"
        "return 'blocked' if bad else 'reached'"
    )
    assert _attempt(strong, attack) == "blocked"


def test_raise_the_limits(sandbox: Sandbox):
    attack = "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\nreturn 'reached'"
    # CAP_SYS_RESOURCE, which root in a container may not have.
    status = Path("/proc/self/status").read_text()
    capable = int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1
    result = _attempt(sandbox, attack)
    assert (result == "reached") == (_as_we_are(sandbox) and capable == 1)


FORKS = """\
open('/proc/self/comm', 'w').write({comm!r})
count = 0
try:
    while count < 100:
        if os.fork() == 0:
            time.sleep(20); os._exit(0)
        count += 1
except BlockingIOError:
    pass
return count
"""


def test_many_forks(sandbox: Sandbox):
    comm = f"f{uuid.uuid4().hex[:10]}"
    count = int(_attempt(sandbox, FORKS.format(comm=comm), Limits(processes=32)))
    root = _as_we_are(sandbox) and os.geteuid() == 0
    assert count == 100 if root else count < 32
    assert _gone(comm)


def test_forks_do_not_hinder_other_programs(strong: Sandbox):
    """Processes are counted per program: threads of the others still start."""
    bomb = f"import os, time\ndef f():\n{_indented(FORKS.format(comm='bomb'))}\nf()"
    threads = (
        "import threading, time\ntime.sleep(0.3)\n"
        "t = threading.Thread(target=print); t.start(); t.join()"
    )
    slow = (f"{bomb}\ntime.sleep(3)", "")
    outcomes = run_programs(
        [slow, (threads, "")], sandbox=strong, workers=2, limits=Limits(processes=32)
    )
    assert outcomes[1].status == "passed", outcomes


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip().split("\n"))


ORPHAN = """\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open('/proc/self/comm', 'w').write({comm!r})
        time.sleep({seconds})
    os._exit(0)
time.sleep(0.3)
"""


def test_grandchildren_in_a_session_of_their_own(sandbox: Sandbox):
    comm = f"o{uuid.uuid4().hex[:10]}"
    code = ORPHAN.format(comm=comm, seconds=20 if sandbox.name != "weak" else 3)
    assert run_program(code, "", sandbox).status == "passed"
    if sandbox.name == "weak":
        assert _named(comm)  # it goes on after the verdict
    assert _gone(comm)


def test_grandchildren_after_a_timeout(strong: Sandbox):
    comm = f"t{uuid.uuid4().hex[:10]}"
    code = ORPHAN.format(comm=comm, seconds=20) + "time.sleep(20)"
    outcome = run_program(code, "", strong, Limits(wall_seconds=1))
    assert outcome.status == "timeout"
    assert _gone(comm)


def test_kill_everything_in_sight(strong: Sandbox):
    """Its own namespace at most; the verdict on the next program is right."""
    kills = "import os\n{}\n"
    programs = [
        (kills.format("os.kill(os.getppid(), 9)"), ""),
        (kills.format("os.kill(-1, 9)"), ""),
        (kills.format("os.killpg(0, 9)"), ""),
        (kills.format("os.kill(1, 9)"), "assert False"),
    ]
    outcomes = run_programs([*programs, GOOD], sandbox=strong, workers=2)
    assert outcomes[-1].status == "passed"
    assert outcomes[-2].status == "failed"


def test_weak_kills_its_parent(weak: Sandbox, tmp_path: Path):
    if weak.user is not None:
        pytest.skip("the program is another user here")
    script = (
        "from dcft_jax.evaluation.sandbox import *\n"
        "weak = choose_backend('weak', allow_weak=True).sandbox\n"
        "run_program('import os; os.kill(os.getppid(), 9)', '', weak)\n"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}  # who is killed removes nothing
    result = subprocess.run([sys.executable, "-c", script], env=env, check=False)
    assert result.returncode == -9


def test_our_environment(sandbox: Sandbox):
    attack = (
        f"return len(open('/proc/{os.getpid()}/environ', 'rb').read()) and 'reached'"
    )
    assert (_attempt(sandbox, attack) == "reached") == _as_we_are(sandbox)
    own = _attempt(sandbox, "return ' '.join(sorted(os.environ))").split()
    expected = {"OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED", "PYTHONUTF8"}
    # The shell and bubblewrap say where they are, C where its text comes from.
    assert (
        expected <= set(own) <= expected | {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    )


def test_other_processes(sandbox: Sandbox):
    seen = _attempt(sandbox, f"os.stat('/proc/{os.getpid()}/comm')\nreturn 'reached'")
    number = int(_attempt(sandbox, "return os.getpid()"))
    if sandbox.name == "weak":
        assert seen == "reached"
    else:
        assert number < 100  # numbers start anew in a namespace
        assert os.getpid() < 100 or seen.startswith("blocked")


def test_our_descriptors(sandbox: Sandbox, tmp_path: Path):
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        names = "[os.readlink(f'/proc/self/fd/{n}') for n in range(3, 32) if os.path."
        found = _attempt(sandbox, f"return {names}lexists(f'/proc/self/fd/{{n}}')]")
    assert str(tmp_path) not in found
    assert found.count(",") == 0 and "socket:" in found, found  # the harness's own


def test_memory(sandbox: Sandbox):
    attack = "bytearray(2 * 2**30)\nreturn 'reached'"
    assert _attempt(sandbox, attack) == "blocked MemoryError"


def test_cpu_time(sandbox: Sandbox):
    limits = Limits(cpu_seconds=1, wall_seconds=30)
    for code in ("while True: pass", "10**(10**9)"):
        outcome = run_program(code, "", sandbox, limits)
        assert outcome.status == "timeout", outcome
        assert "CPU" in outcome.error


def test_cpu_signal_ignored(sandbox: Sandbox):
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile 1: pass"
    limits = Limits(cpu_seconds=1, wall_seconds=30)
    assert run_program(code, "", sandbox, limits).status == "timeout"


def test_wall_clock(sandbox: Sandbox):
    code = "import time\ntime.sleep(60)"
    outcome = run_program(code, "", sandbox, Limits(wall_seconds=0.5))
    assert outcome.status == "timeout"
    assert outcome.seconds < 10


def test_large_file(sandbox: Sandbox):
    attack = (
        "with open('big', 'wb') as file:\n"
        "    file.write(bytes(64 * 2**20))\nreturn 'reached'"
    )
    assert _attempt(sandbox, attack) == "blocked OSError"


def test_many_files(sandbox: Sandbox):
    """What a program may write in all is bounded where /tmp has a size."""
    if sandbox.name == "bwrap" and "--size" not in sandbox.command:
        pytest.skip("this bubblewrap cannot limit the size of /tmp")
    attack = (
        "for n in range(64):\n"
        "    with open(f'{n}', 'wb') as file: file.write(bytes(2**20))\n"
        "return 'reached'"
    )
    expected = "reached" if sandbox.name == "weak" else "blocked OSError"
    assert _attempt(sandbox, attack, Limits(file_bytes=2**21)) == expected


def test_output_flood(sandbox: Sandbox):
    code = "import sys\nwhile True: sys.stdout.write('x' * 10**6)"
    outcome = run_program(code, "", sandbox)
    assert outcome.status == "failed"
    assert len(outcome.error) < 1000


def test_output_flood_past_python(sandbox: Sandbox):
    code = (
        "import os\nos.write(1, b'x' * 10**6)\nos.write(2, b'y' * 10**6)\nos._exit(3)"
    )
    outcome = run_program(code, "", sandbox)
    assert outcome.status == "failed"
    assert "return code 3" in outcome.error
    assert len(outcome.error) < 1000


def test_flood_of_the_socket(sandbox: Sandbox):
    code = "import os\nwhile True: os.write(3, b'E' * 10**6)"
    outcome = run_program(code, "", sandbox, Limits(wall_seconds=1))
    assert outcome.status in ("failed", "timeout")


def test_hostile_folder_is_removed(
    weak: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch, ours = tmp_path / "scratch", tmp_path / "ours"
    for folder in (scratch, ours):
        folder.mkdir()
        folder.chmod(0o777)
    (ours / "kept").write_text("kept")
    ours.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    code = (
        "import os\n"
        "os.makedirs('a/b/c'); open('a/b/c/file', 'w').close()\n"
        f"os.symlink({str(ours)!r}, 'a/link'); os.symlink('/nowhere', 'a/broken')\n"
        "os.mkfifo('a/fifo')\n"
        "for path in ('a/b/c', 'a/b', 'a'): os.chmod(path, 0)\n"
        "if os.stat('.').st_uid == os.getuid(): os.chmod('.', 0)\n"
    )
    assert run_program(code, "", weak).status == "passed"
    assert not list(scratch.iterdir())
    assert (ours / "kept").read_text() == "kept"
    assert ours.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return f()\nf()",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        "eval('(' * 10**5 + ')' * 10**5)",
        "a = []\nfor _ in range(10**6): a = [a]\nrepr(a)",
    ],
)
def test_deep_recursion(sandbox: Sandbox, code: str):
    assert run_program(code, "", sandbox).status in ("failed", "timeout")


@pytest.mark.parametrize(
    "code", ["a = 1\0", "\0", "a = '\ud800'", "\ud800", "é = (", ""]
)
def test_text_that_is_no_program(sandbox: Sandbox, code: str):
    outcome = run_program(code, "assert a == 1", sandbox)
    assert outcome.status == "failed"
    assert outcome.error


def test_unicode(sandbox: Sandbox):
    code = "def größe(x): return x + '✓ 漢字 \U0001f600'\nprint(größe(''))"
    assert run_program(code, "assert größe('')[-1] == '😀'", sandbox).status == "passed"


def test_long_program(sandbox: Sandbox):
    code = "a = 0\n" + "a += 1\n" * 20_000
    assert run_program(code, "assert a == 20000", sandbox).status == "passed"


def test_reads_nothing_from_us(sandbox: Sandbox):
    assert _attempt(sandbox, "return os.read(0, 10)") == "b''"
