"""What workers still write for a run that is no more does not reach the store of the next run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from isopress.codec.errors import WorkerLostError
from isopress.format.source.selection import as_request
from isopress.format.store import chunking
from isopress.format.store.fence import Fence, fence_of, fenced
from isopress.format.store.progress import Progress
from isopress.format.store.remote import claimed, lock_of
from isopress.format.store.staging import held, staged
from isopress.format.store.tasks import Task, Work, converting
from isopress.format.store.write import write
from tests.datasets import contents, errors, smooth

PARTIAL = ".out.zarr.partial"
FIELDS = 8


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 2**12)
    monkeypatch.setattr(chunking, "REGION_NBYTES", 2**12)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.nc"
    ds = xr.Dataset({"t": (("time", "lat", "lon"), smooth((FIELDS, 32, 32)), {"units": "K"})})
    ds.assign_coords(time=np.arange(FIELDS)).to_netcdf(path)
    return path


@contextmanager
def as_of_a_killed_run(source: Path, out: Path) -> Iterator[tuple[Work, Task]]:
    """Yield a worker of a run that has just been killed, its lock still there, and a task of it."""

    class Killed(BaseException):
        pass

    with ExitStack() as stack:
        late: list[tuple[Work, Task]] = []

        def observe(step: Progress) -> None:
            if step.phase == "compress" and not late:
                store = str(out.parent / PARTIAL / "output")
                fence = fence_of(lock_of(store))
                work = stack.enter_context(converting(as_request(str(source)), store, None, fence))
                region = (slice(0, 1), slice(0, 32), slice(0, 32))
                (bound,) = errors("0.1")
                late.append((work, Task("t", region, bound.limit, True)))
            elif late:
                raise Killed

        with pytest.raises(Killed):
            write(str(source), out, errors=errors("0.1"), chunks={"time": 1}, observer=observe)
        yield late[0]


def test_a_late_task_writes_nothing_into_what_a_run_with_other_settings_makes(source: Path, tmp_path: Path) -> None:
    out, refused = tmp_path / "out.zarr", []
    with as_of_a_killed_run(source, out) as (work, task):
        write(str(source), tmp_path / "whole.zarr", errors=errors("lossless"), chunks={"time": 1})

        def observe(step: Progress) -> None:
            if step.phase == "compress" and step.done_nbytes and not refused:
                with pytest.raises(WorkerLostError, match="no more") as error:
                    work(task)
                refused.append(error)

        options = {"errors": errors("lossless"), "chunks": {"time": 1}, "overwrite": True, "observer": observe}
        write(str(source), out, **options)  # type: ignore[arg-type]
        assert refused
        with pytest.raises(WorkerLostError, match="no more"):  # after it, too
            work(task)
    assert contents(out) == contents(tmp_path / "whole.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"in.nc", "out.zarr", "whole.zarr"}


def test_a_worker_writes_as_long_as_its_run_holds_the_lock_in_every_way_there_is(tmp_path: Path) -> None:
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    with staged(tmp_path / "out.zarr", store=True, overwrite=False) as output:
        group = zarr.create_group(output)
        group.create_array("x", shape=(2, 3), dtype="f8", chunks=(1, 3))
        mine = fence_of(lock_of(str(output)))
        array = fenced(group, mine)["x"]
        assert isinstance(array, zarr.Array)
        array[...] = ones
        np.testing.assert_array_equal(group["x"][...], ones)  # type: ignore[index]
        theirs = fenced(group, Fence(mine.lock, "another"))["x"]
        assert isinstance(theirs, zarr.Array)
        for values in (ones + 1, zeros):  # the chunks of zeros, the fill value, are removed
            with pytest.raises(WorkerLostError):
                theirs[...] = values
        np.testing.assert_array_equal(group["x"][...], ones)  # type: ignore[index]
    with pytest.raises(WorkerLostError):
        array[...] = ones
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_stores_behind_urls_and_stores_that_are_changed_have_fences(tmp_path: Path) -> None:
    url = "memory://fenced/out.zarr"
    with claimed(url, overwrite=False, resume=False):
        first = fence_of(lock_of(url))
        group = zarr.create_group(url)
        group.create_array("x", shape=(3,), dtype="i4", chunks=(3,))
        array = fenced(group, first)["x"]
        assert isinstance(array, zarr.Array)
        array[...] = 1
    with pytest.raises(WorkerLostError):
        array[...] = 2
    with claimed(url, overwrite=True, resume=False):
        assert fence_of(lock_of(url)).run != first.run
        with pytest.raises(WorkerLostError):
            array[...] = 2
    with held(tmp_path / "here.zarr"):
        second = fence_of(lock_of(str(tmp_path / "here.zarr"), changed=True))
    with held(tmp_path / "here.zarr"):
        assert fence_of(lock_of(str(tmp_path / "here.zarr"), changed=True)).run not in ("", second.run)
