import os
import stat
import sys
from pathlib import Path

import pytest

from dcft_jax.evaluation.sandbox import Sandbox, choose_backend, interpreter, weak
from dcft_jax.evaluation.sandbox.folder import remove


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "dcft_jax.evaluation.sandbox.privilege.shutil.which", lambda *_, **__: None
    )


def _fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


@pytest.mark.usefixtures("nothing_installed")
def test_without_a_sandbox_nothing_is_run():
    choice = choose_backend()
    assert choice.sandbox is None
    for part in ("apt install bubblewrap", "apt install util-linux", "allow_weak=True"):
        assert part in choice.reason


@pytest.mark.usefixtures("nothing_installed")
def test_weak_only_with_consent():
    with pytest.raises(ValueError, match="consent"):
        choose_backend("weak")
    sandbox, reason = choose_backend(allow_weak=True)
    assert sandbox
    assert sandbox.name == "weak"
    assert "bwrap is not installed" in reason


@pytest.mark.usefixtures("nothing_installed")
def test_a_named_backend_that_is_missing_is_an_error():
    with pytest.raises(
        RuntimeError, match=r"'bwrap' does not work.*apt install bubble"
    ):
        choose_backend("bwrap", allow_weak=True)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'No permissions to create new namespace' >&2; exit 1", "No permissions"),
        ("exit 0", "no answer"),
        # Runs the program, but contains nothing.
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "it sees"),
    ],
)
def test_a_backend_counts_only_if_it_works(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _fake(tmp_path, "bwrap", script)
    monkeypatch.setattr("os.geteuid", lambda: 1000)  # no setpriv in front
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=why):
        choose_backend("bwrap")


def test_unknown_and_none():
    with pytest.raises(ValueError, match=r"sandbox='docker'.*bwrap"):
        choose_backend("docker")
    choice = choose_backend("none", allow_weak=True)
    assert choice.sandbox is None
    assert "none" in choice.reason


def test_the_best_comes_first(any_sandbox: Sandbox):
    for name in ("bwrap", "unshare"):
        try:
            chosen = choose_backend(name).sandbox
        except RuntimeError:
            continue
        assert chosen
        assert any_sandbox.name == name
        break


def test_weak_as_root_prefers_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(
        "dcft_jax.evaluation.sandbox.privilege.shutil.which", lambda p, **_: f"/x/{p}"
    )
    assert [s.user for s in weak.sandboxes()] == [65534, None]


def test_the_interpreter_is_in_view():
    view = interpreter.view()
    own = Path(interpreter.command()[0])
    for path in (own, Path(os.__file__).resolve()):
        assert any(path.is_relative_to(folder) for folder in view.folders)
    for folder in view.folders:
        parents = {str(p) for p in Path(folder).parents} - {"/", "/usr"}
        assert parents <= {*view.parents, *view.folders}
    assert sys.prefix == sys.base_prefix or sys.prefix not in view.folders


def test_remove_does_not_follow_links(tmp_path: Path):
    ours, folder = tmp_path / "ours", tmp_path / "folder"
    ours.mkdir(mode=0o500)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "link").symlink_to(ours)
    (folder / "deep").chmod(0)
    folder.chmod(0)
    remove(str(folder))
    assert not folder.exists()
    assert ours.stat().st_mode & 0o777 == 0o500
