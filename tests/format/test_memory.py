"""What a process holds while it compresses is in proportion to its tasks, not to the archive. Needs Linux (/proc)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.datasets import smooth

ROOT = Path(__file__).parents[2]
TASK_NBYTES = 2**22
CHUNKS = 4  # of a task
FEW, MANY = 2, 7  # tasks
MOST = 40  # times the source bytes of a task: two at once, a chunk each in thirteen times its size, and arenas
GROWTH = 12  # times a task's bytes that more tasks may take more; 4 to 6 were seen, of threads and their arenas

# Compresses one field for what is loaded once, then a few tasks, then many; prints its largest memory after each.
SCRIPT = f"""
import json, sys
from pathlib import Path
from isopress.format.store import chunking
from isopress.format.store.write import write
from tests.datasets import errors

chunking.TASK_NBYTES = chunking.REGION_NBYTES = {TASK_NBYTES}
found = []
for name in ("one", "few", "many"):
    folder = Path(sys.argv[1])
    write(str(folder / f"{{name}}.nc"), folder / f"{{name}}.zarr", errors=errors("0.01"), chunks={{"time": 1}})
    lines = Path("/proc/self/status").read_text().splitlines()
    found.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process held")
def test_a_process_holds_a_few_times_its_tasks_however_many_there_are(tmp_path: Path) -> None:
    fields = smooth((MANY * CHUNKS, 512, TASK_NBYTES // CHUNKS // 4 // 512))
    for name, count in (("one", 1), ("few", FEW * CHUNKS), ("many", MANY * CHUNKS)):
        ds = xr.Dataset({"t": (("time", "lat", "lon"), fields[:count])}, {"time": np.arange(count)})
        ds.to_netcdf(tmp_path / f"{name}.nc")
    settings = {"ISOPRESS_THREADS": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, few, many = json.loads(done.stdout.splitlines()[-1])
    assert many - one <= MOST * TASK_NBYTES
    assert many - few <= GROWTH * TASK_NBYTES
