from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
sys.modules["torchvision"] = None  # any import of it fails
from pathlib import Path
from pyreid.data import check_dataset, load_dataset, synthesize
root = Path(sys.argv[1])
synthesize("market1501", root, num_train_ids=2, num_test_ids=2, images_per_id=3, size=(32, 16), workers=2)
assert check_dataset("market1501", root).ok
assert load_dataset("market1501", root).train
assert "torch" not in sys.modules
from pyreid.data import RandomIdentitySampler, eval_transform
assert len(RandomIdentitySampler([0, 0, 1, 1], num_ids=2, num_instances=2)) == 1
try:
    eval_transform((8, 8))
except ImportError as error:
    print(error)
"""


def test_files_need_neither_torch_nor_torchvision_and_transforms_say_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torchvision cannot be imported" in done.stdout
    assert "pip install 'pyreid[train]'" in done.stdout
