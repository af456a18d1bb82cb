"""Publishing: complete or not at all, one run at a time, and never at the cost of what others have put there."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.store import rename, staging
from isopress.format.store.staging import staged
from tests.datasets import save_zarr

PARTIAL = ".out.zarr.partial"


def store(path: Path, text: str = "new") -> None:
    """Make the least that counts as a Zarr store, with something in it."""
    path.mkdir()
    (path / "zarr.json").write_text(text)


def content(path: Path) -> str:
    return (path / "zarr.json").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(out: Path, work: Callable[[Path], object], **options: bool) -> None:
    """Let `work` write what is to be published at `out`."""
    with staged(out, **({"store": True, "overwrite": False} | options)) as path:
        work(path)


@pytest.fixture(params=["renameat2", "steps"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the renaming of Linux, and as on systems and file systems that lack it."""

    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    if request.param == "steps":
        monkeypatch.setattr(rename, "_renameat2", refuse)


@pytest.mark.usefixtures("either_way")
def test_an_output_appears_at_the_end_and_nothing_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with staged(out, store=True, overwrite=False) as path:
        store(path)
        assert not out.exists()
    assert (names(tmp_path), content(out)) == (["out.zarr"], "new")
    with staged(tmp_path / "out.nc", store=False, overwrite=False) as path:
        path.write_text("a file")
    assert (tmp_path / "out.nc").read_text() == "a file"
    assert names(tmp_path) == ["out.nc", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_an_old_output_is_there_until_the_new_one_is(tmp_path: Path) -> None:
    store(tmp_path / "out.zarr", "old")
    (tmp_path / "out.nc").write_text("old")
    with staged(tmp_path / "out.zarr", store=True, overwrite=True) as path:
        store(path)
        assert content(tmp_path / "out.zarr") == "old"
    with staged(tmp_path / "out.nc", store=False, overwrite=True) as path:
        path.write_text("new")
        assert (tmp_path / "out.nc").read_text() == "old"
    assert (content(tmp_path / "out.zarr"), (tmp_path / "out.nc").read_text()) == ("new", "new")
    assert names(tmp_path) == ["out.nc", "out.zarr"]


APPEARING: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("thesis"),
    "folder": lambda path: (path.mkdir(), (path / "thesis.txt").write_text("thesis")),
    "store": lambda path: store(path, "thesis"),
    "broken link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_store", [False, True])
@pytest.mark.parametrize("appearing", APPEARING)
def test_what_appears_at_the_destination_meanwhile_is_left_alone(
    appearing: str, is_store: bool, overwrite: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"

    def work(path: Path) -> None:
        store(path) if is_store else path.write_text("new")
        APPEARING[appearing](out)
        before.append(out.lstat())

    before = list[os.stat_result]()
    with pytest.raises(ArgumentError, match="appeared"):
        publish(out, work, store=is_store, overwrite=overwrite)
    assert [out.lstat()] == before
    assert names(tmp_path) == ["out.zarr"]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("appearing", APPEARING)
def test_what_takes_the_place_of_the_old_output_meanwhile_is_left_alone(appearing: str, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    store(out, "old")

    def work(path: Path) -> None:
        store(path)
        out.rename(tmp_path / "moved")
        APPEARING[appearing](out)
        before.append(out.lstat())

    before = list[os.stat_result]()
    with pytest.raises(ArgumentError, match="appeared"):
        publish(out, work, overwrite=True)
    assert [out.lstat()] == before
    assert content(tmp_path / "moved") == "old"
    assert names(tmp_path) == ["moved", "out.zarr"]


def test_what_takes_the_place_in_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, honest = tmp_path / "out.zarr", staging.exchange
    store(out, "old")

    def late(one: Path, other: Path) -> None:
        if not (tmp_path / "moved").exists():
            out.rename(tmp_path / "moved")
            store(out, "thesis")
        honest(one, other)

    monkeypatch.setattr(staging, "exchange", late)
    with pytest.raises(ArgumentError, match="appeared"), staged(out, store=True, overwrite=True) as path:
        store(path)
    assert (content(out), content(tmp_path / "moved")) == ("thesis", "old")
    assert names(tmp_path) == ["moved", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_an_old_output_that_goes_away_meanwhile_is_no_matter(tmp_path: Path) -> None:
    store(tmp_path / "out.zarr", "old")
    with staged(tmp_path / "out.zarr", store=True, overwrite=True) as path:
        store(path)
        (tmp_path / "out.zarr").rename(tmp_path / "moved")
    assert (content(tmp_path / "out.zarr"), content(tmp_path / "moved")) == ("new", "old")


def test_a_second_run_at_one_destination_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    other = "from pathlib import Path; from isopress.format.store.staging import staged\n"
    other += "import sys\nwith staged(Path(sys.argv[1]), store=True, overwrite=True): pass"
    with staged(out, store=True, overwrite=False) as path:
        store(path)
        with pytest.raises(ArgumentError, match="another run"), staged(out, store=True, overwrite=True):
            pass
        done = subprocess.run([sys.executable, "-c", other, str(out)], capture_output=True, text=True, check=False)
        assert done.returncode
        assert "is being written by another run" in done.stderr
        with staged(tmp_path / "other.zarr", store=True, overwrite=False) as unrelated:
            store(unrelated)
    assert content(out) == "new"
    assert names(tmp_path) == ["other.zarr", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    store(tmp_path / "disk" / "real.zarr", "old")
    link, fresh = tmp_path / "out.zarr", tmp_path / "fresh.zarr"
    link.symlink_to("disk/real.zarr")
    fresh.symlink_to("disk/fresh.zarr")
    with pytest.raises(ArgumentError, match="--overwrite"), staged(link, store=True, overwrite=False):
        pass
    for path in (link, fresh):
        with staged(path, store=True, overwrite=True) as output:
            store(output)
        assert path.is_symlink()
        assert content(path) == "new"
    assert names(tmp_path / "disk") == ["fresh.zarr", "real.zarr"]


def test_links_to_what_is_no_store_and_to_themselves_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("thesis")
    (tmp_path / "a.zarr").symlink_to("notes")
    (tmp_path / "b.zarr").symlink_to("b.zarr")
    for name in ("a.zarr", "b.zarr"):
        with (
            pytest.raises(ArgumentError, match="not a Zarr store"),
            staged(tmp_path / name, store=True, overwrite=True),
        ):
            pytest.fail("work began")
    assert names(tmp_path) == ["a.zarr", "b.zarr", "notes"]


@pytest.mark.parametrize("planted", ["file", "broken link", "link"])
def test_what_lies_where_the_work_would_be_is_never_followed_or_removed(planted: str, tmp_path: Path) -> None:
    store(tmp_path / "output", "precious")
    (tmp_path / PARTIAL).symlink_to(".") if planted == "link" else APPEARING[planted](tmp_path / PARTIAL)
    with pytest.raises(ArgumentError, match="in the way"), staged(tmp_path / "out.zarr", store=True, overwrite=True):
        pytest.fail("work began")
    assert content(tmp_path / "output") == "precious"


def killed(out: Path, *steps: str, setup: str = "") -> None:
    """Run a process that writes a store to `out` and is killed on the way."""
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from isopress.format.store import rename, staging

        def die(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)

        out = Path(sys.argv[1])
        {setup}
        with staging.staged(out, store=True, overwrite=True) as path:
            path.mkdir()
            (path / "zarr.json").write_text("new")
            {steps}
    """).format(setup=setup, steps="; ".join(steps) or "pass")
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILLS = {
    "while it writes": (("die()",), "", "old"),
    "before the exchange": ((), "staging.exchange = die", "old"),
    "after the exchange": ((), "real = staging.exchange; staging.exchange = lambda *a: (real(*a), die())", "new"),
    "between two renames": ((), "exec('def lack(*a): raise NotImplementedError()'); rename._renameat2 = lack; "
                                "staging.rename_new = die", None),
}  # fmt: skip


@pytest.mark.parametrize("moment", KILLS)
def test_after_a_kill_the_old_or_the_new_store_is_there_and_the_next_run_cleans_up(
    moment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.zarr"
    store(out, "old")
    steps, setup, left = KILLS[moment]
    killed(out, *steps, setup=setup)
    assert names(tmp_path / PARTIAL)
    assert (content(out) if out.exists() else None) == left
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ArgumentError, match="--overwrite"),
        staged(out, store=True, overwrite=False),
    ):
        pass
    assert content(out) == (left or "old")
    assert names(tmp_path) == ["out.zarr"]
    assert PARTIAL in caplog.text


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    killed(tmp_path / "out.zarr", "die()")
    with staged(tmp_path / "out.zarr", store=True, overwrite=False) as path:
        save_zarr(xr.Dataset({"x": ("i", [1])}), path)
    assert names(tmp_path) == ["out.zarr"]


def test_many_runs_at_once_publish_whole_outputs_and_one_at_a_time(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from isopress.codec.errors import ArgumentError
        from isopress.format.store.staging import staged
        end, done = time.monotonic() + 0.7, 0
        while time.monotonic() < end:
            try:
                with staged(Path(sys.argv[1]), store=True, overwrite=True) as path:
                    path.mkdir()
                    (path / "zarr.json").write_text("a" * 9)
                    (path / "b").write_text("b")
                done += 1
            except ArgumentError as error:
                assert "another run" in str(error), error
        print(done)
    """)
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out.zarr")], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    texts = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    counts = list(map(int, texts))
    assert sum(counts) > 3
    assert names(tmp_path) == ["out.zarr"]
    assert names(tmp_path / "out.zarr") == ["b", "zarr.json"]
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_to_is_an_error_before_the_work(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), staged(tmp_path / "out.zarr", store=True, overwrite=False):
        pytest.fail("work began")
    tmp_path.chmod(0o700)
